"""Pages: SPEC.md section 7.1. Each is read, and checked, when something in it is asked for [PAGE-009]."""

import functools
import hashlib
import itertools
import re
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .faults import need
from .manifest import ANY, TABLE, Chunk, Tensor, chunks_in, decode, fits, is_name, item, tensors_of
from .tree import Path, Tree, label

if TYPE_CHECKING:
    from .reader import Storage

UINTS = [range(1 << 64)]
PAGE = {
    **{"name": bytes, "kind": bytes, "chunks": TABLE},
    "kinds": {"dtype": [str], "shape": [UINTS], "grid": [UINTS], "codec": UINTS},
}
LIMIT = 1 << 30  # bytes of a page


def column(data: bytes, form: str = "Q") -> tuple[int, ...]:
    size = struct.calcsize(f"<{form}")
    need(len(data) % size == 0, f"a column of {len(data)} bytes [PAGE-002] [PAGE-004]")
    return struct.unpack(f"<{len(data) // size}{form}", data)


class Pages:
    """The bytes of all pages, one after another."""

    def __init__(self, storage: "Storage", pages: dict[str, Any]) -> None:
        self.storage, self.offset, self.sha256 = storage, pages["offset"], pages["sha256"]
        self.object = "pages.bin" if storage.is_folder else ""
        self.lengths = column(pages["length"])
        self.starts = list(itertools.accumulate(self.lengths, initial=self.offset))
        need(len(self.sha256) == 32 * len(self.lengths), "the columns of `pages` differ in length [PAGE-002]")
        need(0 not in self.lengths, "a page is empty [PAGE-002]", "bad-extent")
        inside = self.offset == 0 if storage.is_folder else self.starts[-1] <= storage.start
        need(inside and self.starts[-1] < 1 << 63, "a page lies where none may [PAGE-002]", "bad-extent")

    def read(self, number: int) -> bytes:
        need(
            self.lengths[number] <= LIMIT, f"page {number} has {self.lengths[number]} bytes [LIM-011]", "limit-exceeded"
        )
        data = self.storage.read(self.object, self.starts[number], self.lengths[number])
        good = hashlib.sha256(data).digest() == self.sha256[32 * number : 32 * number + 32]
        need(good, f"page {number} has another sha256 [PAGE-003]", "manifest-digest")
        return data


class TensorPage(NamedTuple):
    tensors: list[Tensor]
    chunks: list[list[Chunk]]


class Chunks(Sequence[list[Chunk]]):
    """Those of each tensor, by its number."""

    def __init__(self, pages: "TensorPages") -> None:
        self.pages = pages

    def __len__(self) -> int:
        return len(self.pages)

    def __getitem__(self, number: Any) -> Any:
        page, row = self.pages.place(number)
        return page.chunks[row]


class TensorPages(Sequence[Tensor]):
    """All tensors of a paged checkpoint."""

    def __init__(self, storage: "Storage", manifest: dict[str, Any], codecs: list[str | None]) -> None:
        need(manifest["format"][1] >= 1, "a paged manifest of version 1.0 [PAGE-001]")
        self.storage, self.manifest, self.codecs = storage, manifest, codecs
        self.pages, self.chunks = Pages(storage, manifest["pages"]), Chunks(self)
        columns = manifest["tensors"]
        self.first, self.counts, self.rows = columns["first"], column(columns["count"]), column(columns["chunks"])
        good = len(self.first) == len(self.counts) == len(self.rows) <= len(self.pages.lengths)
        need(good, "the columns of `tensors` differ in length, or name more pages than there are [PAGE-004]")
        need(all(map(str.__lt__, self.first, self.first[1:])), "pages are not in order [PAGE-005]")
        good = all(0 < count <= size for count, size in zip(self.counts, self.pages.lengths, strict=False))
        need(good, "a page without tensors, or with more than it has bytes for [PAGE-004]")
        need(sum(self.rows) < 1 << 62, "there are 2⁶² chunks or more [LIM-006]")
        self.starts = list(itertools.accumulate(self.counts, initial=0))
        self.page = functools.cache(self._page)

    def __len__(self) -> int:
        return self.starts[-1]

    def __getitem__(self, number: Any) -> Any:
        page, row = self.place(number)
        return page.tensors[row]

    def place(self, number: int) -> tuple[TensorPage, int]:
        """The page of a tensor, and its row there."""
        at = bisect_right(self.starts, number) - 1
        return self.page(at), number - self.starts[at]

    def _page(self, at: int) -> TensorPage:
        page = decode(self.pages.read(at))
        need(fits(page, PAGE), f"page {at} lacks a key, or has one of another type [PAGE-004]")
        names, kinds, rows = self.names(at, page["name"]), page["kinds"], column(page["kind"], "I")
        count = len(kinds["dtype"])
        need(len(rows) == len(names), f"page {at} has not one kind for each name [PAGE-004]")
        alike = tensors_of({**kinds, "name": [f"kind-{i}" for i in range(count)]}, self.codecs)
        need(all(row < count for row in rows), f"page {at} has a kind that is not there [PAGE-004]")
        numbers = itertools.count(self.starts[at])
        tensors = [alike[row]._replace(number=next(numbers), name=name) for row, name in zip(rows, names, strict=True)]
        chunks = chunks_in(page["chunks"], self.storage, self.manifest, tensors, self.pages.offset)
        need(sum(map(len, chunks)) == self.rows[at], f"page {at} has another number of chunks [PAGE-004]")
        return TensorPage(tensors, chunks)

    def names(self, at: int, data: bytes) -> list[str]:
        *names, end = data.decode("latin-1").split("\n")
        need(end == "" and len(names) == self.counts[at], f"page {at} has another number of names [PAGE-004]")
        good = names == [""] if len(self) == 1 and names == [""] else all(map(is_name, names))
        need(good, f"page {at} has an illegal name [NAME-006]")
        good = names[0] == self.first[at] and all(name > names[-1] for name in self.first[at + 1 : at + 2])
        good = good and all(map(str.__lt__, names, names[1:]))
        need(good, f"the names of page {at} are not in order, or not where they belong [PAGE-005]")
        return names


class Placed(NamedTuple):
    """A node, and the number below which the pages lie that it may refer to [PAGE-006]."""

    node: Any
    below: int


class PagedTree(Tree):
    """A tree of which parts stand in pages."""

    def __init__(self, tensors: TensorPages, root: Any, tags: list[str]) -> None:
        super().__init__(tensors)
        self.pages, self.first, self.tags = tensors.pages, len(tensors.first), tags
        self.root = Placed(root, len(tensors.pages.lengths))
        self.below, self.met = 0, set[int]()

    def whole(self) -> Any:
        """Of the whole tree each page is referred to, and each tensor stands somewhere [PAGE-006] [TREE-009]."""
        value = self.value(self.root)
        need(len(self.met) == len(self.pages.lengths) - self.first, "a page is referred to nowhere [PAGE-006]")
        need(len(self.paths) == len(self.tensors), "a tensor stands nowhere in the tree [TREE-009]")
        return value

    def value(self, node: Any, path: Path | None = (), depth: int = 0) -> Any:
        match node:
            case Placed(node, below):
                before, self.below = self.below, below
                found = self.value(node, path, depth)
                self.below = before
                return found
            case ["page", *_] if path is not None:
                return self.value(self.resolved(Placed(node, self.below), self.met), path, depth)
            case ["joined", *_] if path is not None:
                pieces = list(self.joined(Placed(node, self.below), self.met))
                columns = zip(*(piece.node[1:] for piece in pieces), strict=True)
                whole = [list(itertools.chain.from_iterable(column)) for column in columns]
                whole[-1] = [Placed(each, piece.below) for piece in pieces for each in piece.node[-1]]
                return super().value([pieces[0].node[0], *whole], path, depth)
        return super().value(node, path, depth)

    def resolved(self, placed: Placed, met: set[int] | None = None) -> Placed:
        """What a node stands for that may be a reference; no page of `met` was referred to before."""
        match placed.node:
            case ["page", int(number)] if type(number) is int and self.first <= number < placed.below:
                need(met is None or number not in met, f"page {number} is referred to twice [PAGE-006]")
                if met is not None:
                    met.add(number)
                node = item(self.pages.read(number))
                own = type(node) is not list or node[:1] not in (["page"], ["joined"])
                need(own, f"page {number} is nothing but a reference [PAGE-006]")
                return Placed(node, number)
            case ["page", *_]:
                need(False, "a page that is not there, or not to be referred to here [PAGE-006]")
        return placed

    def joined(self, placed: Placed, met: set[int] | None = None) -> Iterator[Placed]:
        """The containers that are joined, all of one kind."""
        need(fits(placed.node[1:], [[ANY]]) and len(placed.node) == 3, "a joined node of another form [PAGE-007]")
        pieces, counts = placed.node[1:]
        need(pieces and len(pieces) == len(counts), "nothing is joined, or not as much as is counted [PAGE-007]")
        kinds = set()
        for piece, count in zip(pieces, counts, strict=True):
            found = self.resolved(Placed(piece, placed.below), met)
            need(is_container(found.node), "what is joined is no container [PAGE-007]")
            kinds.add(found.node[0])
            need(len(kinds) == 1, "what is joined is of different kinds [PAGE-007]")
            good = type(count) is int and count == len(found.node[-1])
            need(good, "what is joined has not as many items as are counted [PAGE-007]")
            yield found

    def at(self, path: Path) -> Any:
        """The value at a path, through the pages on the way alone."""
        placed = self.root
        for key in path:
            placed = self.step(placed, key, path)
        return self.value(placed, path, len(path))

    def step(self, placed: Placed, key: str | int, path: Path) -> Placed:
        for piece in self.containers(placed):
            kind, items = piece.node[0], piece.node[-1]
            if kind == "dict":
                keys = [self.value(each, None) for each in piece.node[1]]
                found = [i for i, each in enumerate(keys) if each == key and type(each) is type(key)]
            else:
                found = [key] if type(key) is int and key in range(len(items)) else []
                key = key - len(items) if type(key) is int else key
            if found:
                return Placed(items[found[0]], piece.below)
        need(False, f"the tree has no {path}", "no-such-path")
        raise AssertionError

    def containers(self, placed: Placed) -> Iterator[Placed]:
        """The pieces of a container under tags and references; none of a leaf."""
        for _ in range(512):
            placed = self.resolved(placed)
            match placed.node:
                case ["tag", _, _, child]:
                    placed = Placed(child, placed.below)
                case ["joined", *_]:
                    yield from self.joined(placed)
                    return
                case node:
                    if is_container(node):
                        yield placed
                    return
        need(False, "tags are nested too deeply [TREE-012]")


def is_container(node: Any) -> bool:
    match node:
        case ["dict", [*keys], [*items]]:
            return len(keys) == len(items)
        case ["list" | "tuple", [*_]]:
            return True
    return False


def label_of(name: str) -> str:
    """The label of the path that a name stands for [PAGE-005] [BLK-009]."""

    def unescaped(segment: str) -> str:
        first, *others = re.split("~([0-9A-F]{2})", segment)
        data = first.encode() + b"".join(
            bytes.fromhex(other) if number % 2 == 0 else other.encode() for number, other in enumerate(others)
        )
        return label(data.decode(errors="replace"))

    return "/".join(
        segment if re.fullmatch("-?[0-9]+", segment) else label("") if segment == "~" else unescaped(segment)
        for segment in name.split("/")
    )
