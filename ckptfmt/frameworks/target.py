"""Reading into a target tree: what fits, what does not, all reported at once (SPEC.md section 12, READ-006). Pure."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Container, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..brief import Brief
from ..errors import CkptError
from ..format import casts
from ..format.casts import may_exceed
from ..format.dtypes import dtype_of
from ..format.names import Path, path_label
from ..format.node import Restore
from ..format.tags import RECORDS, TAGS, made
from ..format.tree import OMITTED, Tree
from .adapter import Plain, Slot, Tagged, Template, is_tensor_class, lower
from .adapter import is_leaf as is_leaf_tag
from .overflows import Overflow, TensorCast, listed, name_of
from .spans import spans

Difference = tuple[str, Any, Any]
Ask = Slot | Template

_PLAIN = {type(None), bool, int, float, complex, str, bytes, dict, list, tuple}
_NUMBERS = (bool, int, float, complex, np.generic)


@dataclass(frozen=True, slots=True, repr=False)
class MatchReport(Brief):
    """How a target tree differs from a checkpoint. All by label of the path ("model/w").

    `missing`: in the target, not in the checkpoint. `unexpected`: in the checkpoint, not in the target. `shape`,
    `dtype`, `kind`: (path, found in the checkpoint, expected by the target). `readonly`: target arrays that cannot be
    written. `shared`: pairs that have memory in common in the target, and different values for it in the
    checkpoint; a tensor that repeats elements may be one with itself.

    No differences are `overflows`: tensors that `cast` takes to a dtype that may not hold all their numbers; and
    `meta`: parameters and buffers of modules that are still on the meta device, as nothing in the checkpoint is theirs;
    and `skipped`: what `mismatched="skip"` passed over, as in `shape`.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    shape: tuple[Difference, ...] = ()
    dtype: tuple[Difference, ...] = ()
    kind: tuple[Difference, ...] = ()
    readonly: tuple[str, ...] = ()
    shared: tuple[tuple[str, str], ...] = ()
    overflows: tuple[Overflow, ...] = field(default=(), compare=False)
    meta: tuple[str, ...] = field(default=(), compare=False)
    skipped: tuple[Difference, ...] = field(default=(), compare=False)

    @property
    def ok(self) -> bool:
        """Whether there is no difference."""
        return self == MatchReport()

    def __add__(self, other: MatchReport) -> MatchReport:
        return MatchReport(*(tuple(getattr(self, n)) + tuple(getattr(other, n)) for n in self.__slots__))

    def __str__(self) -> str:
        lines = [f"missing from the checkpoint: {_few(self.missing)}"] if self.missing else []
        lines += [f"unexpected in the checkpoint: {_few(self.unexpected)}"] if self.unexpected else []
        for name in ("shape", "dtype", "kind"):
            if differences := getattr(self, name):
                lines.append(f"{name}: {_found(differences)}")
        lines += [f"read-only in the target: {_few(self.readonly)} (like= makes new ones)"] if self.readonly else []
        if self.shared:
            pairs = _few(tuple(f"{first} and {second}" for first, second in self.shared))
            lines.append(f"one memory in the target, different values in the checkpoint: {pairs}")
        if not lines:
            lines.append("target and checkpoint match")
            lines += [f"cast: {listed(self.overflows)}"] if self.overflows else []
        lines += [f"passed over, of another shape: {_found(self.skipped)}"] if self.skipped else []
        lines += [f"still on the meta device: {_few(self.meta)}"] if self.meta else []
        return "; ".join(lines)


class NameCounts(NamedTuple):
    """How many names a target and a checkpoint have, which a report may call missing and unexpected."""

    here: int
    there: int

    def match(self, report: MatchReport) -> bool:
        """Whether any of them is the same."""
        none_here = 0 < self.here <= len(report.missing)
        return not (none_here or 0 < self.there <= len(report.unexpected))


def filled(leaves: Mapping[Path, Any]) -> int:
    """How many leaves there are but for empty containers."""
    return sum(not is_empty(leaf) for leaf in leaves.values())


def _found(differences: tuple[Difference, ...]) -> str:
    return _few(tuple(f"{path} (found {found}, expected {expected})" for path, found, expected in differences))


def _few(items: tuple[str, ...], most: int = 8) -> str:
    folded = spans(items)
    more = f" and {sum(count for _, count in folded[most:])} more" if len(folded) > most else ""
    return ", ".join(text or "the root" for text, _ in folded[:most]) + more


def flatten(
    tree: Tree, is_leaf: Callable[[Any], bool] = lambda _: False, path: Path = ()
) -> Iterator[tuple[Path, Any]]:
    """Every leaf of a tree of values, with its path; an empty container is a leaf. Containers of other libraries are
    seen as a save sees them."""
    tree = as_saved(tree, is_leaf)
    if _is_dict(tree):
        for key, item in tree.items():
            yield from flatten(item, is_leaf, (*path, key))
    elif type(tree) in (list, tuple) and tree:
        for i, item in enumerate(tree):
            yield from flatten(item, is_leaf, (*path, i))
    else:
        yield path, tree


def as_saved(value: Any, is_leaf: Callable[[Any], bool] = lambda _: False, records: bool = True) -> Any:
    """The container that a save writes for a value, such as the list of a deque; itself for any other value, and
    without `records` for what has fields of its own."""
    while not (_is_plain(value) or _is_dict(value) or is_leaf(value)):
        lowered = lower(value)
        if isinstance(lowered, Tagged) and not is_leaf_tag(lowered) and (records or lowered.tag not in RECORDS):
            value = lowered.child
        elif isinstance(lowered, Plain):
            value = lowered.value
        else:
            break
    return value


def _is_plain(value: Any) -> bool:
    """Whether a value, if it is no container, is a leaf as it is."""
    kind = type(value)
    return kind in _PLAIN or isinstance(value, np.ndarray | np.generic) or is_tensor_class(kind)


def _is_dict(tree: Tree) -> bool:
    """Whether a value is seen as a dict that is not empty: also one of a class that no adapter rebuilds."""
    return isinstance(tree, dict) and bool(tree) and (type(tree) in (dict, OrderedDict) or lower(tree) is None)


def rebuild(
    tree: Tree,
    leaf: Callable[[Path, Any], Any],
    path: Path = (),
    check: Callable[[Path, Tagged], None] = lambda path, tagged: None,
    is_leaf: Callable[[Any], bool] = lambda _: False,
    whole: Container[Path] = (),
) -> Tree:
    """The same containers, with every leaf replaced by `leaf(path, leaf)`. `check` sees what becomes tagged nodes;
    lists and tuples at paths of `whole` are leaves, which stay of their kind."""
    return _Rebuilder(leaf, check, is_leaf, whole).value(tree, path)


def untagged(tree: Tree, restores: Mapping[str, Restore]) -> Tree:
    """The values of tagged ones, wherever they stand: as `restores` or the format make them, else their children."""
    if isinstance(tree, Tagged):
        child, restore = untagged(tree.child, restores), restores.get(tree.tag)
        value = NotImplemented if restore is None else restore(tree.param, child)
        if value is not NotImplemented:
            return value
        return made(tree.tag, tree.param, child) if tree.tag in TAGS and restore is None else child
    if type(tree) in (dict, OrderedDict):
        return type(tree)((key, untagged(item, restores)) for key, item in tree.items())
    return type(tree)(untagged(item, restores) for item in tree) if type(tree) in (list, tuple) else tree


def prune(tree: Tree, keep: Callable[[Path], bool], path: Path = ()) -> Tree:
    """A tree of plain containers without the leaves whose path `keep` refuses, as `load(select=)` leaves them out;
    `OMITTED` if none is left."""
    if not isinstance(tree, dict | list | tuple) or not tree:
        return tree if keep(path) else OMITTED
    if isinstance(tree, dict):
        entries = {key: prune(item, keep, (*path, key)) for key, item in tree.items()}
        kept = {key: item for key, item in entries.items() if item is not OMITTED}
        return type(tree)(kept) if kept else OMITTED
    items = [prune(item, keep, (*path, i)) for i, item in enumerate(tree)]
    return OMITTED if all(item is OMITTED for item in items) else type(tree)(items)


class _Rebuilder:
    def __init__(
        self,
        leaf: Callable[[Path, Any], Any],
        check: Callable[[Path, Tagged], None],
        is_leaf: Callable[[Any], bool],
        whole: Container[Path],
    ) -> None:
        self.leaf, self.check, self.is_leaf, self.whole = leaf, check, is_leaf, whole
        self.tagged: dict[Hashable, tuple[Any, Any]] = {}  # child, which stays alive, and what was made of it

    def value(self, tree: Tree, path: Path) -> Tree:
        kind = type(tree)
        if _is_dict(tree):
            items = ((key, self.value(item, (*path, key))) for key, item in tree.items())
            return OrderedDict(items) if kind is OrderedDict else dict(items)
        if kind in (list, tuple) and tree and path in self.whole:
            return kind(self.leaf(path, tree))
        if kind in (list, tuple) and tree:
            return kind(self.value(item, (*path, i)) for i, item in enumerate(tree))
        if _is_plain(tree) or self.is_leaf(tree):
            return self.leaf(path, tree)
        lowered = lower(tree)
        if isinstance(lowered, Tagged) and (lowered is tree or not is_leaf_tag(lowered)):
            self.check(path, lowered)
            child = self.value(lowered.child, path)
            key = (lowered.tag, str(lowered.param), id(child))  # aliases are one object [TREE-010]
            if key not in self.tagged:
                self.tagged[key] = child, self.rebuilt(path, lowered, child)
            return self.tagged[key][1]
        if isinstance(lowered, Plain):
            return self.value(lowered.value, path)
        found = self.leaf(path, tree)
        if isinstance(lowered, Tagged) and type(found) is type(lowered.child) and TAGS[lowered.tag].restore is None:
            value = lowered.rebuild(found)  # of a child that only the target's framework makes a value of
            return found if value is NotImplemented else value
        return found

    def rebuilt(self, path: Path, lowered: Tagged, child: Any) -> Any:
        try:
            return lowered.rebuild(child)
        except CkptError as error:
            error.tensor = error.tensor or path_label(path)
            raise


def match(
    leaves: dict[Path, Any],
    asks: Mapping[Path, Ask | None],
    stored: Mapping[Path, Any],
    is_tensor: Callable[[Any], bool],
    cast: bool,
) -> MatchReport:
    """Compare the leaves of a target or template with those of a checkpoint, by path. `asks` says what each leaf asks
    for, None where it is no tensor; `cast` allows dtypes of `castable` pairs."""
    missing = tuple(path_label(path) for path, leaf in leaves.items() if path not in stored and not is_empty(leaf))
    unexpected = tuple(path_label(path) for path, leaf in stored.items() if path not in leaves and not is_empty(leaf))
    shape: list[Difference] = []
    dtype: list[Difference] = []
    kind: list[Difference] = []
    readonly: list[str] = []
    overflows: list[Overflow] = []
    for path, ask in asks.items():
        if path not in stored:
            continue
        text, found = path_label(path), stored[path]
        if isinstance(ask, Template) and not ask.shape and isinstance(found, _NUMBERS):
            if not _takes(ask.dtype, found, cast):
                dtype.append((text, type(found).__name__, ask.dtype))
            continue
        if is_tensor(found) != (ask is not None):
            kind.append((text, _kind(is_tensor(found), found), _kind(ask is not None, leaves[path])))
        elif ask is not None:
            if found.shape != ask.shape:
                shape.append((text, found.shape, ask.shape))
            if found.dtype != ask.dtype.newbyteorder("="):
                if not (cast and castable(found.dtype, ask.dtype)):
                    dtype.append((text, found.dtype, ask.dtype))
                elif may_exceed(found.dtype, ask.dtype):
                    overflows.append(
                        TensorCast(text, name_of(found.dtype), ask.dtype, math.prod(found.shape)).overflow()
                    )
            if isinstance(ask, Slot) and not ask.writable:
                readonly.append(text)
    return MatchReport(
        missing, unexpected, tuple(shape), tuple(dtype), tuple(kind), tuple(readonly), (), tuple(overflows)
    )


def is_empty(leaf: Any) -> bool:
    """Whether a leaf is an empty container: there is nothing in it that could be missing. Orbax writes None for one
    that is a NamedTuple."""
    return isinstance(leaf, dict | list | tuple) and not leaf


def is_blank(leaf: Any) -> bool:
    """Whether there is nothing yet in a place of a target."""
    return leaf is None or is_empty(leaf)


def _takes(dtype: np.dtype[Any], number: Any, cast: bool) -> bool:
    """Whether a number can be an element of a dtype: a Python number of one of its own or a wider kind, which an
    integer must be exactly; a NumPy scalar as a tensor can."""
    array = np.asarray(number)
    if isinstance(number, np.generic):
        return array.dtype == dtype or (cast and castable(array.dtype, dtype))
    return castable(array.dtype, dtype) and (
        array.dtype.kind not in "iu" or casts.cast(array, dtype).values.item() == number
    )


def _kind(is_tensor: bool, leaf: Any) -> str:
    return "tensor" if is_tensor else type(leaf).__name__


def castable(found: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Whether a cast keeps the kind of number: bool < int < float < complex."""
    ranks = [_rank(found), _rank(wanted)]
    return None not in ranks and ranks[0] <= ranks[1]  # type: ignore[operator]


def _rank(dtype: np.dtype[Any]) -> int | None:
    row = dtype_of(dtype)
    if row is None:
        return None
    return next(
        (
            rank
            for rank, prefixes in enumerate((("bool",), ("int", "uint"), ("float", "bfloat")))
            if row.name.startswith(prefixes)
        ),
        3,
    )
