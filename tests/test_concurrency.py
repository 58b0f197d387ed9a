"""Many processes, one path: exclusive saves have one winner, replacing saves leave one candidate whole, and readers
only ever see whole checkpoints. [PUB-003] [PUB-004]"""

from __future__ import annotations

import itertools
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import LAYOUTS, child, leftovers, use_disk

import ckptfmt
from ckptfmt.storage.disk import Disk
from ckptfmt.testing import equal_trees, using_disk
from stress import races
from stress.races import candidate

each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def test_writers_at_once_on_one_path(tmp_path: Path) -> None:
    """Threads and processes, in each layout, exclusive and replacing; the long run is `python -m stress races`."""
    result = races.run(tmp_path, seed=0, count=2)
    assert result.bad == []
    assert "24 rounds of 16 writers" in result.counts


def test_what_a_race_must_not_be_is_found(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    ckptfmt.save(path, candidate(1), durable=False)
    assert races.problems(path, False, {1: "saved", 2: "exists"}) == []
    assert races.problems(path, True, {1: "saved", 2: "saved"}) == []
    for overwrite, outcomes in (
        (False, {1: "saved", 2: "saved", 3: "exists"}),
        (False, {1: "saved", 2: "io"}),
        (False, {1: "exists", 2: "exists"}),
        (True, {1: "saved", 2: "io"}),
        (True, {1: "io", 2: "saved"}),
    ):
        assert races.problems(path, overwrite, outcomes) != []
    with path.open("r+b") as file:
        file.truncate(1000)
    assert races.problems(path, True, {1: "saved", 2: "saved"}) != []


# ---- readers during replacements


def replace_for_ever(path: Path, layout: str) -> None:
    for number in itertools.count(1):
        ckptfmt.save(path, candidate(number), layout=layout, overwrite=True, durable=False)


def check_whole(tree: Any) -> int:
    assert equal_trees(tree, candidate(tree["number"]))
    return int(tree["number"])


@each_layout
@pytest.mark.parametrize("options", [{}, {"mmap": True}, {"verify": False}], ids=["verified", "mapped", "unverified"])
def test_readers_see_whole_checkpoints(tmp_path: Path, layout: str, options: dict[str, bool]) -> None:
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, candidate(0), layout=layout)
    writer = child(replace_for_ever, path, layout)
    seen = set()
    while len(seen) < 30:
        assert writer.is_alive()
        seen.add(check_whole(ckptfmt.load(path, **options)))
    writer.kill()
    writer.join()


@pytest.mark.parametrize("layout", ["loose", "packed"])
def test_verifying_what_is_replaced_finds_no_damage(tmp_path: Path, layout: str) -> None:
    """The next one has taken its place, and its files are gone, before its chunks are checked."""
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, candidate(0), layout=layout)
    replaced = [False]

    def replace_first(done: int, total: int) -> None:
        if not replaced[0]:
            replaced[0] = True
            ckptfmt.save(path, candidate(1), layout=layout, overwrite=True)

    report = ckptfmt.verify(path, progress=replace_first)
    assert replaced == [True]
    assert report.ok, report.damage


@each_layout
def test_an_open_checkpoint_stays_itself(tmp_path: Path, layout: str) -> None:
    """Replaced while open: a file still gives what it held; a directory gives that or says that it is gone."""
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, candidate(1), layout=layout)
    for verify in (True, False):
        with ckptfmt.open(path, verify=verify) as checkpoint:
            before = checkpoint["number"]
            ckptfmt.save(path, candidate(before + 1), layout=layout, overwrite=True)
            try:
                tree = checkpoint.load()
            except ckptfmt.CkptError as error:
                assert layout != "file"
                assert error.code == "missing-object", error
            else:
                assert equal_trees(tree, candidate(before))


@each_layout
def test_an_open_checkpoint_that_is_renamed(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, candidate(1), layout=layout)
    with ckptfmt.open(path) as checkpoint:
        assert not checkpoint.was_replaced()
        path.rename(tmp_path / "moved.ckpt")
        assert checkpoint.was_replaced()
        assert equal_trees(checkpoint.load(), candidate(1))
        assert checkpoint.verify().ok
    with pytest.raises(ckptfmt.MissingError):
        ckptfmt.load(path)


@each_layout
def test_a_target_that_appears_while_saving(tmp_path: Path, layout: str) -> None:
    """Another save publishes just before this one does: overwrite=True replaces that, too."""
    for other in LAYOUTS:
        path = tmp_path / f"{other}.ckpt"

        def publish_first(name: str, arguments: Any, path: Path = path, other: str = other) -> None:
            if name in ("replace", "rename_exclusive", "exchange") and not path.exists():
                disk.undo()
                ckptfmt.save(path, candidate(1), layout=other)

        disk = use_disk(publish_first)
        ckptfmt.save(path, candidate(2), layout=layout, overwrite=True)
        assert equal_trees(ckptfmt.load(path), candidate(2))
        assert leftovers(tmp_path) == []


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("layout", ["packed", "loose"])
def test_an_empty_directory_into_which_others_put_something(tmp_path: Path, layout: str, overwrite: bool) -> None:
    """Then it is theirs, and stays. [PUB-005]"""
    path = tmp_path / "model.ckpt"
    path.mkdir()

    def put(name: str, arguments: Any) -> None:
        if name == "replace":
            (path / "mine").touch()

    disk = use_disk(put)
    with pytest.raises(ckptfmt.ExistsError) as caught:
        ckptfmt.save(path, candidate(1), layout=layout, overwrite=overwrite)
    disk.undo()
    assert caught.value.code == ("not-replaceable" if overwrite else "exists")
    assert [path.name for path in tmp_path.rglob("*")] == ["model.ckpt", "mine"]


@each_layout
def test_a_target_that_vanishes_while_saving(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, candidate(1), layout="loose")

    def remove_first(name: str, arguments: Any) -> None:
        if name == "exchange":
            disk.undo()
            shutil.rmtree(path)

    disk = use_disk(remove_first)
    ckptfmt.save(path, candidate(2), layout=layout, overwrite=True)
    assert equal_trees(ckptfmt.load(path), candidate(2))
    assert leftovers(tmp_path) == []


@each_layout
def test_many_threads_read_one_checkpoint(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    tree = {str(i): np.full((50, 1000), i, np.int16) for i in range(20)}
    ckptfmt.save(path, tree, layout=layout, durable=False)
    wrong: list[str] = []

    def read(checkpoint: ckptfmt.Checkpoint, seed: int) -> None:
        rng = np.random.default_rng(seed)
        for name in rng.permutation(list(tree)):
            row = int(rng.integers(50))
            if not np.array_equal(checkpoint[str(name)][row], tree[str(name)][row]):
                wrong.append(str(name))

    with ckptfmt.open(path) as checkpoint:
        threads = [threading.Thread(target=read, args=(checkpoint, seed)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert checkpoint.bytes_read >= 8 * 20 * 2000  # the counter loses nothing between threads
    assert wrong == []


def save_own(folder: Path, layout: str, number: int) -> None:
    for turn in range(5):
        ckptfmt.save(folder / f"{number}-{turn}.ckpt", candidate(number), layout=layout, durable=False)


@each_layout
def test_saves_side_by_side_do_not_meet(tmp_path: Path, layout: str) -> None:
    writers = [child(save_own, tmp_path, layout, number) for number in range(4)]
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert len(os.listdir(tmp_path)) == 20
    assert all(check_whole(ckptfmt.load(path)) == int(path.name[0]) for path in tmp_path.iterdir())


# ---- a checkpoint that is closed while it is read


class Closing(Disk):
    """Before each read `checkpoint` is closed, and `other` is opened, which may get its number."""

    def __init__(self, other: Path) -> None:
        self.other = other
        self.checkpoint: ckptfmt.Checkpoint | None = None
        self.opened: list[int] = []

    def read(self, fd: int, out: memoryview, offset: int) -> int:
        if self.checkpoint is not None:
            self.checkpoint.close()
            self.opened.append(os.open(self.other, os.O_RDONLY))
        return super().read(fd, out, offset)


@each_layout
def test_a_read_that_is_under_way_goes_on_in_its_own_file(tmp_path: Path, layout: str) -> None:
    """Also unverified: it never gives the bytes of another file that was given the number of its descriptor."""
    values = np.arange(1000)
    ckptfmt.save(tmp_path / "x", {"w": values}, layout=layout)
    (tmp_path / "other").write_bytes(bytes(range(1, 255)) * 1000)
    with using_disk(disk := Closing(tmp_path / "other")):
        checkpoint = ckptfmt.open(tmp_path / "x", verify=False)
        tensor = checkpoint["w"]
        disk.checkpoint = checkpoint
        if layout != "packed":  # whose part manifest is read first, and what comes then says that it is closed
            assert np.array_equal(tensor[:], values)
        with pytest.raises(ckptfmt.InputError, match="closed"):
            tensor[:]
    for fd in disk.opened:
        os.close(fd)
