"""Elements of which several lie in a byte, the first in the lowest bits [DTYPE-004], along a last axis that fills whole
bytes: float4 of safetensors and torch."""

from __future__ import annotations

import numpy as np

from ..format.dtypes import Array, DType, pack, unpack
from .source import LazyArray, LeadingSlices, SourceTensor


def unpacked(octets: Array, row: DType) -> LazyArray:
    """The elements in bytes: an array (uint8) of shape (…, n) as a tensor of shape (…, n * row.per)."""
    shape = (*octets.shape[:-1], octets.shape[-1] * row.per)

    def read(index: LeadingSlices) -> Array:
        if len(index) < len(shape):
            part = octets[index]
            return unpack(part, row, part.shape[-1] * row.per)
        first, last, _ = index[-1].indices(shape[-1])
        low = first // row.per
        part = octets[(*index[:-1], slice(low, -(-last // row.per)))]
        return unpack(part, row, last - low * row.per)[..., first - low * row.per :]

    return LazyArray(shape, row.numpy, read)


def packed(tensor: SourceTensor, row: DType) -> LazyArray:
    """The inverse of `unpacked`."""
    shape = (*tensor.shape[:-1], tensor.shape[-1] // row.per)

    def read(index: LeadingSlices) -> Array:
        if len(index) == len(shape):
            first, last, _ = index[-1].indices(shape[-1])
            index = (*index[:-1], slice(first * row.per, last * row.per))
        return pack(tensor[index], row)

    rows = tensor.rows if isinstance(tensor, LazyArray) else None
    return LazyArray(shape, np.dtype(np.uint8), read, rows)
