"""Memory that two processes see: a file without a name, of which nothing is left however they end."""

from __future__ import annotations

import errno
import math
import mmap
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from ..errors import fault
from ..format.dtypes import Array, dtype_named, dtype_of
from ..frameworks.memory import ALIGNMENT
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
        self._address: int = np.frombuffer(self._bytes, np.uint8).__array_interface__["data"][0]

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

    def array(self, dtype: str, shape: Sequence[int], strides: Sequence[int], offset: int) -> Array:
        """An array that lies here, as `describe` has it; it keeps the mapping."""
        return np.ndarray(shape, dtype_named(dtype).numpy, self._bytes, offset, strides)

    def describe(self, array: Array) -> Description:
        dtype = dtype_of(array.dtype)
        assert dtype is not None  # encode refused others
        offset = array.__array_interface__["data"][0] - self._address if array.nbytes else 0
        return [dtype.name, list(array.shape), list(array.strides), offset]


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
        self.descriptions: list[Description] = []
        self._later: list[tuple[Array, Source]] = []

    @property
    def is_of_a_fork(self) -> bool:
        """Whether it is the memory of another process, which this one was forked from and must not write to."""
        return self._process != os.getpid()

    def take(self, sources: Sequence[Source]) -> list[Source]:
        """Copy these; those that never change `finish` copies. No former copy may be looked at any more; raises
        `no-memory`."""
        self._later, self.descriptions = [], []
        size = sum(_room(part) for source in sources for part in _parts(source))
        if self.memory is None or not size <= self.memory.size <= 2 * max(size, PAGE):
            self.memory = None  # first, so that there are never two
            self.memory = SharedMemory.of(size)
        self._end = 0
        copies = [self._copy(source) for source in sources]
        self.descriptions = [self._describe(copy) for copy in copies]
        return copies

    def finished(self) -> SharedMemory:
        """Where the copies are, once all are made: on the thread that saves, as training need not wait for what never
        changes."""
        later, self._later = self._later, []
        for target, source in later:
            _fill(target, source)
        assert self.memory is not None
        return self.memory

    def _copy(self, source: Source) -> Source:
        if isinstance(source, Sharded):
            shards = tuple(Shard(shard.start, self._copy(shard.source)) for shard in source.shards)
            return Sharded(source.shape, source.dtype, shards)
        target = self._place(source)
        if getattr(source, "immutable", False):
            self._later.append((target, source))
        else:
            _fill(target, source)
        return target

    def _place(self, source: Source) -> Array:
        """Where a tensor goes: its axes lie in memory as its own do, as that is copied fastest."""
        assert self.memory is not None
        dtype, shape = source.dtype.newbyteorder("="), tuple(source.shape)
        strides = source.strides if isinstance(source, np.ndarray) else ()
        axes = sorted(range(len(shape)), key=lambda axis: -abs(strides[axis])) if strides else list(range(len(shape)))
        start, self._end = self._end, self._end + _room(source)
        packed = np.ndarray([shape[axis] for axis in axes], dtype, self.memory._bytes, start)
        return packed.transpose(np.argsort(axes)) if axes else packed

    def _describe(self, copy: Source) -> Description:
        assert self.memory is not None
        if not isinstance(copy, Sharded):
            return self.memory.describe(np.asarray(copy))
        dtype = dtype_of(copy.dtype)
        assert dtype is not None
        shards = [[list(shard.start), self._describe(shard.source)] for shard in copy.shards]
        return [dtype.name, list(copy.shape), shards]


def seen_in(memory: SharedMemory, description: Description) -> Source:
    """The tensor that was described."""
    if len(description) == 4:
        return memory.array(*description)
    dtype, shape, shards = description
    parts = tuple(Shard(tuple(start), seen_in(memory, part)) for start, part in shards)
    return Sharded(tuple(shape), dtype_named(dtype).numpy, parts)


def _parts(source: Source) -> Iterator[Source]:
    yield from (shard.source for shard in source.shards) if isinstance(source, Sharded) else (source,)


def _room(source: Source) -> int:
    nbytes = math.prod(source.shape) * source.dtype.itemsize
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def _fill(target: Array, source: Source) -> None:
    np.copyto(target, source if isinstance(source, np.ndarray) else source[whole(source.shape)])
