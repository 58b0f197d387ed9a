"""Snapshots in two tiers: copies in memory, and ordinary checkpoints on a disk, which are written in the background and
read ahead."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from typing import Any

from ..api import save
from ..checkpoint import Checkpoint
from ..errors import CkptError, fault, os_fault
from ..format.tree import Tree
from ..storage import is_url, path_of
from ..storage.attempt import make_directories
from ..storage.temporaries import destroy, folder_beside
from ..threads import Call, CallEnd, CallQueue
from ..warning import warn
from .actions import DISK, MEMORY, TierSlot
from .computation import Computation, Packing

_NAME = re.compile(r"snapshot-([0-9]{8,})\.ckpt").fullmatch


class SnapshotWarning(UserWarning):
    """A snapshot, or the journal of a run, is damaged or missing; an older one was used, and steps done again."""


class Traffic:
    """What became of snapshots: the most at a time, and their bytes, for each tier; the bytes written and read."""

    def __init__(self) -> None:
        self.peak, self.peak_bytes = [0, 0], [0, 0]
        self.written = self.read = 0
        self._count, self._bytes = [0, 0], [0, 0]

    def add(self, tier: int, count: int, size: int) -> None:
        """So many snapshots more, of so many bytes all together; fewer, where these are below 0."""
        self._count[tier] += count
        self._bytes[tier] += size
        self.peak[tier] = max(self.peak[tier], self._count[tier])
        self.peak_bytes[tier] = max(self.peak_bytes[tier], self._bytes[tier])


class DiskTier:
    """Snapshots in a folder. One thread writes and deletes, in order; another one reads; neither is there without work.
    At most one copy waits to be written, and one that was read ahead to be asked for, however slow the disk is."""

    def __init__(self, folder: str, computation: Packing, run: str, traffic: Traffic, *, durable: bool) -> None:
        """`run` is a word that all files of a run have, and those of no other."""
        self.folder = folder
        self._computation, self._run, self._durable, self._traffic = computation, run, durable, traffic
        self._writer, self._reader = CallQueue("ckptfmt-recompute-write"), CallQueue("ckptfmt-recompute-read")
        self._pending: Call[int] | None = None
        self._written: dict[int, CallEnd] = {}
        self.sizes: dict[int, int] = {}
        self._ahead: tuple[int, Call[Any]] | None = None

    @property
    def lines(self) -> tuple[CallQueue, CallQueue]:
        """What is to be waited for before the folder is removed; it holds nothing of the computation."""
        return self._reader, self._writer

    def path(self, number: int) -> str:
        return os.path.join(self.folder, f"snapshot-{number:08}.ckpt")

    # ---- writing

    def store(self, number: int, held: Any) -> None:
        """Write a snapshot in the background; the one before is written, see `settle`."""
        self._put(number, self._computation.size(held))
        self._pending = self._writer.submit(self._write, number, held)
        self._written[number] = self._pending.end

    def _put(self, number: int, size: int) -> None:
        self._forget(number)
        self.sizes[number] = size
        self._traffic.add(DISK, 1, size)

    def _forget(self, number: int) -> None:
        self._written.pop(number, None)
        size = self.sizes.pop(number, None)
        if size is not None:
            self._traffic.add(DISK, -1, -size)

    def _write(self, number: int, held: Any) -> int:
        tree, beside = self._computation.pack(held)
        return self.save(self.path(number), tree, {"step": number, "beside": beside})

    def save(self, path: str, tree: Tree, about: dict[str, Any]) -> int:
        metadata = {"run": self._run, **about}
        report = save(path, tree, overwrite=True, durable=self._durable, metadata=metadata)
        self._traffic.written += report.bytes
        return report.bytes

    def in_background(self, path: str, tree: Tree, about: dict[str, Any]) -> None:
        """Save another file of the run, after what is to be written before."""
        self.settle()
        self._pending = self._writer.submit(self.save, path, tree, about)

    def settle(self) -> None:
        """Until all is written; raises what a save has raised."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def drop(self, number: int) -> None:
        """Delete a snapshot, after what is to be written before."""
        self._forget(number)
        self._writer.submit(destroy, self.path(number))

    # ---- reading

    def adopt(self, numbers: set[int]) -> set[int]:
        """Take over what an earlier process has left of these, and delete the others; gives those that are there."""
        found = set(self.numbers())
        for number in found - numbers:
            destroy(self.path(number))
        for number in found & numbers:
            self._put(number, os.path.getsize(self.path(number)))
        return found & numbers

    def numbers(self) -> Iterator[int]:
        for name in os.listdir(self.folder):
            found = _NAME(name)
            if found is not None:
                yield int(found[1])

    def read_ahead(self, number: int) -> None:
        """Begin to read a snapshot that is asked for next."""
        if self._ahead is None and number in self.sizes:
            self._ahead = number, self._reader.submit(self._read, number)

    def take(self, number: int) -> Any:
        """A snapshot; raises `CkptError`."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == number:
            return ahead[1].result()
        if ahead is not None:
            ahead[1].wait()
            del ahead  # before there is another one
        return self._read(number)

    def _read(self, number: int) -> Any:
        path, written = self.path(number), self._written.get(number)
        if written is not None:
            written.wait()
        with Checkpoint(path) as checkpoint:
            about = self.checked(checkpoint, number)
            held = self._computation.unpack(lambda like: loaded(checkpoint, like), about["beside"])
        self._traffic.read += os.path.getsize(path)
        return held

    def checked(self, checkpoint: Checkpoint, number: int) -> dict[str, Any]:
        """What stands beside a snapshot; raises `bad-manifest` for one of another run or another number."""
        about: Any = checkpoint.metadata
        if not isinstance(about, dict) or about.get("run") != self._run or about.get("step") != number:
            raise fault("bad-manifest", "this is no snapshot of this run, or of another step", path=checkpoint.path)
        return about

    def close(self) -> None:
        """Until both threads have nothing to do, and let go what was read ahead."""
        self._ahead = None
        for line in self.lines:
            line.wait()


def loaded(checkpoint: Checkpoint, like: Tree) -> Tree:
    """The whole tree of a checkpoint, made like a template, if there is one."""
    return checkpoint.load() if like is None else checkpoint.load(like=like)


class Snapshots:
    """The snapshots of a run in both tiers, by their numbers."""

    def __init__(self, computation: Computation, disk: DiskTier | None, traffic: Traffic) -> None:
        self._computation, self.disk, self.traffic = computation, disk, traffic
        self._memory: dict[int, Any] = {}
        self.damaged: list[int] = []  # numbers of snapshots that could not be read

    def store(self, number: int, tier: int, state: Any) -> None:
        if tier == DISK:
            self._on_disk.settle()  # before there is another copy
            self._on_disk.store(number, self._computation.hold(state))
            return
        self._memory[number] = held = self._computation.hold(state)
        self.traffic.add(MEMORY, 1, self._computation.size(held))

    @property
    def _on_disk(self) -> DiskTier:
        assert self.disk is not None, "a schedule without a disk stores nothing there"
        return self.disk

    def held(self) -> set[TierSlot]:
        on_disk = self.disk.sizes if self.disk is not None else {}
        return {(MEMORY, number) for number in self._memory} | {(DISK, number) for number in on_disk}

    def take(self, number: int, tier: int, *, last: bool) -> Any:
        """The state of a snapshot, which goes if it is the last time; None if it is lost."""
        if tier == MEMORY:
            return self._from_memory(number, last=last)
        if number not in self._on_disk.sizes:
            return None
        try:
            held = self._on_disk.take(number)
        except CkptError as error:
            self._lose(number, error)
            return None
        if last:
            self._on_disk.drop(number)
        return self._computation.give(held, last=True)

    def _from_memory(self, number: int, *, last: bool) -> Any:
        if number not in self._memory:
            return None
        if not last:
            return self._computation.give(self._memory[number], last=False)
        held = self._memory.pop(number)
        self.traffic.add(MEMORY, -1, -self._computation.size(held))
        return self._computation.give(held, last=True)

    def _lose(self, number: int, error: CkptError) -> None:
        self._on_disk.settle()  # a save that failed is what is wrong, then
        self.damaged.append(number)
        self._on_disk.drop(number)
        warn(f"the snapshot at {number} cannot be used, and is computed again: {error}", SnapshotWarning)

    def read_ahead(self, number: int) -> None:
        self._on_disk.read_ahead(number)


@contextlib.contextmanager
def closing(disk: DiskTier | None) -> Iterator[None]:
    """End the threads of a tier after the block."""
    try:
        yield
        if disk is not None:
            disk.settle()
    finally:
        if disk is not None:
            disk.close()


def local_folder(folder: str | os.PathLike[str] | None) -> str:
    """The path of a folder; raises `bad-option` for a URL."""
    path = path_of(folder)
    if is_url(path):
        raise fault("bad-option", "folder=", found=path, expected="a folder of this machine")
    return path.removeprefix("file://")


@contextlib.contextmanager
def scratch(folder: str | os.PathLike[str] | None) -> Iterator[str]:
    """A new folder in `folder` for snapshots that nobody resumes with: it is removed after the block, and by `gc` if
    this process dies."""
    path = local_folder(folder)
    try:
        make_directories(path)
    except OSError as error:
        raise os_fault(error, "cannot make the folder of snapshots", path) from error
    with folder_beside(os.path.join(path, "recompute")) as place:
        yield place
