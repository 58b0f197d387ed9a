"""What each rank of a group does in `test_rank_failures`: one thing after another goes wrong on one rank, and after
each all save together as if nothing had been; at last a rank ends. A program: `KIND END FOLDER RANK SIZE`."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # of stress

import numpy as np
from damage import use_disk
from ranks import shard

import ckptfmt
from ckptfmt import CheckpointManager
from ckptfmt.frameworks.sources import Lazy

TIMEOUT = 300.0  # that nobody may come near
X = np.arange(6, dtype=np.float32)
Work = Callable[["Rank"], Any]


class Rank:
    """One rank at work. `odd`: whether it is the one on which things go wrong."""

    def __init__(self, folder: Path, coordinator: Any, odd: int) -> None:
        self.folder, self.coordinator = folder, coordinator
        self.odd = coordinator.rank == odd
        self.manager = CheckpointManager(folder / "run", coordinator=coordinator, durable=False)

    def save(self, name: str, tree: Any = None, **options: Any) -> Any:
        tree = {"x": shard(np.arange(300_000), self.coordinator.rank, self.coordinator.size)} if tree is None else tree
        options = {"durable": False, "coordinator": self.coordinator, **options}
        return ckptfmt.save(self.folder / name, tree, **options)


class Raising(Lazy):
    """A tensor that cannot be had."""

    shape, dtype = X.shape, X.dtype

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __getitem__(self, region: Any) -> Any:
        raise self.error


@contextlib.contextmanager
def failing(is_failing: bool, call: str, number: int = errno.ENOSPC) -> Iterator[None]:
    """A disk of which one call fails."""

    def fail(name: str, arguments: Any) -> None:
        if is_failing and name == call:
            raise OSError(number, os.strerror(number))

    disk = use_disk(fail)
    try:
        yield
    finally:
        disk.undo()


def on_a_disk(call: str) -> Work:
    def work(rank: Rank) -> None:
        with failing(rank.odd, call):
            rank.save("x", overwrite=True, durable=True)

    return work


def with_leaf(leaf: Any) -> Work:
    return lambda rank: rank.save("x", {"x": X, **({"y": leaf} if rank.odd else {})}, overwrite=True)


def with_option(**options: Any) -> Work:
    return lambda rank: rank.save("x", {"x": X}, **{"overwrite": True, **(options if rank.odd else {})})


def at_step(**other: Any) -> Work:
    """A manager's save in which the odd rank asks for something else."""

    def work(rank: Rank) -> None:
        newest = rank.manager.latest()
        options = {"step": (newest.step if newest else 0) + 1, "tree": {"x": X}} | (other if rank.odd else {})
        rank.manager.save(**options)

    return work


def interrupted(rank: Rank) -> None:
    """Ctrl-C while the tensors are taken."""
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT]) if rank.odd else None

    class Slow(Lazy):
        shape, dtype = X.shape, X.dtype

        def __getitem__(self, region: Any) -> Any:
            if timer is not None:
                timer.start()
                time.sleep(1)
            return X[region]

    rank.save("x", {str(rank.coordinator.rank): Slow()}, overwrite=True)


def other_call(rank: Rank) -> None:
    if rank.odd:
        rank.manager.wait()
    else:
        rank.save("x", overwrite=True)


def other_call_of_a_manager(rank: Rank) -> None:
    if rank.odd:
        rank.manager.restore()
    else:
        at_step()(rank)


def fails_in_the_background(rank: Rank) -> None:
    newest = rank.manager.latest()
    assert newest is not None
    with failing(rank.odd, "create"):
        rank.manager.save(newest.step + 1, {str(rank.coordinator.rank): X}, block=False)
        rank.manager.wait()


def one_told_what_is_committed(rank: Rank) -> None:
    def refuse(step: int, report: Any) -> None:
        raise ZeroDivisionError("told")

    rank.manager._saver._on_commit = refuse if rank.odd else None
    try:
        at_step()(rank)
    finally:
        rank.manager._saver._on_commit = None


def loads(rank: Rank) -> None:
    def load(path: Any, **options: Any) -> Any:
        raise OSError(errno.EIO, "this rank cannot read")

    rank.manager.restore(**({"load": load} if rank.odd else {}))


def schedule(rank: Rank) -> None:
    """A predicate of the user's that fails."""
    plan = rank.manager._schedule
    try:
        if rank.odd:
            rank.manager._schedule = None  # type: ignore[assignment]
        at_step()(rank)
    finally:
        rank.manager._schedule = plan


# what the odd rank meets, and all others
CASES: dict[str, tuple[Work, str, str]] = {
    "a leaf": (with_leaf(object()), "unsupported-leaf", "rank-failed"),
    "a key": (with_leaf({1.5: 1}), "unsupported-key", "rank-failed"),
    "an array that cannot be had": (
        with_leaf(Raising(ZeroDivisionError("no array"))),
        "ZeroDivisionError",
        "rank-failed",
    ),
    "an exit": (with_leaf(Raising(SystemExit(3))), "SystemExit", "rank-failed"),
    "Ctrl-C": (interrupted, "KeyboardInterrupt", "rank-failed"),
    "compression=": (with_option(compression="lzma"), "bad-option", "rank-failed"),
    "schema= of no use": (with_option(schema="model"), "bad-option", "rank-failed"),
    "extra=": (with_option(extra={"a": 1}), "bad-option", "rank-failed"),
    "digest= of no use": (with_option(digest="md5"), "bad-option", "rank-failed"),
    "paged= of no use": (with_option(paged="yes"), "bad-option", "rank-failed"),
    "metadata= of no use": (with_option(metadata=object()), "unsupported-leaf", "rank-failed"),
    "another compression": (with_option(compression="zstd"), "ranks-differ", "ranks-differ"),
    "layout=": (with_option(layout="file"), "ranks-differ", "ranks-differ"),
    "overwrite=": (with_option(overwrite=False), "ranks-differ", "ranks-differ"),
    "durable=": (with_option(durable=True), "ranks-differ", "ranks-differ"),
    "paged=": (with_option(paged=False), "ranks-differ", "ranks-differ"),
    "digest=": (with_option(digest="sha256"), "ranks-differ", "ranks-differ"),
    "schema=": (with_option(schema=("a", "1")), "ranks-differ", "ranks-differ"),
    "metadata=": (with_option(metadata=1), "ranks-differ", "ranks-differ"),
    "another path": (lambda rank: rank.save("y" if rank.odd else "x", {"x": X}), "ranks-differ", "ranks-differ"),
    "a full disk, at its first file": (on_a_disk("create"), "disk-full", "rank-failed"),
    "a full disk, while it writes": (on_a_disk("write"), "disk-full", "rank-failed"),
    "a full disk, at the end": (on_a_disk("flush_directory"), "disk-full", "rank-failed"),
    "another call": (other_call, "ranks-differ", "ranks-differ"),
    "another call of a manager": (other_call_of_a_manager, "ranks-differ", "ranks-differ"),
    "block=": (at_step(block=False), "ranks-differ", "ranks-differ"),
    "overwrite= of a manager": (at_step(overwrite=True), "ranks-differ", "ranks-differ"),
    "overwrite= of no use": (at_step(overwrite="soon"), "bad-option", "rank-failed"),
    "force=": (at_step(force=True), "ranks-differ", "ranks-differ"),
    "step": (at_step(step=1 << 20), "ranks-differ", "ranks-differ"),
    "step of no use": (at_step(step="one"), "bad-option", "rank-failed"),
    "metrics": (at_step(metrics={"loss": 1.0}), "ranks-differ", "ranks-differ"),
    "metrics of no use": (at_step(metrics={"loss": "low"}), "bad-option", "rank-failed"),
    "a leaf for a manager": (at_step(tree={"x": object()}), "unsupported-leaf", "rank-failed"),
    "a schedule that fails": (schedule, "AttributeError", "rank-failed"),
    "in the background": (fails_in_the_background, "disk-full", "rank-failed"),
    "who is told": (one_told_what_is_committed, "ZeroDivisionError", "rank-failed"),
    "loading": (loads, "OSError", "rank-failed"),
}


def met(work: Work, rank: Rank) -> dict[str, Any]:
    began = time.monotonic()
    try:
        work(rank)
        found: dict[str, Any] = {"code": "", "text": "", "ranks": None}
    except ckptfmt.CkptError as error:
        found = {"code": error.code, "text": str(error), "ranks": error.ranks}
    except BaseException as error:
        found = {"code": type(error).__name__, "text": str(error), "ranks": None}
    return found | {"seconds": time.monotonic() - began}


def go_wrong(rank: Rank) -> dict[str, Any]:
    found = {}
    at_step()(rank)
    for name, (work, _, _) in CASES.items():
        found[name] = met(work, rank)
        rank.save("good", overwrite=True)
        at_step()(rank)
    return found


def save_again(rank: Rank) -> None:
    rank.save("x", overwrite=True)


def killed(rank: Rank) -> dict[str, Any]:
    """The last rank is killed while it writes; what the others meet, and at what they try then."""
    last = rank.coordinator.size - 1

    def kill(name: str, arguments: Any) -> None:
        if name == "write" and rank.coordinator.rank == last:
            os.kill(os.getpid(), signal.SIGKILL)

    disk = use_disk(kill)
    found = {"killed": met(save_again, rank), "after": met(save_again, rank)}
    disk.undo()
    return found


def closed(rank: Rank) -> dict[str, Any]:
    """The last rank has nothing more to save."""
    if rank.coordinator.rank == rank.coordinator.size - 1:
        rank.coordinator.close()
        return {}
    return {"closed": met(save_again, rank)}


def coordinator_of(kind: str, folder: Path, rank: int, size: int) -> Any:
    if kind == "files":
        return ckptfmt.FileCoordinator(folder / "mail", rank, size, timeout=TIMEOUT)
    if kind == "mpi":
        from mpi4py import MPI

        return ckptfmt.MPICoordinator(MPI.COMM_WORLD)
    address = (folder / "mail" / "address").read_text()
    if kind == "torch":
        import ckptfmt_torch
        import torch.distributed as dist

        dist.init_process_group("gloo", init_method=f"tcp://{address}", rank=rank, world_size=size)
        return ckptfmt_torch.TorchCoordinator(timeout=TIMEOUT)
    import ckptfmt_jax
    import jax

    jax.distributed.initialize(address, num_processes=size, process_id=rank)
    return ckptfmt_jax.JaxCoordinator(timeout=TIMEOUT)


def main(kind: str, end: str, folder: str, number: str, size: str) -> None:
    coordinator = coordinator_of(kind, Path(folder), int(number), int(size))
    rank = Rank(Path(folder), coordinator, 0 if kind == "files" else 1)
    rank.save("x")
    found = go_wrong(rank) | {"killed": killed, "closed": closed, "": lambda rank: {}}[end](rank)
    (Path(folder) / "mail" / f"met-{coordinator.rank}.json").write_text(json.dumps(found))
    sys.stdout.flush()
    if end:
        os._exit(0)  # JAX would wait for the rank that is no more


if __name__ == "__main__":
    main(*sys.argv[1:])
