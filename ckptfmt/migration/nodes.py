"""Lazy tensors: what a migration makes of the tensors of a checkpoint, as a tree of nodes (docs/spec/migrations.md).

Planning builds nodes from shapes and dtypes alone. `read` gives a region of a node, and asks its inputs for no more
than the elements that lie in it; at the leaves, `Reading.fetch` reads from storage. Nodes are values: two that are
equal are one tensor, so aliases stay aliases through any chain.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..format.casts import cast, may_exceed
from ..format.dtypes import Array
from ..format.grid import Shape
from ..frameworks.overflows import name_of
from ..frameworks.sources import Region


class Reading(Protocol):
    """Where nodes read from, and what they tell of."""

    def fetch(self, key: Hashable, region: Region) -> Array:
        """A region of a tensor of the source."""

    def met(self, node: Rounding, region: Region, beyond: int) -> None:
        """Elements of a region that lie beyond the range of the node's dtype. [DTYPE-009]"""


class LazyNode(Protocol):
    """A tensor that has not been read."""

    @property
    def shape(self) -> Shape: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def read(self, region: Region, reading: Reading) -> Array:
        """The elements of a region that is not empty."""


class Rounding(LazyNode, Protocol):
    """A node that makes numbers of its dtype of others."""

    @property
    def found(self) -> str:
        """What is rounded, in words: a dtype or a number."""

    @property
    def foretold(self) -> int | None:
        """How many elements lie beyond the range of the dtype; None if some may."""


def whole(shape: Shape) -> Region:
    """The region that is everything."""
    return tuple(slice(0, n, 1) for n in shape)


def lengths(region: Region) -> Shape:
    """The shape of what a region selects."""
    return tuple(len(range(axis.start, axis.stop, axis.step or 1)) for axis in region)


def read(node: LazyNode, region: Region, reading: Reading) -> Array:
    """The elements of any region of a node."""
    shape = lengths(region)
    return node.read(region, reading) if 0 not in shape else np.empty(shape, node.dtype)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A tensor of the source; `key` says which to `fetch`."""

    key: Hashable
    shape: Shape
    dtype: np.dtype[Any]

    def read(self, region: Region, reading: Reading) -> Array:
        return reading.fetch(self.key, region)


@dataclass(frozen=True, slots=True)
class Filled:
    """One value everywhere. `owner` keeps tensors of the same look apart."""

    shape: Shape
    dtype: np.dtype[Any]
    value: float
    owner: Hashable

    @property
    def found(self) -> str:
        return f"the number {self.value!r}"

    @property
    def foretold(self) -> int:
        return math.prod(self.shape) * cast(np.asarray(self.value), self.dtype).beyond

    def read(self, region: Region, reading: Reading) -> Array:
        value, beyond = cast(np.asarray(self.value), self.dtype)
        shape = lengths(region)
        reading.met(self, region, beyond * math.prod(shape))
        return np.full(shape, value, self.dtype)


@dataclass(frozen=True, slots=True)
class Copied:
    """The same elements as a tensor of its own."""

    input: LazyNode
    owner: Hashable

    @property
    def shape(self) -> Shape:
        return self.input.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.input.dtype

    def read(self, region: Region, reading: Reading) -> Array:
        return self.input.read(region, reading)


@dataclass(frozen=True, slots=True)
class Mapped:
    """Each element by itself: `function(array)` gives the result, of dtype `dtype`. `name` tells functions apart."""

    input: LazyNode
    dtype: np.dtype[Any]
    name: Hashable
    function: Callable[[Array], Array] = field(compare=False)

    @property
    def shape(self) -> Shape:
        return self.input.shape

    def read(self, region: Region, reading: Reading) -> Array:
        return np.asarray(self.function(self.input.read(region, reading)))  # arithmetic makes scalars of 0-d arrays


@dataclass(frozen=True, slots=True)
class Rounded:
    """Each element by itself, rounded once to `dtype`: of the input, or of what `function` makes of it in binary64,
    which is called `name`. `grows`: whether that may be greater than the element."""

    input: LazyNode
    dtype: np.dtype[Any]
    name: Hashable = None
    function: Callable[[Array], Array] | None = field(default=None, compare=False)
    grows: bool = False

    @property
    def shape(self) -> Shape:
        return self.input.shape

    @property
    def found(self) -> str:
        return name_of(self.input.dtype)

    @property
    def foretold(self) -> int | None:
        return None if self.grows or may_exceed(self.input.dtype, self.dtype) else 0

    def read(self, region: Region, reading: Reading) -> Array:
        values, beyond = cast(self.input.read(region, reading), self.dtype, None, self.function)
        reading.met(self, region, beyond)
        return values


@dataclass(frozen=True, slots=True)
class Joined:
    """Inputs one after another along an axis."""

    inputs: tuple[LazyNode, ...]
    axis: int

    @property
    def shape(self) -> Shape:
        first = self.inputs[0].shape
        return (*first[: self.axis], sum(node.shape[self.axis] for node in self.inputs), *first[self.axis + 1 :])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.inputs[0].dtype

    def read(self, region: Region, reading: Reading) -> Array:
        wanted = region[self.axis]
        parts, begin = [], 0
        for node in self.inputs:
            end = begin + node.shape[self.axis]
            first = wanted.start + max(0, -(-(begin - wanted.start) // wanted.step)) * wanted.step
            last = min(wanted.stop, end)
            if first < last:
                parts.append(node.read(_along(region, self.axis, first - begin, last - begin, wanted.step), reading))
            begin = end
        return parts[0] if len(parts) == 1 else np.concatenate(parts, self.axis)


@dataclass(frozen=True, slots=True)
class Stacked:
    """Inputs of one shape along a new axis."""

    inputs: tuple[LazyNode, ...]
    axis: int

    @property
    def shape(self) -> Shape:
        first = self.inputs[0].shape
        return (*first[: self.axis], len(self.inputs), *first[self.axis :])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.inputs[0].dtype

    def read(self, region: Region, reading: Reading) -> Array:
        inner = (*region[: self.axis], *region[self.axis + 1 :])
        return np.stack([node.read(inner, reading) for node in self.inputs[region[self.axis]]], self.axis)


@dataclass(frozen=True, slots=True)
class Narrowed:
    """`length` elements of an axis of the input, from `start` on."""

    input: LazyNode
    axis: int
    start: int
    length: int

    @property
    def shape(self) -> Shape:
        return (*self.input.shape[: self.axis], self.length, *self.input.shape[self.axis + 1 :])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.input.dtype

    def read(self, region: Region, reading: Reading) -> Array:
        axis = region[self.axis]
        inner = _along(region, self.axis, axis.start + self.start, axis.stop + self.start, axis.step)
        return self.input.read(inner, reading)


@dataclass(frozen=True, slots=True)
class Picked:
    """One position of an axis of the input, without that axis."""

    input: LazyNode
    axis: int
    index: int

    @property
    def shape(self) -> Shape:
        return (*self.input.shape[: self.axis], *self.input.shape[self.axis + 1 :])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.input.dtype

    def read(self, region: Region, reading: Reading) -> Array:
        inner = (*region[: self.axis], slice(self.index, self.index + 1, 1), *region[self.axis :])
        return self.input.read(inner, reading).squeeze(self.axis)


@dataclass(frozen=True, slots=True)
class Padded:
    """The input with `before` and `after` further elements along an axis, which are `value`."""

    input: LazyNode
    axis: int
    before: int
    after: int
    value: float

    @property
    def shape(self) -> Shape:
        length = self.before + self.input.shape[self.axis] + self.after
        return (*self.input.shape[: self.axis], length, *self.input.shape[self.axis + 1 :])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.input.dtype

    @property
    def found(self) -> str:
        return f"the number {self.value!r}"

    @property
    def foretold(self) -> int:
        padding = math.prod(self.shape) - math.prod(self.input.shape)
        return padding * cast(np.asarray(self.value), self.dtype).beyond

    def read(self, region: Region, reading: Reading) -> Array:
        shape, wanted = lengths(region), region[self.axis]
        value, beyond = cast(np.asarray(self.value), self.dtype)
        out = np.full(shape, value, self.dtype)
        inside = [
            (number, place - self.before)
            for number, place in enumerate(range(wanted.start, wanted.stop, wanted.step))
            if 0 <= place - self.before < self.input.shape[self.axis]
        ]
        padding = shape[self.axis] - len(inside)
        reading.met(self, region, beyond * math.prod(shape) * padding // shape[self.axis])
        if inside:
            (low, first), (high, last) = inside[0], inside[-1]
            values = self.input.read(_along(region, self.axis, first, last + 1, wanted.step), reading)
            out[_along(whole(shape), self.axis, low, high + 1, 1)] = values
        return out


@dataclass(frozen=True, slots=True)
class Computed:
    """Output number `output` of a function over whole inputs."""

    inputs: tuple[LazyNode, ...]
    shape: Shape
    dtype: np.dtype[Any]
    name: Hashable
    output: int
    function: Callable[..., tuple[Array, ...]] = field(compare=False)

    def read(self, region: Region, reading: Reading) -> Array:
        outputs = self.function(*[read(node, whole(node.shape), reading) for node in self.inputs])
        array = np.asarray(outputs[self.output])
        if array.shape != self.shape or array.dtype != self.dtype:
            found, expected = f"{array.dtype} {array.shape}", f"{self.dtype} {self.shape}"
            raise ValueError(f"extern {self.name!r} gave {found} where its rule says {expected}")
        return array[region]


def roundings(node: LazyNode) -> Iterator[Rounding]:
    """All nodes that round on the way to a tensor."""
    return (one for one in _behind(node) if isinstance(one, Filled | Rounded | Padded))


def origins(node: LazyNode) -> set[Hashable]:
    """The keys of the tensors of the source that a tensor is made of."""
    return {one.key for one in _behind(node) if isinstance(one, Leaf)}


def _behind(node: LazyNode) -> Iterator[LazyNode]:
    """A node and all that it is made of, each once."""
    seen: dict[int, Any] = {}
    ahead: list[Any] = [node]
    while ahead:
        one = ahead.pop()
        if id(one) in seen:
            continue
        seen[id(one)] = one
        yield one
        ahead += getattr(one, "inputs", ()) or filter(None, [getattr(one, "input", None)])


def nbytes(node: LazyNode) -> int:
    """Bytes of the elements in memory."""
    return math.prod(node.shape) * node.dtype.itemsize


def _along(region: Region, axis: int, start: int, stop: int, step: int) -> Region:
    """`region` with another slice on one axis."""
    return (*region[:axis], slice(start, stop, step), *region[axis + 1 :])
