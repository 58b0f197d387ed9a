"""Pages of tensors (SPEC.md section 7): names in order, specs and chunk tables, a few thousand tensors a page.

Each page is read, checked and kept when the first of its tensors is asked for.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate, chain
from operator import lt
from threading import RLock
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar, overload

import msgpack
import numpy as np

from ..errors import CkptError, fault
from .arrays import ArraySpec, kinds_of
from .chunk_table import ChunkTable, decode_table, encode_table, joined_tables, rows_by, rows_of_each
from .codecs import Codec
from .digests import Digest
from .documents import bad, unpack
from .dtypes import Array
from .manifest import Part
from .names import MAX_LENGTH, are_names
from .pages import Pages
from .spec_columns import STATISTICS, chains_of, decode_codecs, decode_specs, encode_specs

if TYPE_CHECKING:
    from .summary import Summary

ROWS = 4096  # tensors of a page
_U32, _U64 = np.dtype("<u4"), np.dtype("<u8")

T = TypeVar("T")


class PagedObject(NamedTuple):
    """What the chunks of a part are in, as in `Part`: the file (`""`), a pack, or each in an object of its own (None).
    `end`: the byte before which they end there; None where each is as long as its object."""

    object: str | None
    end: int | None
    size: int | None = None
    frame: bytes | None = None

    def part(self, table: ChunkTable) -> Part:
        """The part with this table; raises `bad-extent`. [CHK-005]"""
        if self.end is not None:
            table.check_extents(self.end)
        return Part(self.object, table, self.size, self.frame)


class _PageFields(NamedTuple):
    names: list[str]
    kinds: tuple[ArraySpec, ...]
    kind: Array
    table: ChunkTable
    firsts: Array
    parts: Array | None
    statistics: Any = None


class TensorPage(_PageFields):
    """Some tensors: their names, what each is like (`kind` is a number of `kinds`), the chunks of all of them, and the
    number of each one's first chunk in that table, with the number of all at the end; `parts`: of each chunk the number
    of its part, None where there is but one; `statistics`, of any form."""

    @cached_property
    def specs(self) -> list[ArraySpec]:
        return list(map(self.kinds.__getitem__, self.kind.tolist()))


class Column(Sequence[T], Generic[T]):
    """What each tensor has, page by page."""

    def __init__(self, pages: TensorPages, of: Callable[[TensorPage], Sequence[T]]) -> None:
        self._pages, self._of = pages, of

    def __len__(self) -> int:
        return self._pages.count

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...
    def __getitem__(self, index: Any) -> Any:
        if "all" in self.__dict__ or isinstance(index, slice):
            return self.all[index]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        page, row = self._pages.locate(index % len(self))
        return self._of(page)[row]

    def __iter__(self) -> Iterator[T]:
        return iter(self.all)

    @cached_property
    def all(self) -> tuple[T, ...]:
        """Of all tensors."""
        return tuple(chain.from_iterable(map(self._of, self._pages.load())))


class TensorPages:
    """The pages of all tensors. `first` names and `counts` of tensors and `chunks`: one of each for each page."""

    def __init__(
        self,
        pages: Pages,
        first: list[str],
        counts: list[int],
        chunks: list[int],
        codecs: list[Codec],
        digest: Digest,
        block: int,
        objects: Sequence[PagedObject],
        *,
        has_parts: bool,
    ) -> None:
        self._pages, self._first, self._counts, self._chunks = pages, first, counts, chunks
        self._codecs, self._digest, self._block = codecs, digest, block
        self.objects, self._has_parts = objects, has_parts
        self._starts = list(accumulate(counts, initial=0))
        self._loaded: dict[int, TensorPage] = {}
        self._loading = [RLock() for _ in first]  # once, as its values are counted; a signal handler may, too
        self.names: Sequence[str] = Column(self, lambda page: page.names)
        self.specs: Sequence[ArraySpec] = Column(self, lambda page: page.specs)

    def __len__(self) -> int:
        """Number of pages."""
        return len(self._first)

    @property
    def count(self) -> int:
        """Number of tensors."""
        return self._starts[-1]

    @property
    def extent(self) -> tuple[int, int]:
        """Offset and length of all pages of the manifest."""
        return self._pages.offset, self._pages.nbytes

    @property
    def object(self) -> str:
        """What the pages are in: `""` for the file."""
        return self._pages.object

    def damaged(self) -> dict[int, CkptError]:
        """What is wrong with each page that does not match its sha256, by its number."""
        return self._pages.damaged(range(len(self)))

    def numbers(self, at: int) -> range:
        """Those of the tensors of a page."""
        return range(self._starts[at], self._starts[at + 1])

    def find(self, name: str) -> int | None:
        """The number of the tensor of a name; None if there is none."""
        at = bisect_right(self._first, name) - 1
        if at < 0:
            return None
        names = self.page(at).names
        row = bisect_right(names, name) - 1
        return self._starts[at] + row if names[row] == name else None

    def locate(self, tensor: int) -> tuple[TensorPage, int]:
        """The page of a tensor, and its row there."""
        at, row = self.position(tensor)
        return self.page(at), row

    def position(self, tensor: int) -> tuple[int, int]:
        """The number of the page of a tensor, and its row there."""
        at = bisect_right(self._starts, tensor) - 1
        return at, tensor - self._starts[at]

    def place(self, tensor: int, chunk: int) -> tuple[Part, ChunkTable, int]:
        """The part of a chunk, a table that has it, and its row there."""
        page, at = self.locate(tensor)
        row = int(page.firsts[at]) + chunk
        return self._part_in(page, 0 if page.parts is None else int(page.parts[row])), page.table, row

    def _part_in(self, page: TensorPage, number: int) -> Part:
        """A part, with the table of a page, which may have chunks of others, too."""
        found = self.objects[number]
        return Part(found.object, page.table, found.size, found.frame)

    def pages_of(self, tensors: Array) -> Array:
        """The number of the page that each of these tensors is in."""
        return np.searchsorted(self._starts, tensors, side="right") - 1

    def first_rows(self, at: int, tensors: Array) -> Iterator[tuple[Part, ChunkTable, Array, Array]]:
        """Of the first chunks of tensors in a page, part by part: the part, the table, the rows, and the positions of
        the tensors among those asked for."""
        page = self.page(at)
        rows = page.firsts[tensors - self._starts[at]]
        parts = np.zeros(len(rows), np.int64) if page.parts is None else page.parts[rows]
        for number, positions in rows_by(parts):
            yield self._part_in(page, number), page.table, rows[positions], positions

    def page(self, at: int) -> TensorPage:
        """A page; raises what is wrong with it. [PAGE-003] [PAGE-004]"""
        page = self._loaded.get(at)
        if page is None:
            with self._loading[at]:
                page = self._loaded.get(at) or self._keep(at, self._pages.raw(at))
        return page

    def _keep(self, at: int, raw: bytes) -> TensorPage:
        page = self._loaded[at] = self._decoded(at, raw)
        return page

    def keys(self, at: int) -> tuple[Array, Array]:
        """For each chunk of a page its tensor, and its number in that."""
        firsts = self.page(at).firsts
        rows = np.repeat(np.arange(self._counts[at]), np.diff(firsts))
        return rows + self._starts[at], np.arange(len(rows)) - firsts[rows]

    def load(self) -> list[TensorPage]:
        """All pages."""
        missing = [at for at in range(len(self._first)) if at not in self._loaded]
        if missing:
            numbers = range(missing[0], missing[-1] + 1)
            for at, raw in zip(numbers, self._pages.some(numbers), strict=True):
                with self._loading[at]:
                    if at not in self._loaded:
                        self._keep(at, raw)
        return [self._loaded[at] for at in range(len(self._first))]

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """All parts, each with the table of its chunks; raises `bad-extent`. [CHK-005]"""
        self.load()
        return self.parts_in(range(len(self)))

    @cached_property
    def first_chunks(self) -> tuple[int, ...]:
        """The number of each tensor's first chunk, and of all chunks at the end; raises `bad-manifest`. [LIM-006]"""
        counts = [np.diff(page.firsts) for page in self.load()]
        return tuple(np.cumsum(np.concatenate([[0], *counts])).tolist())

    @cached_property
    def part_of_chunk(self) -> Array | None:
        """The number of the part of each chunk; None where there is but one part."""
        if not self._has_parts:
            return None
        self.load()
        return self.numbers_of_parts(range(len(self)))

    def parts_in(self, pages: Sequence[int]) -> tuple[Part, ...]:
        """All parts, with tables of the chunks that these pages tell of, numbered as if there were no others."""
        table = joined_tables([self.page(at).table for at in pages], self._digest.size, self._block)
        if not self._has_parts:
            tables = [table]
        else:
            rows = rows_of_each(self.numbers_of_parts(pages), len(self.objects))
            tables = [table.of_rows(of_part, of_part) for of_part in rows]
        return tuple(one.part(of_one) for one, of_one in zip(self.objects, tables, strict=True))

    def numbers_of_parts(self, pages: Sequence[int]) -> Array:
        """The number of the part of each chunk that these pages tell of."""
        found = (self.page(at) for at in pages)
        columns = [np.zeros(len(page.table.length), _U32) if page.parts is None else page.parts for page in found]
        return np.concatenate([np.zeros(0, np.int64), *columns])

    def _decoded(self, at: int, raw: bytes) -> TensorPage:
        """Parse and check a page."""
        document = unpack(raw, self._pages.budget)
        match document:
            case {"name": bytes(blob), "kinds": dict(kinds), "kind": bytes(column), "chunks": dict(chunks)}:
                pass
            case _:
                raise bad(f"page {at} lacks a key, or has one of another type [PAGE-004]")
        names = self._names(at, blob)
        specs = decode_specs(kinds, self._codecs)
        kind = np.frombuffer(column, _U32) if len(column) == 4 * len(names) else None
        if kind is None or (len(names) and int(kind.max()) >= len(specs)):
            raise bad(f"page {at} does not say of each tensor what it is like [PAGE-004]")
        table = decode_table(chunks, specs, self._digest, self._block, kind)
        if len(table.length) != self._chunks[at]:
            raise bad(f"page {at} has another number of chunks [PAGE-004]")
        counts = np.array([spec.chunks for spec in specs], np.int64)[kind]
        firsts = np.concatenate([[0], np.cumsum(counts)])
        if table.numbers is not None or (table.offset is None) != (self.objects[0].object is None):
            raise bad(f"the chunk table of page {at} is not of the kind that this layout has [CHK-002] [CHK-011]")
        parts = self._parts_of(at, document, table)
        return TensorPage(names, specs, kind, table, firsts, parts, document.get(STATISTICS))

    def _parts_of(self, at: int, document: Any, table: ChunkTable) -> Array | None:
        """The part of each chunk of a page, whose extents fit their objects. [PAGE-017] [CHK-005]"""
        if not self._has_parts:
            self.objects[0].part(table)
            return None
        column = document.get("part")
        if type(column) is not bytes or len(column) != 4 * len(table.length):
            raise bad(f"page {at} does not say of each chunk in which part it is [PAGE-017]")
        parts = np.frombuffer(column, _U32)
        if len(parts) and int(parts.max()) >= len(self.objects):
            raise bad(f"page {at} names part {int(parts.max())}, which is not there [PAGE-017]")
        table.check_extents(self._ends[parts], parts)
        return parts

    @cached_property
    def _ends(self) -> Array:
        """The byte before which the chunks of each object end."""
        return np.array([one.end for one in self.objects], _U64)

    def _names(self, at: int, blob: bytes) -> list[str]:
        """[NAME-006] [PAGE-005]"""
        try:
            text = blob.decode("ascii")
        except UnicodeDecodeError:
            raise bad(f"page {at} has a name that is not ASCII [NAME-006]") from None
        names = text.split("\n")
        if names.pop() or len(names) != self._counts[at]:
            raise bad(f"page {at} has another number of names [PAGE-004]")
        if names != [""] or self.count > 1:
            if not are_names(text) or max(map(len, names)) > MAX_LENGTH:
                raise bad(f"page {at} has an illegal name [NAME-006]")
            if not all(map(lt, names, names[1:])):
                raise bad(f"the names of page {at} are not in order, or repeat [PAGE-005]")
        if names[0] != self._first[at] or not all(name > names[-1] for name in self._first[at + 1 : at + 2]):
            raise bad(f"the names of page {at} are not those that it begins with and ends before [PAGE-005]")
        return names


def decode_tensors(
    document: Any, pages: Pages, chains: list[Any], digest: Digest, block: int, packs: Sequence[PagedObject] | None
) -> TensorPages:
    """Parse and check what a paged manifest says of its pages of tensors, whose chunks are in `packs`, in layout
    `packed`. [PAGE-004]"""
    match document:
        case {"first": list(first), "count": bytes(counts), "chunks": bytes(chunks)}:
            pass
        case _:
            raise bad("`tensors` lacks a column, or has one of another type [PAGE-004]")
    if not len(counts) == len(chunks) == 8 * len(first) or len(first) > len(pages):
        raise bad("the columns of `tensors` differ in length, or name more pages than there are [PAGE-004]")
    if not all(type(name) is str and len(name) <= MAX_LENGTH for name in first) or not all(map(lt, first, first[1:])):
        raise bad("the pages of tensors are not in order [PAGE-005]")
    rows: list[int] = np.frombuffer(counts, _U64).tolist()
    held: list[int] = np.frombuffer(chunks, _U64).tolist()
    if any(not 0 < count <= length for count, length in zip(rows, pages.lengths, strict=False)):  # a name takes a byte
        raise bad("a page has no tensors, or more than its bytes can say [PAGE-004]")
    if sum(held) >= 1 << 62:
        raise fault("bad-manifest", "there are 2^62 chunks or more [LIM-006]")
    objects = packs or (PagedObject("", pages.offset) if pages.object == "" else PagedObject(None, None),)
    known = decode_codecs(chains)
    return TensorPages(pages, first, rows, held, known, digest, block, objects, has_parts=packs is not None)


def encode_tensors(
    names: Sequence[str],
    specs: Sequence[ArraySpec],
    table: ChunkTable,
    parts: Array | None = None,
    found: Sequence[Summary | None] | None = None,
) -> tuple[dict[str, Any], list[Any], list[bytes]]:
    """What a paged manifest says of tensors, whose names are in order, the codec chains, and the pages; `parts` are
    the numbers of the chunks' parts in layout `packed`, `found` their statistics, if these are to be stored."""
    kinds, column = kinds_of(specs)
    chains, codecs = chains_of(kinds)
    kind = np.array(column, np.int64)
    firsts = np.concatenate([[0], np.cumsum(np.array([spec.chunks for spec in kinds], np.int64)[kind])])
    tensors = _Tensors(names, specs, kinds, codecs, kind, firsts, table, parts, found)
    starts = np.arange(0, len(names), ROWS)
    ends = np.minimum(starts + ROWS, len(names))
    listed = {
        "first": [names[start] for start in starts.tolist()],
        "count": (ends - starts).astype(_U64).tobytes(),
        "chunks": (firsts[ends] - firsts[starts]).astype(_U64).tobytes(),
    }
    return listed, chains, [tensors.page(slice(*run)) for run in zip(starts.tolist(), ends.tolist(), strict=True)]


class _Tensors(NamedTuple):
    """Tensors that are to stand in pages, and of each the number of its kind and of its first chunk; `codecs`: the
    chain of each kind."""

    names: Sequence[str]
    specs: Sequence[ArraySpec]
    kinds: list[ArraySpec]
    codecs: list[int]
    kind: Array
    firsts: Array
    table: ChunkTable
    parts: Array | None
    found: Sequence[Summary | None] | None

    def page(self, run: slice) -> bytes:
        """The page of a run of them."""
        rows = slice(*self.firsts[[run.start, run.stop]].tolist())
        own, first, column = np.unique(self.kind[run], return_index=True, return_inverse=True)
        by_use = np.argsort(first)
        used = own[by_use].tolist()
        part = self.table.between(rows.start, rows.stop)
        names = self.names[run]
        page = {
            "name": "\n".join([*names, ""]).encode(),
            "kinds": encode_specs([self.kinds[kind] for kind in used], [self.codecs[kind] for kind in used]),
            "kind": np.argsort(by_use)[column].astype(_U32).tobytes(),
            "chunks": encode_table(part),
        }
        if self.parts is not None:
            page["part"] = self.parts[rows].astype(_U32).tobytes()
        if self.found is not None:
            page[STATISTICS] = _statistics(names, self.specs[run], part, self.found[run])
        return bytes(msgpack.packb(page))


def _statistics(
    names: Sequence[str], specs: Sequence[ArraySpec], table: ChunkTable, found: Sequence[Summary | None]
) -> dict[str, Any]:
    """Those of the tensors of a page. [STAT-001]"""
    from .stored_statistics import binding, encode_statistics  # here, as they are seldom asked for

    return encode_statistics(found, specs, binding(names, specs, [table.digest]))
