"""The tree (SPEC.md section 2): msgpack nodes, and the values that they stand for, with typed paths. `encoder` is the
way back.

Pure: tensors are referred to by index, and read elsewhere.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, Sized
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UnknownTagWarning, fault
from .dtypes import DTYPES, dtype_named, settled, unpack
from .limits import SMALL, table, uncollected
from .names import LEAST_HEXADECIMAL, Key, Path, are_plain, exact_path, path_label, path_of_text

if TYPE_CHECKING:
    from .node import Node, Restore
    from .tags import Tag

AppliedTag = tuple[str, Any]  # its name and param
Tags = Mapping[Path, Sequence[AppliedTag]]  # by path, the outermost first
Tree = Any

_LEAVES = frozenset((type(None), bool, int, float, str, bytes))  # nodes that are their values
_KEYS = frozenset((str, int))
MAX_DEPTH = 256  # [TREE-012]
COMPLEX = struct.Struct("<dd")


class Lazy:
    """Base of what is no array and stands in a tree as a tensor."""

    __slots__ = ()


class _Omitted:
    """The type of `OMITTED`: stands for list and tuple items that `select=` leaves out."""

    def __repr__(self) -> str:
        return "ckptfmt.OMITTED"

    def __bool__(self) -> bool:
        return False

    def __reduce__(self) -> str:
        return "OMITTED"


OMITTED = _Omitted()


@cache
def _known_tags() -> Mapping[str, Tag]:
    """The tags, imported when one is met: most trees of tensors have none."""
    from .tags import TAGS

    return TAGS


def check(node: Node, dtypes: Sequence[str]) -> None:
    """Refuse a node that breaks section 2 [TREE-001]; `dtypes` are those of the manifest's tensors, or () where none
    may stand."""
    used: set[int] = set()
    _check(node, dtypes, used, 0)
    if len(used) < len(dtypes):
        raise _bad("a tensor stands nowhere in the tree [TREE-009]")


def check_leaf(node: Node, dtypes: Sequence[str]) -> None:
    """The same for a node of a tree, of whose other nodes nobody has asked."""
    _check(node, dtypes, set(), 0)


def _check(node: Node, dtypes: Sequence[str], used: set[int], depth: int) -> None:
    if type(node) is not list:
        if type(node) in _LEAVES:
            return
        raise _bad(f"a {type(node).__name__} is no node")
    if len(node) == 3 and node[0] == "dict" and type(node[1]) is type(node[2]) is list:  # of these there are most
        _, keys, items = node
        if len(keys) == len(items):  # [TREE-006]
            _check_keys(keys)
            _check_items(items, dtypes, used, depth)
            return
    match node:
        case ["tensor", int(index)] if type(index) is int and 0 <= index < len(dtypes):
            used.add(index)
        case ["list" | "tuple", list(items)]:
            _check_items(items, dtypes, used, depth)
        case ["int", bytes(raw)] if raw:  # [TREE-003]
            pass
        case ["complex", bytes(raw)] if len(raw) == 16:  # [TREE-005]
            pass
        case ["scalar", str(name), bytes(raw)]:
            if len(raw) != dtype_named(name).stored.itemsize or (name == "bool" and raw[0] > 1):
                raise _bad(f"a scalar of {name} has the bytes {raw[:16].hex()} [TREE-005]")
        case ["tag", str(name), param, child]:
            _check(param, (), used, depth + 1)  # [TREE-014]
            _check_items([child], dtypes, used, depth)
            tag = _known_tags().get(name)
            if tag is not None and not tag.accepts(param, child, dtypes):
                raise _bad(f"tag {name!r} has a param or child of another form [TAG-003]")
        case _:
            raise _bad(f"no such node: {str(node)[:60]} [TREE-001]")


def _check_items(items: list[Node], dtypes: Sequence[str], used: set[int], depth: int) -> None:
    """Check what is in a container; the forms of which there may be a million without a call for each."""
    if depth >= MAX_DEPTH:
        raise _bad(f"nested deeper than {MAX_DEPTH} [TREE-012]")
    count, met = len(dtypes), used.add
    for item in items:
        if type(item) is list:
            if len(item) == 2 and item[0] == "tensor" and type(item[1]) is int and 0 <= item[1] < count:
                met(item[1])  # here, as there are most of them
            else:
                _check(item, dtypes, used, depth + 1)
        elif type(item) not in _LEAVES:
            _check(item, dtypes, used, depth + 1)


def _check_keys(keys: list[Node]) -> None:
    decoded = keys if _KEYS.issuperset(map(type, keys)) else decode_keys(keys)
    if len(set(decoded) if len(keys) <= SMALL else table(zip(decoded, decoded, strict=True))) != len(keys):
        raise _bad("a dict repeats a key [TREE-006]")


def _bad(message: str) -> Exception:
    return fault("bad-manifest", message)


def decode_keys(keys: list[Node]) -> list[Key]:
    return keys if _KEYS.issuperset(map(type, keys)) else list(map(decode_key, keys))


def decode_key(key: Node) -> Key:
    if type(key) in _KEYS:
        return key  # type: ignore[no-any-return]
    match key:
        case ["int", bytes(raw)] if raw:
            return int.from_bytes(raw, "big", signed=True)
    raise _bad(f"a dict has the key {key!r:.40} [TREE-007]")


def decode(
    node: Node,
    tensor: Callable[[int], Any],
    keep: Callable[[Path], bool] | None = None,
    restores: Mapping[str, Restore] | None = MappingProxyType({}),
    path: Path = (),
) -> Tree:
    """The value of a checked node, which stands at a path; `tensor(index)` gives the leaf of a tensor node.

    With `keep`, leaves whose path it refuses are left out: dict entries vanish, items of lists and tuples become
    `OMITTED`. `restores` makes the values of tags that belong to a framework; None is for trees of tensors that are not
    read (`tags.CHILDREN`).
    """
    with uncollected():
        return _Decoder(tensor, keep, restores).value(node, path)


class _Decoder:
    def __init__(
        self, tensor: Callable[[int], Any], keep: Callable[[Path], bool] | None, restores: Mapping[str, Restore] | None
    ) -> None:
        self.tensor, self.keep, self.restores = tensor, keep, restores
        self.announced: set[str] = set()
        self.tagged_tensors: dict[Hashable, Any] = {}

    def value(self, node: Node, path: Path) -> Tree:
        kind = node[0] if type(node) is list else None
        if kind in ("dict", "list", "tuple"):
            return self.whole(node, path) if self.keep is None else self.container(node, path)
        if kind == "tag":
            return self.tagged(node, path)
        if self.keep is not None and not self.keep(path):
            return OMITTED
        if kind is None:
            return node
        if kind == "tensor":
            return self.tensor(node[1])
        return _leaf(node)

    def container(self, node: Node, path: Path) -> Tree:
        if node[0] == "dict":
            items = [(k, self.value(item, (*path, k))) for k, item in zip(decode_keys(node[1]), node[2], strict=True)]
            kept = {key: item for key, item in items if item is not OMITTED}
            return OMITTED if self.left_out(path, kept, items) else kept
        values = [self.value(item, (*path, i)) for i, item in enumerate(node[1])]
        if self.left_out(path, [v for v in values if v is not OMITTED], values):
            return OMITTED
        return values if node[0] == "list" else tuple(values)

    def whole(self, node: Node, path: Path) -> Tree:
        """A container of which nothing is left out, as in most loads; without a call and a path for each leaf, of which
        there may be very many."""
        value, tensor = self.value, self.tensor
        if node[0] == "dict":
            return {
                k: n if type(n) is not list else tensor(n[1]) if n[0] == "tensor" else value(n, (*path, k))
                for k, n in zip(decode_keys(node[1]), node[2], strict=True)
            }
        values = [
            n if type(n) is not list else tensor(n[1]) if n[0] == "tensor" else value(n, (*path, i))
            for i, n in enumerate(node[1])
        ]
        return values if node[0] == "list" else tuple(values)

    def left_out(self, path: Path, kept: Sized, items: Sized) -> bool:
        """Whether a container goes with what it held; one that is empty is kept like a leaf."""
        return not kept and (bool(items) or (self.keep is not None and not self.keep(path)))

    def tagged(self, node: Node, path: Path) -> Tree:
        _, name, param, child = node
        tag = _known_tags().get(name)
        if self.restores is None:
            from .tags import CHILDREN

            self.restores = CHILDREN
        if tag is not None and tag.is_leaf and self.keep is not None:
            if not self.keep(path):
                return OMITTED
            value = _Decoder(self.tensor, None, self.restores).value(child, path)
        else:
            value = self.value(child, path)
        if value is OMITTED:
            return OMITTED
        restore = self.restores.get(name) or (tag.restore if tag else None)
        if restore is None:
            return self.child(tag, node, value, path)
        if type(child) is not list or child[0] != "tensor":
            made = restore(_Decoder(self.tensor, None, {}).value(param, path), value)
            return self.child(tag, node, value, path) if made is NotImplemented else made
        key = (name, str(param), child[1])  # aliases are one object [TREE-010]
        if key not in self.tagged_tensors:
            made = restore(_Decoder(self.tensor, None, {}).value(param, path), value)
            self.tagged_tensors[key] = self.child(tag, node, value, path) if made is NotImplemented else made
        return self.tagged_tensors[key]

    def child(self, tag: Tag | None, node: Node, value: Tree, path: Path) -> Tree:
        """The value of the child, for what cannot be made here. [TAG-001] [TAG-004]"""
        hint = tag.hint if tag else "an unknown tag: its plain child was read"
        if hint and node[1] not in self.announced:
            self.announced.add(node[1])
            text = f"{node[1]} {node[2]}" if tag else node[1]
            message = f"{text!r}, first at {path_label(path)!r}, {hint} [TAG-001]"
            from ..warning import warn  # here, as it is seldom needed

            warn(message, UnknownTagWarning)
        return value


def _leaf(node: Node) -> Any:
    match node:
        case ["int", raw]:
            return int.from_bytes(raw, "big", signed=True)
        case ["complex", raw]:
            return complex(*COMPLEX.unpack(raw))
        case [_, name, raw]:  # scalar
            dtype = DTYPES[name]
            stored = np.frombuffer(raw, dtype.stored).astype(dtype.stored.newbyteorder("="))
            return unpack(stored, dtype, 1)[0] if dtype.per > 1 else settled(stored, dtype).view(dtype.numpy)[0]


def renumbered(node: Node, numbers: Sequence[int]) -> Node:
    """A checked node in which tensor n is tensor `numbers[n]`."""
    kind = node[0] if type(node) is list else None
    if kind == "tensor":
        return ["tensor", numbers[node[1]]]
    if kind in ("dict", "list", "tuple"):
        items = [
            item
            if type(item) is not list
            else ["tensor", numbers[item[1]]]
            if item[0] == "tensor"
            else renumbered(item, numbers)
            for item in node[-1]
        ]
        return [*node[:-1], items]
    return [*node[:3], renumbered(node[3], numbers)] if kind == "tag" else node


def bare(node: Node) -> Node:
    """A node without the tags over it."""
    while type(node) is list and node[0] == "tag":
        node = node[3]
    return node


def node_at(node: Node, path: Path) -> Node:
    """The node at a path, with the tags over it."""
    for key in path:
        match bare(node):
            case ["dict", keys, items]:
                node = items[decode_keys(keys).index(key)]
            case [_, items]:
                node = items[key]
    return node


def tags(node: Node, path: Path = ()) -> Iterator[tuple[Path, str, Node]]:
    """Path, name and param of every tagged node, depth first."""
    match node:
        case ["dict", keys, items]:
            for key, item in zip(keys, items, strict=True):
                if type(item) is list and item[0] != "tensor":
                    yield from tags(item, (*path, decode_key(key)))
        case ["list" | "tuple", items]:
            for i, item in enumerate(items):
                if type(item) is list and item[0] != "tensor":
                    yield from tags(item, (*path, i))
        case ["tag", name, param, child]:
            yield path, name, param
            yield from tags(child, path)


def tags_of(node: Node) -> Tags:
    """The tags of a tree by path."""
    found: dict[Path, list[tuple[str, Any]]] = {}
    for path, name, param in tags(node):
        found.setdefault(path, []).append((name, decode(param, [].__getitem__)))
    return found


def leaves(node: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Every leaf node with its path, depth first; a tag adds no segment, an empty container is a leaf, and so is a
    tagged node that is one value."""
    match node:
        case ["dict", keys, items] if items:
            for key, item in zip(decode_keys(keys), items, strict=True):
                if type(item) is not list or item[0] == "tensor":  # without a call for each of very many
                    yield (*path, key), item
                else:
                    yield from leaves(item, (*path, key))
        case ["list" | "tuple", items] if items:
            for i, item in enumerate(items):
                if type(item) is not list or item[0] == "tensor":
                    yield (*path, i), item
                else:
                    yield from leaves(item, (*path, i))
        case ["tag", name, _, child] if (tag := _known_tags().get(name)) is None or not tag.is_leaf:
            yield from leaves(child, path)
        case _:
            yield path, node


# ---- one leaf of a tree, without a look at the others


def exact_in(path: Key | Path, has_plain_keys: bool) -> Path | None:
    """The typed path that a caller's can only mean; None where that takes a look at all of the tree. [PAGE-008]"""
    if not isinstance(path, str):
        return exact_path(path)
    is_sure = has_plain_keys and 0 < len(path) < LEAST_HEXADECIMAL  # as a str key may look like an int of more digits
    return path_of_text(path) if is_sure else None


def leaf_at(node: Node, path: Path) -> Node | None:
    """The plain value or tensor at a path of a checked tree, with the tags over it; None where there is none, a
    container, or a tagged value that is one leaf whatever it is made of."""
    for key in path:
        if is_one_leaf(node):
            return None
        match bare(node):
            case ["dict", keys, items]:
                known = decode_keys(keys)
                if key not in known:
                    return None
                node = items[known.index(key)]
            case ["list" | "tuple", items] if type(key) is int and 0 <= key < len(items):
                node = items[key]
            case _:
                return None
    inner = bare(node)
    is_container = type(inner) is list and inner[0] in ("dict", "list", "tuple")
    return None if is_container or is_one_leaf(node) else node


def is_one_leaf(node: Node) -> bool:
    """Whether a tag over a node, which need not be checked yet, makes one leaf of what is below it."""
    while True:
        match node:
            case ["tag", str(name), _, child]:
                tag = _known_tags().get(name)
                if tag is not None and tag.is_leaf:
                    return True
                node = child
            case _:
                return False


def has_plain_keys(node: Node) -> bool:
    """Whether each path text of a tree stands for one path: no key of a dict is empty, has a `/` or is the text of an
    int. [PAGE-008]"""
    keys: set[Node] = set()
    _collect_keys(node, keys)
    return are_plain(keys)


def _collect_keys(node: Node, keys: set[Node]) -> None:
    """Add the keys of all dicts, but for those that are nodes of long ints; most dicts of a tree have the same."""
    kind = node[0] if type(node) is list else None
    if kind == "tag":
        _collect_keys(node[3], keys)
    if kind not in ("dict", "list", "tuple"):
        return
    if kind == "dict":
        try:
            keys.update(node[1])
        except TypeError:
            keys.update(key for key in node[1] if type(key) is not list)
    for item in node[-1]:
        if type(item) is list and item[0] != "tensor":
            _collect_keys(item, keys)
