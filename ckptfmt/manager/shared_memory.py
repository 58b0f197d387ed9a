"""Memory that two processes see: a file without a name, of which nothing is left however they end."""

from __future__ import annotations

import errno
import math
import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import msgpack
import numpy as np

from ..errors import fault
from ..format.dtypes import Array, dtype_named, dtype_of
from ..format.memory import ALIGNMENT
from ..frameworks.sources import Shard, Sharded, Source, whole

PAGE = mmap.PAGESIZE
# an array as [dtype, shape, strides, offset], a sharded tensor as [dtype, shape, [[start, array], ...]]
Description = list[Any]


class SharedMemory:
    """Bytes of a file without a name, mapped. `fd` may be sent to another process."""

    def __init__(self, fd: int, size: int, *, writable: bool = False) -> None:
        """Takes over `fd`; raises OSError."""
        self.fd, self.size = fd, size
        access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        self._bytes = mmap.mmap(fd, size, mmap.MAP_SHARED, access)

    def __del__(self) -> None:
        os.close(self.fd)

    @classmethod
    def of(cls, size: int) -> SharedMemory:
        """New memory of at least `size` bytes, which the system has; raises `no-memory`."""
        size = -(-max(size, 1) // PAGE) * PAGE
        try:
            fd = _nameless_file()
            try:
                _reserve(fd, size)
            except BaseException:
                os.close(fd)
                raise
            made = cls(fd, size, writable=True)
        except OSError as error:
            raise fault(
                "no-memory", f"no shared memory of {size:,} bytes: {error.strerror}", errno=error.errno
            ) from error
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # a kernel without huge pages
                made._bytes.madvise(mmap.MADV_HUGEPAGE)
        return made

    def array(self, dtype: np.dtype[Any], shape: Sequence[int], strides: Sequence[int] | None, offset: int) -> Array:
        """An array that lies here; it keeps the mapping."""
        return np.ndarray(shape, dtype, self._bytes, offset, strides)


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):  # which is bounded by the memory of the machine, and not by the size of /dev/shm
        return os.memfd_create("ckptfmt")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _reserve(fd: int, size: int) -> None:
    """Take the memory now: what is missing later would kill who writes to it."""
    os.ftruncate(fd, size)
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise


class SharedCopies:
    """Copies of tensors in memory that another process can see, each time in the same if it is large enough."""

    def __init__(self) -> None:
        self.memory: SharedMemory | None = None
        self._process = os.getpid()
        self.described = b""  # where the copies are, as msgpack: for `seen_in`
        self._later: list[tuple[Array, Source]] = []

    @property
    def is_of_a_fork(self) -> bool:
        """Whether it is the memory of another process, which this one was forked from and must not write to."""
        return self._process != os.getpid()

    def take(self, sources: Sequence[Source]) -> list[Source]:
        """Copy these; those that never change `finish` copies. No former copy may be looked at any more; raises
        `no-memory`."""
        self._later, self.described = [], b""
        size = sum(_room(part) for source in sources for part in _parts(source))
        if self.memory is None or not size <= self.memory.size <= 2 * max(size, PAGE):
            self.memory = None  # first, so that there are never two
            self.memory = SharedMemory.of(size)
        self._end = 0
        copies, descriptions = [], []
        for source in sources:
            copy, description = self._copy(source)
            copies.append(copy)
            descriptions.append(description)
        self.described = msgpack.packb(descriptions)
        return copies

    def finished(self) -> SharedMemory:
        """Where the copies are, once all are made: on the thread that saves, as training need not wait for what never
        changes."""
        later, self._later = self._later, []
        for target, source in later:
            _fill(target, source)
        assert self.memory is not None
        return self.memory

    def _copy(self, source: Source) -> tuple[Source, Description]:
        shape, (dtype, name) = tuple(source.shape), _native(source.dtype)
        if isinstance(source, Sharded):
            parts = [(shard.start, *self._copy(shard.source)) for shard in source.shards]
            copy = Sharded(shape, dtype, tuple(Shard(start, part) for start, part, _ in parts))
            return copy, [name, shape, [[start, description] for start, _, description in parts]]
        assert self.memory is not None
        start, self._end = self._end, self._end + _room(source)
        target = self.memory.array(dtype, shape, _strides(source), start)
        if getattr(source, "immutable", False):
            self._later.append((target, source))
        else:
            _fill(target, source)
        return target, [name, shape, target.strides, start]


@lru_cache
def _native(dtype: np.dtype[Any]) -> tuple[np.dtype[Any], str]:
    """A dtype in the order of bytes of this machine, and its name."""
    row = dtype_of(dtype)
    assert row is not None  # encode refused others
    return dtype.newbyteorder("="), row.name


def _strides(source: Source) -> tuple[int, ...] | None:
    """Those of a copy without gaps whose axes lie in memory as the tensor's own do, as that is copied fastest."""
    if not isinstance(source, np.ndarray) or source.flags.c_contiguous:
        return None
    strides, step = [0] * source.ndim, source.itemsize
    for axis in sorted(range(source.ndim), key=lambda axis: (abs(source.strides[axis]), -axis)):
        strides[axis], step = step, step * source.shape[axis]
    return tuple(strides)


def seen_in(memory: SharedMemory, described: bytes) -> list[Source]:
    """The tensors of which it was described where they are."""
    return [_seen(memory, description) for description in msgpack.unpackb(described)]


def _seen(memory: SharedMemory, description: Description) -> Source:
    name, shape, *where = description
    dtype = dtype_named(name).numpy
    if len(where) == 2:
        return memory.array(dtype, shape, *where)
    parts = tuple(Shard(tuple(start), _seen(memory, part)) for start, part in where[0])
    return Sharded(tuple(shape), dtype, parts)


def _parts(source: Source) -> Iterator[Source]:
    yield from (shard.source for shard in source.shards) if isinstance(source, Sharded) else (source,)


def _room(source: Source) -> int:
    nbytes = math.prod(source.shape) * source.dtype.itemsize
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _fill(target: Array, source: Source) -> None:
    np.copyto(target, source if isinstance(source, np.ndarray) else source[whole(source.shape)])
