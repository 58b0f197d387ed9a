"""Leases: who needs a file or directory holds a shared lock on it, and nothing deletes what is so held.

A lease is `flock` on the file or directory itself: on a checkpoint while it is read, on a temporary while it is written
[PUB-018], and on a run directory while something is saved into it or deleted from it. It needs no file of its own, is
seen by all processes of the machine, and ends with the process that holds it, however that ends: a forked child has
none. Where the file system knows no locks, nothing is protected, but by the open file itself.
"""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from collections.abc import Iterator

from ..errors import MissingError, os_fault
from . import disk as disks

_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class Lease:
    """A file or directory that is open, and locked where it can be, until `release`."""

    _is_finalizing = staticmethod(sys.is_finalizing)  # when the names of this module may be gone

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd
        _held.add(self)

    def lock(self, *, alone: bool, wait: bool = False) -> bool | None:
        """Lock it for oneself, or together with others: whether nobody else's lock forbids that; None where there are
        no locks."""
        assert self._fd is not None
        try:
            disks.current().lock(self._fd, alone=alone, wait=wait)
        except BlockingIOError:
            return False
        except OSError:
            return None
        return True

    def is_at(self, path: str) -> bool:
        """Whether a path leads to what is held."""
        try:
            return self._fd is not None and os.path.samestat(os.stat(path), os.fstat(self._fd))
        except OSError:
            return False

    def release(self) -> None:
        """Let go at once, whoever has a copy of the descriptor."""
        if self._is_finalizing():  # the lock ends with the process
            return
        if self._fd is not None:
            with contextlib.suppress(OSError):
                disks.current().unlock(self._fd)
        self.drop()

    def drop(self) -> None:
        """Close the descriptor; a lock stays with those who have a copy of it."""
        _held.discard(self)
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)

    __del__ = release  # of one that an interrupt left with nobody


_held: weakref.WeakSet[Lease] = weakref.WeakSet()


def _forget() -> None:
    for held in list(_held):
        held.drop()


os.register_at_fork(after_in_child=_forget)  # leases are the parent's, and end with it


def hold(path: str, fd: int | None = None) -> Lease | None:
    """Hold what was made at a path; None if it was taken away meanwhile, or is about to be. `fd`: a descriptor of it,
    in case that the umask lets nobody open it. Raises OSError. [PUB-018]"""
    try:
        held = Lease(os.open(path, _OPEN | os.O_NOFOLLOW))  # a copy of `fd` would share its lock with forks
    except FileNotFoundError:
        return None
    except PermissionError:
        if fd is None:
            raise
        held = Lease(os.dup(fd))
    if held.lock(alone=False) is not False and held.is_at(path):
        return held
    held.release()
    return None


@contextlib.contextmanager
def lease(path: str) -> Iterator[None]:
    """Keep `path` from being deleted while the block runs; raises `not-found` if it is gone."""
    held = _held_at(path)
    try:
        yield
    finally:
        held.release()


def _held_at(path: str) -> Lease:
    while True:
        held = _opened(path)
        held.lock(alone=False, wait=True)  # for a deletion that has begun
        if held.is_at(path):
            return held
        held.release()  # deleted or replaced meanwhile


@contextlib.contextmanager
def claim(path: str, *, without_locks: bool = True) -> Iterator[bool]:
    """Hold `path` for oneself while the block runs; gives whether that could be had, that is, nobody else holds it and
    it is there. `without_locks`: what to give where no lock can tell."""
    try:
        held = _opened(path)
    except MissingError:
        yield False
        return
    try:
        is_free = held.lock(alone=True)
        if is_free is None:
            held, is_free = _alone_on_nfs(path, held)
        yield (without_locks if is_free is None else is_free) and held.is_at(path)
    finally:
        held.release()


def _alone_on_nfs(path: str, held: Lease) -> tuple[Lease, bool | None]:
    """NFS locks a file for one alone only if that is open for writing."""
    try:
        writable = Lease(os.open(path, _OPEN | os.O_RDWR))
    except OSError:  # a directory, or nobody may write to it
        return held, None
    held.release()
    return writable, writable.lock(alone=True)


def is_leased(path: str) -> bool:
    """Whether anybody holds a lease on `path` now."""
    with claim(path) as is_mine:
        return not is_mine and os.path.lexists(path)


def _opened(path: str) -> Lease:
    try:
        return Lease(os.open(path, _OPEN))
    except OSError as error:
        raise os_fault(error, "cannot open the checkpoint", path) from error
