"""How one tensor is stored as a Zarr array (SPEC.md section 5): dtype, shape, chunk grid, codec, and what follows from
them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cached_property

from ..tuples import NamedTuple
from .codecs import Codec
from .dtypes import DType
from .grid import Shape

COMPRESSED_CHUNK = 16 << 20  # bytes before compression [ZARR-009]
LOOSE_CHUNK = 64 << 20  # [ZARR-010]
WHOLE, SAME, XOR = 0, 1, 2  # forms of a tensor in a patch; all others are whole [PATCH-002]


class _ArrayFields(NamedTuple):
    dtype: DType
    shape: Shape
    grid: Shape
    codec: Codec
    form: int = WHOLE


class ArraySpec(_ArrayFields):
    """`shape` counts elements; `grid` is the chunk shape in storage elements, as in node documents. `form`: whether the
    elements are stored, or how they are made of those of a patch's base. Shared by tensors that are alike."""

    @cached_property
    def storage_shape(self) -> Shape:
        return self.dtype.storage_shape(self.shape)

    @property
    def stored(self) -> ArraySpec:
        """As it is read again."""
        codec = self.codec.stored
        return self if codec is self.codec else ArraySpec(self.dtype, self.shape, self.grid, codec)

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all storage elements, without padding at the edges."""
        return math.prod(self.storage_shape) * self.dtype.stored.itemsize

    @cached_property
    def chunk_nbytes(self) -> int:
        """Bytes of one decoded chunk."""
        return math.prod(self.grid) * self.dtype.stored.itemsize

    @cached_property
    def chunk_counts(self) -> Shape:
        """Number of chunks along each storage axis. [ZARR-003]"""
        return tuple(-(-n // side) for n, side in zip(self.storage_shape, self.grid, strict=True))

    @cached_property
    def chunks(self) -> int:
        """Those that are stored: of what is the same in a patch's base, none. [PATCH-003]"""
        return 0 if self.form == SAME else math.prod(self.chunk_counts)

    @cached_property
    def is_raw(self) -> bool:
        return self.codec.name == "raw"

    @cached_property
    def is_contiguous(self) -> bool:
        """Whether the stored bytes are the elements in C order, one after another, and nothing else."""
        return self.form == WHOLE and self.is_raw and self.chunks <= 1 and self.dtype.per == 1

    def chunk_index(self, chunk: int) -> Shape:
        """The position in the grid of chunk number `chunk` (C order)."""
        position = []
        for count in reversed(self.chunk_counts):
            chunk, index = divmod(chunk, count)
            position.append(index)
        return tuple(reversed(position))

    def chunk_region(self, chunk: int) -> tuple[slice, ...]:
        """The elements of the tensor that lie in chunk number `chunk`."""
        scale = [1] * (len(self.grid) - 1) + [self.dtype.per] if self.grid else []
        sides = [side * k for side, k in zip(self.grid, scale, strict=True)]
        corners = [i * side for i, side in zip(self.chunk_index(chunk), sides, strict=True)]
        return tuple(slice(low, min(low + side, n)) for low, side, n in zip(corners, sides, self.shape, strict=True))

    def chunk_key(self, chunk: int) -> str:
        """The Zarr key of chunk number `chunk` under the array. [ZARR-003]"""
        if chunk == 0:
            return "c" + "/0" * len(self.grid)
        return "/".join(["c", *map(str, self.chunk_index(chunk))])

    def chunk_keys(self) -> Iterator[str]:
        return map(self.chunk_key, range(self.chunks))


def kinds_of(specs: Sequence[ArraySpec]) -> tuple[list[ArraySpec], list[int]]:
    """The distinct specs in order of first use, and the number of each tensor's. Those that are alike are mostly one
    object, so few are compared."""
    numbers: dict[ArraySpec, int] = {}
    ids = list(map(id, specs))
    by_id = {key: numbers.setdefault(spec, len(numbers)) for key, spec in dict(zip(ids, specs, strict=True)).items()}
    return list(numbers), list(map(by_id.__getitem__, ids))


def raw_nbytes(specs: Sequence[ArraySpec]) -> int:
    """Bytes of all chunks that are stored as they are."""
    ids = list(map(id, specs))
    counts = Counter(ids)
    distinct = dict(zip(ids, specs, strict=True)).items()
    return sum(counts[key] * spec.chunks * spec.chunk_nbytes for key, spec in distinct if spec.is_raw)


def grid_for(storage_shape: Shape, itemsize: int, target: int | None) -> Shape:
    """A chunk shape for a tensor: one chunk, or chunks of at most `target` bytes split along the first axes. [ZARR-002]

    Sides are evened out, so that padding at the far edge is less than one row for each chunk. [ZARR-004]
    """
    grid = [max(1, n) for n in storage_shape]
    if target is None:
        return tuple(grid)
    for axis in range(len(grid)):
        row = itemsize * math.prod(grid[axis + 1 :])
        side = max(1, target // row)
        grid[axis] = -(-grid[axis] // -(-grid[axis] // side))
        if row <= target:
            break
    return tuple(grid)
