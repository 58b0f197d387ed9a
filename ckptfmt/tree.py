"""The tree (SPEC.md section 2): Python values to msgpack nodes and back, with typed paths.

Pure: tensors are collected and referred to by index here, and stored elsewhere. Exact types only: a subclass that
would come back as something else is refused, so that what is loaded equals what was saved; values of other libraries
are lowered by their adapters.
"""

from __future__ import annotations

import struct
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence, Sized
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from .adapter import Plain, Tagged, lower
from .dtypes import DTYPES, Array, dtype_named, dtype_of, pack, unpack
from .errors import CkptError, UnknownTagWarning, fault
from .names import Key, Path, path_text
from .sources import Source, memory_key
from .tags import TAGS, Restore

Node = Any  # nil, bool, int, float, str, bytes, or a list whose first item names its kind
Tree = Any

MAX_DEPTH = 256  # [TREE-012]
_COMPLEX = struct.Struct("<dd")


class _Omitted:
    """The type of `OMITTED`: stands for list and tuple items that `select=` leaves out."""

    def __repr__(self) -> str:
        return "ckptfmt.OMITTED"

    def __bool__(self) -> bool:
        return False

    def __reduce__(self) -> str:
        return "OMITTED"


OMITTED = _Omitted()


class TensorLeaf(NamedTuple):
    """A tensor met in a tree, and the path at which it was first met."""

    path: Path
    source: Source


class EncodedTree(NamedTuple):
    """A tree as a node, its distinct tensors in order of their index, and groups of paths that share memory yet were
    separated."""

    node: Node
    tensors: list[TensorLeaf]
    copied_views: tuple[tuple[str, ...], ...]


def encode(tree: Tree, *, allow_tensors: bool = True) -> EncodedTree:
    """Encode `tree`; raises `unsupported-leaf`, `unsupported-key`, `unsupported-dtype` or `too-deep`. [TREE-013]"""
    encoder = _Encoder(allow_tensors)
    node = encoder.node(tree, (), 0)
    return EncodedTree(node, encoder.tensors, _shared_views(encoder.tensors, list(encoder.index_of_memory)))


class _Encoder:
    def __init__(self, allow_tensors: bool) -> None:
        self.allow_tensors = allow_tensors
        self.tensors: list[TensorLeaf] = []
        self.index_of_memory: dict[Hashable, int] = {}

    def node(self, value: Tree, path: Path, depth: int) -> Node:
        kind = type(value)
        if kind is np.ndarray or kind is np.memmap:
            return self.tensor(value, path, depth)
        if value is None or kind is bool or kind is float or kind is bytes:
            return value
        if kind is str:
            return _utf8(value, "unsupported-leaf", path)
        if kind is int:
            return _integer(value)
        if kind is complex:
            return ["complex", _COMPLEX.pack(value.real, value.imag)]
        if kind in (dict, list, tuple, OrderedDict):
            return self.container(value, kind, path, depth)
        if isinstance(value, np.generic) and kind is value.dtype.type:
            return _scalar(value, path, depth)
        return self.lowered(value, path, depth)

    def lowered(self, value: Any, path: Path, depth: int) -> Node:
        """A value of another library, as its adapter says. [TREE-013]"""
        try:
            lowered = lower(value)
        except CkptError as error:
            error.tensor = error.tensor or path_text(path)
            raise
        if lowered is None:
            kind = type(value)
            raise fault(
                "unsupported-leaf",
                f"cannot store a {kind.__module__}.{kind.__qualname__} at {path_text(path)!r}",
                tensor=path_text(path),
            )
        if isinstance(lowered, Tagged):
            _check_depth(depth, path)
            return ["tag", lowered.tag, lowered.param, self.node(lowered.child, path, depth + 1)]
        if isinstance(lowered, Plain):
            return self.node(lowered.value, path, depth)
        return self.tensor(lowered, path, depth)

    def container(self, value: Any, kind: type, path: Path, depth: int) -> Node:
        _check_depth(depth, path)
        if kind is OrderedDict:
            return ["tag", "collections.OrderedDict", None, self.container(value, dict, path, depth + 1)]
        if kind is dict:
            keys = [_key(key, path) for key in value]
            return ["dict", keys, [self.node(item, (*path, key), depth + 1) for key, item in value.items()]]
        return [kind.__name__, [self.node(item, (*path, i), depth + 1) for i, item in enumerate(value)]]

    def tensor(self, array: Any, path: Path, depth: int) -> Node:
        if not self.allow_tensors:
            raise fault(
                "unsupported-leaf",
                f"metadata holds a tensor at {path_text(path)!r}; put it into the tree",
                tensor=path_text(path),
            )  # [TREE-014]
        if isinstance(array, np.ndarray) and array.dtype.kind in "mM":
            _check_depth(depth, path)
            unit, count = np.datetime_data(array.dtype)
            tag = "numpy.datetime64" if array.dtype.kind == "M" else "numpy.timedelta64"
            return [
                "tag",
                tag,
                unit if count == 1 else f"{count}{unit}",
                self.tensor(array.view(_int64(array.dtype)), path, depth + 1),
            ]
        if dtype_of(array.dtype) is None:
            raise fault(
                "unsupported-dtype",
                f"cannot store a tensor of dtype {array.dtype} at {path_text(path)!r}",
                tensor=path_text(path),
            )
        memory = memory_key(array)
        index = self.index_of_memory.get(memory)
        if index is None:
            index = self.index_of_memory[memory] = len(self.tensors)
            self.tensors.append(TensorLeaf(path, array))  # keeps it alive, so its id and memory stay its own
        return ["tensor", index]


def _key(key: Any, path: Path) -> Node:
    if type(key) is str:
        return _utf8(key, "unsupported-key", (*path, key))
    if type(key) is int:
        return _integer(key)
    raise fault(
        "unsupported-key",
        f"the dict at {path_text(path)!r} has the key {key!r} of type {type(key).__name__}",
        tensor=path_text(path),
    )  # [TREE-007]


def _utf8(text: str, code: str, path: Path) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:  # [TREE-015]
        where = path_text(path).encode(errors="backslashreplace").decode()
        raise fault(code, f"the string at {where!r} has lone surrogates and is no UTF-8", tensor=where) from None
    return text


def _integer(value: int) -> Node:
    if -(1 << 63) <= value < 1 << 64:
        return value
    magnitude = value if value >= 0 else ~value
    return ["int", value.to_bytes(magnitude.bit_length() // 8 + 1, "big", signed=True)]  # [TREE-002]


def _int64(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.int64).newbyteorder(dtype.byteorder)


def _check_depth(depth: int, path: Path) -> None:
    if depth >= MAX_DEPTH:
        where = path_text(path[:8])
        raise fault("too-deep", f"containers nested deeper than {MAX_DEPTH} below {where!r}, or in themselves")


def _scalar(value: np.generic, path: Path, depth: int) -> Node:
    if isinstance(value, np.str_ | np.bytes_ | np.datetime64 | np.timedelta64):
        _check_depth(depth, path)
    if isinstance(value, np.str_):  # join, as NumPy's own conversions drop zeros at the end
        return ["tag", "numpy.str_", None, _utf8("".join([value]), "unsupported-leaf", path)]
    if isinstance(value, np.bytes_):
        return ["tag", "numpy.bytes_", None, b"".join([value])]
    if isinstance(value, np.datetime64 | np.timedelta64):
        unit, count = np.datetime_data(value.dtype)
        param = unit if count == 1 else f"{count}{unit}"
        return ["tag", f"numpy.{type(value).__name__}", param, _scalar(value.view(np.int64), path, depth + 1)]
    dtype = dtype_of(value.dtype)
    if dtype is None:
        raise fault(
            "unsupported-dtype",
            f"cannot store a scalar of dtype {value.dtype} at {path_text(path)!r}",
            tensor=path_text(path),
        )
    array = np.asarray(value)
    stored = pack(array, dtype) if dtype.per > 1 else array.view(dtype.stored.newbyteorder("="))
    return ["scalar", dtype.name, stored.astype(dtype.stored).tobytes()]


def _shared_views(tensors: list[TensorLeaf], memories: list[Any]) -> tuple[tuple[str, ...], ...]:
    """Groups of tensors, whose `memory_key`s are given, that overlap without being aliases. [TREE-011]"""
    numbered = enumerate(zip(tensors, memories, strict=True))
    arrays = [(n, leaf.source, key) for n, (leaf, key) in numbered if isinstance(leaf.source, np.ndarray)]
    spans = [(*_bounds(array, key), n) for n, array, key in arrays]
    table = np.array(spans, np.uint64).reshape(-1, 3)
    table = table[np.argsort(table[:, 0])]
    if (np.maximum.accumulate(table[:-1, 1]) <= table[1:, 0]).all():  # the way of most trees
        return ()
    groups: list[tuple[str, ...]] = []
    group: list[int] = []
    end = 0
    for low, high, number in [*sorted(span for span in spans if span[0] < span[1]), (1 << 64, 0, 0)]:
        if low >= end:
            if len(group) > 1:
                groups.append(tuple(path_text(tensors[n].path) for n in group))
            group = []
        group.append(number)
        end = max(end, high)
    return tuple(groups)


def _bounds(array: Array, memory: Any) -> tuple[int, int]:
    """First and last address (excluded) of an array's memory, for its `memory_key`."""
    if array.flags.c_contiguous:
        start = memory[0] if array.nbytes else 0
        return start, start + array.nbytes
    low, high = np.lib.array_utils.byte_bounds(array)
    return low, high if array.nbytes else low


# ---- nodes to values


def check(node: Node, dtypes: Sequence[str]) -> None:
    """Refuse a node that breaks section 2 [TREE-001]; `dtypes` are those of the manifest's tensors, or () where none
    may stand."""
    used: set[int] = set()
    _check(node, dtypes, used, 0)
    if len(used) < len(dtypes):
        raise _bad("a tensor stands nowhere in the tree [TREE-009]")


def _check(node: Node, dtypes: Sequence[str], used: set[int], depth: int) -> None:
    if type(node) is not list:
        if node is None or type(node) in (bool, int, float, str, bytes):
            return
        raise _bad(f"a {type(node).__name__} is no node")
    match node:
        case ["tensor", int(index)] if type(index) is int and 0 <= index < len(dtypes):
            used.add(index)
        case ["dict", list(keys), list(items)] if len(keys) == len(items):  # [TREE-006]
            if len({_decode_key(key) for key in keys}) != len(keys):
                raise _bad("a dict repeats a key [TREE-006]")
            _check_items(items, dtypes, used, depth)
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
            if name in TAGS and not TAGS[name].accepts(param, child, dtypes):
                raise _bad(f"tag {name!r} has a param or child of another form [TAG-003]")
        case _:
            raise _bad(f"no such node: {str(node)[:60]} [TREE-001]")


def _check_items(items: list[Node], dtypes: Sequence[str], used: set[int], depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise _bad(f"nested deeper than {MAX_DEPTH} [TREE-012]")
    for item in items:
        _check(item, dtypes, used, depth + 1)


def _bad(message: str) -> Exception:
    return fault("bad-manifest", message)


def _decode_key(key: Node) -> Key:
    if type(key) is str or type(key) is int:
        return key
    match key:
        case ["int", bytes(raw)] if raw:
            return int.from_bytes(raw, "big", signed=True)
    raise _bad(f"a dict has the key {key!r:.40} [TREE-007]")


def decode(
    node: Node,
    tensor: Callable[[int], Any],
    keep: Callable[[Path], bool] | None = None,
    restores: Mapping[str, Restore] = MappingProxyType({}),
) -> Tree:
    """The value of a checked node; `tensor(index)` gives the leaf of a tensor node.

    With `keep`, leaves whose path it refuses are left out: dict entries vanish, items of lists and tuples become
    `OMITTED`. `restores` makes the values of tags that belong to a framework.
    """
    return _Decoder(tensor, keep, restores).value(node, ())


class _Decoder:
    def __init__(
        self, tensor: Callable[[int], Any], keep: Callable[[Path], bool] | None, restores: Mapping[str, Restore]
    ) -> None:
        self.tensor, self.keep, self.restores = tensor, keep, restores
        self.announced: set[str] = set()
        self.tagged_tensors: dict[Hashable, Any] = {}

    def value(self, node: Node, path: Path) -> Tree:
        kind = node[0] if type(node) is list else None
        if kind in ("dict", "list", "tuple"):
            return self.container(node, path)
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
            keys = [_decode_key(key) for key in node[1]]
            if self.keep is None:  # the way of most loads, so without a path for each tensor
                tensor = self.tensor
                return {
                    k: tensor(n[1]) if type(n) is list and n[0] == "tensor" else self.value(n, (*path, k))
                    for k, n in zip(keys, node[2], strict=True)
                }
            items = [(key, self.value(item, (*path, key))) for key, item in zip(keys, node[2], strict=True)]
            kept = {key: item for key, item in items if item is not OMITTED}
            return OMITTED if self.left_out(path, kept, items) else kept
        values = [self.value(item, (*path, i)) for i, item in enumerate(node[1])]
        if self.keep is not None and self.left_out(path, [v for v in values if v is not OMITTED], values):
            return OMITTED
        return values if node[0] == "list" else tuple(values)

    def left_out(self, path: Path, kept: Sized, items: Sized) -> bool:
        """Whether a container goes with what it held; one that is empty is kept like a leaf."""
        return not kept and (bool(items) or (self.keep is not None and not self.keep(path)))

    def tagged(self, node: Node, path: Path) -> Tree:
        _, name, param, child = node
        value = self.value(child, path)
        if value is OMITTED:
            return OMITTED
        tag = TAGS.get(name)
        restore = self.restores.get(name) or (tag.restore if tag else None)
        if restore is None:
            hint = tag.hint if tag else "an unknown tag: its plain child was read"
            if hint and name not in self.announced:
                self.announced.add(name)
                text = f"{name} {param}" if tag else name
                message = f"{text!r}, first at {path_text(path)!r}, {hint} [TAG-001]"
                warnings.warn(message, UnknownTagWarning, stacklevel=2)
            return value
        if type(child) is not list or child[0] != "tensor":
            return restore(param, value)
        key = (name, param, child[1])  # aliases are one object [TREE-010]
        if key not in self.tagged_tensors:
            self.tagged_tensors[key] = restore(param, value)
        return self.tagged_tensors[key]


def _leaf(node: Node) -> Any:
    match node:
        case ["int", raw]:
            return int.from_bytes(raw, "big", signed=True)
        case ["complex", raw]:
            return complex(*_COMPLEX.unpack(raw))
        case [_, name, raw]:  # scalar
            dtype = DTYPES[name]
            stored = np.frombuffer(raw, dtype.stored).astype(dtype.stored.newbyteorder("="))
            return unpack(stored, dtype, 1)[0] if dtype.per > 1 else stored.view(dtype.numpy)[0]


def tags(node: Node, path: Path = ()) -> Iterator[tuple[Path, str, Node]]:
    """Path, name and param of every tagged node, depth first."""
    match node:
        case ["dict", keys, items]:
            for key, item in zip(keys, items, strict=True):
                yield from tags(item, (*path, _decode_key(key)))
        case ["list" | "tuple", items]:
            for i, item in enumerate(items):
                yield from tags(item, (*path, i))
        case ["tag", name, param, child]:
            yield path, name, param
            yield from tags(child, path)


def leaves(node: Node, path: Path = ()) -> Iterator[tuple[Path, Node]]:
    """Every leaf node with its path, depth first; a tag adds no segment, an empty container is a leaf."""
    match node:
        case ["dict", keys, items] if items:
            for key, item in zip(keys, items, strict=True):
                yield from leaves(item, (*path, _decode_key(key)))
        case ["list" | "tuple", items] if items:
            for i, item in enumerate(items):
                yield from leaves(item, (*path, i))
        case ["tag", _, _, child]:
            yield from leaves(child, path)
        case _:
            yield path, node
