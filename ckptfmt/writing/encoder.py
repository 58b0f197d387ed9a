"""Values to nodes of the tree (SPEC.md section 2).

Pure: tensors are collected and referred to by index here, and stored elsewhere. Exact types only: a subclass that
would come back as something else is refused, so that what is loaded equals what was saved; values of other libraries
are lowered by their adapters.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, NamedTuple

import numpy as np

from ..errors import CkptError, fault
from ..format.dtypes import Array, dtype_of, pack
from ..format.names import Path, path_label
from ..format.tree import COMPLEX, MAX_DEPTH, Node, Tree
from ..frameworks.adapter import Plain, Tagged, lower
from ..frameworks.sources import Source, memory_key


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
            return ["complex", COMPLEX.pack(value.real, value.imag)]
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
            error.tensor = error.tensor or path_label(path)
            raise
        if lowered is None:
            kind = type(value)
            what = getattr(kind, "unstorable", f"a {kind.__module__}.{kind.__qualname__}")
            raise fault(
                "unsupported-leaf",
                f"cannot store {what} at {path_label(path)!r}",
                tensor=path_label(path),
            )
        if isinstance(lowered, Tagged):
            return self.tagged(lowered, path, depth)
        if isinstance(lowered, Plain):
            return self.node(lowered.value, path, depth)
        return self.tensor(lowered, path, depth)

    def tagged(self, value: Tagged, path: Path, depth: int) -> Node:
        _check_depth(depth, path)
        param = _Encoder(allow_tensors=False).node(value.param, path, depth + 1)
        return ["tag", value.tag, param, self.node(value.child, path, depth + 1)]

    def container(self, value: Any, kind: type, path: Path, depth: int) -> Node:
        _check_depth(depth, path)
        if kind is OrderedDict:
            lowered = lower(value) if vars(value) else None  # it has more than its items
            if isinstance(lowered, Tagged):
                return self.tagged(lowered, path, depth)
            return ["tag", "collections.OrderedDict", None, self.container(value, dict, path, depth + 1)]
        if kind is dict:
            keys = [_key(key, path) for key in value]
            return ["dict", keys, [self.node(item, (*path, key), depth + 1) for key, item in value.items()]]
        return [kind.__name__, [self.node(item, (*path, i), depth + 1) for i, item in enumerate(value)]]

    def tensor(self, array: Any, path: Path, depth: int) -> Node:
        if not self.allow_tensors:
            raise fault(
                "unsupported-leaf",
                f"metadata holds a tensor at {path_label(path)!r}; put it into the tree",
                tensor=path_label(path),
            )  # [TREE-014]
        if array.dtype.kind in "mM":
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
                f"cannot store a tensor of dtype {array.dtype} at {path_label(path)!r}",
                tensor=path_label(path),
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
        f"the dict at {path_label(path)!r} has the key {key!r} of type {type(key).__name__}",
        tensor=path_label(path),
    )  # [TREE-007]


def _utf8(text: str, code: str, path: Path) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:  # [TREE-015]
        where = path_label(path).encode(errors="backslashreplace").decode()
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
        where = path_label(path[:8])
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
            f"cannot store a scalar of dtype {value.dtype} at {path_label(path)!r}",
            tensor=path_label(path),
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
                groups.append(tuple(path_label(tensors[n].path) for n in group))
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
