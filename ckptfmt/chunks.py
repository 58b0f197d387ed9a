"""Arrays to the stored bytes of their chunks, and back (SPEC.md sections 3 and 5). Pure; no I/O.

Bytes leave in **pieces** of `PIECE` bytes (the last of a chunk may be shorter). A contiguous little-endian array
gives views of itself; any other is converted piece by piece, so that saving never needs a second copy of a large
tensor.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .arrays import ArraySpec
from .dtypes import Array, DType, pack, unpack

PIECE = 8 << 20  # bytes; a multiple of the block size


def is_direct(array: Array, spec: ArraySpec) -> bool:
    """Whether the stored bytes of the one chunk are the array's own memory."""
    canonical = spec.dtype.bits % 8 == 0 and spec.dtype.name != "bool"  # else memory may hold what storage may not
    return spec.is_contiguous and canonical and array.flags.c_contiguous and array.dtype.isnative


def stored_pieces(array: Array, spec: ArraySpec, chunk: int) -> Iterator[Array]:
    """The stored bytes (uint8) of chunk number `chunk`, in pieces that stay valid and unchanged after the next is
    taken."""
    if is_direct(array, spec):
        flat = array.reshape(-1).view(np.uint8)
        for start in range(0, flat.size, PIECE):
            yield flat[start : start + PIECE]
        return
    part = array[spec.chunk_region(chunk)]
    if spec.is_raw and spec.dtype.storage_shape(part.shape) == spec.grid:
        yield from _joined(_stored(slab, spec.dtype) for slab in _slabs(part))
        return
    whole = np.zeros(spec.grid, spec.dtype.stored)  # [ZARR-004]; the grid bounds its size
    stored_shape = spec.dtype.storage_shape(part.shape)
    whole[tuple(slice(0, n) for n in stored_shape)] = (
        _stored(part, spec.dtype).view(spec.dtype.stored).reshape(stored_shape)
    )
    flat = whole.reshape(-1).view(np.uint8) if spec.is_raw else np.frombuffer(spec.codec.encode(whole), np.uint8)
    for start in range(0, flat.size, PIECE):
        yield flat[start : start + PIECE]


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


def _slabs(array: Array) -> Iterator[Array]:
    """Parts of `array`, in C order, of at most a piece each."""
    size = array.size * array.dtype.itemsize
    if size <= PIECE:
        yield array
        return
    if array.ndim > 1 and size // array.shape[0] > PIECE:
        for row in array:
            yield from _slabs(row)
        return
    rows = PIECE // (size // array.shape[0])
    for start in range(0, array.shape[0], rows):
        yield array[start : start + rows]


def _joined(parts: Iterator[Array]) -> Iterator[Array]:
    """The same bytes in pieces of PIECE."""
    piece, filled = np.empty(PIECE, np.uint8), 0
    for part in parts:
        taken = 0
        while taken < part.size:
            count = min(part.size - taken, PIECE - filled)
            piece[filled : filled + count] = part[taken : taken + count]
            taken, filled = taken + count, filled + count
            if filled == PIECE:
                yield piece
                piece, filled = np.empty(PIECE, np.uint8), 0
    if filled:
        yield piece[:filled]


def decoded_chunk(stored: memoryview, spec: ArraySpec) -> Array:
    """One whole chunk as storage elements in the shape of the grid; ValueError if it does not decode."""
    if spec.is_raw:
        return np.frombuffer(stored, spec.dtype.stored).reshape(spec.grid)
    return spec.codec.decode(stored, spec.chunk_nbytes).view(spec.dtype.stored).reshape(spec.grid)


def decoded_array(stored: memoryview, spec: ArraySpec, chunk: int) -> Array:
    """The elements of a chunk that lie in the tensor, as its logical dtype; ValueError if it does not decode."""
    region = spec.chunk_region(chunk)
    shape = tuple(axis.stop - axis.start for axis in region)
    cells = decoded_chunk(stored, spec)[tuple(slice(0, n) for n in spec.dtype.storage_shape(shape))]
    return logical(cells, spec, shape[-1] if shape else None)


def logical(storage: Array, spec: ArraySpec, last: int | None) -> Array:
    """Storage elements as an array of the logical dtype in native byte order; `last` is the element count of the last
    axis, if any.

    Raises ValueError for a bool byte other than 0 and 1. [DTYPE-005]
    """
    if spec.dtype.per > 1:
        return unpack(storage, spec.dtype, last)
    check_bools(storage, spec)
    native = storage.astype(spec.dtype.stored.newbyteorder("="), copy=False)
    return native if spec.dtype.is_core else native.view(spec.dtype.numpy)


def check_bools(storage: Array, spec: ArraySpec) -> None:
    """ValueError for a bool byte other than 0 and 1. [DTYPE-005]"""
    if spec.dtype.name == "bool" and storage.size and storage.view(np.uint8).max() > 1:
        raise ValueError("a bool byte is neither 0 nor 1")
