"""Values to nodes of the tree (SPEC.md section 2).

Pure: tensors are collected and referred to by index here, and stored elsewhere. Exact types only: a subclass that
would come back as something else is refused, so that what is loaded equals what was saved; values of other libraries
are lowered by their adapters.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Any, NamedTuple

import numpy as np

from ..errors import CkptError
from ..format.dtypes import dtype_of, pack
from ..format.limits import uncollected
from ..format.names import Path, path_label
from ..format.node import Node
from ..format.tags import TAGS
from ..format.tree import COMPLEX, MAX_DEPTH, Tree
from ..frameworks.adapter import Plain, Tagged, is_leaf, lower
from ..frameworks.sources import Source, address_of, are_arrays, meeting, memory_bounds, memory_key
from .advice import advice_for, advice_for_dtype, advice_for_key, kind_of
from .refusals import Refusal, raise_for

_ITSELF = frozenset((type(None), bool, float, bytes))  # values that are their nodes
_STR = frozenset((str,))
_ARRAY = np.ndarray
_LEAST, _MOST = -(1 << 63), 1 << 64  # of ints: so are these


class EncodedTree(NamedTuple):
    """A tree as a node, its distinct tensors in order of their index with the path at which each was first met, and
    groups of paths that share memory yet were separated."""

    node: Node
    paths: list[Path]
    sources: list[Source]
    copied_views: tuple[tuple[str, ...], ...]


def encode(tree: Tree, *, allow_tensors: bool = True, skip: Callable[[Path], bool] | None = None) -> EncodedTree:
    """Encode `tree`; raises `unsupported-leaf`, `unsupported-key`, `unsupported-dtype` or `too-deep`, for all places at
    once. [TREE-013] Entries of dicts whose path `skip` is true of are left out."""
    encoder = _TreeEncoder(allow_tensors, skip)
    with uncollected():
        node = encoder.node(tree, (), 0)
        if encoder.refused:
            raise_for(tuple(encoder.refused))
        memories = encoder.distinct()
        paths, sources = encoder.paths, encoder.sources
    return EncodedTree(node, paths, sources, _shared_views(paths, sources, memories) if memories else ())


class _TreeEncoder:
    def __init__(self, allow_tensors: bool, skip: Callable[[Path], bool] | None = None) -> None:
        self.allow_tensors, self.skip = allow_tensors, skip
        self.paths: list[Path] = []  # of tensors that are other objects than those before
        self.sources: list[Source] = []
        self.index_of: dict[int, int] = {}  # by their ids
        self.nodes: list[Node] = []  # that refer to them
        self.dtypes: dict[int, Any] = {}  # of tensors that can be stored as they are, by their ids
        self.times: dict[int, tuple[Any, Any]] = {}  # arrays of times, which stay alive, and their ints, by ids
        self.refused: list[Refusal] = []

    def refuse(self, path: Path, found: str, advice: str = "", code: str = "unsupported-leaf") -> Node:
        """Note what cannot be stored, and go on with another node in its place: all of it is told together."""
        where = path_label(path).encode(errors="backslashreplace").decode()
        self.refused.append(Refusal(where, found, advice, code))
        return None

    def node(self, value: Tree, path: Path, depth: int) -> Node:
        kind = type(value)
        if kind is np.ndarray or kind is np.memmap:
            return self.tensor(value, path, depth)
        if kind in _ITSELF:
            return value
        if kind is str:
            return self.utf8(value, path)
        if kind is int:
            return _integer(value)
        if kind is complex:
            return ["complex", COMPLEX.pack(value.real, value.imag)]
        if kind in (dict, list, tuple, OrderedDict):
            return self.container(value, kind, path, depth)
        if isinstance(value, np.generic) and kind is value.dtype.type:
            return self.scalar(value, path, depth)
        return self.lowered(value, path, depth)

    def lowered(self, value: Any, path: Path, depth: int) -> Node:
        """A value of another library, as its adapter says. [TREE-013]"""
        try:
            lowered = lower(value)
        except CkptError as error:
            return self.refuse(path, error.message, code=error.code)
        if lowered is None:
            return self.refuse(path, kind_of(value), advice_for(value))
        if isinstance(lowered, Tagged):
            return self.tagged(lowered, path, depth, value)
        if isinstance(lowered, Plain):
            return self.node(lowered.value, path, depth)
        return self.tensor(lowered, path, depth)

    def tagged(self, value: Tagged, path: Path, depth: int, whole: Any) -> Node:
        """A tagged node; `whole` is what it stands for."""
        self.check_depth(depth, path)
        param = _TreeEncoder(allow_tensors=False).node(value.param, path, depth + 1)
        refused, skip = len(self.refused), self.skip
        if is_leaf(value):
            self.skip = None
        node = ["tag", value.tag, param, self.node(value.child, path, depth + 1)]
        self.skip = skip
        is_whole = refused == len(self.refused)
        if is_whole and is_leaf(value) and not TAGS[value.tag].accepts(param, node[3], ()):  # as readers ask [TAG-003]
            self.refuse(path, kind_of(whole), advice_for(whole))
        return node

    def container(self, value: Any, kind: type, path: Path, depth: int) -> Node:
        self.check_depth(depth, path)
        if kind is OrderedDict:
            lowered = lower(value) if vars(value) else None  # it has more than its items
            if isinstance(lowered, Tagged):
                return self.tagged(lowered, path, depth, value)
            return ["tag", "collections.OrderedDict", None, self.container(value, dict, path, depth + 1)]
        if kind is dict:
            if self.skip is not None:
                value = {key: item for key, item in value.items() if not _is_skipped(self.skip, path, key)}
            return ["dict", self.keys(value, path), self.items(value.items(), path, depth)]
        return [kind.__name__, self.items(enumerate(value), path, depth)]

    def items(self, items: Iterable[tuple[Any, Any]], path: Path, depth: int) -> list[Node]:
        """The nodes of what stands in a container; without a call for each plain value and each array like one before,
        of which there may be very many."""
        nodes: list[Node] = []
        node, dtypes, index_of = self.node, self.dtypes, self.index_of
        paths, sources, tensors = self.paths, self.sources, self.nodes
        for key, item in items:
            kind = type(item)
            if kind is _ARRAY and id(item.dtype) in dtypes:
                index = index_of.setdefault(id(item), len(sources))
                if index == len(sources):
                    paths.append((*path, key))
                    sources.append(item)
                found = ["tensor", index]
                nodes.append(found)
                tensors.append(found)
            elif kind in _ITSELF or (kind is str and item.isascii()) or (kind is int and _LEAST <= item < _MOST):
                nodes.append(item)
            elif kind is dict or kind is list:
                nodes.append(self.container(item, kind, (*path, key), depth + 1))
            else:
                nodes.append(node(item, (*path, key), depth + 1))
        return nodes

    def keys(self, container: dict[Any, Any], path: Path) -> list[Node]:
        if _STR.issuperset(map(type, container)) and all(map(str.isascii, container)):
            return list(container)
        return [self.key(key, path) for key in container]

    def key(self, key: Any, path: Path) -> Node:
        if type(key) is str:
            return self.utf8(key, (*path, key), "unsupported-key")
        if type(key) is int:
            return _integer(key)
        found = f"a dict with the key {key!r:.80} of type {type(key).__name__}"
        self.refuse(path, found, advice_for_key(key), "unsupported-key")  # [TREE-007]
        return ""

    def utf8(self, text: str, path: Path, code: str = "unsupported-leaf") -> str:
        if text.isascii():
            return text
        try:
            text.encode()
        except UnicodeEncodeError:  # [TREE-015]
            what = "key" if code == "unsupported-key" else "string"
            advice = 'it is no UTF-8: store value.encode(errors="surrogatepass")'
            self.refuse(path, f"a {what} with lone surrogates", advice, code)
            return ""
        return text

    def tensor(self, array: Any, path: Path, depth: int) -> Node:
        if not self.allow_tensors:
            return self.refuse(path, "a tensor in metadata", "put it into the tree")  # [TREE-014]
        if array.dtype.kind in "mM":
            self.check_depth(depth, path)
            unit, count = np.datetime_data(array.dtype)
            tag = "numpy.datetime64" if array.dtype.kind == "M" else "numpy.timedelta64"
            _, ints = self.times.setdefault(id(array), (array, array.view(_int64(array.dtype))))
            return ["tag", tag, unit if count == 1 else f"{count}{unit}", self.tensor(ints, path, depth + 1)]
        if dtype_of(array.dtype) is None:
            found, advice = f"a tensor of dtype {array.dtype}", advice_for_dtype(array.dtype)
            return self.refuse(path, found, advice, "unsupported-dtype")
        self.dtypes[id(array.dtype)] = array.dtype
        index = self.index_of.setdefault(id(array), len(self.sources))
        if index == len(self.sources):
            self.paths.append(path)
            self.sources.append(array)  # keeps it alive, so its id and memory stay its own
        node = ["tensor", index]
        self.nodes.append(node)
        return node

    def distinct(self) -> list[Hashable]:
        """Leave aliases once [TREE-011]; gives the memory of each tensor, or none where no two share any."""
        if _are_apart(self.sources):
            return []
        found: dict[Hashable, int] = {}
        numbers = [found.setdefault(memory_key(source), len(found)) for source in self.sources]
        if len(found) < len(numbers):
            for node in self.nodes:
                node[1] = numbers[node[1]]
            firsts = dict(zip(reversed(numbers), reversed(range(len(numbers))), strict=True))
            first = [firsts[number] for number in range(len(found))]
            self.paths, self.sources = [self.paths[n] for n in first], [self.sources[n] for n in first]
        return list(found)

    def scalar(self, value: np.generic, path: Path, depth: int) -> Node:
        if isinstance(value, np.str_ | np.bytes_ | np.datetime64 | np.timedelta64):
            self.check_depth(depth, path)
        if isinstance(value, np.str_):  # join, as NumPy's own conversions drop zeros at the end
            return ["tag", "numpy.str_", None, self.utf8("".join([value]), path)]
        if isinstance(value, np.bytes_):
            return ["tag", "numpy.bytes_", None, b"".join([value])]
        if isinstance(value, np.datetime64 | np.timedelta64):
            unit, count = np.datetime_data(value.dtype)
            param = unit if count == 1 else f"{count}{unit}"
            return ["tag", f"numpy.{type(value).__name__}", param, self.scalar(value.view(np.int64), path, depth + 1)]
        dtype = dtype_of(value.dtype)
        if dtype is None:
            found, advice = f"a scalar of dtype {value.dtype}", advice_for_dtype(value.dtype)
            return self.refuse(path, found, advice, "unsupported-dtype")
        array = np.asarray(value)
        stored = pack(array, dtype) if dtype.per > 1 else array.view(dtype.stored.newbyteorder("="))
        return ["scalar", dtype.name, stored.astype(dtype.stored).tobytes()]

    def check_depth(self, depth: int, path: Path) -> None:
        """Refuse what may contain itself, at once."""
        if depth >= MAX_DEPTH:
            where = path_label(path[:8])
            advice = f"they are nested deeper than {MAX_DEPTH}, or in themselves"
            raise_for((*self.refused, Refusal(where, "the containers below", advice, "too-deep")))


def _is_skipped(skip: Callable[[Path], bool], path: Path, key: Any) -> bool:
    return type(key) in (str, int) and skip((*path, key))


def _integer(value: int) -> Node:
    if _LEAST <= value < _MOST:
        return value
    magnitude = value if value >= 0 else ~value
    return ["int", value.to_bytes(magnitude.bit_length() // 8 + 1, "big", signed=True)]  # [TREE-002]


def _int64(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.int64).newbyteorder(dtype.byteorder)


def _are_apart(sources: list[Source]) -> bool:
    """Whether these are arrays of which no two share memory: none is a view, or views of different places."""
    if not are_arrays(sources):
        return False
    arrays: list[Any] = sources
    if all([array.base is None and array.flags.owndata for array in arrays]):  # noqa: C419
        return True
    if not all([array.flags.c_contiguous for array in arrays]):  # noqa: C419
        return False
    starts = np.fromiter(map(address_of, arrays), np.uint64, len(arrays))
    order = np.argsort(starts)
    ends = starts + np.fromiter([array.nbytes for array in arrays], np.uint64, len(arrays))
    return bool((ends[order[:-1]] <= starts[order[1:]]).all())


def _shared_views(paths: list[Path], sources: list[Source], memories: list[Any]) -> tuple[tuple[str, ...], ...]:
    """Groups of tensors, whose `memory_key`s are given, that overlap without being aliases. [TREE-011]"""
    arrays = [
        (path, memory_bounds(source, key))
        for path, source, key in zip(paths, sources, memories, strict=True)
        if isinstance(source, np.ndarray)
    ]
    return tuple(tuple(path_label(arrays[n][0]) for n in group) for group in meeting([span for _, span in arrays]))
