"""Chunk tables (SPEC.md section 7): where the bytes of chunks lie and what their digests are, in columns.

The chunks of a checkpoint are numbered through: tensors in their order, the chunks of each in C order. A table of all
of them has no column for that; the table of a part lists the numbers that it holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from operator import attrgetter
from typing import Any

import numpy as np

from ..errors import fault
from ..tuples import NamedTuple
from .arrays import ArraySpec
from .digests import Digest
from .dtypes import Array

_U32, _U64 = np.dtype("<u4"), np.dtype("<u8")


class Extent(NamedTuple):
    """Where one chunk lies, and the digests of its blocks one after another."""

    offset: int
    length: int
    digests: bytes


class _TableFields(NamedTuple):
    offset: Array | None
    length: Array
    digest: bytes
    digest_size: int
    block: int
    numbers: Array | None = None


class ChunkTable(_TableFields):
    """`offset` is None where every chunk is an object of its own. `numbers` are those of the rows' chunks in ascending
    order, None if the rows are all chunks there are [CHK-002].

    `offset`, `length`: uint64 of shape (rows,). `digest`: the blocks' digests, `digest_size` bytes each.
    """

    @cached_property
    def first_blocks(self) -> list[int]:
        """For each row the number of blocks before it; one more entry, the total, at the end."""
        firsts: list[int] = self._first_blocks.tolist()
        return firsts

    @cached_property
    def _first_blocks(self) -> Array:
        return np.concatenate([[0], np.cumsum(-(-self.length.astype(np.int64) // self.block))])

    @cached_property
    def offsets(self) -> list[int]:
        offsets: list[int] = [0] * len(self.length) if self.offset is None else self.offset.tolist()
        return offsets

    @cached_property
    def lengths(self) -> list[int]:
        lengths: list[int] = self.length.tolist()
        return lengths

    @property
    def blocks(self) -> int:
        return self.first_blocks[-1]

    def first_digests(self, rows: Array) -> bytes:
        """The digests of the first blocks of chunks, one after another."""
        found: bytes = np.frombuffer(self.digest, f"V{self.digest_size}")[self._first_blocks[rows]].tobytes()
        return found

    def row(self, number: int) -> int:
        """The row of a chunk that is in this table."""
        return number if self.numbers is None else int(np.searchsorted(self.numbers, number))

    def extent(self, row: int) -> Extent:
        """Where the chunk of a row lies."""
        size = self.digest_size
        digests = self.digest[self.first_blocks[row] * size : self.first_blocks[row + 1] * size]
        return Extent(self.offsets[row], self.lengths[row], digests)

    def of_rows(self, rows: Array, numbers: Array | None) -> ChunkTable:
        """Some of the rows, in the order given, for chunks with other numbers."""
        firsts = self._first_blocks
        counts = firsts[rows + 1] - firsts[rows]
        begins = np.cumsum(counts) - counts
        blocks = np.repeat(firsts[rows] - begins, counts) + np.arange(int(counts.sum()))
        digests = np.frombuffer(self.digest, np.uint8).reshape(-1, self.digest_size)[blocks].tobytes()
        offset = None if self.offset is None else self.offset[rows]
        return ChunkTable(offset, self.length[rows], digests, self.digest_size, self.block, numbers)

    def between(self, start: int, stop: int) -> ChunkTable:
        """The rows from `start` to `stop` (excluded), of a table without `numbers`."""
        first, last = self.digest_size * self._first_blocks[[start, stop]]
        offset = None if self.offset is None else self.offset[start:stop]
        return ChunkTable(offset, self.length[start:stop], self.digest[first:last], self.digest_size, self.block)

    def check_extents(self, end: int | Array, parts: Array | None = None) -> None:
        """Refuse extents that do not lie in [0, `end`) or overlap; `end` and, if there are several, `parts` may be of
        each row. [CHK-005]"""
        if self.offset is None or not len(self.length):
            return
        last = np.broadcast_to(np.asarray(end, _U64), self.offset.shape)
        beyond = (self.offset > last) | (self.length > last - np.minimum(self.offset, last))
        if beyond.any():
            row = int(beyond.argmax())
            message = f"chunk row {row} reaches beyond byte {last[row]} [CHK-005]"
            raise fault("bad-extent", message, offset=int(self.offset[row]))
        order = np.argsort(self.offset, kind="stable") if parts is None else np.lexsort((self.offset, parts))
        starts, ends = self.offset[order][1:], (self.offset + self.length)[order][:-1]
        overlap = starts < ends
        if parts is not None:
            overlap &= parts[order][1:] == parts[order][:-1]
        if overlap.any():
            raise fault("bad-extent", f"two chunks overlap at byte {int(starts[overlap.argmax()])} [CHK-005]")


def joined_tables(tables: Sequence[ChunkTable], digest_size: int, block: int) -> ChunkTable:
    """One table with the rows of several, whose chunks follow each other."""
    none = np.zeros(0, _U64)
    offsets = [table.offset for table in tables if table.offset is not None]
    offset = np.concatenate([none, *offsets]) if len(offsets) == len(tables) else None
    length = np.concatenate([none, *(table.length for table in tables)])
    return ChunkTable(offset, length, b"".join([table.digest for table in tables]), digest_size, block)


def encode_table(table: ChunkTable, tensors: Array | None = None, chunks: Array | None = None) -> dict[str, Any]:
    """The table as the manifest or a part manifest holds it; `tensors` and `chunks` are the first two columns."""
    return {
        "tensor": None if tensors is None else tensors.astype(_U32).tobytes(),
        "chunk": None if chunks is None else chunks.astype(_U64).tobytes(),
        "offset": None if table.offset is None else table.offset.astype(_U64).tobytes(),
        "length": table.length.astype(_U64).tobytes(),
        "digest": table.digest,
    }


def rows_by(numbers: Array) -> Iterator[tuple[int, Array]]:
    """Each number that there is, in order, with its rows. The time grows with the rows, however many numbers."""
    order = np.argsort(numbers, kind="stable")
    ordered = numbers[order]
    begins = np.append(0, np.flatnonzero(ordered[1:] != ordered[:-1]) + 1)[: len(ordered)]
    yield from zip(ordered[begins].tolist(), np.split(order, begins[1:]), strict=False)  # of no rows one empty piece


def rows_of_each(numbers: Array, count: int) -> list[Array]:
    """The rows of each number below `count`."""
    none, found = np.zeros(0, np.int64), dict(rows_by(numbers))
    return [found.get(number, none) for number in range(count)]


def columns(numbers: Array, firsts: Sequence[int]) -> tuple[Array, Array]:
    """The tensors that chunks belong to, and their numbers in them; `firsts` as `first_chunks` gives them."""
    starts = np.asarray(firsts, np.int64)
    tensors = np.searchsorted(starts, numbers, side="right") - 1
    return tensors, numbers - starts[tensors]


def first_chunks(specs: Iterable[ArraySpec]) -> tuple[int, ...]:
    """The number of each tensor's first chunk, and the number of chunks at the end."""
    return _numbered(map(attrgetter("chunks"), specs))


def _numbered(counts: Iterable[int]) -> tuple[int, ...]:
    firsts = tuple(accumulate(counts, initial=0))
    if firsts[-1] >= 1 << 62:
        raise fault("bad-manifest", "there are 2^62 chunks or more [LIM-006]")
    return firsts


def decode_table(
    document: Any, specs: Sequence[ArraySpec], digest: Digest, block: int, kinds: Array | None = None
) -> ChunkTable:
    """Parse and check a table against the tensors that it serves, which are as `specs` say, one by one or, with
    `kinds`, as that of its number there; raises `bad-manifest` or `bad-extent`."""
    tensors, chunks, offsets, lengths, digests = _columns_of(document)
    counts = [spec.chunks for spec in specs]
    if kinds is not None:
        counts = list(map(counts.__getitem__, kinds.tolist()))
    firsts = np.asarray(_numbered(counts), np.int64)
    if tensors is None or chunks is None:
        rows = int(firsts[-1])
    else:
        rows = len(tensors) // 4
        _check_rows(rows, tensors, 4)
        _check_rows(rows, chunks, 8)
    for column in (offsets, lengths):
        if column is not None:
            _check_rows(rows, column, 8)
    if tensors is None or chunks is None:  # as many as there are rows, which is known now [LIM-003]
        tensor, numbers = np.repeat(np.arange(len(counts)), np.diff(firsts)), None
    else:
        tensor, numbers = _numbers(tensors, chunks, firsts)
    length = np.frombuffer(lengths, _U64)
    _check_lengths(length, specs, tensor if kinds is None else kinds[tensor])
    offset = None if offsets is None else np.frombuffer(offsets, _U64)
    table = ChunkTable(offset, length, digests, digest.size, block, numbers)
    is_countable = int(length.max(initial=0)) * len(length) < 1 << 62  # more than that wraps round to any number
    if not is_countable or len(digests) != table.blocks * digest.size:
        raise fault(
            "bad-manifest",
            "a chunk table has another number of digests than blocks [CHK-001]",
            found=len(digests) / digest.size,
            expected=table.blocks if is_countable else "one for each block",
        )
    return table


def _columns_of(document: Any) -> tuple[bytes | None, bytes | None, bytes | None, bytes, bytes]:
    match document:
        case {
            "tensor": (bytes() | None) as tensors,
            "chunk": (bytes() | None) as chunks,
            "offset": (bytes() | None) as offsets,
            "length": bytes(lengths),
            "digest": bytes(digests),
        } if (tensors is None) == (chunks is None):
            return tensors, chunks, offsets, lengths, digests
    raise fault("bad-manifest", "a chunk table lacks a column, or has one of another type [MAN-002] [CHK-011]")


def _check_lengths(length: Array, specs: Sequence[ArraySpec], spec: Array) -> None:
    """Those of raw chunks are known from the spec, by its number for each row; no chunk is empty. [CHK-005]"""
    expected = np.array([s.chunk_nbytes if s.is_raw and s.chunks else 0 for s in specs], _U64)[spec]
    wrong = ((length != expected) & (expected != 0)) | (length == 0) | (length >= np.uint64(1 << 62))
    if wrong.any():
        row = int(wrong.argmax())
        raise fault(
            "bad-extent",
            f"chunk row {row} has the wrong length [CHK-005]",
            found=int(length[row]),
            expected=int(expected[row]),
        )


def _check_rows(rows: int, column: bytes, width: int) -> None:
    """[CHK-001]"""
    if len(column) != width * rows:
        raise fault(
            "bad-manifest",
            "a column of a chunk table has another number of rows than there are chunks [CHK-001]",
            found=len(column) / width,
            expected=rows,
        )


def _numbers(tensors: bytes, chunks: bytes, firsts: Array) -> tuple[Array, Array]:
    """The tensor and the number of each row's chunk. [CHK-003]"""
    tensor = np.frombuffer(tensors, _U32).astype(np.int64)
    chunk = np.frombuffer(chunks, _U64)
    if tensor.size and int(tensor.max()) >= len(firsts) - 1:
        raise fault("bad-manifest", f"a chunk table names tensor {int(tensor.max())}, which is not there [CHK-003]")
    if (chunk >= np.diff(firsts).astype(np.uint64)[tensor]).any():
        raise fault("bad-manifest", "a chunk table names a chunk that its tensor does not have [CHK-003]")
    numbers = firsts[tensor] + chunk.astype(np.int64)
    if (np.diff(numbers) <= 0).any():
        raise fault("bad-manifest", "the rows of a chunk table are not sorted, or repeat a chunk [CHK-003]")
    return tensor, numbers
