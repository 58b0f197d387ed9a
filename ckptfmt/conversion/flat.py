"""Tensors that lie as bytes in C order: as arrays, or decoded, any part of them for about its own cost."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from ..format.dtypes import Array, DType, unpack
from .claims import shown
from .source import LazyArray, LeadingSlices, SourceTensor, array_over

ElementsOf = Callable[[int, int], Array]  # from one element to another, in C order


def in_order(shape: tuple[int, ...], dtype: np.dtype[Any], elements: ElementsOf) -> LazyArray:
    """A tensor of the elements that `elements` gives."""

    def read(index: LeadingSlices) -> Array:
        if not shape:
            return elements(0, 1).reshape(())
        spans = [axis.indices(side)[:2] for axis, side in zip(index, shape, strict=False)]
        spans += [(0, side) for side in shape[len(spans) :]]
        # along the axes before this one there is one place, so that rows of it lie one after another
        axis = next((i for i, (low, high) in enumerate(spans) if high - low != 1), len(shape) - 1)
        start = sum(low * prod(shape[i + 1 :]) for i, (low, _) in enumerate(spans[:axis]))
        (low, high), row = spans[axis], prod(shape[axis + 1 :])
        part = elements(start + low * row, start + high * row)
        rows = part.reshape(*(1 for _ in spans[:axis]), high - low, *shape[axis + 1 :])
        index = (..., *(slice(*span) for span in spans[axis + 1 :]))
        return rows[index]

    return LazyArray(shape, dtype, read)


def stored(name: str, octets: Array, row: DType, shape: tuple[int, ...]) -> SourceTensor:
    """A tensor of raw bytes, little-endian, of which small elements lie several in a byte; raises ValueError."""
    due = -(-prod(shape) * row.bits // 8)
    if octets.size != due:
        raise ValueError(f"{shown(name)} has {octets.size:,} bytes, where {due:,} are due for {row.name} {list(shape)}")
    if row.bits >= 8:
        return array_over(octets, 0, row.numpy.newbyteorder("<"), shape)
    elements = sixes if row.bits == 6 else several_in_a_byte
    return in_order(shape, row.numpy, elements(lambda first, last: octets[first:last], row))


def several_in_a_byte(octets: ElementsOf, row: DType) -> ElementsOf:
    """The elements of a dtype of which several lie in a byte, the first in the lowest bits. [DTYPE-004]"""

    def elements(first: int, last: int) -> Array:
        low = first // row.per
        return unpack(octets(low, -(-last // row.per)), row, last - low * row.per)[first - low * row.per :]

    return elements


def sixes(octets: ElementsOf, row: DType) -> ElementsOf:
    """The elements of a dtype of six bits, of which four lie in three bytes, the first in the lowest bits."""

    def elements(first: int, last: int) -> Array:
        low, high = first // 4, -(-last // 4)
        found = np.zeros(3 * (high - low), np.uint8)
        part = octets(3 * low, -(-last * 3 // 4))
        found[: part.size] = part
        words = found.reshape(-1, 3).astype(np.uint32) @ np.array([1, 1 << 8, 1 << 16], np.uint32)
        codes = (words[:, None] >> np.array([0, 6, 12, 18], np.uint32) & np.uint32(63)).astype(np.uint8)
        return codes.reshape(-1)[first - 4 * low : last - 4 * low].view(row.numpy)

    return elements
