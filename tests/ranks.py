"""What the tests of saves by many processes share: processes with their ranks, and what each holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from damage import barrier, child, queue

import ckptfmt
from ckptfmt.frameworks.sources import Shard, Sharded
from ckptfmt.manager import CheckpointManager, LogTo, TrackedSave

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


def save_logged(folder: Path, coordinator: Any) -> list[int]:
    """The steps that a rank logs. Here, as each process imports where its work stands, and trackers take seconds."""
    saves: list[TrackedSave] = []
    log = LogTo(saves.append)
    with CheckpointManager(folder / "run", durable=False, coordinator=coordinator, on_commit=log) as manager:
        manager.save(1, {"w": np.ones(4)})
    return [save.step for save in saves]
