"""Many processes save one checkpoint: all of it or nothing, whatever a process does, and the same error for all."""

from __future__ import annotations

import errno
import itertools
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
from damage import barrier, child, flipped, leftovers, queue, semaphore, use_disk, zones

import ckptfmt
from ckptfmt.layouts import packed
from ckptfmt.parallel import plan as plans
from ckptfmt.sources import Lazy, Shard, Sharded
from ckptfmt.testing import assert_same_tree, equal_trees

SIZES = [1, 2, 3, 4]
Work = Callable[..., Any]


class Failed(NamedTuple):
    """How a rank's work ended, if it raised."""

    code: str
    message: str
    tensor: str | None


def take_part(work: Work, folder: Path, rank: int, size: int, timeout: float, start: Any, results: Any) -> None:
    start.wait(60)
    with ckptfmt.FileCoordinator(folder / "mail", rank, size, timeout=timeout) as coordinator:
        try:
            outcome = work(folder, coordinator)
        except ckptfmt.CkptError as error:
            outcome = Failed(error.code, str(error), error.tensor)
    results.put((rank, outcome))


class Ranks:
    """Processes that do the same work, each with its rank; `present`: those that come."""

    def __init__(
        self, work: Work, folder: Path, size: int, *, timeout: float = 30, present: tuple[int, ...] | None = None
    ) -> None:
        (folder / "mail").mkdir(exist_ok=True, parents=True)
        here = range(size) if present is None else present
        self._start, self._results = barrier(len(here)), queue()
        rest = (size, timeout, self._start, self._results)
        self.processes = {rank: child(take_part, work, folder, rank, *rest) for rank in here}

    def outcomes(self) -> dict[int, Any]:
        """What the ranks that lived to the end gave."""
        found = {}
        for process in self.processes.values():
            while process.is_alive() or not self._results.empty():
                while not self._results.empty():
                    rank, outcome = self._results.get()
                    found[rank] = outcome
                process.join(0.01)
        return found


def run(work: Work, folder: Path, size: int, **options: Any) -> list[Any]:
    """The outcome of each rank."""
    outcomes = Ranks(work, folder, size, **options).outcomes()
    return [outcomes.get(rank) for rank in range(size)]


# ---- what is saved


def cut(length: int, rank: int, size: int) -> slice:
    """A rank's share of an axis as torch.chunk cuts it; the last ranks may get less, or nothing."""
    share = -(-length // size)
    return slice(min(rank * share, length), min((rank + 1) * share, length))


def shard(array: Any, rank: int, size: int, axis: int = 0) -> Sharded:
    """A rank's shard of an array along an axis."""
    region = [slice(0, n) for n in array.shape]
    region[axis] = cut(array.shape[axis], rank, size)
    held = Shard(tuple(side.start for side in region), array[tuple(region)])
    return Sharded(array.shape, array.dtype, (held,))


def whole_tree(size: int) -> dict[Any, Any]:
    """What all ranks together save."""
    tied = np.arange(30, dtype=np.float32)
    return {
        "rows": np.arange(120, dtype=np.float32).reshape(12, 10),
        "uneven": np.arange(10),
        "few": np.arange(5, dtype=np.int16),  # four ranks: the last has nothing
        "columns": np.arange(60, dtype=np.int8).reshape(3, 20),
        "bfloat16": np.arange(16).astype(ml_dtypes.bfloat16),
        "int4": (np.arange(64).reshape(4, 16) % 16 - 8).astype(ml_dtypes.int4),
        "flags": np.arange(9) % 2 == 0,
        "zipped": np.zeros((16, 100), np.float64),
        "replicated": [np.arange(7, dtype=np.uint8), np.array(2.5), np.zeros((0, 3))],
        "tied": (tied, tied),
        "own": {f"rank {rank}": {"x": np.full(5, rank), 7: "plain"} for rank in range(size)},
        "plain": [1, 1.5, None, "text", b"bytes", (True, -0.0, float("nan"), 1 << 70, np.float32(2))],
        0: {"0": "keys"},
    }


def tree_of(rank: int, size: int) -> dict[Any, Any]:
    """What one rank holds of it."""
    tree = whole_tree(size)
    for name in ("rows", "uneven", "few", "bfloat16", "int4", "flags", "zipped"):
        tree[name] = shard(tree[name], rank, size)
    tree["columns"] = shard(tree["columns"], rank, size, axis=1)
    tree["own"] = {f"rank {rank}": tree["own"][f"rank {rank}"]}
    return tree


def save_varied(folder: Path, coordinator: Any) -> Any:
    tree = tree_of(coordinator.rank, coordinator.size)
    rules = {"zipped": "zstd"}
    metadata = {"step": 7, "nan": float("nan")}
    schema = ("model", "1")
    return ckptfmt.save(
        folder / "x.ckpt", tree, compression=rules, metadata=metadata, schema=schema, coordinator=coordinator
    )


@pytest.mark.parametrize("size", SIZES)
def test_what_all_save_is_what_is_loaded(tmp_path: Path, size: int) -> None:
    path = tmp_path / "x.ckpt"
    reports = run(save_varied, tmp_path, size)
    assert_same_tree(ckptfmt.load(path), whole_tree(size))
    assert equal_trees(ckptfmt.load(path, mmap=True), whole_tree(size))
    assert ckptfmt.verify(path).ok
    with ckptfmt.open(path) as checkpoint:
        assert equal_trees(checkpoint.metadata, {"step": 7, "nan": float("nan")})
        assert checkpoint.schema == ckptfmt.Schema("model", "1")
        assert checkpoint["zipped"].codec == "zstd"
        assert checkpoint["rows"].chunks == size
        numbers = [node[1] for node in tensor_nodes(checkpoint.manifest.tree)]
        assert [n for at, n in enumerate(numbers) if n not in numbers[:at]] == [*range(len(checkpoint))]  # [TREE-016]
    files = [file for file in path.rglob("*") if file.is_file()]
    for report in reports:
        assert (report.path, report.layout, report.tensors) == (str(path), "packed", 12 + size)
        assert report.bytes == sum(file.stat().st_size for file in files)
        assert report.manifest_sha256 in (path / "COMMIT").read_text()
    assert {file.parent.name for file in files} == {"x.ckpt", "packs", "parts"}
    assert set(tmp_path.iterdir()) == {path, tmp_path / "mail"}
    assert list((tmp_path / "mail").iterdir()) == []


def tensor_nodes(node: Any) -> Iterator[Any]:
    if type(node) is list:
        if node[0] == "tensor":
            yield node
        for item in node:
            yield from tensor_nodes(item)


def test_the_bytes_are_the_same_again(tmp_path: Path) -> None:  # [MAN-009]
    found = []
    for name in ("one", "two"):
        run(save_varied, tmp_path / name, 3)
        path = tmp_path / name / "x.ckpt"
        found.append({file.relative_to(path): file.read_bytes() for file in path.rglob("*") if file.is_file()})
    assert found[0] == found[1]


def test_one_process_without_a_coordinator_gives_the_same_values(tmp_path: Path) -> None:
    """And one rank with a coordinator the same bytes as none."""
    tree = whole_tree(1)
    with ckptfmt.FileCoordinator(tmp_path, 0, 1) as coordinator:
        together = ckptfmt.save(tmp_path / "a", tree, coordinator=coordinator)
    alone = ckptfmt.save(tmp_path / "b", tree, layout="packed")
    assert (together.bytes, together.manifest_sha256) == (alone.bytes, alone.manifest_sha256)
    for file in (tmp_path / "a").rglob("*"):
        other = tmp_path / "b" / file.relative_to(tmp_path / "a")
        assert file.is_dir() or file.read_bytes() == other.read_bytes()


def save_mesh(folder: Path, coordinator: Any) -> Any:
    """A 2 × 2 mesh: sharded over both axes, over one and replicated over the other, and many packs for each rank."""
    packed.PACK_BYTES, plans.COMPRESSED_CHUNK = 500, 100
    row, column = divmod(coordinator.rank, 2)
    array = mesh_array()
    rows, columns = cut(13, row, 2), cut(9, column, 2)
    tree = {
        "both": Sharded(array.shape, array.dtype, (Shard((rows.start, columns.start), array[rows, columns]),)),
        "one": shard(array, row, 2),
        "other": shard(array, column, 2, axis=1),
        "zipped": shard(array, coordinator.rank, 4),
        "none": array,
    }
    return ckptfmt.save(folder / "x.ckpt", tree, compression={"zipped": "zstd"}, coordinator=coordinator)


def mesh_array() -> Any:
    return np.arange(13 * 9, dtype=np.float32).reshape(13, 9)


def test_a_mesh(tmp_path: Path) -> None:
    run(save_mesh, tmp_path, 4)
    tree = ckptfmt.load(tmp_path / "x.ckpt")
    assert_same_tree(tree, {name: mesh_array() for name in ("both", "one", "other", "zipped", "none")})
    assert ckptfmt.verify(tmp_path / "x.ckpt").ok
    with ckptfmt.open(tmp_path / "x.ckpt") as checkpoint:
        assert [checkpoint[name].chunks for name in ("both", "one", "other", "none")] == [4, 2, 2, 1]
        assert checkpoint["zipped"].chunks > 4
        assert len(checkpoint.manifest.parts) > 4
        assert np.array_equal(checkpoint["both"][5:9, 3:6], mesh_array()[5:9, 3:6])


def save_twice(folder: Path, coordinator: Any) -> Any:
    """One save after another, the second of another tree; and a failed one between."""
    first = ckptfmt.save(folder / "x.ckpt", tree_of(coordinator.rank, coordinator.size), coordinator=coordinator)
    with pytest.raises(ckptfmt.ExistsError) as caught:
        ckptfmt.save(folder / "x.ckpt", {"step": 2}, coordinator=coordinator)
    assert caught.value.code == "exists"
    second = {"step": 2, "x": shard(np.arange(8), coordinator.rank, coordinator.size)}
    ckptfmt.save(folder / "x.ckpt", second, coordinator=coordinator, overwrite=True)
    ckptfmt.save(folder / "y.ckpt", second, coordinator=coordinator, durable=False)
    return first.tensors


def test_saves_one_after_another(tmp_path: Path) -> None:
    assert run(save_twice, tmp_path, 3) == [15, 15, 15]
    for name in ("x.ckpt", "y.ckpt"):
        assert_same_tree(ckptfmt.load(tmp_path / name), {"step": 2, "x": np.arange(8)})
        assert ckptfmt.verify(tmp_path / name).ok
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mail", "x.ckpt", "y.ckpt"]


def test_damage_is_of_one_rank_s_tensors(tmp_path: Path) -> None:
    """A lost pack loses what its rank wrote. [READ-005]"""
    run(save_varied, tmp_path, 3)
    path = tmp_path / "x.ckpt"
    lost = [zone.tensor for zone in zones(path) if zone.object == "packs/00002.zip" and zone.tensor]
    (path / "packs" / "00002.zip").unlink()
    with ckptfmt.open(path) as checkpoint:
        assert ("own", "rank 2", "x") in checkpoint.tensors
        for keys, tensor in checkpoint.tensors.items():
            if tensor.path in lost:
                with pytest.raises(ckptfmt.CorruptError) as caught:
                    tensor.read()
                assert caught.value.code == "missing-object"
            else:
                expected = whole_tree(3)
                for key in keys:
                    expected = expected[key]
                assert equal_trees(tensor.read(), expected)
        assert np.array_equal(checkpoint["rows"][:8], whole_tree(3)["rows"][:8]), "what the others wrote of a tensor"


def test_a_flipped_bit_in_any_rank_s_pack_or_part(tmp_path: Path) -> None:
    run(save_varied, tmp_path, 2)
    path = tmp_path / "x.ckpt"
    for zone in zones(path):
        for offset in range(zone.start, zone.stop, 23):
            with flipped(zone.file, offset, offset % 8):
                assert not ckptfmt.verify(path).ok


# ---- loading at another world size


SHARED = np.random.default_rng(0).integers(0, 1 << 30, (48, 1000), np.int32)


def save_shared(folder: Path, coordinator: Any) -> Any:
    tree = {"x": shard(SHARED, coordinator.rank, coordinator.size)}
    ckptfmt.save(folder / "x.ckpt", tree, coordinator=coordinator, durable=False)


@pytest.mark.parametrize("size", SIZES)
def test_only_what_is_needed_is_read(tmp_path: Path, size: int) -> None:
    """Each of M processes gets its rows; what it reads is the chunks that they lie in, or exactly them, unverified."""
    run(save_shared, tmp_path, size)
    path, row = tmp_path / "x.ckpt", 4 * 1000
    chunk = -(-48 // size)
    for others in SIZES:
        for rank in range(others):
            mine = cut(48, rank, others)
            with ckptfmt.open(path) as checkpoint:
                assert np.array_equal(checkpoint["x"][mine], SHARED[mine])
                touched = -(-mine.stop // chunk) - mine.start // chunk
                assert checkpoint.bytes_read == touched * chunk * row
            with ckptfmt.open(path, verify=False) as checkpoint:
                assert np.array_equal(checkpoint["x"][mine], SHARED[mine])
                assert checkpoint.bytes_read == (mine.stop - mine.start) * row
            if others == size:
                assert touched == 1, "at the same size each reads what one wrote"


# ---- ranks that differ


X = np.arange(6, dtype=np.float32)
# each: what ranks 0, 1 and 2 save, and options; 2 is like 0
DIFFERENT: dict[str, tuple[Any, Any, dict[str, Any], dict[str, Any], str | None]] = {
    "plain values": ({"a": {"step": 1}}, {"a": {"step": 2}}, {}, {}, "a/step"),
    "kinds of plain values": ({"a": 1}, {"a": 1.0}, {}, {}, "a"),
    "truth": ({"a": 1}, {"a": True}, {}, {}, "a"),
    "signs of zero": ({"a": 0.0}, {"a": -0.0}, {}, {}, "a"),
    "shapes": ({"x": X}, {"x": X[:5]}, {}, {}, "x"),
    "dtypes": ({"x": X}, {"x": X.astype(np.float64)}, {}, {}, "x"),
    "kinds of leaves": ({"x": X}, {"x": 1}, {}, {}, "x"),
    "a tensor and a dict": ({"x": X}, {"x": {"y": X}}, {}, {}, "x"),
    "list and tuple": ({"x": [X]}, {"x": (X,)}, {}, {}, "x"),
    "lengths of lists": ([1, 2], [1, 2, 3], {}, {}, ""),
    "items of lists": ({"x": [1, [2]]}, {"x": [1, [3]]}, {}, {}, "x/1/0"),
    "aliases": ({"x": X, "y": X}, {"x": X, "y": X.copy()}, {}, {}, "y"),
    "compression": ({"x": X}, {"x": X}, {}, {"compression": "zstd"}, "x"),
    "levels": ({"x": X}, {"x": X}, {"compression": "zstd"}, {"compression": {"name": "zstd", "level": 9}}, "x"),
    "metadata": ({"x": X}, {"x": X}, {"metadata": 1}, {"metadata": 1.0}, None),
    "schemas": ({"x": X}, {"x": X}, {"schema": ("a", "1")}, {"schema": ("a", "2")}, None),
    "digests": ({"x": X}, {"x": X}, {}, {"digest": "sha256"}, None),
    "overwrite": ({"x": X}, {"x": X}, {}, {"overwrite": True}, None),
    "durable": ({"x": X}, {"x": X}, {}, {"durable": False}, None),
}


def save_all_different(folder: Path, coordinator: Any) -> Any:
    """Each case in turn, through one coordinator."""
    found = {}
    for number, (case, (good, other, options, changed, _)) in enumerate(DIFFERENT.items()):
        odd = coordinator.rank == 1
        try:
            ckptfmt.save(
                folder / str(number),
                other if odd else good,
                coordinator=coordinator,
                **(options | changed if odd else options),
            )
        except ckptfmt.CkptError as error:
            found[case] = Failed(error.code, str(error), error.tensor)
    return found


def test_ranks_that_differ(tmp_path: Path) -> None:
    """All are told, with the same words, which two ranks differ, and where; nothing is committed."""
    outcomes = run(save_all_different, tmp_path, 3)
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert {case: failed.code for case, failed in outcomes[0].items()} == dict.fromkeys(DIFFERENT, "ranks-differ")
    for case, (*_, tensor) in DIFFERENT.items():
        failed = outcomes[0][case]
        assert failed.tensor == tensor
        assert "ranks 0 and 1" in failed.message
    assert list(tmp_path.iterdir()) == [tmp_path / "mail"]


def save_shards(folder: Path, coordinator: Any) -> Any:
    """Shards that leave a hole, overlap, or cannot be stored; each in turn."""
    rank, found = coordinator.rank, []
    holds = {
        "shards-missing": [slice(0, 4), slice(4, 8), slice(9, 12)],
        "shards-overlap": [slice(0, 4), slice(3, 8), slice(8, 12)],
        "unsupported-dtype": [slice(0, 3), slice(3, 8), slice(8, 12)],
    }
    for number, (code, mine) in enumerate(holds.items()):
        dtype = np.dtype(ml_dtypes.int4) if code == "unsupported-dtype" else np.dtype(np.int8)
        array = np.zeros(12, dtype)
        tensor = Sharded((12,), dtype, (Shard((mine[rank].start,), array[mine[rank]]),))
        with pytest.raises(ckptfmt.InputError) as caught:
            ckptfmt.save(folder / str(number), {"a": {"x": tensor}}, coordinator=coordinator)
        found.append((caught.value.code == code, caught.value.tensor))
    return found


def test_shards_that_do_not_fit_together(tmp_path: Path) -> None:
    assert run(save_shards, tmp_path, 3) == [[(True, "a/x")] * 3] * 3
    assert list(tmp_path.iterdir()) == [tmp_path / "mail"]


# ---- ranks that fail


def save_with_a_fault(folder: Path, coordinator: Any) -> Any:
    """Each fault in turn, on rank 1 alone: in its tree, its options, its program."""
    faults: list[tuple[Any, dict[str, Any]]] = [
        ({"x": object()}, {}),
        ({"x": X, 1.5: 3}, {}),
        ({"x": X}, {"compression": "lzma"}),
        ({"x": X}, {"layout": "file"}),
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
    """What rank 0 does for all fails for all alike; only the very last flush comes when the checkpoint is in place."""
    codes = run(save_on_the_full_disk_of_rank_0, tmp_path, 2)
    assert len(codes[0]) == len(codes[1]) > 10
    assert {code for code, _ in codes[0]} == {"disk-full"}
    assert {code for code, _ in codes[1]} == {"disk-full", "rank-failed"}
    assert [there for _, there in codes[0]].count(True) == 1
    assert leftovers(tmp_path) == []


def test_a_rank_that_never_comes(tmp_path: Path) -> None:
    """All who wait are told who is missing."""
    outcomes = run(save_varied, tmp_path, 4, timeout=1.0, present=(0, 2))
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
        groups.append((work, folder, Ranks(work, folder, 3, timeout=3)))
    for work, folder, group in groups:
        outcomes = group.outcomes()
        assert group.processes[work.rank].exitcode == -signal.SIGKILL
        assert set(outcomes) == {0, 1, 2} - {work.rank}, work
        assert {outcome.code for outcome in outcomes.values()} == {"rank-lost"}, work
        if work.rank == 2:
            assert all("from rank 2" in outcome.message for outcome in outcomes.values())
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
        groups.append((folder, counter := semaphore(), Ranks(SaveForEver(counter), folder, 3, timeout=3)))
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


# ---- progress


def test_progress_is_of_what_a_rank_writes(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    with ckptfmt.FileCoordinator(tmp_path, 0, 1) as coordinator:
        tree = {"x": np.zeros(1000, np.uint8), "y": np.zeros(500, np.uint8)}
        ckptfmt.save(tmp_path / "x.ckpt", tree, coordinator=coordinator, progress=lambda *done: seen.append(done))
    assert seen[-1] == (1500, 1500)


# ---- the page for users


def test_the_program_of_the_documentation(tmp_path: Path) -> None:
    page = Path(__file__).parents[1] / "docs" / "parallel.md"
    program, reading, *_ = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    ranks = [
        subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, env=os.environ | {"RANK": r, "WORLD_SIZE": "4"})
        for r in "0123"
    ]
    assert [process.wait(60) for process in ranks] == [0] * 4
    table = np.repeat(np.arange(4, dtype=np.float32), 256)[:, None] * np.ones(64, np.float32)
    assert_same_tree(ckptfmt.load(tmp_path / "model.ckpt"), {"step": 1000, "table": table})
    found: dict[str, Any] = {"ckptfmt": ckptfmt}
    exec(reading.replace('"model.ckpt"', repr(str(tmp_path / "model.ckpt"))), found)
    assert np.array_equal(found["mine"], table[128:256])
    assert found["checkpoint"].bytes_read == 256 * 64 * 4
