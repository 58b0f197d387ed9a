"""Ranks that fail, never come or are killed: nothing is committed, what was there stays, and the others are told."""

from __future__ import annotations

import errno
import itertools
import os
import random
import signal
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from damage import leftovers, semaphore, use_disk
from ranks import Ranks, run, save_varied, shard

import ckptfmt
from ckptfmt.frameworks.sources import Lazy
from ckptfmt.testing import assert_same_tree, equal_trees

X = np.arange(6, dtype=np.float32)


# ---- ranks that fail


def save_with_a_fault(folder: Path, coordinator: Any) -> Any:
    """Each fault in turn, on rank 1 alone: in its tree, its options, its program."""
    faults: list[tuple[Any, dict[str, Any]]] = [
        ({"x": object()}, {}),
        ({"x": X, 1.5: 3}, {}),
        ({"x": X}, {"compression": "lzma"}),
        ({"x": X}, {"schema": "model"}),
        ({"x": X, "y": Interrupting()}, {}),
    ]
    codes = []
    for number, (tree, options) in enumerate(faults):
        odd = coordinator.rank == 1
        try:
            ckptfmt.save(
                folder / str(number), tree if odd else {"x": X}, coordinator=coordinator, **(options if odd else {})
            )
        except ckptfmt.CkptError as error:
            codes.append(error.code)
            if not odd:
                assert "rank 1 failed: " in str(error)
        except KeyboardInterrupt:
            codes.append("interrupted")
    return codes


class Interrupting(Lazy):
    """A tensor that cannot be had."""

    shape, dtype = X.shape, X.dtype

    def __getitem__(self, region: Any) -> Any:
        raise KeyboardInterrupt


def test_a_rank_that_fails(tmp_path: Path) -> None:
    own = ["unsupported-leaf", "unsupported-key", "bad-option", "bad-option", "interrupted"]
    assert run(save_with_a_fault, tmp_path, 3) == [["rank-failed"] * 5, own, ["rank-failed"] * 5]
    assert list(tmp_path.iterdir()) == [tmp_path / "mail"]


def save_on_a_full_disk(folder: Path, coordinator: Any) -> Any:
    """Every call to the disk fails in turn, on the last rank."""
    codes = []
    tree = {"x": shard(np.zeros(300_000), coordinator.rank, coordinator.size), "step": 1}
    for number in itertools.count():
        calls = itertools.count()

        def fail(name: str, arguments: Any) -> None:
            if next(calls) == number and coordinator.rank == coordinator.size - 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        disk = use_disk(fail)
        try:
            ckptfmt.save(folder / "x.ckpt", tree, coordinator=coordinator, overwrite=True)
            codes.append("saved")
        except ckptfmt.StorageError as error:
            codes.append(error.code)
        finally:
            disk.undo()
        assert leftovers(folder) == [] or coordinator.rank, "rank 0 has removed what was written"
        if codes[-1] == "saved":
            return codes


@pytest.mark.parametrize("size", [2, 3])
def test_the_disk_of_a_rank_is_full(tmp_path: Path, size: int) -> None:
    ckptfmt.save(tmp_path / "x.ckpt", {"step": 0}, layout="packed")
    *others, last = run(save_on_a_full_disk, tmp_path, size)
    assert last[-1] == "saved"
    assert set(last[:-1]) == {"disk-full"}
    assert len(last) > 8
    for other in others:
        assert other == ["rank-failed"] * (len(last) - 1) + ["saved"]
    assert_same_tree(ckptfmt.load(tmp_path / "x.ckpt"), {"x": np.zeros(300_000), "step": 1})


def save_on_the_full_disk_of_rank_0(folder: Path, coordinator: Any) -> Any:
    codes = []
    for number in itertools.count():
        calls = itertools.count()

        def fail(name: str, arguments: Any) -> None:
            if next(calls) == number and coordinator.rank == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        disk = use_disk(fail)
        try:
            ckptfmt.save(folder / f"{number}.ckpt", {"step": 1}, coordinator=coordinator)
            return codes
        except ckptfmt.StorageError as error:
            codes.append((error.code, (folder / f"{number}.ckpt").exists()))
        finally:
            disk.undo()


def test_the_disk_of_rank_0_is_full(tmp_path: Path) -> None:
    """What rank 0 does for all fails for all; only the very last flush comes when the checkpoint is in place."""
    codes = run(save_on_the_full_disk_of_rank_0, tmp_path, 2)
    assert len(codes[0]) == len(codes[1]) > 10
    assert {code for code, _ in codes[0]} == {"disk-full"}
    assert {code for code, _ in codes[1]} == {"rank-failed"}
    assert [there for _, there in codes[0]].count(True) == 1
    assert leftovers(tmp_path) == []


def test_a_rank_that_never_comes(tmp_path: Path) -> None:
    """All who wait are told who is missing."""
    outcomes = run(save_varied, tmp_path, 4, timeout=2.0, present=(0, 2))
    assert outcomes[1] is outcomes[3] is None
    for rank in (0, 2):
        assert outcomes[rank].code == "rank-lost"
        assert "from rank 1, 3" in outcomes[rank].message
    assert list(tmp_path.iterdir()) == [tmp_path / "mail"]


def test_rank_0_never_comes(tmp_path: Path) -> None:
    outcomes = run(save_varied, tmp_path, 3, timeout=0.5, present=(1, 2))
    assert [outcomes[rank].code for rank in (1, 2)] == ["rank-lost", "rank-lost"]
    assert "rank 0 did not begin" in outcomes[1].message
    assert list((tmp_path / "mail").iterdir()) == []


# ---- ranks that are killed

OLD, NEW = {"x": np.zeros(200_000), "step": 0}, {"x": np.ones(200_000), "step": 1}


class KillAt(NamedTuple):
    """Replaces OLD by NEW; rank `rank` is killed before its first call `call` to the disk, or after it."""

    rank: int
    call: str
    after: bool = False

    def __call__(self, folder: Path, coordinator: Any) -> Any:
        def kill(name: str, *rest: Any) -> None:
            if coordinator.rank == self.rank and name == self.call:
                os.kill(os.getpid(), signal.SIGKILL)

        disk = use_disk(**{"after" if self.after else "before": kill})
        try:
            tree = NEW | {"x": shard(NEW["x"], coordinator.rank, coordinator.size)}
            ckptfmt.save(folder / "x.ckpt", tree, coordinator=coordinator, overwrite=True)
        finally:
            disk.undo()


KILLED = [
    *[KillAt(0, call) for call in ("make_directory", "create", "write", "flush", "flush_directory", "exchange")],
    KillAt(0, "exchange", after=True),
    *[KillAt(2, call) for call in ("create", "write", "flush", "flush_directory")],
]


def test_a_rank_is_killed_at_a_call_to_the_disk(tmp_path: Path) -> None:
    """The survivors end with `rank-lost`; the old checkpoint is there until the new one is."""
    groups = []
    for number, work in enumerate(KILLED):
        folder = tmp_path / str(number)
        folder.mkdir()
        ckptfmt.save(folder / "x.ckpt", OLD, layout="packed", durable=False)
        groups.append((work, folder, Ranks(work, folder, 3)))
    for work, folder, group in groups:
        outcomes = group.outcomes()
        assert group.processes[work.rank].exitcode == -signal.SIGKILL
        assert set(outcomes) == {0, 1, 2} - {work.rank}, work
        assert {outcome.code for outcome in outcomes.values()} == {"rank-lost"}, work
        if work.rank == 2:
            assert all("rank 2 is gone" in outcome.message for outcome in outcomes.values())
            assert leftovers(folder) == [], "rank 0 removed what was written"
        assert ckptfmt.verify(folder / "x.ckpt").ok
        published = (work.call, work.after) == ("exchange", True)
        assert equal_trees(ckptfmt.load(folder / "x.ckpt"), NEW if published else OLD), work
        ckptfmt.save(folder / "x.ckpt", NEW, layout="packed", overwrite=True)  # leftovers are in nobody's way


class SaveForEver(NamedTuple):
    """Saves again and again, and counts."""

    saved: Any

    def __call__(self, folder: Path, coordinator: Any) -> Any:
        for number in itertools.count(1):
            tree = numbered(number)
            tree["arrays"] = [shard(array, coordinator.rank, coordinator.size) for array in tree["arrays"]]
            ckptfmt.save(folder / "x.ckpt", tree, coordinator=coordinator, overwrite=True, durable=False)
            self.saved.release()


def numbered(number: int) -> dict[str, Any]:
    return {"number": number, "arrays": [np.full(size, number, np.int32) for size in (3, 300_000, 50_000)]}


def test_a_rank_is_killed_at_any_moment(tmp_path: Path) -> None:
    moments, groups = random.Random(5), []
    for turn in range(6):
        folder = tmp_path / str(turn)
        folder.mkdir()
        groups.append((folder, counter := semaphore(), Ranks(SaveForEver(counter), folder, 3)))
    for turn, (_, counter, group) in enumerate(groups):
        assert counter.acquire(timeout=60)
        time.sleep(moments.uniform(0, 0.1))
        group.processes[turn % 3].kill()
    for turn, (folder, _, group) in enumerate(groups):
        outcomes = group.outcomes()
        assert {rank: outcome.code for rank, outcome in outcomes.items()} == dict.fromkeys(
            {0, 1, 2} - {turn % 3}, "rank-lost"
        )
        assert ckptfmt.verify(folder / "x.ckpt").ok
        tree = ckptfmt.load(folder / "x.ckpt")
        assert equal_trees(tree, numbered(tree["number"]))
        assert set(folder.iterdir()) == {folder / "x.ckpt", folder / "mail", *leftovers(folder)}
