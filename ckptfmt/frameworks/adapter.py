"""Adapters: what the core knows about tensors and containers of other libraries, and where it finds them.

An adapter turns one value into what the tree can hold (`lower`), and arrays into a framework's tensors (`wrap`,
`slot`, `template`). It holds no format logic. Adapters are found through the entry-point group `ckptfmt.adapters`,
whose names are the modules of frameworks, and only once the program itself has imported that framework.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Hashable, Mapping
from functools import cache, partial
from itertools import chain
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from ..errors import fault
from ..format.dtypes import Array
from ..format.grid import Shape
from ..format.memory import aligned
from ..format.node import Restore
from ..format.tags import TAGS, made
from ..packages import missing
from .own_dicts import without_own_dicts
from .sources import Lazy, Region, Source, whole
from .values import parts_of

GROUP = "ckptfmt.adapters"


class Tagged(NamedTuple):
    """A value that becomes a tagged node: `param` is a plain value, `child` a tree, and `rebuild` makes the value from
    another such child."""

    tag: str
    param: Any
    child: Any
    rebuild: Callable[[Any], Any]


class Plain(NamedTuple):
    """A value that is stored as another one: a module as its state."""

    value: Any


def nothing() -> None:
    """What is called where there is nothing to do."""


class SlotPart(NamedTuple):
    """A region of a tensor and where it goes: into `array` (writable host memory), or through `put`, which takes an
    array of that region; then parts with an equal `identity` are one place in memory."""

    region: Region
    array: Array | None
    put: Callable[[Array], None] | None = None
    identity: Hashable = None


@dataclasses.dataclass(frozen=True, slots=True)
class Slot:
    """What `into=` fills: a tensor of a target tree. `shape` is that of the whole tensor, of which `parts` are here.
    `changed` is called once its memory was written to, for frameworks that keep account of that."""

    shape: Shape
    dtype: np.dtype[Any]
    parts: tuple[SlotPart, ...]
    writable: bool = True
    changed: Callable[[], None] = nothing


class Blank(NamedTuple):
    """A tensor that is being made: what of it is to be filled here, and what gives the tensor once that is done."""

    parts: tuple[SlotPart, ...]
    finish: Callable[[], Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Template:
    """What `like=` asks for: a tensor of this shape and dtype, which `blank` begins, given both. Templates are equal
    where they ask alike: aliases among what they ask for are one tensor. [TREE-010]"""

    shape: Shape
    dtype: np.dtype[Any]
    blank: Callable[[Shape, np.dtype[Any]], Blank]


class Adapter(Protocol):
    """What a framework's adapter offers."""

    framework: str
    """The framework's module, as in `sys.modules`."""
    on_host: bool
    """Whether `wrap` keeps the array's memory. If not, tensors are read and wrapped one after another."""
    restores: Mapping[str, Restore]
    """Tag to what makes its value, in trees that are loaded for this framework."""

    def lower(self, value: Any) -> Source | Tagged | Plain | None:
        """What the tree holds for a value of this framework; None for any other value."""

    def wrap(self, array: Array) -> Any:
        """A tensor of the framework from an array that nobody else uses."""

    def supports(self, dtype: str) -> bool:
        """Whether the framework has tensors of a logical dtype (SPEC.md section 3)."""

    def slot(self, leaf: Any) -> Slot | None:
        """Where a tensor of a target is filled; None for what is no tensor of this framework."""

    def template(self, leaf: Any) -> Template | None:
        """How a leaf like this one is made; None for what is no tensor of this framework."""


@runtime_checkable
class Copying(Protocol):
    """What an adapter offers besides, if its tensors are changed in place: to copy many at once, which a snapshot of a
    run's state does again and again."""

    def seen(self, tensors: list[Any]) -> tuple[tuple[int, ...], Any] | None:
        """Where the elements of tensors begin in host memory, and all else that says which elements a tensor has:
        equal lists of tensors are the same memory, seen in the same way. None if any is something else than a tensor
        of this framework that `lower` gives as an array."""

    def copy(self, into: list[Any], tensors: list[Any]) -> None:
        """Copy the elements of tensors into those that `wrap` made, one by one of the same dtype and shape."""


@runtime_checkable
class Settling(Protocol):
    """What an adapter offers besides, if its tensors come about beside the thread that asked for them."""

    def settle(self) -> None:
        """Wait for what the calling thread has asked for, where another thread would not."""


@runtime_checkable
class Typed(Protocol):
    """What an adapter offers besides, if it knows its tensors by their class: of very many nobody need ask more."""

    tensors: frozenset[type]
    """Classes of which each value, if it is of no subclass, is one tensor or none that can be stored."""


_registered: dict[str, Adapter] = {}
_active: list[Adapter] = []  # of frameworks that the program has imported, as far as was looked
_copying: list[Any] = []  # those of them that are `Copying`
_tensors: frozenset[type] = frozenset()  # the classes of those that are `Typed`
_absent: frozenset[str] | None = None  # the other frameworks with an adapter; None: look again


def register(adapter: Adapter) -> None:
    """Make an adapter known without an entry point; importing its package does this. The latest for a framework
    counts."""
    global _absent
    _registered[adapter.framework] = adapter
    _absent = None


@cache
def _entry_points() -> dict[str, Any]:
    from importlib.metadata import entry_points  # here, as reading arrays needs no adapter

    return {entry.name: entry for entry in entry_points(group=GROUP)}


def adapter_named(framework: str) -> Adapter:
    """The adapter of a framework; raises `bad-option`, or `missing-package` where the framework is not installed."""
    if framework not in _registered:
        entry = _entry_points().get(framework)
        if entry is None:
            known = ", ".join(sorted({*_registered, *_entry_points()}))
            raise fault("bad-option", f"there is no adapter for {framework!r}", found=framework, expected=known)
        try:
            register(entry.load())
        except ImportError as error:
            raise missing(f"framework={framework!r}", error, framework) from error
    return _registered[framework]


def adapters() -> list[Adapter]:
    """The adapters of the frameworks that the program has imported, NumPy's general one last. Asked for every tensor,
    so it looks anew only when a framework may have come."""
    global _active, _copying, _tensors, _absent
    if _absent is None or any(name in sys.modules for name in _absent):
        known = {*_registered, *_entry_points()}
        names = sorted(known & sys.modules.keys(), key=lambda name: name == "numpy")
        _active = [adapter_named(name) for name in names]  # importing one may register it
        _copying = [adapter for adapter in _active if isinstance(adapter, Copying)]
        _tensors = frozenset(chain.from_iterable(one.tensors for one in _active if isinstance(one, Typed)))
        _absent = frozenset(known - sys.modules.keys())
    return _active


def lower(value: Any) -> Source | Tagged | Plain | None:
    """What the tree holds for a value that it has no node for; None if nothing does."""
    if isinstance(value, Lazy | Tagged):
        return value  # type: ignore[return-value]  # subclasses of Lazy are sources
    parts = parts_of(value)
    if parts is not None:
        rebuild = partial(_member, type(value)) if parts.tag == "python.enum" else partial(made, *parts[:2])
        return Tagged(*parts, rebuild)
    for adapter in adapters():
        lowered = adapter.lower(value)
        if lowered is not None:
            return lowered
    return Plain(without_own_dicts(value.state_dict())) if is_stateful(value) else _record(value)


def is_tensor_class(kind: type) -> bool:
    """Whether values of a class are surely tensors of a framework; True only once one of them was lowered."""
    return kind in _tensors


def is_leaf(lowered: Tagged) -> bool:
    """Whether what a value becomes is one leaf of a tree, whatever it is made of."""
    return lowered.tag in TAGS and TAGS[lowered.tag].is_leaf


def kept(tag: str) -> Restore:
    """What makes a tagged value that is saved again as it was."""
    return lambda param, child: Tagged(tag, param, child, _itself)


def _itself(value: Any) -> Any:
    return value


# for trees that are saved again: every tag whose value no program makes by itself
KEPT: Mapping[str, Restore] = {name: kept(name) for name, tag in TAGS.items() if tag.restore is None}


def is_stateful(value: Any) -> bool:
    """Whether a value is saved as its state: a module, an optimizer, a scheduler, a sampler, a metric, whatever has
    `state_dict()` and `load_state_dict()`."""
    return not isinstance(value, type) and hasattr(value, "state_dict") and hasattr(value, "load_state_dict")


def seen(tensors: list[Any]) -> tuple[Adapter, tuple[int, ...], Any] | None:
    """The adapter that can copy such tensors, and how it sees them; None if none can."""
    adapters()
    for adapter in _copying:
        found = adapter.seen(tensors)
        if found is not None:
            return adapter, *found
    return None


def settle() -> None:
    """Wait for tensors that the calling thread has asked for, as another thread is about to read them."""
    for adapter in adapters():
        if isinstance(adapter, Settling):
            adapter.settle()


def slot(leaf: Any) -> Slot | None:
    """Where a leaf of a target tree is filled; None for what is no tensor."""
    if isinstance(leaf, np.ndarray):
        everything = tuple(slice(0, n) for n in leaf.shape)
        return Slot(leaf.shape, leaf.dtype, (SlotPart(everything, leaf),), leaf.flags.writeable)
    return next((found for adapter in adapters() if (found := adapter.slot(leaf)) is not None), None)


def template(leaf: Any) -> Template | None:
    """How a leaf of a template tree is made; None for what is no tensor."""
    if isinstance(leaf, np.ndarray):
        return Template(leaf.shape, leaf.dtype, blank_array)
    return next((found for adapter in adapters() if (found := adapter.template(leaf)) is not None), None)


def blank_array(shape: Shape, dtype: np.dtype[Any]) -> Blank:
    """A NumPy array that is being made."""
    array = aligned(shape, dtype)
    return Blank((SlotPart(whole(shape), array),), lambda: array)


def _member(kind: type, value: Any) -> Any:
    try:
        return kind(value)
    except ValueError as error:
        raise fault("mismatch", f"{value!r:.80} is no value of the enum {kind.__qualname__}") from error


def _record(value: Any) -> Tagged | None:
    """NamedTuples and dataclasses: their fields under the name of their class."""
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        fields = dict(zip(kind._fields, value, strict=True))
        return Tagged("python.namedtuple", name, fields, lambda child: kind(**child))
    if dataclasses.is_dataclass(kind):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return Tagged("python.dataclass", name, fields, partial(with_fields, value))
    return None


def with_fields(value: Any, fields: Mapping[str, Any]) -> Any:
    """Another object of a dataclass, with these fields; those that its `__init__` does not take are set as they are."""
    taken = {field.name for field in dataclasses.fields(value) if field.init}
    made = dataclasses.replace(value, **{name: item for name, item in fields.items() if name in taken})
    for name in fields.keys() - taken:
        object.__setattr__(made, name, fields[name])
    return made
