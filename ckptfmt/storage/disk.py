"""Every system call that reads a checkpoint's bytes or changes a disk, in one place, so that what a commit does to a
disk can be read, recorded and made to fail.

All of the package uses the disk that `current` gives; `ckptfmt.testing.using_disk` puts another in its place.
"""

from __future__ import annotations

import errno
import functools
import os
import stat
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mmap

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_SYNC_FILE_RANGE_WRITE = 2
_FICLONE = 0x40049409
_MAP_FIXED = 0x10
_MAP_NORESERVE = 0x4000 if sys.platform == "linux" else 0
_SMB = (0xFF534D42, 0xFE534D42)  # types of file systems: its versions 1, and 2 and 3
_FOLIO = 64 << 10  # bytes that the kernel copies at a time
_COPIED = 2 << 20  # bytes copied through memory at a time
_UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP}
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # opening a pipe must not wait for a writer


class Disk:
    """The disk of this machine. All methods raise OSError as the system does."""

    # ---- reading

    def open(self, path: str) -> int:
        """A file or directory, open for reading."""
        return os.open(path, _READ)

    def open_below(self, folder: int, name: str) -> int:
        """An entry of an open directory, open for reading; a link is not followed (ELOOP)."""
        return os.open(name, _READ | os.O_NOFOLLOW, dir_fd=folder)

    def read(self, fd: int, out: memoryview, offset: int) -> int:
        """Fill `out`, or less of it; gives the bytes read, 0 at the end."""
        return os.preadv(fd, [out], offset)

    def map(self, fd: int) -> mmap.mmap:
        """The whole file as private, copy-on-write memory. Unlike Python's own mappings of files it keeps no
        descriptor, as a checkpoint may have more objects than a process may have descriptors, and sets no memory aside
        for pages that are never written, as it may be larger than memory."""
        import ctypes
        import mmap

        libc = _libc()
        if libc is None:
            return mmap.mmap(fd, 0, access=mmap.ACCESS_COPY)
        flags = mmap.MAP_PRIVATE | _MAP_NORESERVE
        mapping = mmap.mmap(-1, os.fstat(fd).st_size, flags | mmap.MAP_ANONYMOUS)
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapping))
        flags |= _MAP_FIXED  # in the place of the memory that Python made, and will give back
        libc.mmap.restype = ctypes.c_void_p
        length, start = ctypes.c_size_t(len(mapping)), ctypes.c_long(0)
        if libc.mmap(ctypes.c_void_p(address), length, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, start) != address:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return mapping

    # ---- locking

    def lock(self, fd: int, *, alone: bool, wait: bool) -> None:
        """Lock an open file or directory, for this process alone or together with others, until `unlock`, or until the
        last copy of the descriptor is closed; raises BlockingIOError if others' locks forbid that and it is not to
        wait. Files on SMB are not locked (EOPNOTSUPP): there a lock keeps its holder, too, from writing (flock(2))."""
        import fcntl

        if _is_on_smb(fd) and stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        fcntl.flock(fd, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | (0 if wait else fcntl.LOCK_NB))

    def unlock(self, fd: int) -> None:
        """Unlock it, also for those who have a copy of the descriptor."""
        import fcntl

        fcntl.flock(fd, fcntl.LOCK_UN)

    # ---- changing

    def create(self, path: str) -> int:
        """A new file, open for reading and writing; fails if it exists."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)

    def make_directory(self, path: str, mode: int = 0o777) -> None:
        os.mkdir(path, mode)

    def write(self, fd: int, data: memoryview, offset: int) -> int:
        """Write `data`, or less of it; gives the bytes written."""
        return os.pwrite(fd, data, offset)

    def write_all(self, fd: int, data: memoryview, offset: int) -> None:
        """Write `data`, by as many calls of `write` as it takes."""
        while data:
            count = self.write(fd, data, offset)
            if count == 0:
                raise OSError(errno.EIO, "the system writes nothing")
            data, offset = data[count:], offset + count

    def copy(self, fd: int, offset: int, source: int, start: int, length: int) -> None:
        """Copy bytes of the open file `source` from `start` on: shared where the file system can, else copied by the
        kernel, and through memory where neither can be."""
        while length:
            wanted = min(length, -offset % _FOLIO or length)  # aligned, ext4 copies half as fast again
            try:
                count = os.copy_file_range(source, fd, wanted, start, offset)
            except (AttributeError, OSError) as error:
                if isinstance(error, OSError) and error.errno not in _UNSUPPORTED | {errno.EXDEV}:
                    raise
                data = os.pread(source, min(wanted, _COPIED), start)
                count = self.write(fd, memoryview(data), offset) if data else 0
            if count == 0:
                raise OSError(errno.EIO, "the file that is copied became shorter")
            start, offset, length = start + count, offset + count, length - count

    def clone(self, fd: int, source: int) -> None:
        """Let an empty file have the bytes of another open one, shared until either is changed; raises OSError where
        the file system cannot."""
        import fcntl

        fcntl.ioctl(fd, _FICLONE, source)

    def allocate(self, fd: int, size: int) -> None:
        """Reserve blocks, so that a full disk shows early; nothing where the file system cannot."""
        try:
            os.posix_fallocate(fd, 0, size)
        except AttributeError:
            return
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def start_writeback(self, fd: int, offset: int, length: int) -> None:
        """Ask the system to begin writing out, so that the later flush waits less; a hint, and no promise."""
        libc = _libc()
        if libc is not None and hasattr(libc, "sync_file_range"):
            import ctypes

            libc.sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(length), _SYNC_FILE_RANGE_WRITE)

    def flush(self, fd: int) -> None:
        os.fsync(fd)

    def close(self, fd: int) -> None:
        """Close a file that was written: a network disk may say only here that it has no room."""
        os.close(fd)

    def flush_directory(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def set_time(self, path: str, time: float) -> None:
        """Set the time of modification, in seconds since the epoch."""
        os.utime(path, (time, time))

    def link(self, source: str, target: str) -> None:
        os.link(source, target)

    def link_open(self, fd: int, target: str) -> None:
        """Link the file that is open, whatever name it has now."""
        os.link(f"/proc/self/fd/{fd}", target, src_dir_fd=fd)  # with a directory the link that this is is followed

    def replace(self, source: str, target: str) -> None:
        os.replace(source, target)

    def rename_exclusive(self, source: str, target: str) -> None:
        """Rename unless the target exists; raises ENOSYS where the system cannot do that in one step."""
        _renameat2(source, target, _RENAME_NOREPLACE)

    def exchange(self, one: str, other: str) -> None:
        """Swap two names in one step; raises ENOSYS where the system cannot."""
        _renameat2(one, other, _RENAME_EXCHANGE)

    def unlink(self, path: str, *, folder: int | None = None) -> None:
        """Remove a name that is no directory's; relative to an open directory if one is given."""
        os.unlink(path, dir_fd=folder)

    def remove_directory(self, path: str, *, folder: int | None = None) -> None:
        """Remove an empty directory."""
        os.rmdir(path, dir_fd=folder)

    def remove_tree(self, path: str) -> None:
        """Remove a directory and all that is below it, name by name; no link is followed, and what changes its kind
        meanwhile leads nowhere else."""
        for _, folders, files, fd in os.fwalk(path, topdown=False, onerror=_raise):
            for name in files:
                self.unlink(name, folder=fd)
            for name in folders:
                if stat.S_ISLNK(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                    self.unlink(name, folder=fd)
                else:
                    self.remove_directory(name, folder=fd)
        self.remove_directory(path)


_disk = Disk()


def current() -> Disk:
    """The disk that this process uses."""
    return _disk


def use(disk: Disk) -> Disk:
    """Make this process use another disk, in all its threads; gives the one that it used."""
    global _disk
    before, _disk = _disk, disk
    return before


def _raise(error: OSError) -> None:
    raise error


@functools.cache
def _libc() -> Any:
    import ctypes  # these where they are used, as reading a slice needs none

    try:
        return ctypes.CDLL(None, use_errno=True)
    except (OSError, TypeError):
        return None


def _is_on_smb(fd: int) -> bool:
    libc = _libc()
    if libc is None or sys.platform != "linux":
        return False
    import ctypes

    status = (ctypes.c_long * 64)()  # struct statfs, which begins with the type
    return libc.fstatfs(fd, status) == 0 and status[0] & 0xFFFFFFFF in _SMB


def _renameat2(source: str, target: str, flags: int) -> None:
    import ctypes

    libc = _libc()
    if libc is None or not hasattr(libc, "renameat2"):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), source)
    while libc.renameat2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flags) != 0:
        number = ctypes.get_errno()
        if number != errno.EINTR:
            raise OSError(errno.ENOSYS if number in _UNSUPPORTED else number, os.strerror(number), source)
