"""A disk that records what changes it, call by call: from the record `crash_states` tells what a power loss leaves.

    disk = RecordingDisk(folder)
    with using_disk(disk):
        ckptfmt.save(folder / "model.ckpt", tree)
    for state in crash_states(disk.record): ...

Calls are recorded by what they do to files and directories, not to paths: a file stays the same under another name.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from ..storage import disk as disks
from ..storage.disk import Disk

Inode = int  # a file or directory


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes that were put into a file at an offset; it grew if need be."""

    node: Inode
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Resize:
    """A file that got another size, in bytes; what was added reads as zeros."""

    node: Inode
    size: int


@dataclass(frozen=True, slots=True)
class NameChange:
    """Names in one directory that changed in one step: what each leads to now, None if it is gone."""

    node: Inode
    changes: tuple[tuple[str, Inode | None], ...]


@dataclass(frozen=True, slots=True)
class Flush:
    """A file whose bytes and size, or a directory whose names, are safe as they are now."""

    node: Inode


DiskChange = Write | Resize | NameChange
DiskCall = DiskChange | Flush


@dataclass(slots=True)
class DiskRecord:
    """What happened below a directory: how it was, which is taken to be safe on the disk, and the calls in order."""

    root: Inode
    files: dict[Inode, bytes] = field(default_factory=dict)
    folders: dict[Inode, dict[str, Inode]] = field(default_factory=dict)
    calls: list[DiskCall] = field(default_factory=list)


@contextlib.contextmanager
def using_disk(disk: Disk) -> Iterator[None]:
    """Let everything in this process, in all its threads, use another disk while the block runs. What is open
    already keeps the disk that it has."""
    before = disks.use(disk)
    try:
        yield
    finally:
        disks.use(before)


class RecordingDisk(Disk):
    """The disk of this machine, with a `record` of what happens to it below `root`. One call at a time is made.

    What other programs write into a file, by its path, is recorded when the file is next truncated or flushed. Flushes
    are recorded and not made, as they would only take time.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._nodes: dict[tuple[int, int], Inode] = {}  # by device and inode
        self._contents: dict[Inode, bytearray] = {}  # of files, as running programs see them
        self._count = 0
        self._lock = threading.RLock()
        self.record = DiskRecord(0)
        self._begin(os.fspath(root))

    def _begin(self, path: str) -> Inode:
        """Take in what is there."""
        status = os.lstat(path)
        known = self._nodes.get((status.st_dev, status.st_ino))
        if known is not None:  # a file that has two names
            return known
        node = self._new(status)
        if stat.S_ISDIR(status.st_mode):
            self.record.folders[node] = {name: self._begin(os.path.join(path, name)) for name in os.listdir(path)}
        else:
            with open(path, "rb") as file:
                self.record.files[node] = file.read()
            self._contents[node] = bytearray(self.record.files[node])
        return node

    def _new(self, status: os.stat_result) -> Inode:
        node, self._count = self._count, self._count + 1
        self._nodes[status.st_dev, status.st_ino] = node
        return node

    def _node(self, status: os.stat_result) -> Inode | None:
        return self._nodes.get((status.st_dev, status.st_ino))

    def _note(self, call: DiskCall) -> None:
        self.record.calls.append(call)

    # ---- bytes

    def create(self, path: str) -> int:
        with self._lock:
            fd = super().create(path)
            self._add(path, os.fstat(fd))
            return fd

    def write(self, fd: int, data: memoryview, offset: int) -> int:
        with self._lock:
            count = super().write(fd, data, offset)
            node = self._node(os.fstat(fd))
            if node is not None:
                self._note_write(node, offset, bytes(data[:count]))
            return count

    def copy(self, fd: int, offset: int, source: int, start: int, length: int) -> None:
        with self._lock:
            super().copy(fd, offset, source, start, length)
            self._note_others(fd)

    def clone(self, fd: int, source: int) -> None:
        with self._lock:
            super().clone(fd, source)
            self._note_others(fd)

    def allocate(self, fd: int, size: int) -> None:
        with self._lock:
            super().allocate(fd, size)
            self._note_size(fd)

    def truncate(self, fd: int, size: int) -> None:
        with self._lock:
            self._note_others(fd)
            super().truncate(fd, size)
            self._note_size(fd)

    def flush(self, fd: int) -> None:
        with self._lock:
            self._note_others(fd)
            self._note_flush(os.fstat(fd))

    def _note_write(self, node: Inode, offset: int, data: bytes) -> None:
        content = self._contents[node]
        content.extend(bytes(max(0, offset + len(data) - len(content))))
        content[offset : offset + len(data)] = data
        self._note(Write(node, offset, data))

    def _note_size(self, fd: int) -> None:
        status = os.fstat(fd)
        node = self._node(status)
        if node is not None and len(self._contents[node]) != status.st_size:
            content = self._contents[node]
            del content[status.st_size :]
            content.extend(bytes(status.st_size - len(content)))
            self._note(Resize(node, status.st_size))

    def _note_others(self, fd: int) -> None:
        """Note what came into a file in another way than through this disk."""
        node = self._node(os.fstat(fd))
        if node is None:
            return
        self._note_size(fd)
        found = os.pread(fd, os.fstat(fd).st_size, 0)
        if found != self._contents[node]:
            self._note_write(node, 0, found)

    def _note_flush(self, status: os.stat_result) -> None:
        node = self._node(status)
        if node is not None:
            self._note(Flush(node))

    # ---- names

    def make_directory(self, path: str, mode: int = 0o777) -> None:
        with self._lock:
            super().make_directory(path, mode)
            self._add(path, os.lstat(path))

    def flush_directory(self, path: str) -> None:
        with self._lock:
            self._note_flush(os.stat(path))

    def link(self, source: str, target: str) -> None:
        with self._lock:
            super().link(source, target)
            self._change(target)

    def link_open(self, fd: int, target: str) -> None:
        with self._lock:
            super().link_open(fd, target)
            self._change(target)

    def replace(self, source: str, target: str) -> None:
        with self._lock:
            super().replace(source, target)
            self._change(source, target)

    def rename_exclusive(self, source: str, target: str) -> None:
        with self._lock:
            super().rename_exclusive(source, target)
            self._change(source, target)

    def exchange(self, one: str, other: str) -> None:
        with self._lock:
            super().exchange(one, other)
            self._change(one, other)

    def unlink(self, path: str, *, folder: int | None = None) -> None:
        with self._lock:
            super().unlink(path, folder=folder)
            self._change(path, folder=folder)

    def remove_directory(self, path: str, *, folder: int | None = None) -> None:
        with self._lock:
            super().remove_directory(path, folder=folder)
            self._change(path, folder=folder)

    def _add(self, path: str, status: os.stat_result) -> None:
        """A new file or directory; its inode may have been that of another one before."""
        if self._node(os.stat(os.path.dirname(path))) is None:
            return
        node = self._new(status)
        if stat.S_ISDIR(status.st_mode):
            self.record.folders[node] = {}
        else:
            self.record.files[node], self._contents[node] = b"", bytearray()
        self._change(path)

    def _change(self, *paths: str, folder: int | None = None) -> None:
        """Note what each of these names leads to now: those of one directory go together."""
        for above in dict.fromkeys(map(os.path.dirname, paths)):
            self._change_in(above, [path for path in paths if os.path.dirname(path) == above], folder)

    def _change_in(self, above: str, paths: list[str], folder: int | None) -> None:
        parent = self._node(os.fstat(folder) if folder is not None else os.stat(above))
        if parent is None:
            return
        changes = []
        for path in paths:
            try:
                node = self._node(os.stat(path, dir_fd=folder, follow_symlinks=False))
            except FileNotFoundError:
                node = None
            changes.append((os.path.basename(path), node))
        self._note(NameChange(parent, tuple(changes)))
