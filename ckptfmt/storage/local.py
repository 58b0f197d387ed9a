"""POSIX file systems: reading by offset. `attempt` writes on them."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from ..errors import fault, os_fault
from . import TEMPORARY_SUFFIX
from . import disk as disks
from .descriptor import Descriptor
from .disk import Disk


class LocalStorage:
    """Reads a checkpoint on a local disk through one descriptor of its file or directory, which stays that of the
    checkpoint that was opened when another takes its name."""

    span = 2 << 20  # bytes read are still in the processor's cache when they are digested
    readers = max(2, min(8, os.cpu_count() or 2))
    most_readers = readers
    held: int | None = 0
    is_remote = False

    def __init__(self, path: str, *, is_temporary: bool = False, follow_links: bool = False) -> None:
        self.path = path
        self._disk = disks.current()
        if not is_temporary and os.path.basename(os.path.normpath(path)).endswith(TEMPORARY_SUFFIX):
            raise fault("temporary", "this is the temporary of a save that has not been committed", path=path)
        try:
            number = self._disk.open(path)
        except OSError as error:
            if error.errno == errno.ENXIO:
                raise fault("not-a-checkpoint", "this is neither a file nor a directory", path=path) from error
            doing = "cannot open the checkpoint"
            if error.errno == errno.ENAMETOOLONG:  # so nothing can be there
                raise fault("not-found", f"{doing}: {error.strerror}", path=path) from error
            raise os_fault(error, doing, path) from error
        self._root = Descriptor(number)
        self._place = absolute(path)
        mode = os.fstat(number).st_mode
        self.is_directory = stat.S_ISDIR(mode)
        self._links = None
        if follow_links and self.is_directory:
            from .links import Links  # here, as most checkpoints have none

            self._links = Links(path)
        if not self.is_directory and not stat.S_ISREG(mode):
            self.close()
            raise fault("not-a-checkpoint", "this is neither a file nor a directory", path=path)

    def size(self, name: str) -> int:
        with self._open(name) as fd:
            return os.fstat(fd).st_size

    def seen(self, name: str) -> str:
        with self._open(name) as fd:
            status = os.fstat(fd)
        return f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"

    def read(self, name: str, offset: int, length: int) -> bytes:
        data = bytearray(length)
        self.read_into(name, offset, memoryview(data))
        return bytes(data)

    def read_into(self, name: str, offset: int, out: memoryview) -> None:
        if name:
            with self._open(name) as fd:
                fill_from(self._disk, fd, offset, out, self.path, name)
            return
        root = self._take()  # the way of most reads
        try:
            fill_from(self._disk, root, offset, out, self.path)
        finally:
            self._root.give_back(root)

    def copy_to(self, fd: int, disk: Disk, offset: int, name: str, start: int, length: int) -> None:
        """Have the system copy bytes of an object into an open file; raises OSError for what is wrong with that."""
        with self._open(name) as source:
            if os.fstat(source).st_size < start + length:  # [READ-005]
                raise fault("short-object", f"{name or 'the file'} ends too early", path=self.path, offset=start)
            disk.copy(fd, offset, source, start, length)

    def map(self, name: str) -> memoryview:
        with self._open(name) as fd:
            if os.fstat(fd).st_size == 0:  # which cannot be mapped
                raise fault("short-object", f"{name or 'the file'} is empty", path=self.path, offset=0)
            try:
                return memoryview(self._disk.map(fd))
            except OSError as error:
                raise os_fault(error, f"cannot map {name or 'the file'}", self.path) from error

    def was_replaced(self) -> bool:
        """Whether another checkpoint has taken the path, or none is there, since this one was opened."""
        root = self._root.take()
        if root is None:
            return False
        try:
            return not os.path.samestat(os.stat(self._place), os.fstat(root))
        except OSError:
            return True
        finally:
            self._root.give_back(root)

    def close(self) -> None:
        self._root.close()

    def __del__(self) -> None:
        """A checkpoint that nobody closed keeps no descriptor longer than its tensors live."""
        if hasattr(self, "_root"):
            self.close()

    def _take(self) -> int:
        """The descriptor, which is to be given back."""
        root = self._root.take()
        if root is None:
            raise fault("bad-option", "the checkpoint is closed; open it again to read from it", path=self.path)
        return root

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator[int]:
        """A file descriptor of the object. No link is followed on the way to it, but as was asked for. [CHK-007]"""
        fd = root = self._take()
        try:
            parts = name.split("/") if name else []
            for part in parts:
                above, fd = fd, self._step(fd, part, name)  # so that an interrupt has nothing closed twice
                if above != root:
                    os.close(above)
            if parts and not stat.S_ISREG(os.fstat(fd).st_mode):
                raise fault("missing-object", f"{name} is not a file", path=self.path)  # [READ-005]
            yield fd
        finally:
            try:
                if fd != root:
                    os.close(fd)
            finally:  # also where an interrupt came
                self._root.give_back(root)

    def _step(self, parent: int, part: str, name: str) -> int:
        """Open one part of an object's name."""
        try:
            return self._disk.open_below(parent, part)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR) and (target := _link(part, parent)) is not None:
                from .links import follow

                return follow(self._links, self._disk, self.path, name, part, target)
            if error.errno == errno.ENXIO:  # a socket
                raise fault("missing-object", f"{name} is not a file", path=self.path) from error
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                raise fault("missing-object", f"{name} is missing", path=self.path) from error  # [READ-005]
            raise os_fault(error, f"cannot open {name}", self.path) from error


def fill_from(disk: Disk, fd: int, offset: int, out: memoryview, path: str, name: str = "") -> None:
    """Fill `out` with the bytes of an open file from `offset` on. Errors tell of the object `name` at `path`."""
    while out:
        try:
            count = disk.read(fd, out, offset)
        except OSError as error:
            raise os_fault(error, f"cannot read {name or 'the file'} at byte {offset}", path) from error
        if count == 0:  # [READ-005]
            raise fault("short-object", f"{name or 'the file'} ends at byte {offset}", path=path, offset=offset)
        out, offset = out[count:], offset + count


def absolute(path: str) -> str:
    """A path that stays that of the same name when the working directory changes. Links above the name are followed as
    the system follows them, which `os.path.abspath` does not where `..` comes after one."""
    folder, name = os.path.split(path.rstrip("/") or "/")
    try:
        return os.path.realpath(path) if name in ("", ".", "..") else os.path.join(os.path.realpath(folder), name)
    except OSError:  # the working directory was removed
        return path


def _link(name: str, folder: int) -> str | None:
    """The text of a link in an open directory; None for anything else."""
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError:
        return None
