"""Slices to chunks to byte ranges (SPEC.md section 12): the arithmetic of partial reads. Pure; no bytes move here.

An index is first normalised to a `Selection`: for each axis a start, a count and a positive step, plus what has to be
done to the result (reversed axes, dropped axes). A selection is then cut along the chunk grid, and each piece into
spans: byte ranges of a chunk small enough to read whole, each with the strided view that picks its elements out.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator
from typing import Any

from ..calls import integer_of
from ..errors import fault
from ..tuples import NamedTuple

Shape = tuple[int, ...]


class Axis(NamedTuple):
    """The elements start, start + step, … (`length` of them) of one axis; step ≥ 1."""

    start: int
    length: int
    step: int

    @property
    def last(self) -> int:
        return self.start + (self.length - 1) * self.step


class Selection(NamedTuple):
    """A normalised basic index. `axes` in ascending order; `finish` turns the array of shape `shape` into NumPy's
    result."""

    axes: tuple[Axis, ...]
    finish: tuple[Any, ...]

    @property
    def shape(self) -> Shape:
        return tuple(axis.length for axis in self.axes)


def select(index: Any, shape: Shape) -> Selection:
    """Normalise a basic index (ints, slices, Ellipsis) against `shape`; raises `bad-index`."""
    items = list(index) if isinstance(index, tuple) else [index]
    for item in items:
        if item is None:
            raise fault("bad-index", "newaxis is no part of a stored tensor; add the axis to the result")
        if not (item is Ellipsis or isinstance(item, slice) or integer_of(item) is not None):
            raise fault("bad-index", f"cannot index a stored tensor with {type(item).__name__} {str(item)[:60]}")
    dots = [i for i, item in enumerate(items) if item is Ellipsis]
    if len(dots) > 1:
        raise fault("bad-index", "an index can have only one Ellipsis")
    missing = len(shape) - (len(items) - len(dots))
    if missing < 0:
        raise fault(
            "bad-index", f"too many indices for shape {shape}", found=len(items) - len(dots), expected=len(shape)
        )
    at = dots[0] if dots else len(items)
    items[at : at + len(dots)] = [slice(None)] * missing
    axes: list[Axis] = []
    finish: list[Any] = []
    for number, (item, length) in enumerate(zip(items, shape, strict=True)):
        if isinstance(item, slice):
            try:
                start, stop, step = item.indices(length)
            except (TypeError, ValueError) as error:
                raise fault("bad-index", f"{error} on axis {number}") from error
            count = len(range(start, stop, step))
            first = start if step > 0 else start + (count - 1) * step
            axes.append(Axis(first, count, abs(step)) if count else Axis(0, 0, 1))
            finish.append(slice(None, None, -1 if step < 0 else None))
        else:
            position = operator.index(item)
            if not -length <= position < length:
                raise fault("bad-index", f"index {position} is out of range on axis {number} of shape {shape}")
            axes.append(Axis(position % length, 1, 1))
            finish.append(0)
    return Selection(tuple(axes), (*finish, Ellipsis))


class Piece(NamedTuple):
    """The part of a selection that lies in one chunk: `axes` within the chunk, `out` where it goes in the result."""

    chunk: int
    axes: tuple[Axis, ...]
    out: tuple[slice, ...]


def pieces(axes: tuple[Axis, ...], grid: Shape, counts: Shape) -> Iterator[Piece]:
    """Cut a selection along the chunk grid (`grid` sides, `counts` chunks an axis). [READ-003]"""
    cuts = [list(_cut(axis, side)) for axis, side in zip(axes, grid, strict=True)]
    for cell in itertools.product(*cuts):
        chunk = 0
        for (position, _, _), count in zip(cell, counts, strict=True):
            chunk = chunk * count + position
        yield Piece(chunk, tuple(axis for _, axis, _ in cell), tuple(out for _, _, out in cell))


def _cut(axis: Axis, side: int) -> Iterator[tuple[int, Axis, slice]]:
    done = 0
    while done < axis.length:
        position, start = divmod(axis.start + done * axis.step, side)
        count = min(axis.length - done, -(-(side - start) // axis.step))
        yield position, Axis(start, count, axis.step), slice(done, done + count)
        done += count


class Span(NamedTuple):
    """Bytes [low, high) of a decoded chunk, the byte strides of the wanted elements in it (the first at `low`), and
    where they go."""

    low: int
    high: int
    shape: Shape
    strides: Shape
    out: tuple[slice, ...]

    def is_dense(self, itemsize: int) -> bool:
        """Whether the span holds exactly the wanted elements, in C order."""
        return self.high - self.low == math.prod(self.shape) * itemsize


def spans(axes: tuple[Axis, ...], grid: Shape, itemsize: int, limit: int, gap: int) -> Iterator[Span]:
    """Byte spans of a chunk (C order, sides `grid`) that hold a selection.

    A span of wanted elements alone may have any length; others are at most `limit` bytes long and have no run of more
    than `gap` unwanted bytes, where the selection can be cut.
    """
    strides = tuple(itemsize * math.prod(grid[i + 1 :]) for i in range(len(grid)))
    yield from _spans(axes, strides, itemsize, limit, gap, (slice(None),) * len(axes))


def _spans(
    axes: tuple[Axis, ...], strides: Shape, itemsize: int, limit: int, gap: int, out: tuple[slice, ...]
) -> Iterator[Span]:
    low = sum(axis.start * stride for axis, stride in zip(axes, strides, strict=True))
    extent = itemsize  # bytes from the first to the last wanted byte, over the axes seen so far
    split = None  # the outermost axis along which there is a gap that is too long
    for number in reversed(range(len(axes))):
        axis, stride = axes[number], strides[number]
        if axis.length > 1 and axis.step * stride - extent >= gap:
            split = number
        extent += (axis.last - axis.start) * stride
    steps = tuple(axis.step * stride for axis, stride in zip(axes, strides, strict=True))
    span = Span(low, low + extent, tuple(axis.length for axis in axes), steps, out)
    if span.is_dense(itemsize) or (split is None and extent <= limit):
        yield span
        return
    number = next(i for i, axis in enumerate(axes) if axis.length > 1)
    axis = axes[number]
    group = 1 if split == number else max(1, min(axis.length - 1, limit // steps[number]))
    for done in range(0, axis.length, group):
        length = min(group, axis.length - done)
        part = (*axes[:number], Axis(axis.start + done * axis.step, length, axis.step), *axes[number + 1 :])
        place = (*out[:number], slice(done, done + length), *out[number + 1 :])
        yield from _spans(part, strides, itemsize, limit, gap, place)
