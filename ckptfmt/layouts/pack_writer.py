"""Writing packs (SPEC.md section 9): members are appended, digests and crc32 are those of the very bytes written.

Small chunks are joined with their headers into large writes. A large chunk goes through staging memory piece by piece;
a second thread writes the pieces, and then puts the header, which needs the crc32, in front of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from zlib_ng import zlib_ng

from ..errors import os_fault
from ..format import pack
from ..format.arrays import ArraySpec
from ..format.chunk_table import ChunkTable
from ..format.digests import Buffer, Digest
from ..format.dtypes import Array, bytes_of
from ..format.pack import Member, Members
from ..frameworks.sources import Buffers, KeptTensor, Source, StoredChunk, Streamed
from ..progress import Report
from ..storage import ObjectWriter
from ..threads import Pool
from . import chunk_object
from .encoding import Chunk, encoded
from .pieces import joined, stored_bytes, stored_parts
from .staging import STAGED, Checks, WriteBehind, staged, unchanged, watched

if TYPE_CHECKING:
    from .watch import ChunkWatch, ElementsSeen, ElementWatch

INLINE = 1 << 20  # chunks below this are joined with their neighbours into one write
JOINED = 8 << 20  # bytes of such a write
FEW, HEADER = 2 << 20, 256  # bytes of small chunks that are added together, and about what each takes besides
DOCUMENTS = 8192  # that are made together

Parts = Callable[[], Iterator[Array]]
PieceMaker = Callable[[Iterator[Array], Checks, Buffers], Iterator[Array]]


class Changed(Exception):
    """A tensor changed while it was sent to an object that must be written from front to back, where its crc32 comes
    before it."""


class _Few:
    """Small chunks that are added together: the names of their members, and their bytes."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.names: list[bytes] = []
        self.payloads: list[bytes] = []
        self.watched: dict[Any, tuple[ArraySpec, list[tuple[str, int]], list[bytes]]] = {}
        self.size = 0  # bytes of all, about

    def add(self, name: bytes, payload: bytes) -> None:
        self.names.append(name)
        self.payloads.append(payload)
        self.size += len(payload) + HEADER

    def watch(self, name: str, spec: ArraySpec, chunk: int) -> None:
        """The payload that was added last is to be looked at, together with those that are alike."""
        alike = spec.dtype if spec.dtype.per == 1 else spec
        _, keys, payloads = self.watched.setdefault(alike, (spec, [], []))
        keys.append((name, chunk))
        payloads.append(self.payloads[-1])


class Ended(NamedTuple):
    """A pack that is complete: its size in bytes and its frame digest. [FRM-001] [FRM-003]"""

    size: int
    frame: bytes


class PackWriter:
    """Appends members to a pack. `end` is where the next member begins; `members` are in order. `pool` has one thread.

    What must be written from front to back is read twice from its source, and raises `Changed` if that gives different
    bytes; with `holds`, it is read once and held in a temporary file.
    """

    def __init__(
        self,
        out: ObjectWriter,
        digest: Digest,
        block: int,
        pool: Pool,
        report: Report,
        *,
        holds: bool = False,
        watch: ElementWatch | None = None,
    ) -> None:
        self.out, self.digest, self.block, self.report, self.holds = out, digest, block, report, holds
        self.watch = watch
        self.members = Members()
        self.end = 0
        self._behind = WriteBehind(out, pool)
        self._buffers = Buffers(STAGED + pack.LARGE)
        self._position = 0  # where the joined parts below will be written
        self._joined: list[bytes] = []
        self._joined_size = 0
        self._frame: list[bytes] = []  # of the frame's bytes so far
        self._first_chunk = 0
        self._digests: list[bytes] = []

    def add_documents(self, found: Iterable[tuple[str, bytes]]) -> None:
        """The node documents (member name, text), which come first. [PACK-004]"""
        for parts in documents(found, self.members):
            self._frame += parts
            self._append(*parts)
        self.end = self._position + self._joined_size
        self._first_chunk = len(self.members)

    def memory(self, size: int) -> Array:
        """Memory for a member, at most `STAGED` bytes and a row of a stack, which is used again once it is written."""
        return self._buffers.take(size)

    def add_member(self, name: bytes, data: Buffer, *, aligned: bool, framed: bytes = b"") -> Member:
        """A member other than a chunk, whose bytes nobody changes any more; `framed` is what of them only the digest of
        the frame is of."""
        member = pack.place(name, self.end, len(data), zlib_ng.crc32(data), aligned=aligned)
        header = pack.local_header(member)
        self._frame += (header, framed)
        if member.size >= INLINE:
            self._append(header)
            self._flush()
            self._behind.write(member.payload, data)
            self._position = member.end
        else:
            self._append(header, data)
        self.members.append(member)
        self.end = member.end
        return member

    def add_chunks(self, chunks: Iterable[Chunk]) -> None:
        """The next chunks, in order. Small ones go together, so that little is done for each."""
        with closing(encoded(chunks, self.watch)) as ready:
            self._add_encoded(ready)

    def _add_encoded(self, ready: Iterable[tuple[Chunk, Array | None]]) -> None:
        few = _Few()
        for (name, spec, source, chunk), data in ready:
            member_name = chunk_object(name, spec, chunk).encode()
            watch = None if self.watch is None else self.watch.of_stream(name, spec, chunk)
            seen = None if self.watch is None else self.watch.of_elements(name, spec, chunk)
            if isinstance(source, KeptTensor):
                self._add_few(few)
                self._copy(member_name, source.chunk(chunk))
            elif spec.is_raw and spec.chunk_nbytes < pack.LARGE:
                few.add(member_name, stored_bytes(source, spec, chunk, seen))
                if watch is not None:
                    few.watch(name, spec, chunk)
            else:
                parts, size = _of_known_size(source, spec, chunk, data, seen)
                if size < pack.LARGE:
                    few.add(member_name, joined(parts()))
                else:
                    self._add_few(few)
                    self._add(member_name, size, parts, watch, is_own=isinstance(source, Streamed))
            if few.size >= FEW:
                self._add_few(few)
            self.report(spec.chunk_nbytes)
        self._add_few(few)

    def _add_few(self, few: _Few) -> None:
        """The small chunks that have come together."""
        names, payloads = few.names, few.payloads
        if not names:
            return
        if self.watch is not None:
            for spec, keys, watched in few.watched.values():
                sizes = np.array(list(map(len, watched)), np.int64)
                self.watch.add_all(keys, spec, np.frombuffer(b"".join(watched), np.uint8), sizes)
        few.clear()
        crc32s = list(map(zlib_ng.crc32, payloads))
        members = pack.place_all(names, self.end, list(map(len, payloads)), crc32s, aligned=True)
        headers = pack.local_headers(members)
        if self.block >= pack.LARGE:  # so each is one block
            self._digests += map(self.digest.of, payloads)
        else:
            self._digests += [self.digest.of_blocks(memoryview(data), self.block) for data in payloads]
        self._frame += headers
        self._append(*_alternating(headers, payloads))
        self.members.extend(*members.columns)
        self.end = members.end

    def _add(self, name: bytes, size: int, parts: Parts, watch: ChunkWatch | None, *, is_own: bool) -> None:
        """`is_own`: nobody else has the memory of the parts."""
        member = pack.place(name, self.end, size, aligned=True)
        if size >= INLINE:
            self._flush()
            member = self._write_large(member, parts, watch, unchanged if is_own else staged)
        else:
            data = joined(parts())  # a copy, so what is digested is what is written
            if watch is not None:
                watch.add(np.frombuffer(data, np.uint8))
                watch.end()
            member = member._replace(crc32=zlib_ng.crc32(data))
            self._digests.append(self.digest.of_blocks(memoryview(data), self.block))
            self._frame.append(pack.local_header(member))
            self._append(self._frame[-1], data)
        self.members.append(member)
        self.end = member.end

    def _copy(self, name: bytes, chunk: StoredChunk) -> None:
        """The next chunk as it is stored elsewhere. [MIG-020]"""
        member = pack.place(name, self.end, chunk.length, chunk.crc32, aligned=True)
        header = pack.local_header(member)
        if chunk.length < INLINE:
            self._append(header, chunk.storage.read(chunk.object, chunk.offset, chunk.length))
        else:
            self._append(header)
            self._flush()
            self._behind.wait()
            self.out.copy(member.payload, chunk.storage, chunk.object, chunk.offset, chunk.length)
            self._position = member.end
        self._frame.append(header)
        self._digests.append(chunk.digests)
        self.members.append(member)
        self.end = member.end

    def _write_large(self, member: Member, parts: Parts, watch: ChunkWatch | None, pieces: PieceMaker) -> Member:
        """Write payload and header, the header afterwards where the object can be written in any order."""
        checks = self._checks()
        if self.out.sequential:
            with self._twice(parts) as again:
                for _ in pieces(again(), checks, self._buffers):
                    pass
                self._write_header(member._replace(crc32=checks.crc32))
                sent = self._checks()
                self._write_payload(member, watched(pieces(again(), sent, self._buffers), watch))
            if sent.digests != checks.digests:
                self._behind.wait()
                raise Changed
            member = member._replace(crc32=checks.crc32)
        else:
            self._write_payload(member, watched(pieces(parts(), checks, self._buffers), watch))
            member = member._replace(crc32=checks.crc32)
            self._write_header(member)
        self._frame.append(pack.local_header(member))
        self._digests.append(checks.digests)
        self._position = member.end
        return member

    def _checks(self) -> Checks:
        return Checks(self.digest, self.block)

    def _write_header(self, member: Member) -> None:
        self._behind.write(member.offset, pack.local_header(member))

    def _write_payload(self, member: Member, pieces: Iterator[Array]) -> None:
        position = member.payload
        for piece in pieces:
            self._behind.write(position, piece)
            position += piece.size

    @contextmanager
    def _twice(self, parts: Parts) -> Iterator[Parts]:
        """The same parts, to be read two times."""
        if not self.holds:
            yield parts
            return
        with tempfile.TemporaryFile() as file:
            try:
                for part in parts():
                    file.write(bytes_of(part))
            except OSError as error:
                doing = "cannot hold a tensor that changes while it is saved"
                raise os_fault(error, doing, tempfile.gettempdir()) from error
            yield partial(_parts_of, file)

    def _append(self, *parts: bytes) -> None:
        """Join bytes to what will be written at `_position`."""
        self._joined += parts
        self._joined_size += sum(map(len, parts))
        if self._joined_size >= JOINED:
            self._flush()

    def _flush(self) -> None:
        if self._joined:
            self._behind.write(self._position, b"".join(self._joined))
            self._position += self._joined_size
            self._joined, self._joined_size = [], 0

    def table(self, numbers: Array | None = None, begun: int | None = None) -> ChunkTable:
        """The table of the chunks that were added, as members from number `begun` on; `numbers` are theirs, None if
        they are all of a checkpoint."""
        chunks = slice(self._first_chunk if begun is None else begun, None)
        offset, length = (np.array(column[chunks], np.uint64) for column in (self.members.payloads, self.members.sizes))
        return ChunkTable(offset, length, b"".join(self._digests), self.digest.size, self.block, numbers)

    def frame(self, *more: bytes) -> bytes:
        """The frame digest, if `more` follows the chunks."""
        return self.digest.of(b"".join((*self._frame, *more)))

    def finish(self, *parts: bytes) -> int:
        """Write what follows the chunks, and close the object; gives its size."""
        self._append(*parts)
        self._flush()
        self._behind.wait()
        self.out.finish(self._position)
        return self._position

    def finish_pack(self) -> Ended:
        """Close a pack that has neither manifest nor comment. [LAY-004]"""
        directory = pack.directory(self.members, 0)
        return Ended(self.finish(directory), self.frame(directory))


def documents(found: Iterable[tuple[str, bytes]], members: Members) -> Iterator[list[bytes]]:
    """The node documents (member name, text) at the start of a pack, a header before each, many at a time; adds them to
    `members`."""
    end, rest = 0, iter(found)
    crc32s: dict[bytes, int] = {}
    while few := list(islice(rest, DOCUMENTS)):
        texts = [text for _, text in few]
        crc32s |= {text: zlib_ng.crc32(text) for text in set(texts) - crc32s.keys()}
        keys = [key.encode() for key, _ in few]
        made = pack.place_all(keys, end, list(map(len, texts)), [crc32s[text] for text in texts], aligned=False)
        members.extend(*made.columns)
        yield _alternating(pack.local_headers(made), texts)
        end = made.end


def _alternating(headers: list[bytes], payloads: list[bytes]) -> list[bytes]:
    return list(chain.from_iterable(zip(headers, payloads, strict=True)))


def _of_known_size(
    source: Source, spec: ArraySpec, chunk: int, data: Array | None, seen: ElementsSeen | None
) -> tuple[Parts, int]:
    """The stored bytes of a chunk, which are `data` if it is compressed, and how many they are."""
    if data is not None:
        return partial(iter, [data]), data.size
    return partial(stored_parts, source, spec, chunk, seen), spec.chunk_nbytes


def _parts_of(file: Any) -> Iterator[Array]:
    """All bytes of an open file."""
    file.seek(0)
    while data := file.read(STAGED):
        yield np.frombuffer(data, np.uint8)
