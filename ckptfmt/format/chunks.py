"""The stored bytes of chunks back to arrays (SPEC.md sections 3 and 5)."""

from __future__ import annotations

import numpy as np

from .arrays import ArraySpec
from .dtypes import Array, settled, unpack

PIECE = 8 << 20  # bytes that are read or written at a time; a multiple of the block size


def decoded_chunk(stored: memoryview, spec: ArraySpec) -> Array:
    """One whole chunk as storage elements in the shape of the grid; ValueError if it does not decode."""
    if spec.is_raw:
        return np.frombuffer(stored, spec.dtype.stored).reshape(spec.grid)
    return spec.codec.decode(stored, spec.chunk_nbytes).view(spec.dtype.stored).reshape(spec.grid)


def decode_into(stored: memoryview, spec: ArraySpec, out: Array) -> None:
    """Decode a compressed chunk into a contiguous array of its stored dtype and shape; ValueError if it does not
    decode."""
    spec.codec.decode(stored, spec.chunk_nbytes, out.reshape(-1).view(np.uint8))


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
    storage = settled(storage, spec.dtype)
    native = storage.astype(spec.dtype.stored.newbyteorder("="), copy=False)
    return native if spec.dtype.is_core else native.view(spec.dtype.numpy)
