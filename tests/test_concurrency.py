"""Many processes, one path: exclusive saves have one winner, replacing saves leave one candidate whole, and readers
only ever see whole checkpoints. [PUB-003] [PUB-004]"""

from __future__ import annotations

import itertools
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import LAYOUTS, barrier, child, leftovers, queue, use_disk

import ckptfmt
from ckptfmt.testing import equal_trees

WRITERS = 8
ROUNDS = 20

each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def candidate(number: int) -> dict[str, Any]:
    """A tree whose every part says who wrote it, large enough to be written in several calls."""
    return {"number": number, "arrays": [np.full(size, number, np.int32) for size in (1, 600_000, 5)]}


def save_in_rounds(folder: Path, layout: str, overwrite: bool, number: int, start: Any, results: Any) -> None:
    """Save at the same moment as the others, once in each round, and tell how it went."""
    for turn in range(ROUNDS):
        start.wait(60)
        try:
            path = folder / f"{turn}.ckpt"
            ckptfmt.save(path, candidate(number), layout=layout, overwrite=overwrite, durable=False)
            results.put((turn, number, "saved"))
        except ckptfmt.CkptError as error:
            results.put((turn, number, error.code))


def race(folder: Path, layout: str, overwrite: bool) -> Iterator[tuple[Path, dict[int, str]]]:
    """For each round the path, and what became of each writer."""
    start, results = barrier(WRITERS), queue()
    writers = [child(save_in_rounds, folder, layout, overwrite, n, start, results) for n in range(WRITERS)]
    outcomes: list[dict[int, str]] = [{} for _ in range(ROUNDS)]
    for _ in range(WRITERS * ROUNDS):
        turn, number, outcome = results.get()
        outcomes[turn][number] = outcome
    for writer in writers:
        writer.join(60)
        assert writer.exitcode == 0
    assert leftovers(folder) == []
    for turn, outcome in enumerate(outcomes):
        yield folder / f"{turn}.ckpt", outcome


@each_layout
def test_exclusive_saves_have_one_winner(tmp_path: Path, layout: str) -> None:
    for path, outcome in race(tmp_path, layout, overwrite=False):
        (winner,) = [number for number, result in outcome.items() if result == "saved"]
        assert sorted(outcome.values()) == ["exists"] * (WRITERS - 1) + ["saved"]
        assert equal_trees(ckptfmt.load(path), candidate(winner))
        assert ckptfmt.verify(path).ok


@each_layout
def test_replacing_saves_leave_one_candidate(tmp_path: Path, layout: str) -> None:
    for path, outcome in race(tmp_path, layout, overwrite=True):
        assert "saved" in outcome.values()
        tree = ckptfmt.load(path)
        assert equal_trees(tree, candidate(tree["number"]))
        assert outcome[tree["number"]] == "saved"
        assert ckptfmt.verify(path).ok
        assert set(outcome.values()) == {"saved"}


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
