"""The operators of migrations: what each makes of tensors, what is lost, and what undoes it (docs/spec/migrations.md).

A rule hands a list of **items** through its operators. An item is a tensor, or a list of tensors that a pattern
gathered. `apply` checks shapes and dtypes and builds lazy nodes; it never sees an element. Its ValueErrors become
faults of the plan.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np

from ..calls import checked_class
from ..format.dtypes import DTYPES, Array, dtype_of
from ..format.grid import Shape
from ..frameworks.overflows import name_of
from . import rearrange
from .casts import UNSIGNED_FLOATS, is_castable, is_exact, kind_of
from .nodes import Computed, Copied, Filled, Joined, LazyNode, Mapped, Narrowed, Padded, Picked, Rounded, Stacked
from .sizes import Size, evaluate

Item = LazyNode | tuple[LazyNode, ...]


class LossClass(enum.IntEnum):
    """What a migration loses: nothing; a little, so that going back is near; or what nothing brings back."""

    EXACT = 0
    LOSSY = 1
    IRREVERSIBLE = 2

    def __str__(self) -> str:
        return self.name.lower()


class Spec(NamedTuple):
    """Shape and dtype of a tensor, as the shape rules of externs take and give them."""

    shape: Shape
    dtype: np.dtype[Any]


@checked_class
@dataclass(frozen=True, slots=True)
class Extern:
    """A function that migrations may name. `inputs`: how many arrays it takes. `rule` gives the shapes and dtypes of
    its outputs from those of its inputs (ValueError if they do not fit), `call` the outputs themselves. `inverse`
    names the extern that undoes it: exactly (`loss`) or nearly."""

    inputs: int
    rule: Callable[..., tuple[Spec, ...]]
    call: Callable[..., tuple[Array, ...]]
    inverse: str | None = None
    loss: LossClass = LossClass.IRREVERSIBLE


class Context(NamedTuple):
    """What an operator may ask for besides its operands: parameters, externs, and which instance of a rule it is."""

    parameters: Mapping[str, int]
    externs: Mapping[str, Extern]
    owner: Hashable

    def size(self, size: Size) -> int:
        return evaluate(size, self.parameters)


class Operator:
    """An operator that maps each item by itself (`one`), or all of them (`apply`)."""

    __slots__ = ()
    consumes: ClassVar[bool] = True  # whether a rule that begins with it takes its sources away

    @property
    def loss(self) -> LossClass:
        return LossClass.EXACT

    def apply(self, items: list[Item], on: tuple[int, ...] | None, context: Context) -> list[Item]:
        chosen = range(len(items)) if on is None else on
        if chosen and max(chosen) >= len(items):
            raise ValueError(f"`on` names item {max(chosen)} of {len(items)}")
        return [self.item(item, context) if number in chosen else item for number, item in enumerate(items)]

    def count(self, items: int) -> int | None:
        """How many items it makes of that many, as the document alone says; None if only the plan can tell. Raises
        ValueError for a number that it does not take. [MIG-004]"""
        return items

    def item(self, item: Item, context: Context) -> Item:
        """The result for one item; by default each tensor of a list by itself."""
        return tuple(self.one(node, context) for node in item) if type(item) is tuple else self.one(item, context)

    def one(self, node: Any, context: Context) -> LazyNode:
        raise NotImplementedError

    def inverse(self) -> Operator | None:
        """What undoes it, or None."""
        return None

    def for_companions(self) -> Operator | None:
        """Its form for companion trees; None leaves it out. ValueError where no form is right for all."""
        return self


@dataclass(frozen=True, slots=True)
class Alias(Operator):
    """The same tensor at a further path."""

    consumes: ClassVar[bool] = False

    def one(self, node: Any, context: Context) -> LazyNode:
        return node  # type: ignore[no-any-return]

    def inverse(self) -> Operator:
        return Drop()


@dataclass(frozen=True, slots=True)
class Copy(Operator):
    """A copy as a tensor of its own."""

    consumes: ClassVar[bool] = False

    def one(self, node: Any, context: Context) -> LazyNode:
        return Copied(node, context.owner)

    def inverse(self) -> Operator:
        return Drop()


@dataclass(frozen=True, slots=True)
class Drop(Operator):
    """Nothing."""

    @property
    def loss(self) -> LossClass:
        return LossClass.IRREVERSIBLE

    def count(self, items: int) -> int:
        return 0

    def apply(self, items: list[Item], on: tuple[int, ...] | None, context: Context) -> list[Item]:
        return []


@dataclass(frozen=True, slots=True)
class Fill(Operator):
    """A tensor of one value, by default of the shape and dtype of the source that stands for it."""

    value: float
    shape: tuple[Size, ...] | None = None
    dtype: str | None = None
    consumes: ClassVar[bool] = False

    def count(self, items: int) -> int:
        if items > 1 or (items == 0 and None in (self.shape, self.dtype)):
            raise ValueError("fill takes one source as its example, or none if shape and dtype are given [MIG-008]")
        return 1

    def apply(self, items: list[Item], on: tuple[int, ...] | None, context: Context) -> list[Item]:
        if items and type(items[0]) is tuple:
            raise ValueError("fill takes one tensor as its example, not a list")
        like: Any = items[0] if items else None
        shape = tuple(map(context.size, self.shape)) if self.shape is not None else like.shape
        dtype = like.dtype if self.dtype is None else DTYPES[self.dtype].numpy
        return [Filled(shape, dtype, _number(self.value, dtype), context.owner)]

    def inverse(self) -> Operator:
        return Drop()

    def for_companions(self) -> Operator:
        return dataclasses.replace(self, value=0)


@dataclass(frozen=True, slots=True)
class Stack(Operator):
    """A gathered list as one tensor with a new axis."""

    axis: int

    def item(self, item: Item, context: Context) -> Item:
        if type(item) is not tuple:
            raise ValueError("stack takes a list that a pattern gathers, such as experts/{e:int}/w")
        _check_alike(item, None)
        if not 0 <= self.axis <= len(item[0].shape):
            raise ValueError(f"there is no place {self.axis} for a new axis in shape {item[0].shape}")
        return Stacked(item, self.axis)

    def inverse(self) -> Operator:
        return Unstack(self.axis)


@dataclass(frozen=True, slots=True)
class Unstack(Operator):
    """One tensor as a list, along an axis."""

    axis: int

    def item(self, item: Item, context: Context) -> Item:
        if type(item) is tuple:
            raise ValueError("unstack takes one tensor, not a list")
        node: Any = item
        return tuple(Picked(node, self.axis, index) for index in range(_side(node, self.axis)))

    def inverse(self) -> Operator:
        return Stack(self.axis)


@dataclass(frozen=True, slots=True)
class Concat(Operator):
    """All items, which are tensors, as one, one after another along an axis on which they have the given sizes."""

    axis: int
    sizes: tuple[Size, ...]

    def count(self, items: int) -> int:
        return 1

    def apply(self, items: list[Item], on: tuple[int, ...] | None, context: Context) -> list[Item]:
        if any(type(item) is tuple for item in items):
            raise ValueError("concat takes tensors, not a list, whose parts `split` could not give back: stack it")
        nodes: list[Any] = list(items)
        _check_alike(tuple(nodes), self.axis)
        found = [_side(node, self.axis) for node in nodes]
        expected = [context.size(size) for size in self.sizes]
        if found != expected:
            raise ValueError(f"on axis {self.axis} the sizes are {found}, not {expected}")
        return [Joined(tuple(nodes), self.axis)]

    def inverse(self) -> Operator:
        return Split(self.axis, self.sizes)


@dataclass(frozen=True, slots=True)
class Split(Operator):
    """One tensor cut along an axis into items of the given sizes."""

    axis: int
    sizes: tuple[Size, ...]

    def count(self, items: int) -> int | None:
        if items != 1:
            raise ValueError(f"split takes one tensor, not {items} items [MIG-004]")
        return len(self.sizes)

    def apply(self, items: list[Item], on: tuple[int, ...] | None, context: Context) -> list[Item]:
        self.count(len(items))  # what an extern made before it was not known until now
        node: Any = items[0]
        if type(node) is tuple:
            raise ValueError("split takes one tensor, not a list")
        sizes = [context.size(size) for size in self.sizes]
        if _side(node, self.axis) != sum(sizes):
            raise ValueError(f"axis {self.axis} of {node.shape} cannot be split into {sizes}")
        starts = [sum(sizes[:number]) for number in range(len(sizes))]
        return [Narrowed(node, self.axis, start, size) for start, size in zip(starts, sizes, strict=True)]

    def inverse(self) -> Operator:
        return Concat(self.axis, self.sizes)


@dataclass(frozen=True, slots=True)
class Rearrange(Operator):
    """Axes split, ordered and joined as an einops pattern says."""

    pattern: str
    axes: Mapping[str, Size] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        unknown = self.axes.keys() - set(rearrange.parse(self.pattern).names)
        if unknown:
            raise ValueError(f"{self.pattern!r} has no axis {min(unknown)!r}")

    def one(self, node: Any, context: Context) -> LazyNode:
        notation = rearrange.parse(self.pattern)
        known = {name: context.size(size) for name, size in self.axes.items()}
        sizes = rearrange.split_sizes(notation, node.shape, known)
        return rearrange.Rearranged(node, notation.source, notation.target, sizes)

    def inverse(self) -> Operator:
        return Rearrange(rearrange.reversed_pattern(self.pattern), self.axes)


@dataclass(frozen=True, slots=True)
class Cast(Operator):
    """Another dtype. Without `source`, any that can be cast, and no way back."""

    dtype: str
    source: str | None = None

    @property
    def loss(self) -> LossClass:
        if self.source is None or kind_of(self.source) != kind_of(self.dtype):
            return LossClass.IRREVERSIBLE
        return LossClass.EXACT if is_exact(self.source, self.dtype) else LossClass.LOSSY

    def one(self, node: Any, context: Context) -> LazyNode:
        found = _dtype_name(node)
        if self.source is not None and found != self.source:
            raise ValueError(f"the dtype is {found}, not {self.source}")
        if not is_castable(found, self.dtype):
            raise ValueError(f"{found} cannot be cast to {self.dtype}")
        return Rounded(node, DTYPES[self.dtype].numpy)

    def inverse(self) -> Operator | None:
        return None if self.source is None else Cast(self.source, self.dtype)

    def for_companions(self) -> None:
        return None


@dataclass(frozen=True, slots=True)
class Slice(Operator):
    """An axis without its first `before` and last `after` elements."""

    axis: int
    before: Size = 0
    after: Size = 0

    @property
    def loss(self) -> LossClass:
        return LossClass.IRREVERSIBLE

    def one(self, node: Any, context: Context) -> LazyNode:
        before, after = context.size(self.before), context.size(self.after)
        length = _side(node, self.axis) - before - after
        if length < 0:
            raise ValueError(f"axis {self.axis} of {node.shape} has no {before + after} elements to slice off")
        return Narrowed(node, self.axis, before, length)


@dataclass(frozen=True, slots=True)
class Pad(Operator):
    """An axis with `before` and `after` further elements of one value."""

    axis: int
    before: Size = 0
    after: Size = 0
    value: float = 0

    def one(self, node: Any, context: Context) -> LazyNode:
        _side(node, self.axis)
        value = _number(self.value, node.dtype)
        return Padded(node, self.axis, context.size(self.before), context.size(self.after), value)

    def inverse(self) -> Operator:
        return Slice(self.axis, self.before, self.after)

    def for_companions(self) -> Operator:
        return dataclasses.replace(self, value=0)


class _Elementwise(Operator):
    """Arithmetic on each element."""

    __slots__ = ()

    def one(self, node: Any, context: Context) -> LazyNode:
        if kind_of(_dtype_name(node)) != "float":
            raise ValueError(f"{type(self).__name__.lower()} takes floats, not {_dtype_name(node)}")
        return self.of(node)

    def of(self, node: LazyNode) -> LazyNode:
        raise NotImplementedError

    def for_companions(self) -> Operator:
        raise ValueError(f"{type(self).__name__.lower()} has no form for companions: it changes values")


@dataclass(frozen=True, slots=True)
class Neg(_Elementwise):
    """The other sign, of NaNs too."""

    def of(self, node: LazyNode) -> LazyNode:
        if _dtype_name(node) in UNSIGNED_FLOATS:
            raise ValueError(f"neg takes floats with a sign, not {_dtype_name(node)}")
        return Mapped(node, node.dtype, self, np.negative)

    def inverse(self) -> Operator:
        return self


@dataclass(frozen=True, slots=True)
class Scale(_Elementwise):
    """Times a number that is not zero; computed in binary64."""

    by: float

    @property
    def loss(self) -> LossClass:
        return LossClass.LOSSY

    def __post_init__(self) -> None:
        if self.by == 0:
            raise ValueError("scale by 0 is fill")

    def of(self, node: LazyNode) -> LazyNode:
        return Rounded(node, node.dtype, self, lambda array: array * self.by, not 0 < self.by <= 1)

    def inverse(self) -> Operator:
        return Scale(1 / self.by)


@dataclass(frozen=True, slots=True)
class Add(_Elementwise):
    """Plus a number; computed in binary64."""

    value: float

    @property
    def loss(self) -> LossClass:
        return LossClass.LOSSY

    def of(self, node: LazyNode) -> LazyNode:
        return Rounded(node, node.dtype, self, lambda array: array + self.value, self.value != 0)

    def inverse(self) -> Operator:
        return Add(-self.value)


@dataclass(frozen=True, slots=True)
class ExternCall(Operator):
    """The extern of that name, which the program gives; a document never holds code."""

    name: str
    inverse_name: str | None = None
    declared: LossClass = LossClass.IRREVERSIBLE

    @property
    def loss(self) -> LossClass:
        return self.declared

    def count(self, items: int) -> None:
        return None  # its outputs are known with the shapes of its inputs

    def apply(self, items: list[Item], on: tuple[int, ...] | None, context: Context) -> list[Item]:
        extern = context.externs[self.name]
        nodes: tuple[Any, ...] = tuple(node for item in items for node in (item if type(item) is tuple else (item,)))
        if len(nodes) != extern.inputs:
            raise ValueError(f"extern {self.name!r} takes {extern.inputs} tensors, not {len(nodes)}")
        specs = extern.rule(*(Spec(node.shape, node.dtype) for node in nodes))
        return [
            Computed(nodes, tuple(spec.shape), np.dtype(spec.dtype), (self.name, context.owner), number, extern.call)
            for number, spec in enumerate(specs)
        ]

    def inverse(self) -> Operator | None:
        return None if self.inverse_name is None else ExternCall(self.inverse_name, self.name, self.declared)

    def for_companions(self) -> Operator:
        raise ValueError(f"extern {self.name!r} has no form for companions")


def _dtype_name(node: LazyNode) -> str:
    return name_of(node.dtype)


def _number(value: float, dtype: np.dtype[Any]) -> float:
    """A value of a document, as it is cast to a dtype: to integers, only a whole number."""
    row = dtype_of(dtype)
    if row is not None and row.range is not None and not row.range.exponent:
        if not float(value).is_integer():
            raise ValueError(f"{value!r} is no integer, and cannot stand in a tensor of {row.name}")
        limits = (0, 1) if row.name == "bool" else (-(2**63), 2**64 - 1)
        if not limits[0] <= value <= limits[1]:
            raise ValueError(f"{value!r} cannot stand in a tensor of {row.name}")
        return int(value)
    return value


def _side(node: LazyNode, axis: int) -> int:
    if axis >= len(node.shape):
        raise ValueError(f"there is no axis {axis} in shape {node.shape}")
    return node.shape[axis]


def _check_alike(nodes: tuple[LazyNode, ...], axis: int | None) -> None:
    """Refuse nodes of different dtypes, or of shapes that differ elsewhere than on `axis`."""
    if not nodes:
        raise ValueError("there is nothing to join")
    for node in nodes:
        if axis is not None:
            _side(node, axis)
        shapes = [list(one.shape) for one in (nodes[0], node)]
        if axis is not None:
            for shape in shapes:
                shape[axis : axis + 1] = []
        if shapes[0] != shapes[1] or node.dtype != nodes[0].dtype:
            one, other = (f"{_dtype_name(n)} {n.shape}" for n in (nodes[0], node))
            raise ValueError(f"{one} and {other} cannot be joined")
