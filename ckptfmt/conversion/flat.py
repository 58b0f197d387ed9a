"""Tensors that lie as bytes in C order: as arrays, or decoded, any part of them for about its own cost."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

import numpy as np

from ..format.dtypes import Array, DType, unpack
from .claims import shown
from .protobuf import VARINTS, Numbers
from .source import LazyArray, LeadingSlices, SourceTensor, array_over

ElementsOf = Callable[[int, int], Array]  # from one element to another, in C order


def in_order(
    shape: tuple[int, ...], dtype: np.dtype[Any], elements: ElementsOf, octets: Array | None = None
) -> LazyArray:
    """A tensor of the elements that `elements` gives, from `octets` in which several lie in a byte."""

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

    return LazyArray(shape, dtype, read, octets=octets)


def stored(name: str, octets: Array, row: DType, shape: tuple[int, ...]) -> SourceTensor:
    """A tensor of raw bytes, little-endian, of which small elements lie several in a byte; raises ValueError."""
    due = -(-prod(shape) * row.bits // 8)
    if octets.size != due:
        raise ValueError(f"{shown(name)} has {octets.size:,} bytes, where {due:,} are due for {row.name} {list(shape)}")
    if row.bits >= 8:
        return array_over(octets, 0, row.numpy.newbyteorder("<"), shape)
    part: ElementsOf = lambda first, last: octets[first:last]  # noqa: E731
    if row.per > 1:
        return in_order(shape, row.numpy, several_in_a_byte(part, row), octets)
    few = codes(part, row.bits)
    return in_order(shape, row.numpy, lambda first, last: few(first, last).view(row.numpy), octets)


def of_numbers(name: str, numbers: Numbers | None, row: DType, shape: tuple[int, ...]) -> SourceTensor:
    """A tensor of numbers in a field for their type: two for a complex element, one for several that make a byte."""
    due = 2 * prod(shape) if row.part else -(-prod(shape) // row.per)
    if (count := 0 if numbers is None else len(numbers)) != due:
        raise ValueError(f"{shown(name)} has {count:,} numbers, where {due:,} are due for {row.name} {list(shape)}")
    if numbers is None:
        return np.empty(shape, row.numpy)
    if numbers.kind != VARINTS and numbers.dtype != np.dtype(row.part or row.name).newbyteorder("<"):
        raise ValueError(f"{shown(name)} has {numbers.kind} where {row.name} is due")
    if numbers.kind != VARINTS and len(numbers.pieces) == 1:
        return array_over(numbers.pieces[0].view(np.uint8), 0, row.numpy.newbyteorder("<"), shape)
    elements = partial(_elements, numbers, row)
    return in_order(shape, row.numpy, several_in_a_byte(elements, row) if row.per > 1 else elements)


def _elements(numbers: Numbers, row: DType, first: int, last: int) -> Array:
    """Elements of some numbers, or bytes in which several of them lie."""
    if row.part:
        return numbers.part(2 * first, 2 * last, numbers.dtype).view(row.numpy)
    if numbers.kind != VARINTS:
        return numbers.part(first, last, numbers.dtype)
    if row.name == "bool":
        return numbers.part(first, last, row.numpy)
    bits = numbers.part(first, last, np.dtype(f"u{row.numpy.itemsize}"))  # of floats, too
    return bits if row.per > 1 else bits.view(row.numpy)


def several_in_a_byte(octets: ElementsOf, row: DType) -> ElementsOf:
    """The elements of a dtype of which several lie in a byte, the first in the lowest bits. [DTYPE-004]"""

    def elements(first: int, last: int) -> Array:
        low = first // row.per
        return unpack(octets(low, -(-last // row.per)), row, last - low * row.per)[first - low * row.per :]

    return elements


def codes(octets: ElementsOf, bits: int) -> ElementsOf:
    """Numbers of a few bits, from the lowest bit of the first byte on, some of them in two bytes; each as a byte."""

    def elements(first: int, last: int) -> Array:
        low = first - first % 8  # a whole byte begins there
        found = np.unpackbits(octets(low * bits // 8, -(-last * bits // 8)), bitorder="little")
        cells = found[: (last - low) * bits].reshape(-1, bits)
        return np.packbits(cells, axis=-1, bitorder="little").reshape(-1)[first - low :]

    return elements
