"""Rearrangements in the notation of einops: `(h two d) e -> (h d two) e` (docs/spec/migrations.md).

A side of the pattern names the axes; those in parentheses are one axis, of which the last varies fastest. So a
rearrangement splits axes, puts them into another order, and joins them. A region of the result is a few boxes of the
split axes, and each box is read from the source with little around it.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..format.dtypes import Array
from ..format.grid import Shape
from ..frameworks.sources import Region
from .nodes import LazyNode, Reading, lengths

Groups = tuple[tuple[int, ...], ...]  # for each axis of a tensor, the split axes that it consists of
Box = tuple[slice, ...]  # a range for each split axis

SPARE = 8 << 20  # bytes that may be read around what is wanted

_SIDE = re.compile(r"\s*(?:(?:[a-z_][a-z0-9_]*|\((?:\s*[a-z_][a-z0-9_]*)*\s*\))\s*)*")
_GROUP = re.compile(r"\(([^()]*)\)|([a-z_][a-z0-9_]*)")


class Notation(NamedTuple):
    """A parsed pattern: the names of the split axes in the order of the source, and how they form the axes of both
    sides."""

    names: tuple[str, ...]
    source: Groups
    target: Groups


def parse(text: str) -> Notation:
    """Parse a pattern; ValueError says what is wrong."""
    sides = text.split("->")
    if len(sides) != 2 or not all(_SIDE.fullmatch(side) for side in sides):
        raise ValueError(f"{text!r} is not of the form 'a (b c) -> (a b) c'")
    source, target = ([(inner or single).split() for inner, single in _GROUP.findall(side)] for side in sides)
    names = tuple(itertools.chain(*source))
    others = tuple(itertools.chain(*target))
    if len(set(names)) < len(names) or sorted(names) != sorted(others):
        raise ValueError(f"{text!r} must name the same axes on both sides, each once")
    return Notation(names, _numbered(source, names), _numbered(target, names))


def reversed_pattern(text: str) -> str:
    """The pattern that undoes another."""
    source, target = text.split("->")
    return f"{target.strip()} -> {source.strip()}"


def _numbered(groups: list[list[str]], names: tuple[str, ...]) -> Groups:
    return tuple(tuple(names.index(name) for name in group) for group in groups)


def split_sizes(notation: Notation, shape: Shape, known: Mapping[str, int]) -> Shape:
    """The lengths of the split axes for a source of `shape`; ValueError if they do not fit it."""
    if len(shape) != len(notation.source):
        raise ValueError(f"the pattern has {len(notation.source)} axes, the tensor has shape {shape}")
    sizes = [known.get(name, -1) for name in notation.names]
    for length, group in zip(shape, notation.source, strict=True):
        open_axes = [axis for axis in group if sizes[axis] < 0]
        product = math.prod(sizes[axis] for axis in group if sizes[axis] >= 0)
        if len(open_axes) > 1:
            raise ValueError(f"the sizes of {', '.join(notation.names[axis] for axis in open_axes)} are not given")
        if open_axes and product:
            sizes[open_axes[0]] = length // product
        if any(sizes[axis] < 0 for axis in group) or math.prod(sizes[axis] for axis in group) != length:
            names = " ".join(notation.names[axis] for axis in group)
            raise ValueError(f"an axis of length {length} cannot be split into ({names}) with the sizes given")
    return tuple(sizes)


@dataclass(frozen=True, slots=True)
class Rearranged:
    """The input with its axes split, ordered and joined. `sizes` are those of the split axes."""

    input: LazyNode
    source: Groups
    target: Groups
    sizes: Shape

    @property
    def shape(self) -> Shape:
        return tuple(math.prod(self.sizes[axis] for axis in group) for group in self.target)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.input.dtype

    def read(self, region: Region, reading: Reading) -> Array:
        dense = tuple(
            axis if len(group) == 1 else slice(axis.start, axis.stop, 1)
            for axis, group in zip(region, self.target, strict=True)
        )
        out = np.empty(lengths(dense), self.dtype)
        choices = [list(self._cuts(group, axis)) for group, axis in zip(self.target, dense, strict=True)]
        order = tuple(itertools.chain(*self.target))
        for choice in itertools.product(*choices):
            box = [slice(0, 1, 1)] * len(self.sizes)
            for group, (ranges, _) in zip(self.target, choice, strict=True):
                for axis, one in zip(group, ranges, strict=True):
                    box[axis] = one
            place = tuple(place for _, place in choice)
            values = self._box(tuple(box), reading).transpose(order)
            out[place] = values.reshape(lengths(place))
        return out[tuple(slice(None, None, a.step if d.step == 1 else 1) for a, d in zip(region, dense, strict=True))]

    def _cuts(self, group: tuple[int, ...], axis: slice) -> Iterator[tuple[Box, slice]]:
        """A range of a target axis as boxes of its split axes, each with its place in the result."""
        if len(group) == 1:
            yield (axis,), slice(0, len(range(axis.start, axis.stop, axis.step)), 1)
            return
        done = 0
        for box in _boxes(tuple(self.sizes[axis] for axis in group), axis.start, axis.stop):
            length = math.prod(lengths(box))
            yield box, slice(done, done + length, 1)
            done += length

    def _box(self, box: Box, reading: Reading) -> Array:
        """The elements of a box, with the split axes in the order of the source."""
        region, picks = [], []
        for group in self.source:
            hull, pick = self._hull(group, box)
            region.append(hull)
            picks.append(pick)
        wanted, spread = math.prod(lengths(box)), math.prod(lengths(tuple(region)))
        if spread > 2 * wanted and spread * self.dtype.itemsize > SPARE:
            scattered = [group for group, pick in zip(self.source, picks, strict=True) if pick is not None]
            axis = next(axis for axis in itertools.chain(*scattered) if lengths(box)[axis] > 1)
            start, stop, step = box[axis].start, box[axis].stop, box[axis].step
            middle = start + lengths(box)[axis] // 2 * step
            halves = [slice(start, middle, step), slice(middle, stop, step)]
            return np.concatenate([self._box((*box[:axis], half, *box[axis + 1 :]), reading) for half in halves], axis)
        values = self.input.read(tuple(region), reading)
        for number, pick in enumerate(picks):
            if pick is not None:
                values = np.take(values, pick, number)
        return values.reshape(lengths(box))

    def _hull(self, group: tuple[int, ...], box: Box) -> tuple[slice, Any]:
        """The range of a source axis that holds a box, and which positions in it are wanted: None for all."""
        if len(group) == 1:
            return box[group[0]], None
        places = np.zeros((), np.int64)
        for axis in group:
            steps = np.arange(box[axis].start, box[axis].stop, box[axis].step)
            places = np.add.outer(places * self.sizes[axis], steps)
        flat = places.reshape(-1)
        hull = slice(int(flat[0]), int(flat[-1]) + 1, 1)
        return hull, None if flat.size == hull.stop - hull.start else flat - hull.start


def _boxes(sizes: Shape, start: int, stop: int) -> Iterator[Box]:
    """Cut a range of a joined axis into boxes of the axes that it joins, in order; each box is a range, too."""
    if not sizes:
        yield ()
        return
    if len(sizes) == 1:
        yield (slice(start, stop, 1),)
        return
    inner = math.prod(sizes[1:])
    first, head = divmod(start, inner)
    last, tail = divmod(stop, inner)
    if first == last:
        yield from ((slice(first, first + 1, 1), *box) for box in _boxes(sizes[1:], head, tail))
        return
    if head:
        yield from ((slice(first, first + 1, 1), *box) for box in _boxes(sizes[1:], head, inner))
        first += 1
    if first < last:
        yield (slice(first, last, 1), *(slice(0, n, 1) for n in sizes[1:]))
    if tail:
        yield from ((slice(last, last + 1, 1), *box) for box in _boxes(sizes[1:], 0, tail))
