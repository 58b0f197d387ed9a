"""Pages of the tree (SPEC.md section 7): what of a large tree stands apart, and how a tree is cut. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import chain

import msgpack
import numpy as np

from ..errors import CkptError
from .documents import bad, unpack_item
from .dtypes import Array
from .limits import Budget, most_cost, uncollected
from .names import Key, Path
from .node import Node
from .pages import Pages
from .tree import MAX_DEPTH, decode_keys, is_one_leaf

SIZE = 65_536  # bytes of a node from which on parts of it stand in pages of their own
# bytes that msgpack needs beside a text, or for an int from 0 on, by the least values from which on it needs more
_TEXTS, _SIZES_OF_TEXTS = np.array([32, 256, 65_536]), np.array([1, 2, 3, 5])
_INTS, _SIZES_OF_INTS = np.array([128, 256, 65_536, 1 << 32]), np.array([1, 2, 3, 5, 9])
_REFERENCE = 8  # those of ["tensor", number] beside the number
_CONTAINERS = frozenset(("dict", "list", "tuple"))
_KINDS = (["dict"], ["list"], ["tuple"])
_MARKS = (b"page", b"joined")  # what stands in the bytes of every node that has parts elsewhere


class TreePages:
    """The tree of a paged manifest. `first` is the number of its first page."""

    def __init__(self, root: Node, pages: Pages, first: int) -> None:
        self.root = root
        self._pages, self.first = pages, first
        self._memory: int | Budget = pages.budget  # of the pages of the whole tree

    @cached_property
    def whole(self) -> Node:
        """The tree without pages, not checked yet."""
        with uncollected():
            found = list(self._pages.some(range(self.first, len(self._pages))))
            left = dict(enumerate(found, self.first))
            budget = self._pages.budget  # nothing is counted where all of it surely is enough
            self._memory = self._pages.memory if sum(map(most_cost, found)) <= budget.left else budget
            node = self._whole(self.root, left, len(self._pages), 0)
        if left:
            raise bad(f"page {min(left)} stands nowhere in the tree [PAGE-006]")
        return node

    def damaged(self) -> dict[int, CkptError]:
        """What is wrong with each page that does not match its sha256, by its number."""
        return self._pages.damaged(range(self.first, self.stop))

    @property
    def stop(self) -> int:
        """The number after that of the last page."""
        return len(self._pages)

    def node(self, number: int) -> Node:
        """What stands in a page, not checked yet."""
        return _node(number, self._pages.raw(number), self._pages.budget)

    def _whole(self, node: Node, left: dict[int, bytes], below: int, depth: int) -> Node:
        """A node with what stands in pages, of which those that are `left` were not met yet; only such with a number
        `below` one may be. What is no node is left to `tree.check`."""
        if depth > MAX_DEPTH:
            raise bad(f"nested deeper than {MAX_DEPTH} [TREE-012]")
        match node:
            case ["page", number]:
                raw = left.pop(number, None) if type(number) is int and number < below else None
                if raw is None:
                    raise bad(f"no page {number!r:.40}, or not here [PAGE-006]")
                found = _node(number, raw, self._memory)
                return self._whole(found, left, number, depth) if any(mark in raw for mark in _MARKS) else found
            case ["joined", [*pieces], [*counts]] if pieces and len(counts) == len(pieces):
                _check_pieces(pieces)
                return _joined([self._whole(piece, left, below, depth) for piece in pieces], counts)
            case ["dict", _, [*_]] | ["list" | "tuple", [*_]]:
                items = node[-1]
                for at, item in enumerate(items):
                    if type(item) is list and item[:1] != ["tensor"]:
                        items[at] = self._whole(item, left, below, depth + 1)
            case ["tag", _, _, list(child)]:
                node[3] = self._whole(child, left, below, depth + 1)
        return node

    def leaf(self, path: Path) -> Node | None:
        """The node at a path, with the tags over it, read through as few pages as can be; None where there is none,
        or one of which parts may stand in pages."""
        node, below = self._resolved(self.root, len(self._pages))
        for depth, key in enumerate(path):
            found = self._child(key, node, below) if depth < MAX_DEPTH else None
            if found is None:
                return None
            node, below = self._resolved(*found)
        inner = _bare(node)
        is_whole = type(inner) is not list or inner[:1] in (["tensor"], ["int"], ["complex"], ["scalar"])
        return node if is_whole else None

    def _resolved(self, node: Node, below: int) -> tuple[Node, int]:
        """A node that may stand in a page, and below which number the pages in it are."""
        match node:
            case ["page", int(number)] if type(number) is int and self.first <= number < below:
                return _node(number, self._pages.raw(number), self._pages.memory), number
            case ["page", *_]:
                raise bad("no such page, or not here [PAGE-006]")
        return node, below

    def _container(self, node: Node, below: int) -> tuple[Node, int]:
        """What tags and references to pages lead to, None below a tag that is one leaf, and below which number the
        pages in it are."""
        for _ in range(MAX_DEPTH):
            node, below = self._resolved(node, below)
            node = None if is_one_leaf(node) else _bare(node)
            if type(node) is not list or node[:1] != ["page"]:
                return node, below
        raise bad(f"nested deeper than {MAX_DEPTH} [TREE-012]")

    def _child(self, key: Key, node: Node, below: int) -> tuple[Node, int] | None:
        """The item of a container, and below which number the pages in it are."""
        node, below = self._container(node, below)
        match node:
            case ["joined", [first, *_] as pieces, [*counts]] if len(pieces) == len(counts):
                _check_pieces(pieces)
                if self._piece(first, below)[0][0] == "dict":
                    found = (_item(key, *self._piece(piece, below)) for piece in pieces)
                    return next((item for item in found if item is not None), None)
                for piece, count in zip(pieces, counts, strict=True):
                    if type(key) is not int or type(count) is not int:
                        return None
                    if key < count:
                        return _item(key, *self._piece(piece, below))
                    key -= count
        return _item(key, node, below)

    def _piece(self, node: Node, below: int) -> tuple[Node, int]:
        """What is joined, which is a container."""
        found, number = self._resolved(node, below)
        if type(found) is not list or found[:1] not in _KINDS:
            raise bad("what is joined is no container [PAGE-007]")
        return found, number


def _item(key: Key, node: Node, below: int) -> tuple[Node, int] | None:
    """The item of a container that stands in one place, and `below`."""
    match node:
        case ["dict", [*keys], [*items]] if len(keys) == len(items):
            known = decode_keys(keys)
            at = next((at for at, name in enumerate(known) if name == key and type(name) is type(key)), None)
            return None if at is None else (items[at], below)
        case ["list" | "tuple", [*items]] if type(key) is int and 0 <= key < len(items):
            return items[key], below
    return None


def _node(number: int, raw: bytes, memory: int | Budget) -> Node:
    """The node of a page."""
    node = unpack_item(raw, memory)
    if type(node) is list and node[:1] in (["page"], ["joined"]):
        raise bad(f"page {number} holds nothing but another [PAGE-006]")
    return node


def _bare(node: Node) -> Node:
    """A node, not checked yet, without the tags over it."""
    while True:
        match node:
            case ["tag", _, _, child]:
                node = child
            case _:
                return node


def _check_pieces(pieces: list[Node]) -> None:
    """Refuse what cannot be joined before anything is done with it; what stands in pages shows later. [PAGE-007]"""
    for piece in pieces:
        if type(piece) is not list or not piece or piece[0] not in ("dict", "list", "tuple", "page"):
            raise bad("what is joined is no container [PAGE-007]")


def _joined(pieces: list[Node], counts: list[Node]) -> Node:
    """The container whose items are those of some of one kind, one after another. [PAGE-007]"""
    for piece in pieces:
        match piece:
            case ["dict", [*keys], [*items]] if len(keys) == len(items):
                pass
            case ["list" | "tuple", [*_]]:
                pass
            case _:
                raise bad("what is joined is no container [PAGE-007]")
    lengths = [len(piece[-1]) for piece in pieces]
    if len({piece[0] for piece in pieces}) != 1 or lengths != counts or set(map(type, counts)) != {int}:
        raise bad("what is joined is of different kinds, or has another number of items [PAGE-007]")
    joined = [[*chain.from_iterable(part)] for part in zip(*(piece[1:] for piece in pieces), strict=True)]
    return [pieces[0][0], *joined]


class Cutter:
    """Cuts a tree into pages, whose numbers begin at `first`. [PAGE-011]"""

    def __init__(self, first: int) -> None:
        self.first = first
        self.pages: list[bytes] = []
        self._pack = msgpack.Packer(autoreset=True).pack

    def cut(self, node: Node) -> Node:
        """The node with references to pages, which are added to `pages`, for what takes more than `SIZE` bytes."""
        is_container = type(node) is list and node[0] in _CONTAINERS
        return (self._cut_container(node) if is_container else self._cut(node, len(self._pack(node))))[0]

    def _cut(self, node: Node, size: int) -> tuple[Node, int]:
        """The same for one that takes so many bytes, and how many it takes then."""
        if size <= SIZE:
            return node, size
        kind = node[0] if type(node) is list else None
        if kind == "tag":
            rest = len(self._pack(node[:3]))
            child, size = self._cut(node[3], size - rest)
            return ["tag", node[1], node[2], child], size + rest
        return self._cut_container(node) if kind in _CONTAINERS else self._page(self._pack(node))

    def _cut_container(self, node: Node) -> tuple[Node, int]:
        """The same for a container of any size."""
        kind, items = node[0], list(node[-1])
        sizes = self._sizes(items)
        for at in np.flatnonzero(sizes > SIZE).tolist():
            items[at], sizes[at] = self._cut(items[at], int(sizes[at]))
        runs = list(_runs(sizes + self._sizes(node[1]) if kind == "dict" else sizes))
        if len(runs) < 2:
            cut = [*node[:-1], items]
            return cut, len(self._pack(cut))
        parts = [[kind, *([node[1][run]] if kind == "dict" else ()), items[run]] for run in runs]
        joined = ["joined", [self._page(self._pack(part))[0] for part in parts], [len(part[-1]) for part in parts]]
        return joined, len(self._pack(joined))

    def _page(self, raw: bytes) -> tuple[Node, int]:
        self.pages.append(bytes(raw))
        node = ["page", self.first + len(self.pages) - 1]
        return node, len(self._pack(node))

    def _sizes(self, nodes: list[Node]) -> Array:
        """Bytes that each node takes: of very many that are strings, or refer to tensors, without packing each."""
        types = set(map(type, nodes))
        sizes: Array
        if types == {str} and "".join(nodes).isascii():
            lengths = np.fromiter(map(len, nodes), np.int64, len(nodes))
            sizes = lengths + _SIZES_OF_TEXTS[np.searchsorted(_TEXTS, lengths, side="right")]
            return sizes
        numbers = [node[1] for node in nodes if node[0] == "tensor"] if types == {list} else ()
        if nodes and len(numbers) == len(nodes):
            sizes = _REFERENCE + _SIZES_OF_INTS[np.searchsorted(_INTS, numbers, side="right")]
            return sizes
        return np.fromiter(map(len, map(self._pack, nodes)), np.int64, len(nodes))


def _runs(sizes: Array) -> Iterator[slice]:
    """Consecutive items that take at most `SIZE` bytes together, or are one."""
    ends, start = np.cumsum(sizes), 0
    while start < len(ends):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + SIZE, side="right")))
        yield slice(start, stop)
        start = stop
