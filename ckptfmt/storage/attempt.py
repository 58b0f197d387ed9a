"""Attempts on POSIX file systems (SPEC.md section 11), which publish atomically and durably."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, TypeVar

from ..errors import DAMAGED, CkptError, StorageError, fault, os_fault
from . import COMMIT, TEMPORARY_SUFFIX, Storage, copy_pieces
from . import disk as disks
from .descriptor import Descriptor
from .disk import Disk
from .local import LocalStorage, absolute
from .temporaries import Temporary

RACES = 16  # times that publishing looks at the target anew when other saves come between
WRITEBACK = 64 << 20  # bytes written between two write-back hints of a durable attempt
_TAKEN = (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR)
_CHANGED = (*_TAKEN, errno.ENOENT, errno.EISDIR)
T = TypeVar("T")


class LocalFile:
    """One new file of an attempt."""

    sequential = False

    def __init__(self, path: str, disk: Disk, durable: bool, checkpoint: str) -> None:
        self._checkpoint, self._disk, self._durable = checkpoint, disk, durable
        self._unsent = 0  # first byte for which no write-back was asked for
        self._file = Descriptor(disk.create(path))  # to which another thread may write while a save is given up

    @property
    def number(self) -> int | None:
        """Its descriptor; None once it is closed."""
        return self._file.number

    def reserve(self, size: int) -> None:
        if size:
            self._do(self._disk.allocate, size)

    def write(self, offset: int, data: Any) -> None:
        view = memoryview(data)
        view = view if view.nbytes == len(view) else view.cast("B")
        self._do(self._disk.write_all, view, offset)
        self._hint(offset + view.nbytes)

    def copy(self, offset: int, storage: Storage, name: str, start: int, length: int) -> None:
        if not isinstance(storage, LocalStorage):
            copy_pieces(self, offset, storage, name, start, length)
            return
        for at in range(0, length, WRITEBACK):
            size = min(WRITEBACK, length - at)
            self._do(storage.copy_to, self._disk, offset + at, name, start + at, size)
            self._hint(offset + at + size)

    def _hint(self, end: int) -> None:
        """Have the system begin to write out what lies before `end`, if much does."""
        if self._durable and end - self._unsent >= WRITEBACK:
            self._do(self._disk.start_writeback, self._unsent, end - self._unsent)
            self._unsent = end

    def finish(self, size: int) -> None:
        self._do(self._disk.truncate, size)
        if self._durable:
            self._do(self._disk.flush)  # [PUB-002]; a failure is never tried again [PUB-006]
        number = self._file.detach()
        assert number is not None
        try:
            self._disk.close(number)
        except OSError as error:
            raise self._fault(error) from error

    def close(self) -> None:
        self._file.close()

    def _do(self, call: Any, *arguments: Any) -> None:
        number = self._file.take()
        if number is None:
            raise fault("io", "the save was given up while something was written", path=self._checkpoint)
        try:
            call(number, *arguments)
        except OSError as error:
            raise self._fault(error) from error
        finally:
            self._file.give_back(number)

    def _fault(self, error: OSError) -> CkptError:
        return os_fault(error, "cannot write the checkpoint", self._checkpoint)


class LocalAttempt:
    """A temporary sibling of the target, published by link, rename or exchange. [PUB-001] to [PUB-007] It is leased
    until then, by each process that writes into it. [PUB-018]"""

    def __init__(
        self,
        path: str,
        *,
        directory: bool,
        overwrite: bool,
        durable: bool,
        may_replace: Callable[[str], bool] = lambda folder: False,
    ) -> None:
        """`may_replace`: whether a directory that is no checkpoint of this format may be replaced, too."""
        self.path, self._may_replace = path, may_replace
        self._target = absolute(path)
        self._parent, name = os.path.split(self._target)
        self._temporary = Temporary(self._target, path)
        self._directory, self._overwrite, self._durable = directory, overwrite, durable
        self._disk = disks.current()
        self._folders: dict[str, int] = {}  # how many files and directories this process made in each
        self._files: list[LocalFile] = []
        self._exchanged = self._keeps_temporary = self._joined = False
        if name.endswith(TEMPORARY_SUFFIX):
            raise fault("bad-option", f"a checkpoint's name must not end in {TEMPORARY_SUFFIX}", path=path)
        if not directory and path.endswith("/"):  # where nobody could open it
            message = "a path that ends in / is that of a directory"
            raise fault("bad-option", message, path=path, expected="layout 'loose' or 'packed', or a path without /")
        if not os.path.isdir(self._parent):
            raise fault("not-found", f"there is no directory {self._parent or '.'} to save into", path=path)
        self._check_target()

    @classmethod
    def join(cls, path: str, token: str, *, durable: bool) -> LocalAttempt:
        """The attempt of another process, by the word that its `share` gave."""
        attempt = cls(path, directory=True, overwrite=True, durable=durable)
        name, *folders = token.split("/")
        attempt._temporary.join(name)
        attempt._folders, attempt._joined = dict.fromkeys(["", *folders], 0), True
        return attempt

    def share(self, folders: list[str]) -> str:
        for folder in folders:
            self._make_folder(folder)
        return "/".join([os.path.basename(self.temporary), *folders])

    def flush(self) -> None:
        if self._durable and self._directory:
            for folder in sorted(self._folders, key=len, reverse=True):  # bottom-up [PUB-002]
                self._do(self._disk.flush_directory, self._inside(folder))
        if self._joined:
            self._temporary.check(self._folders)
            self._temporary.let_go()  # nothing more is written here

    @property
    def temporary(self) -> str:
        """Where the file or directory lies until it is published."""
        return self._temporary.path

    def create(self, name: str) -> LocalFile:
        if self._directory:
            self._make_folder(name.rpartition("/")[0])
        file = self._made(name, lambda path: LocalFile(path, self._disk, self._durable, self.path))
        self._files = [f for f in self._files if f.number is not None] + [file]
        return file

    def make_folder(self) -> None:
        """Make the temporary, a directory into which another writer is to write; see `adopt`."""
        self._make_folder("")

    def adopt(self) -> None:
        """Take for its own what another writer has put into the temporary, which must be there when it is published,
        and outlasts a power loss if that is asked for."""
        for folder, names, files in os.walk(self.temporary):
            below = os.path.relpath(folder, self.temporary)
            self._folders["" if below == "." else below] = len(names) + len(files)
            for name in files if self._durable else ():
                self._do(self._flush, os.path.join(folder, name))

    def _flush(self, path: str) -> None:
        number = self._disk.open(path)
        try:
            self._disk.flush(number)
        finally:
            self._disk.close(number)

    def link(self, name: str, storage: Storage, source: str, size: int) -> str:
        """A hard link, else a file that shares its bytes (a reflink). It is flushed, as nobody knows whether it was; if
        that fails so does the save. [PUB-006]"""
        if not isinstance(storage, LocalStorage):
            return "it is not on this machine's disk"
        folder = name.rpartition("/")[0]
        self._make_folder(folder)
        with ExitStack() as opened:
            try:
                fd = opened.enter_context(storage._open(source))
            except (*DAMAGED, StorageError) as error:
                return error.message
            if os.fstat(fd).st_size != size:
                return f"{source} has {os.fstat(fd).st_size} bytes and not {size}"
            try:
                self._disk.link_open(fd, self._inside(name))
            except OSError as error:
                if not self._clone(name, fd):
                    return f"{error.strerror} ({errno.errorcode.get(error.errno or 0, 'no link')})"
            else:
                self._folders[folder] += 1
            if self._durable:
                self._do(self._disk.flush, fd)
        return ""

    def _clone(self, name: str, source: int) -> bool:
        """Make a file that shares the bytes of an open one; whether that can be."""
        out = self.create(name)
        number = out.number
        assert number is not None
        try:
            self._disk.clone(number, source)
        except OSError:
            out.close()
            self.remove(name)
            return False
        out.finish(os.fstat(number).st_size)
        return True

    def remove(self, name: str) -> None:
        self._do(self._disk.unlink, self._inside(name))
        self._folders[name.rpartition("/")[0]] -= 1

    def written(self) -> LocalStorage:
        storage = LocalStorage(self.temporary, is_temporary=True)
        storage.path = self.path  # for messages
        return storage

    def publish(self) -> None:
        self.flush()
        self._temporary.check(self._folders)
        if self._overwrite:
            self._replace()
        else:
            self._publish_exclusively()
        if self._durable:
            try:
                self._disk.flush_directory(self._parent)
            except OSError as error:
                self._keeps_temporary = self._exchanged  # what was replaced stays until the new one is sure to
                message = "the checkpoint is in place, but may not survive a power loss: cannot flush the directory"
                raise os_fault(error, message, self.path) from error
        self._temporary.remove()  # the second name of a linked file, or what was replaced
        self._temporary.let_go()

    def abort(self) -> None:
        for file in self._files:
            file.close()
        try:
            if not self._keeps_temporary and not self._joined and self._temporary.is_ours:
                self._temporary.remove()
        finally:
            self._temporary.let_go()  # whatever comes between: nobody writes here any more

    def fault(self, error: OSError | CkptError, doing: str) -> CkptError:
        return self._temporary.fault(error, doing)

    def _publish_exclusively(self) -> None:
        """[PUB-003]"""
        try:
            if self._directory:
                self._disk.replace(self.temporary, self._target)  # an empty directory at most
                return
            try:
                self._disk.link(self.temporary, self._target)
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EMLINK):
                    raise
                self._disk.rename_exclusive(self.temporary, self._target)
        except OSError as error:
            if self._temporary.is_at(self._target):
                return  # a network disk has lost the answer, and made the request again
            if error.errno in _TAKEN:
                raise fault("exists", "another save put a checkpoint there first", path=self.path) from error
            if error.errno == errno.ENOSYS:
                raise fault(
                    "exclusive-unsupported",
                    "this file system can neither link nor rename without replacing",
                    path=self.path,
                ) from error
            raise self.fault(error, "cannot publish the checkpoint") from error

    def _replace(self) -> None:
        """[PUB-004]"""
        for attempts_left in reversed(range(RACES)):
            try:
                self._replace_once()
                return
            except CkptError:
                raise
            except OSError as error:
                if self._temporary.is_at(self._target):
                    return  # as above
                is_there = os.path.lexists(self.temporary)
                if attempts_left and is_there and error.errno in _CHANGED:
                    continue  # the target came, went or became another kind since it was looked at
                if error.errno in (errno.ENOSYS, errno.EXDEV):  # the latter of one in a lower layer of overlayfs
                    message = "this system cannot exchange two directories in one step"
                    raise fault("not-replaceable", message, path=self.path) from error
                raise self.fault(error, "cannot publish the checkpoint") from error

    def _replace_once(self) -> None:
        exists = os.path.lexists(self._target) and not self._is_vacant()
        if exists and (self._directory or _is_directory(self._target)):
            self._check_target()
            self._disk.exchange(self.temporary, self._target)
            self._exchanged = True
        else:
            self._disk.replace(self.temporary, self._target)

    def _check_target(self) -> None:
        try:
            os.lstat(self._target)
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                raise os_fault(error, "cannot save here", self.path) from error
            return
        if self._is_vacant():
            return
        if not self._overwrite:
            raise fault("exists", "there is something at this path already", path=self.path)  # [PUB-003]
        if _is_directory(self._target) and not self._has_record() and not self._may_replace(self._target):
            raise fault("not-replaceable", "this directory is not a checkpoint", path=self.path)  # [PUB-005]

    def _is_vacant(self) -> bool:
        """Whether the target is an empty directory and a directory is to be there: that is as good as nothing, as a
        rename takes its place, and fails once there is something in it. [PUB-005]"""
        try:
            return self._directory and _is_directory(self._target) and not os.listdir(self._target)
        except OSError:
            return False

    def _has_record(self) -> bool:
        """Whether the target has a commit record, which may be damaged or of a later version. [VER-002]"""
        try:
            fd = self._disk.open(os.path.join(self._target, COMMIT))
        except OSError:
            return False
        try:
            return stat.S_ISREG(os.fstat(fd).st_mode) and os.pread(fd, 8, 0) == b"ckptfmt/"
        finally:
            os.close(fd)

    def _inside(self, name: str) -> str:
        return os.path.join(self.temporary, name) if name else self.temporary

    def _make_folder(self, folder: str) -> None:
        """Make a directory of the temporary, and those above it; the empty name is the temporary itself."""
        if folder in self._folders:
            return
        if folder:
            self._make_folder(folder.rpartition("/")[0])
        self._made(folder, self._disk.make_directory)
        self._folders[folder] = 0

    def _made(self, name: str, make: Callable[[str], T]) -> T:
        """Make a file or directory of the temporary, or, with the empty name, the temporary itself."""
        self._temporary.check_process()
        try:
            if not name:
                return self._temporary.begin(make, lambda made: made.number if isinstance(made, LocalFile) else None)
            made = make(self._inside(name))
        except FileExistsError as error:
            message = f"this file system cannot tell {name!r} from another name"
            raise fault("name-collision", message, path=self.path) from error  # [NAME-007]
        except OSError as error:
            raise self.fault(error, f"cannot create {name or 'the temporary'}") from error
        self._folders[name.rpartition("/")[0]] += 1
        return made

    def _do(self, call: Any, *arguments: Any) -> None:
        try:
            call(*arguments)
        except OSError as error:
            raise self.fault(error, "cannot write the checkpoint") from error


def make_directories(path: str) -> None:
    """Make a directory and those that are missing above it; they outlast a power loss. Raises OSError."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(os.path.abspath(path))
    make_directories(parent)
    disk = disks.current()
    try:
        disk.make_directory(path)
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    disk.flush_directory(parent)


def _is_directory(path: str) -> bool:
    """Whether the name itself is a directory, not a link to one: publishing replaces names."""
    return os.path.isdir(path) and not os.path.islink(path)
