"""Sources: tensors as a save takes them. A NumPy array is one; so is anything that knows its shape and dtype and gives
parts of itself as arrays, such as a tensor on a device, a slice of another file, or the shards that a process holds."""

from __future__ import annotations

import ctypes
import weakref
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..errors import fault
from ..format.arrays import ArraySpec
from ..format.dtypes import Array, bytes_of
from ..format.grid import Shape
from ..format.tree import Lazy as Lazy
from ..tuples import NamedTuple

if TYPE_CHECKING:
    from ..storage import Storage

FILE_PIECE = 4 << 20  # bytes; a multiple of the block size, of which several stay in the processor's cache
Region = tuple[slice, ...]  # one slice an axis, with start and stop in range; without a step, or with one of 1 or more


class Source(Protocol):
    """Elements to be saved. `dtype` is a NumPy or ml_dtypes dtype; indexing gives an array of just that region, which
    stays unchanged until the save is over."""

    @property
    def shape(self) -> Shape: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, region: Region, /) -> Array: ...


class StoredChunk(NamedTuple):
    """The stored bytes of a chunk in another checkpoint: where they are, the digests of their blocks, and the crc32
    that a pack needs (else 0)."""

    storage: Storage
    object: str
    offset: int
    length: int
    digests: bytes
    crc32: int


class StoredTensor(Source, Protocol):
    """A tensor of another checkpoint."""

    @property
    def spec(self) -> ArraySpec: ...

    def view(self, dtype: np.dtype[Any]) -> StoredTensor: ...


class KeptTensor(Lazy):
    """A tensor of another checkpoint that is saved as it is stored there: its chunks are shared, or copied by the
    system, and never read; their digests come along, so damage stays damage. [MIG-020]

    That checkpoint has the digest and block size of the save, and is a file or packed one exactly if the save is. Two
    leaves with an equal `identity` are aliases."""

    __slots__ = ("chunk", "identity", "tensor")

    def __init__(self, tensor: StoredTensor, chunk: Callable[[int], StoredChunk], identity: Hashable) -> None:
        self.tensor, self.chunk, self.identity = tensor, chunk, identity

    @property
    def spec(self) -> ArraySpec:
        return self.tensor.spec

    @property
    def shape(self) -> Shape:
        return self.tensor.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.tensor.dtype

    def view(self, dtype: np.dtype[Any]) -> KeptTensor:
        """The same stored elements as another dtype of the same width."""
        return KeptTensor(self.tensor.view(dtype), self.chunk, self.identity)

    def __getitem__(self, region: Region, /) -> Array:
        part: Array = self.tensor[region]
        return part


class Shard(NamedTuple):
    """A part of a tensor: the index of its first element along each axis, and its elements."""

    start: Shape
    source: Source

    @property
    def region(self) -> Region:
        """Where it lies in the whole."""
        return tuple(slice(low, low + n) for low, n in zip(self.start, self.source.shape, strict=True))


class Buffers:
    """Memory that is used again as soon as nobody looks at it any more. May be used from several threads."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._free: deque[bytearray] = deque()

    def take(self, size: int) -> Array:
        """An array of `size` bytes, at most as many as a buffer has."""
        try:
            buffer = self._free.pop()
        except IndexError:
            buffer = bytearray(self._size)
        array = np.frombuffer(memoryview(buffer)[:size], np.uint8)  # views of it keep it alive
        weakref.finalize(array, self._free.append, buffer)
        return array


class OpenableFile(Protocol):
    """A file that is read at any place."""

    def read_into(self, offset: int, out: memoryview) -> None:
        """Fill `out` with the bytes from `offset` on."""


class InFile(Lazy):
    """An array that is a mapped part of a file, from `offset` on: reading the file is faster than looking at the
    mapping for the first time."""

    __slots__ = ("array", "buffers", "file", "offset")

    def __init__(self, array: Array, file: OpenableFile, offset: int, buffers: Buffers) -> None:
        self.array, self.file, self.offset, self.buffers = array, file, offset, buffers

    @property
    def shape(self) -> Shape:
        shape: Shape = self.array.shape
        return shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def identity(self) -> Hashable:
        return memory_key(self.array)

    def view(self, dtype: np.dtype[Any]) -> InFile:
        """The same elements as another dtype of the same width."""
        return InFile(self.array.view(dtype), self.file, self.offset, self.buffers)

    def pieces(self) -> Iterator[Array]:
        """Its bytes, read in pieces of `FILE_PIECE`."""
        for start in range(0, self.array.nbytes, FILE_PIECE):
            piece = self.buffers.take(min(FILE_PIECE, self.array.nbytes - start))
            self.file.read_into(self.offset + start, bytes_of(piece))
            yield piece

    def __getitem__(self, region: Region, /) -> Array:
        part: Array = self.array[region]
        return part


class Streamed(Lazy):
    """A tensor of another checkpoint whose stored bytes, little-endian in C order, come in `pieces`, which are made
    while others are written."""

    __slots__ = ("pieces", "tensor")

    def __init__(self, tensor: StoredTensor, pieces: Callable[[], Iterator[Array]]) -> None:
        self.tensor, self.pieces = tensor, pieces

    @property
    def shape(self) -> Shape:
        return self.tensor.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.tensor.dtype

    def __getitem__(self, region: Region, /) -> Array:
        part: Array = self.tensor[region]
        return part


class Sharded(Lazy):
    """A tensor of which this process holds some parts, or none. `shape` is that of the whole. Two leaves with an equal
    `identity` are aliases."""

    __slots__ = ("dtype", "identity", "shape", "shards")

    def __init__(
        self, shape: Shape, dtype: np.dtype[Any], shards: tuple[Shard, ...], identity: Hashable = None
    ) -> None:
        """Keep one of equal shards; raises `unsupported-leaf` for one that does not fit, `shards-overlap`."""
        self.shape, self.dtype, self.identity = shape, dtype, identity
        distinct: dict[tuple[Shape, Shape], Shard] = {}
        for shard in shards:
            shape = tuple(shard.source.shape)
            fits = len(shard.start) == len(shape) == len(self.shape) and shard.source.dtype == self.dtype
            inside = fits and all(0 <= low <= m - n for low, n, m in zip(shard.start, shape, self.shape, strict=True))
            if not inside:
                raise fault(
                    "unsupported-leaf",
                    "a shard does not fit its tensor",
                    found=f"{shard.source.dtype} {shape} at {tuple(shard.start)}",
                    expected=f"a part of {self.dtype} {tuple(self.shape)}",
                )
            distinct.setdefault((tuple(shard.start), shape), shard)
        self.shards = tuple(distinct.values())
        for one, other in combinations(self.shards, 2):
            if overlap(one.region, other.region) is not None:
                raise fault("shards-overlap", f"two shards of one process overlap: {one.region} and {other.region}")

    def __getitem__(self, region: Region, /) -> Array:
        """A region that the shards cover; without a copy if it lies in one of them. Raises `shards-missing`."""
        for shard in self.shards:
            inside = within(region, shard)
            if inside is not None:
                return shard.source[inside]
        out = np.empty(tuple(axis.stop - axis.start for axis in region), self.dtype)
        missing = out.size
        for shard in self.shards:
            common = overlap(region, shard.region)
            if common is not None:
                taken = shard.source[shifted(common, shard.start)]
                out[shifted(common, [axis.start for axis in region])] = taken
                missing -= taken.size
        if missing > 0:
            raise fault("shards-missing", f"this process holds no shard with {missing} of the elements in {region}")
        return out


def within(region: Region, shard: Shard) -> Region | None:
    """`region` of the whole as a region of a shard that holds all of it, or None."""
    if all(s.start <= r.start and r.stop <= s.stop for r, s in zip(region, shard.region, strict=True)):
        return shifted(region, shard.start)
    return None


def overlap(one: Region, other: Region) -> Region | None:
    """What two regions have in common, or None."""
    common = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return common if all(axis.start < axis.stop for axis in common) else None


def shifted(region: Region, origin: Any) -> Region:
    """A region as seen from `origin`."""
    return tuple(slice(r.start - low, r.stop - low) for r, low in zip(region, origin, strict=True))


def whole(shape: Shape) -> Region:
    """The region that is everything."""
    return tuple(slice(0, n) for n in shape)


def memory_key(source: Any) -> Hashable:
    """Equal for sources that are one tensor: the same memory seen in the same way. Empty arrays have no memory to
    share. [TREE-011]"""
    if isinstance(source, np.ndarray):
        if not source.nbytes:
            return id(source)
        return address_of(source), source.dtype, source.shape, source.strides
    identity = getattr(source, "identity", None)
    return id(source) if identity is None else (type(source), identity)


def are_arrays(sources: Iterable[Source]) -> bool:
    """Whether all sources are arrays, of which there may be very many."""
    return all(issubclass(kind, np.ndarray) for kind in set(map(type, sources)))


def address_of(array: Array) -> int:
    """Where the first element of an array is; of one that can be written to, in a third of the time that NumPy takes
    to tell."""
    flags = array.flags
    if flags.c_contiguous and flags.writeable and array.ndim and array.nbytes:
        memory: Any = array.view(np.uint8)
        return ctypes.addressof(ctypes.c_char.from_buffer(memory))
    address: int = array.__array_interface__["data"][0]
    return address


def memory_bounds(array: Array, memory: Any) -> tuple[int, int]:
    """First and last address (excluded) of an array's memory, for its `memory_key`."""
    if array.flags.c_contiguous:
        nbytes = array.nbytes
        start = memory[0] if nbytes else 0
        return start, start + nbytes
    low, high = np.lib.array_utils.byte_bounds(array)
    return low, high if array.nbytes else low


def meeting(bounds: Sequence[tuple[int, int]]) -> list[list[int]]:
    """Groups of two and more spans of memory, by their numbers, of which each overlaps another."""
    table = np.array(bounds, np.uint64).reshape(-1, 2)
    table = table[np.argsort(table[:, 0])]
    if (np.maximum.accumulate(table[:-1, 1]) <= table[1:, 0]).all():  # the way of most trees
        return []
    groups: list[list[int]] = []
    end = 0
    for low, high, number in sorted((low, high, number) for number, (low, high) in enumerate(bounds) if low < high):
        if low >= end:
            groups.append([])
        groups[-1].append(number)
        end = max(end, high)
    return [group for group in groups if len(group) > 1]
