"""Leases: who reads a checkpoint holds a shared lock on it, and nothing deletes what is so held.

A lease is `flock` on the checkpoint's own file or directory. It needs no file of its own, is seen by all processes of
the machine, and ends with the process that holds it, however that ends. Where the file system knows no locks, nothing
is protected, but by the open file itself.

The run directory is held in the same way while something is being saved into it or deleted from it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from ..errors import os_fault

_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


@contextlib.contextmanager
def lease(path: str) -> Iterator[None]:
    """Keep `path` from being deleted while the block runs; raises `not-found` if it is gone."""
    fd = _held(path)
    try:
        yield
    finally:
        os.close(fd)


def _held(path: str) -> int:
    while True:
        try:
            fd = os.open(path, _OPEN)
        except OSError as error:
            raise os_fault(error, "cannot open the checkpoint", path) from error
        _lock(fd, fcntl.LOCK_SH)  # waits for a deletion that has begun
        if _is_at(path, fd):
            return fd
        os.close(fd)  # deleted or replaced meanwhile


@contextlib.contextmanager
def claim(path: str) -> Iterator[bool]:
    """Hold `path` for oneself while the block runs; gives whether that could be had, that is, nobody else holds it and
    it is there."""
    try:
        fd = os.open(path, _OPEN)
    except FileNotFoundError:
        yield False
        return
    except OSError as error:
        raise os_fault(error, "cannot open the checkpoint", path) from error
    try:
        yield _lock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB) and _is_at(path, fd)
    finally:
        os.close(fd)


def is_leased(path: str) -> bool:
    """Whether anybody holds a lease on `path` now."""
    with claim(path) as is_mine:
        return not is_mine and os.path.lexists(path)


def _lock(fd: int, how: int) -> bool:
    try:
        fcntl.flock(fd, how)
    except BlockingIOError:
        return False
    except OSError:  # no locks on this file system
        return True
    return True


def _is_at(path: str, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except OSError:
        return False
