"""What a format can hold, and a tree made to fit it: every difference is a `Loss`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..errors import CkptError, fault
from ..format.dtypes import DTYPES, Array, dtype_of
from ..format.manifest import Schema
from ..format.names import Key, Path, path_label, path_text
from ..format.node import Restore
from ..format.tree import MAX_DEPTH, OMITTED, Tree
from ..frameworks.target import flatten
from .claims import SHOWN
from .source import LazyArray, LeadingSlices, Loss, SourceTensor, is_tensor, walk

DICTS = 1 << 16  # that the names of any flat dict may be nested into
ONLY = "tensor"  # the name of a leaf that is the whole tree
CORE = frozenset(name for name, row in DTYPES.items() if row.is_core)


class ShapedTree(NamedTuple):
    """A tree whose containers are as a format has them, what they lost, and where each path of before stands now."""

    tree: Tree
    losses: tuple[Loss, ...] = ()
    place: Callable[[Path], Path] = lambda path: path


@dataclass(frozen=True, slots=True)
class Holds:
    """What a format can hold.

    `dtypes`: names of SPEC.md section 3, "datetime64" and "timedelta64". `pairs`: those of which two elements lie in a
    byte, so that the last axis must be even. `containers`: types, or none where tensors have flat names, which are then
    made of keys joined with `separator`. `int_keys`: whether dict keys can be ints. `reserved`: names that mean
    something else. `check_name`: raises `unsupported-key` or `name-collision` for a key, or a joined name, that it
    cannot have beside the others given. `values`: types of plain leaves; `fits`: whether it takes one of such a type.
    `aliases`: whether one tensor can stand at several places. `metadata`: what of metadata it takes beside a fitted
    tree, and what to say of the rest. `schema`: what puts a schema into such metadata, where they take one. `arrays`:
    whether every tensor must be an array to be written. `raw`: whether metadata explain the bytes of a tensor with a
    flat name, which is written as it is, whatever its dtype. `tags`: those of SPEC.md section 13 that it can keep, with
    what makes their values. `shaped`: what becomes of fitted containers where the format has rules of its own for them.
    """

    dtypes: frozenset[str]
    pairs: frozenset[str] = frozenset()
    containers: tuple[type, ...] = ()
    separator: str = "."
    int_keys: bool = False
    reserved: frozenset[str] = frozenset()
    check_name: Callable[[str, Collection[str]], None] = lambda name, beside: None
    values: tuple[type, ...] = ()
    fits: Callable[[Any], bool] = lambda value: True
    aliases: bool = False
    metadata: Callable[[Tree, Tree], KeptMetadata] = lambda metadata, tree: keys_of(metadata, ())
    schema: Callable[[Tree, Schema], Tree] | None = None
    arrays: bool = False
    raw: Callable[[Tree, str, SourceTensor], bool] = lambda metadata, name, tensor: False
    tags: Mapping[str, Restore] = field(default_factory=dict)
    shaped: Callable[[Tree], ShapedTree] = lambda tree: ShapedTree(tree)


class KeptMetadata(NamedTuple):
    """Metadata that a format can hold, and what they lost."""

    value: Tree
    lost: tuple[str, ...] = ()


def keys_of(metadata: Tree, held: Collection[str]) -> KeptMetadata:
    """Of metadata the keys that a format can hold."""
    if metadata is None:
        return KeptMetadata(None)
    if not isinstance(metadata, dict):
        return KeptMetadata(None, ("they are left out",))
    kept = {key: value for key, value in metadata.items() if key in held}
    lost = tuple(f"{key!r} is left out" for key in metadata if key not in held)
    return KeptMetadata(kept or None, lost)


def with_more(metadata: Tree, more: Tree) -> KeptMetadata:
    """Metadata of a source with those that the caller gives, whose keys count; what is no dict takes the place of all
    the others."""
    if metadata is None or more is None:
        return KeptMetadata(metadata if more is None else more)
    if isinstance(metadata, dict) and isinstance(more, dict):
        return KeptMetadata({**metadata, **more})
    return KeptMetadata(more, ("those of the source are left out, as metadata= and they are not both dicts",))


class Fitted(NamedTuple):
    """A tree and metadata that a format can hold, what they lost, and where each path of before stands now, as far as
    the format has rules of its own for containers."""

    tree: Tree
    metadata: Tree
    losses: tuple[Loss, ...]
    place: Callable[[Path], Path] = lambda path: path


def fit(tree: Tree, metadata: Tree, holds: Holds) -> Fitted:
    """Make a tree fit; raises `name-collision` where two leaves would get one name, and `unsupported-key`."""
    fitter = _Fitter(holds, metadata)
    if list not in holds.containers and not isinstance(tree, dict | list | tuple):
        fitter.lose("nesting", (), f"a tree that is one leaf gets the name {ONLY!r}")
        tree = {ONLY: tree}
    fitted = fitter.nested(tree, ()) if holds.containers else fitter.flat(tree)
    shaped = holds.shaped({} if fitted is _LEFT else fitted)
    held = holds.metadata(metadata, shaped.tree)
    for message in held.lost:
        fitter.lose("metadata", (), message)
    return Fitted(shaped.tree, held.value, (*fitter.losses, *shaped.losses), shaped.place)


class _Left:
    """Stands for what is left out."""


_LEFT = _Left()


class _Fitter:
    def __init__(self, holds: Holds, metadata: Tree) -> None:
        self.holds, self.metadata = holds, metadata
        self.losses: list[Loss] = []
        self.first: dict[Any, Path] = {}
        self.converted: dict[Any, SourceTensor] = {}

    def lose(self, kind: str, path: Path, message: str) -> None:
        self.losses.append(Loss(kind, path_label(path), message))

    def name(self, path: Path) -> str:
        """The joined name of what stands at a path."""
        return self.holds.separator.join(path_text((key,)) for key in path)

    # ---- containers

    def flat(self, tree: Tree) -> Tree:
        """A dict of leaves with joined names."""
        leaves = dict(flatten(tree))
        if not isinstance(tree, dict) or any(len(path) != 1 or type(path[0]) is int for path in leaves):
            for path, what in _joined(tree, self.holds.separator, ()):
                self.lose("nesting", path, f"{what}, and cannot be told apart again")
        fitted: dict[str, Any] = {}
        places: dict[Path, str] = {}
        for path, leaf in leaves.items():
            name = self.name(path)
            if leaf is OMITTED:
                continue
            if isinstance(leaf, dict | list | tuple):
                if path:
                    self.lose("nesting", path, "an empty container is left out")
                continue
            value = self.leaf(leaf, path)
            if name in self.holds.reserved:
                raise fault("unsupported-key", f"the target cannot have the name {name!r}", tensor=path_label(path))
            if name in fitted:
                raise fault("name-collision", f"two leaves would both be called {name!r}", tensor=path_label(path))
            if value is not _LEFT:
                fitted[name] = value
                places[path] = name
        self.check_names(places)
        return fitted

    def nested(self, tree: Tree, path: Path) -> Tree:
        if isinstance(tree, dict):
            kind: Any = OrderedDict if type(tree) is OrderedDict else dict
            items = ((self.key(key, path), self.nested(item, (*path, key))) for key, item in tree.items())
        elif type(tree) is list and path and list in self.holds.values and self.holds.fits(tree):
            return tree  # the whole tree is no value: a container takes it
        elif type(tree) in (list, tuple):
            kind = type(tree)
            items = ((str(i), self.nested(item, (*path, i))) for i, item in enumerate(tree))
        elif tree is OMITTED:
            return _LEFT
        else:
            return self.leaf(tree, path)
        if kind in self.holds.containers and kind in (list, tuple) and type(None) in self.holds.values:
            return kind(None if item is _LEFT else item for _, item in items)  # what follows keeps its place
        pairs = [(key, item) for key, item in items if item is not _LEFT]
        if kind not in (list, tuple) or kind not in self.holds.containers:
            self.check_names({(*path, key): key for key, _ in pairs if isinstance(key, str)})
        if kind in self.holds.containers and kind in (list, tuple):
            return kind(item for _, item in pairs)
        if len({key for key, _ in pairs}) != len(pairs):
            raise fault(
                "name-collision", f"two keys below {path_label(path)!r} would become the same", tensor=path_label(path)
            )
        if kind in self.holds.containers:
            return kind(pairs)
        if (
            kind is not OrderedDict
        ):  # an ordered dict in a format whose dicts keep their order loses nothing but its type
            self.lose("nesting", path, f"{kind.__name__} becomes dict")
        return dict(pairs)

    def key(self, key: Key, path: Path) -> Key:
        if isinstance(key, int):
            if self.holds.int_keys:
                return key
            self.lose("nesting", (*path, key), "an int key becomes a string")
            return path_text((key,))
        if key in self.holds.reserved:
            raise fault("unsupported-key", f"the target cannot have the key {key!r}", tensor=path_label((*path, key)))
        return key

    def check_names(self, names: dict[Path, str]) -> None:
        """Refuse names that the format cannot hold, whatever is read or verified later."""
        beside = set(names.values())
        for path, name in names.items():
            try:
                self.holds.check_name(name, beside)
            except CkptError as error:
                error.tensor = path_label(path)
                raise

    # ---- leaves

    def leaf(self, leaf: Any, path: Path) -> Any:
        if is_tensor(leaf):
            return self.tensor(leaf, path)
        is_held = type(leaf) in self.holds.values or (isinstance(leaf, np.generic) and np.generic in self.holds.values)
        if is_held and self.holds.fits(leaf):
            return leaf
        if isinstance(leaf, bool | int | float | complex | np.generic):
            array = np.asarray(leaf)
            if array.dtype.kind in "biufc" or dtype_of(array.dtype) is not None:
                self.lose("value", path, f"{_kind(leaf)} becomes a tensor without axes")
                return self.dtype(array, path)
        self.lose("value", path, f"{_kind(leaf)} is left out")
        return _LEFT

    def tensor(self, tensor: SourceTensor, path: Path) -> SourceTensor:
        key = _identity(tensor)
        first = self.first.setdefault(key, path)
        if first != path and not self.holds.aliases:
            self.lose("alias", path, f"a second copy of {path_label(first)!r}")
        if self.holds.raw(self.metadata, self.name(path), tensor):
            return tensor
        if key not in self.converted:
            self.converted[key] = self.dtype(tensor, path)
        return self.converted[key]

    def dtype(self, tensor: SourceTensor, path: Path) -> SourceTensor:
        """The tensor, or its bits as unsigned integers where its dtype has no place."""
        name = dtype_name(tensor.dtype)
        is_even = tensor.ndim > 0 and tensor.shape[-1] % 2 == 0
        if name in self.holds.dtypes or (name in self.holds.pairs and is_even):
            return tensor
        same = self.integer(tensor.dtype.itemsize)
        if same is not None:
            self.lose("dtype", path, f"{name} becomes {same.name} with the same bits")
            return LazyArray(tensor.shape, same, lambda index: _native(tensor[index]).view(same), _rows(tensor))
        self.lose("dtype", path, f"{name} becomes bytes, along an axis more")
        shape, octet = (*tensor.shape, tensor.dtype.itemsize), self.integer(1) or np.dtype(np.uint8)

        def bits(index: LeadingSlices) -> Array:
            part = _native(tensor[index[: len(tensor.shape)]])
            octets: Array = part.reshape(-1).view(octet).reshape(*part.shape, tensor.dtype.itemsize)
            return octets[(..., *index[len(tensor.shape) :])] if len(index) == len(shape) else octets

        return LazyArray(shape, octet, bits, _rows(tensor))

    def integer(self, size: int) -> np.dtype[Any] | None:
        """The integers of that many bytes which the format has, unsigned ones if it has both."""
        names = (f"{kind}{8 * size}" for kind in ("uint", "int"))
        return next((np.dtype(name) for name in names if name in self.holds.dtypes), None)


def dtype_name(dtype: np.dtype[Any]) -> str:
    """The name of SPEC.md section 3, or NumPy's own without a unit."""
    row = dtype_of(dtype)
    return dtype.name.partition("[")[0] if row is None else row.name


def _kind(leaf: Any) -> str:
    """The type of a plain value, as people write it: numpy.float64 is not Python's float."""
    name = type(leaf).__name__
    return f"{type(leaf).__module__}.{name}" if isinstance(leaf, np.generic) else name


def _native(part: Array) -> Array:
    return np.ascontiguousarray(part, part.dtype.newbyteorder("=")).reshape(part.shape)


def _rows(tensor: SourceTensor) -> int | None:
    return tensor.rows if isinstance(tensor, LazyArray) else None


def _identity(tensor: SourceTensor) -> Any:
    """Equal for aliases. [TREE-011]"""
    if isinstance(tensor, LazyArray) or not tensor.nbytes:
        return id(tensor)
    return tensor.__array_interface__["data"][0], tensor.dtype, tensor.shape, tensor.strides


def _joined(tree: Tree, separator: str, path: Path) -> Iterator[tuple[Path, str]]:
    """The containers whose keys cannot be taken out of joined names again, and why: others are dicts of text without
    the separator."""
    if isinstance(tree, dict):
        if any(isinstance(key, int) for key in tree):
            yield path, "int keys become text in names"
        if any(isinstance(key, str) and separator in key for key in tree):
            yield path, f"keys with {separator!r} in them are joined with it"
    elif tree or not path:
        yield path, f"the items of a {type(tree).__name__} become numbers in names"
    for key, item in tree.items() if isinstance(tree, dict) else enumerate(tree):
        if isinstance(item, dict | list | tuple):
            yield from _joined(item, separator, (*path, key))


def nest(tree: Tree, separator: str) -> Tree:
    """Dicts from the joined names of a flat dict; int keys, and a tree that is no dict, stay as they are. Raises what
    `nested` does."""
    if not isinstance(tree, dict):
        return tree
    paths = (tuple(name.split(separator)) if isinstance(name, str) else (name,) for name in tree)
    found = nested(zip(paths, tree.values(), strict=True), len(tree))
    return OrderedDict(found) if type(tree) is OrderedDict else found  # whose attributes are kept by its path


def nested(leaves: Iterable[tuple[Path, Any]], count: int) -> dict[Key, Any]:
    """Dicts from the paths of `count` leaves. Raises `name-collision` for a path that is also part of another,
    `too-deep`, and `limit-exceeded` for far more dicts than leaves."""
    found: dict[Key, Any] = {}
    left = DICTS + 2 * count
    for path, leaf in leaves:
        *parents, last = path
        if len(parents) >= MAX_DEPTH:
            message = f"{path_label(path[:8])[:SHOWN]!r} ... has {len(path):,} parts"
            raise fault("too-deep", message, expected=MAX_DEPTH)
        place = found
        for parent in parents:
            if parent not in place:
                left -= 1
            place = place.setdefault(parent, {})
            if not isinstance(place, dict):
                break
        if not isinstance(place, dict) or last in place:
            label = path_label(path)
            raise fault("name-collision", f"{label!r} is, or lies under, the name of another tensor", tensor=label)
        if left < 0:
            raise fault("limit-exceeded", f"nested, {count:,} names would make far more dicts than that")
        place[last] = leaf
    for _ in walk(found):  # what is nested may be deep itself
        pass
    return found
