"""Writing packs (SPEC.md section 9): members are appended, digests and crc32 are computed beside the writes.

Small chunks are joined with their headers into large writes. Of a large chunk the payload is written while a second
thread computes crc32 and digests of the same piece; its header, which needs the crc32, is put in front of it
afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from zlib_ng import zlib_ng

from ..format import pack
from ..format.arrays import ArraySpec
from ..format.chunk_table import ChunkTable
from ..format.chunks import PIECE
from ..format.digests import Digest
from ..format.dtypes import Array, bytes_of
from ..format.pack import Member
from ..format.zarr_nodes import node_documents
from ..frameworks.sources import Kept, Source, StoredChunk
from ..progress import Report
from ..storage import ObjectWriter
from ..threads import Call, Pool
from . import chunk_object
from .pieces import stored_pieces

INLINE = 1 << 20  # chunks below this are joined with their neighbours into one write
UNSETTLED = 16  # large chunks whose header may wait for their digests


Pieces = Callable[[], Iterator[Array]]
Digested = tuple[int, bytes]  # crc32 and digests of the blocks so far


class Ended(NamedTuple):
    """A pack that is complete: its size in bytes and its frame digest. [FRM-001] [FRM-003]"""

    size: int
    frame: bytes


class PackWriter:
    """Appends members to a pack. `end` is where the next member begins; `members` are in order."""

    def __init__(self, out: ObjectWriter, digest: Digest, block: int, pool: Pool, report: Report) -> None:
        self.out, self.digest, self.block, self.pool, self.report = out, digest, block, pool, report
        self.members: list[Member] = []
        self.end = 0
        self._position = 0  # where the joined parts below will be written
        self._joined: list[Any] = []
        self._joined_size = 0
        self._frame: list[bytes] = []  # of the frame's bytes so far; a header that is not known yet is empty
        self._first_chunk = 0
        self._digests: list[bytes] = []
        self._unsettled: list[tuple[int, Call[Digested]]] = []  # (row, crc32 and digests) of large chunks

    def add_documents(self, names: Sequence[str], specs: Sequence[ArraySpec]) -> None:
        """The node documents, which come first. [PACK-004]"""
        for header, payload in documents(names, specs, self.members):
            self._append(header, payload)
            self._frame += (header, payload)
        self.end = self._position + self._joined_size
        self._first_chunk = len(self.members)

    def add_chunk(self, name: str, spec: ArraySpec, source: Source, chunk: int) -> None:
        """The next chunk: number `chunk` of a tensor."""
        if isinstance(source, Kept):
            self._copy(chunk_object(name, spec, chunk).encode(), source.chunk(chunk))
            self.report(spec.chunk_nbytes)
            return
        pieces: Pieces = partial(stored_pieces, source, spec, chunk)
        if spec.is_raw:
            size = spec.chunk_nbytes
        else:
            compressed = list(pieces())
            pieces, size = partial(iter, compressed), sum(piece.size for piece in compressed)
        member_name = chunk_object(name, spec, chunk).encode()
        if size >= INLINE:
            self._flush()
            member = pack.place(member_name, self.end, size, aligned=True)
            member = self._write_large(member, pieces)
        else:
            (piece,) = pieces()
            member = pack.place(member_name, self.end, size, zlib_ng.crc32(piece), aligned=True)
            header = pack.local_header(member)
            self._append(header, piece)
            self._frame.append(header)
            self._digests.append(self.digest.of_blocks(bytes_of(piece), self.block))
        self.members.append(member)
        self.end = member.end
        self._settle(UNSETTLED)
        self.report(spec.chunk_nbytes)

    def _copy(self, name: bytes, chunk: StoredChunk) -> None:
        """The next chunk as it is stored elsewhere. [MIG-020]"""
        member = pack.place(name, self.end, chunk.length, chunk.crc32, aligned=True)
        header = pack.local_header(member)
        if chunk.length < INLINE:
            self._append(header, chunk.storage.read(chunk.object, chunk.offset, chunk.length))
        else:
            self._append(header)
            self._flush()
            self.out.copy(member.payload, chunk.storage, chunk.object, chunk.offset, chunk.length)
            self._position = member.end
        self._frame.append(header)
        self._digests.append(chunk.digests)
        self.members.append(member)
        self.end = member.end

    def _write_large(self, member: Member, pieces: Pieces) -> Member:
        """Write payload and header, the header later where the object can be written in any order."""
        if self.out.sequential:
            crc, digests = 0, b""
            for piece in pieces():
                crc, digests = self._digest(bytes_of(piece), (crc, digests))
            member = member._replace(crc32=crc)
            header = pack.local_header(member)
            self.out.write(member.offset, header)
            self._frame.append(header)
            self._digests.append(digests)
        position = member.payload
        digesting: Call[Digested] | None = None
        before: Call[Digested] | None = None
        for piece in pieces():
            if not self.out.sequential:
                if before is not None:
                    before.result()  # at most two pieces wait, which bounds the memory of converted arrays
                before, digesting = digesting, self.pool.submit(self._digest_after, bytes_of(piece), digesting)
            self.out.write(position, piece)
            position += piece.size
        if digesting is not None:
            self._unsettled.append((len(self._digests), digesting))
            self._frame.append(b"")
            self._digests.append(b"")
        self._position = member.end
        return member

    def _digest_after(self, piece: memoryview, before: Call[Digested] | None) -> Digested:
        return self._digest(piece, (0, b"") if before is None else before.result())

    def _digest(self, piece: memoryview, before: Digested) -> Digested:
        crc, digests = before
        return zlib_ng.crc32(piece, crc), digests + self.digest.of_blocks(piece, self.block)

    def _settle(self, keep: int) -> None:
        """Write the headers of all large chunks but the last `keep`."""
        while len(self._unsettled) > keep:
            row, digesting = self._unsettled.pop(0)
            crc, self._digests[row] = digesting.result()
            number = self._first_chunk + row
            member = self.members[number] = self.members[number]._replace(crc32=crc)
            header = pack.local_header(member)
            self._frame[2 * self._first_chunk + row] = header
            self.out.write(member.offset, header)

    def _append(self, *parts: Any) -> None:
        """Join bytes to what will be written at `_position`."""
        self._joined += parts
        self._joined_size += sum(map(len, parts))
        if self._joined_size >= PIECE:
            self._flush()

    def _flush(self) -> None:
        if self._joined:
            self.out.write(self._position, b"".join(self._joined))
            self._position += self._joined_size
            self._joined, self._joined_size = [], 0

    def end_chunks(self) -> None:
        """Wait for every digest; no chunk may follow."""
        self._settle(0)

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
        self.out.finish(self._position)
        return self._position

    def finish_pack(self) -> Ended:
        """Close a pack that has neither manifest nor comment. [LAY-004]"""
        self.end_chunks()
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
