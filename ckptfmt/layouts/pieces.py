"""Sources to the stored bytes of their chunks (SPEC.md sections 3 and 5).

A contiguous little-endian array gives its own memory, which others may change; any other source is read and converted
part by part, so that saving never needs a second copy of a large tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from ..format.arrays import ArraySpec
from ..format.chunks import PIECE
from ..format.codecs import Codec
from ..format.dtypes import Array, DType, pack
from ..frameworks.sources import InFile, Region, Sharded, Source, Streamed, within

PART = 512 << 10  # bytes of memory that are converted at a time: they stay in the processor's nearest cache


def is_direct(part: Array, spec: ArraySpec) -> bool:
    """Whether the stored bytes of a chunk are the very memory of its elements."""
    return spec.is_raw and _is_canonical(part, spec)


def _is_canonical(part: Array, spec: ArraySpec) -> bool:
    """Whether the storage elements of a chunk are the very memory of its elements."""
    canonical = spec.dtype.bits % 8 == 0 and spec.dtype.name != "bool"  # else memory may hold what storage may not
    whole = spec.dtype.per == 1 and part.shape == spec.grid
    return whole and canonical and part.flags.c_contiguous and part.dtype.isnative


def stored_parts(
    source: Source, spec: ArraySpec, chunk: int, seen: Callable[[Array], object] | None = None
) -> Iterator[Array]:
    """The stored bytes (uint8) of chunk number `chunk`, in parts that are each valid until the next is taken. Where
    they are more than the elements of the tensor, or compressed, `seen` is called with the bytes of these."""
    if isinstance(source, InFile):
        if spec.chunks == 1 and is_direct(source.array, spec):
            yield from source.pieces()
            return
        source = source.array
    if spec.chunks == 1 and isinstance(source, np.ndarray) and is_direct(source, spec):  # as almost always
        yield source.reshape(-1).view(np.uint8)
        return
    if not spec.is_raw:
        yield encoding(source, spec, chunk, seen)()
        return
    if isinstance(source, Streamed) and spec.chunks == 1 and spec.is_raw:
        yield from source.pieces()
        return
    region = spec.chunk_region(chunk)
    part = _view(source, region)
    if part is not None and is_direct(part, spec):
        yield part.reshape(-1).view(np.uint8)
        return
    shape = tuple(axis.stop - axis.start for axis in region)
    stored_shape = spec.dtype.storage_shape(shape)
    if stored_shape == spec.grid:
        for slab in _slabs(region, source.dtype.itemsize, PIECE if part is None else PART):
            yield _stored(_elements(source, slab), spec.dtype)
        return
    yield _filled(source, spec, region, seen).reshape(-1).view(np.uint8)


def encoding(
    source: Source, spec: ArraySpec, chunk: int, seen: Callable[[Array], object] | None = None
) -> Callable[[], Array]:
    """Take the elements of a compressed chunk; what is given may be called on any thread, and gives its stored
    bytes (uint8). `seen` is as in `stored_parts`."""
    source = source.array if isinstance(source, InFile) else source
    region = spec.chunk_region(chunk)
    part = _view(source, region)
    if seen is not None or part is None or not _is_canonical(part, spec) or not spec.codec.reads_once:
        part = _filled(source, spec, region, seen)  # a copy, which does not change while it is encoded [BLK-008]
    return partial(_encoded, spec.codec, part)


def _encoded(codec: Codec, cells: Array) -> Array:
    return np.frombuffer(codec.encode(cells), np.uint8)


def _filled(source: Source, spec: ArraySpec, region: Region, seen: Callable[[Array], object] | None) -> Array:
    """The storage elements of a chunk, as a copy."""
    stored_shape = spec.dtype.storage_shape(tuple(axis.stop - axis.start for axis in region))
    whole = np.zeros(spec.grid, spec.dtype.stored)  # [ZARR-004]; the grid bounds its size
    stored = _stored(_elements(source, region), spec.dtype)
    cells: Any = (*(slice(0, n) for n in stored_shape), ...)  # with the Ellipsis a view also of a 0-d array
    inside = whole[cells]
    inside[...] = stored.view(spec.dtype.stored).reshape(stored_shape)
    if seen is not None:
        seen(np.ascontiguousarray(inside).reshape(-1).view(np.uint8))
    return whole


def stored_bytes(source: Source, spec: ArraySpec, chunk: int, seen: Callable[[Array], object] | None = None) -> bytes:
    """The same as a copy, of which others have no part."""
    if type(source) is np.ndarray and spec.chunks == 1 and is_direct(source, spec):
        return source.tobytes()
    return joined(stored_parts(source, spec, chunk, seen))


def joined(parts: Iterable[Array]) -> bytes:
    """Parts as one copy."""
    return b"".join([part.tobytes() for part in parts])


def _view(source: Source, region: Region) -> Array | None:
    """A region of a source that is in host memory, without a copy; None for any other."""
    if isinstance(source, np.ndarray):
        index: Any = (*region, ...)  # with the Ellipsis a view also of a 0-d array
        view: Array = source[index]
        return view
    for shard in source.shards if isinstance(source, Sharded) else ():
        inside = within(region, shard)
        if inside is not None:
            return _view(shard.source, inside)
    return None


def _elements(source: Source, region: Region) -> Array:
    view = _view(source, region)
    return source[region] if view is None else view


def _stored(part: Array, dtype: DType) -> Array:
    """The elements of `part` in C order as stored bytes (uint8, one axis)."""
    if dtype.per > 1:
        return pack(part, dtype).reshape(-1)
    native = np.ascontiguousarray(part, part.dtype.newbyteorder("=")).reshape(-1)
    if dtype.name == "bool":
        truths: Array = native.view(np.uint8) != 0  # [DTYPE-005]
        return truths.view(np.uint8)
    if dtype.bits < 8:
        masked: Array = native.view(np.uint8) & np.uint8((1 << dtype.bits) - 1)  # [DTYPE-004]
        return masked
    return native.view(dtype.stored.newbyteorder("=")).astype(dtype.stored, copy=False).view(np.uint8)


def _slabs(region: Region, itemsize: int, most: int, axis: int = 0) -> Iterator[Region]:
    """`region` cut along its first axes, in C order, into parts of at most `most` bytes each."""
    row = itemsize * math.prod(side.stop - side.start for side in region[axis + 1 :])
    if axis == len(region) or row * (region[axis].stop - region[axis].start) <= most:
        yield region
        return
    first, stop = region[axis].start, region[axis].stop
    rows = max(1, most // row)
    for start in range(first, stop, rows):
        part = (*region[:axis], slice(start, min(start + rows, stop)), *region[axis + 1 :])
        yield from _slabs(part, itemsize, most, axis + 1) if row > most else (part,)
