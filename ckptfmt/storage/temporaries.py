"""Temporaries: what lies beside the place of a checkpoint while it is written, and while it is removed (SPEC.md section
11, PUB-001 and PUB-018 to PUB-020).

Who makes one holds a lease on it (`leases`). Who takes one for dead first gives it another name, and only then removes
anything: so a save that lives after all, and whose lease could not be seen, finds that its temporary is gone and does
not commit; and if it has committed, there was nothing of it under that name any more.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from ..errors import CkptError, CorruptError, NotACheckpointError, fault, os_fault
from . import TEMPORARY_SUFFIX
from . import disk as disks
from .leases import Lease, hold

_NAME = re.compile(r"\.(.+)\.[0-9a-f]{12}\.ckptfmt-tmp", re.DOTALL).fullmatch
_LONGEST = 160  # bytes of a checkpoint's name in that of its temporary; a file name has at most 255
_RACES = 16  # times that making or removing one begins anew when others come between
_TOLD = (FileNotFoundError, CorruptError, NotACheckpointError)  # where one was removed, or its files
T = TypeVar("T")


def is_temporary(name: str) -> bool:
    """Whether a name is one that this package gives to temporaries."""
    return _NAME(name) is not None


def beside(path: str) -> str:
    """A new name for a temporary of what is, or is to be, at a path."""
    folder, name = os.path.split(path)
    known = _NAME(name)
    stem = os.fsencode(known[1] if known else name)[:_LONGEST].decode(errors="ignore")
    return os.path.join(folder, f".{stem}.{os.urandom(6).hex()}{TEMPORARY_SUFFIX}")


@contextlib.contextmanager
def folder_beside(path: str) -> Iterator[str]:
    """A new folder with the name of a temporary of what is at a path, which is leased while the block runs, and removed
    after. Raises `StorageError`, also for what the block does not find in it any more. [PUB-018]"""
    temporary = Temporary(path, path)
    try:
        temporary.begin(disks.current().make_directory, lambda _: None)
    except OSError as error:
        raise temporary.fault(error, "cannot create a temporary folder") from error
    try:
        yield temporary.path
    except _TOLD as error:
        place = error.path if isinstance(error, CkptError) else error.filename
        if not str(place).startswith(temporary.path) or os.path.lexists(temporary.path):
            raise
        raise temporary.fault(error, "cannot use a temporary folder") from error
    finally:
        temporary.remove()
        temporary.let_go()


class Temporary:
    """The temporary of one save, as one process sees it: its `path`, and the lease that this process holds on it."""

    def __init__(self, target: str, checkpoint: str) -> None:
        """Of what is to be at `target`; errors name the `checkpoint`."""
        self.path = beside(target)
        self._target, self._checkpoint = target, checkpoint
        self._lease: Lease | None = None
        self._process = os.getpid()

    @property
    def is_ours(self) -> bool:
        """Whether this process is the one that began, and no fork of it."""
        return os.getpid() == self._process

    def begin(self, make: Callable[[str], T], descriptor: Callable[[T], int | None]) -> T:
        """Make it, by a call that gets its path, and lease it; under another name if a collection came between.
        `descriptor`: of what was made, if that is open. Raises OSError. [PUB-018]"""
        for _ in range(_RACES):
            made = make(self.path)
            self._lease = hold(self.path, descriptor(made))
            if self._lease is not None:
                return made
            self.remove()
            self.path = beside(self._target)
        raise self._lost()

    def join(self, name: str) -> None:
        """Lease that of another process, by its name."""
        self.path = os.path.join(os.path.dirname(self._target), name)
        try:
            self._lease = hold(self.path)
        except OSError as error:
            raise os_fault(error, "cannot open the temporary", self._checkpoint) from error
        if self._lease is None:
            raise self._lost()

    def is_at(self, path: str) -> bool:
        """Whether the file or directory that was made is at a path now, whatever name it had."""
        return self._lease is not None and self._lease.is_at(path)

    def check_process(self) -> None:
        """Raise in a fork of the process that began. [PUB-018]"""
        if not self.is_ours:
            message = "this process is a fork of the one that saves, which alone may go on"
            raise fault("temporary-lost", message, path=self._checkpoint)

    def check(self, entries: dict[str, int]) -> None:
        """Raise unless it is still what was made, and its folders have as many entries. [PUB-019]"""
        self.check_process()
        if not self.is_at(self.path):
            raise self._lost()
        for folder, count in entries.items():
            try:
                found = len(os.listdir(os.path.join(self.path, folder)))
            except FileNotFoundError:
                found = -1
            if found < count:
                raise self._lost()

    def fault(self, error: OSError | CkptError, doing: str) -> CkptError:
        """The exception for an error met while doing something with it."""
        if isinstance(error, _TOLD) and self._lease is not None and not os.path.lexists(self.path):
            return self._lost()
        return error if isinstance(error, CkptError) else os_fault(error, doing, self._checkpoint)

    def _lost(self) -> CkptError:
        folder = os.path.dirname(self._target)
        if not os.path.isdir(folder):
            return fault("not-found", f"there is no directory {folder} any more", path=self._checkpoint)
        message = "the temporary that this save wrote was removed meanwhile, by something that took the save for dead"
        return fault("temporary-lost", message, path=self._checkpoint)

    def remove(self) -> None:
        """Remove what has its name, as far as that can be."""
        with contextlib.suppress(CkptError):
            destroy(self.path)

    def let_go(self) -> None:
        if self._lease is not None:
            self._lease.release()
            self._lease = None


def take_away(path: str) -> None:
    """Remove a file, or a folder with all that is in it, which is dead or is to be; nothing if it is gone. A reader
    sees all of it or none, after a power loss, too. Raises `StorageError`. [PUB-020]"""
    disk, hidden = disks.current(), beside(path)
    try:
        disk.replace(path, hidden)
        disk.flush_directory(os.path.dirname(path) or ".")  # else its name may come back without the bytes
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise os_fault(error, "cannot delete", path) from error
        hidden = path  # a directory from below an overlay, which has no other name, and to which nobody has written
    destroy(hidden)


def destroy(path: str) -> None:
    """Remove a file, or a folder with all that is in it, as others may do at the same time; nothing if it is gone. No
    link is followed. Raises `StorageError`."""
    disk = disks.current()
    for _ in range(_RACES):
        try:
            if os.path.isdir(path) and not os.path.islink(path):
                disk.remove_tree(path)
            else:
                disk.unlink(path)
            return
        except FileNotFoundError:
            if not os.path.lexists(path):
                return
        except OSError as error:
            raise os_fault(error, "cannot delete", path) from error
        except RecursionError as error:
            raise fault("io", "cannot delete: its folders are nested too deeply", path=path) from error
