"""Writing packs (SPEC.md section 9): members are appended, digests and crc32 are those of the very bytes written.

Small chunks are joined with their headers into large writes. A large chunk goes through staging memory piece by piece;
a second thread writes the pieces, and then puts the header, which needs the crc32, in front of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from zlib_ng import zlib_ng

from ..errors import os_fault
from ..format import pack
from ..format.arrays import ArraySpec
from ..format.chunk_table import ChunkTable
from ..format.digests import Digest
from ..format.dtypes import Array, bytes_of
from ..format.pack import Member
from ..format.zarr_nodes import node_documents
from ..frameworks.sources import Buffers, Kept, Source, StoredChunk
from ..progress import Report
from ..storage import ObjectWriter
from ..threads import Pool
from . import chunk_object
from .pieces import stored_parts
from .staging import STAGED, Checks, WriteBehind, staged

INLINE = 1 << 20  # chunks below this are joined with their neighbours into one write
JOINED = 8 << 20  # bytes of such a write

Parts = Callable[[], Iterator[Array]]


class Changed(Exception):
    """A tensor changed while it was sent to an object that must be written from front to back, where its crc32 comes
    before it."""


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
    ) -> None:
        self.out, self.digest, self.block, self.report, self.holds = out, digest, block, report, holds
        self.members: list[Member] = []
        self.end = 0
        self._behind = WriteBehind(out, pool)
        self._buffers = Buffers(STAGED)
        self._position = 0  # where the joined parts below will be written
        self._joined: list[bytes] = []
        self._joined_size = 0
        self._frame: list[bytes] = []  # of the frame's bytes so far
        self._first_chunk = 0
        self._digests: list[bytes] = []

    def add_documents(self, names: Sequence[str], specs: Sequence[ArraySpec]) -> None:
        """The node documents, which come first. [PACK-004]"""
        for header, payload in documents(names, specs, self.members):
            self._append(header, payload)
            self._frame += (header, payload)
        self.end = self._position + self._joined_size
        self._first_chunk = len(self.members)

    def add_chunk(self, name: str, spec: ArraySpec, source: Source, chunk: int) -> None:
        """The next chunk: number `chunk` of a tensor."""
        member_name = chunk_object(name, spec, chunk).encode()
        if isinstance(source, Kept):
            self._copy(member_name, source.chunk(chunk))
        else:
            self._add(member_name, spec, partial(stored_parts, source, spec, chunk))
        self.report(spec.chunk_nbytes)

    def _add(self, name: bytes, spec: ArraySpec, parts: Parts) -> None:
        if spec.is_raw:
            size = spec.chunk_nbytes
        else:
            compressed = list(parts())
            parts, size = partial(iter, compressed), sum(part.size for part in compressed)
        member = pack.place(name, self.end, size, aligned=True)
        if size >= INLINE:
            self._flush()
            member = self._write_large(member, parts)
        else:
            data = b"".join([part.tobytes() for part in parts()])  # a copy, so what is digested is what is written
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

    def _write_large(self, member: Member, parts: Parts) -> Member:
        """Write payload and header, the header afterwards where the object can be written in any order."""
        checks = self._checks()
        if self.out.sequential:
            with self._twice(parts) as again:
                for _ in staged(again(), checks, self._buffers):
                    pass
                self._write_header(member._replace(crc32=checks.crc32))
                sent = self._checks()
                self._write_payload(member, again(), sent)
            if sent.digests != checks.digests:
                self._behind.wait()
                raise Changed
            member = member._replace(crc32=checks.crc32)
        else:
            self._write_payload(member, parts(), checks)
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

    def _write_payload(self, member: Member, parts: Iterator[Array], checks: Checks) -> None:
        position = member.payload
        for piece in staged(parts, checks, self._buffers):
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

    def table(self, numbers: Array | None = None) -> ChunkTable:
        """The table of the chunks that were added; `numbers` are theirs, None if they are all of a checkpoint."""
        chunks = self.members[self._first_chunk :]
        offset = np.array([member.payload for member in chunks], np.uint64)
        length = np.array([member.size for member in chunks], np.uint64)
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


def documents(names: Sequence[str], specs: Sequence[ArraySpec], members: list[Member]) -> Iterator[tuple[bytes, bytes]]:
    """(header, payload) of each node document at the start of a pack; adds them to `members`."""
    end = 0
    crcs: dict[bytes, int] = {}
    for key, text in node_documents(names, specs):
        crc = crcs.get(text)
        if crc is None:
            crc = crcs[text] = zlib_ng.crc32(text)
        member = pack.place(b"tensors/" + key.encode(), end, len(text), crc, aligned=False)
        members.append(member)
        yield pack.local_header(member), text
        end = member.end


def _parts_of(file: Any) -> Iterator[Array]:
    """All bytes of an open file."""
    file.seek(0)
    while data := file.read(STAGED):
        yield np.frombuffer(data, np.uint8)
