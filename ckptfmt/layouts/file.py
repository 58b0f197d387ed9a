"""Layout `file`: one file that is a checkpoint, a plain ZIP and a Zarr ZipStore at once (SPEC.md sections 8 and 9).

Written in one pass: node documents, chunks, manifest, central directory, end record, commit record. Small chunks are
joined with their headers into large writes; of a large chunk the payload is written while a second thread computes
crc32 and digests of the same piece, and its header, which needs the crc32, is put in front of it afterwards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from zlib_ng import zlib_ng

from .. import commit, pack
from ..arrays import ArraySpec
from ..chunk_table import ChunkTable, first_rows
from ..chunks import PIECE, stored_pieces
from ..commit import CommitRecord
from ..dtypes import Array, bytes_of
from ..errors import fault
from ..manifest import FORMAT, Manifest
from ..storage import Attempt, ObjectWriter, Storage
from ..zarr_nodes import node_documents
from . import Draft, Located, Written, check_manifest_length, first_difference

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

OBJECT = ""
MANIFEST = b"manifest.msgpack"
TAIL = 64 << 10  # bytes of the first read: record, end record, directory and manifest of most checkpoints
INLINE = 1 << 20  # chunks below this are joined with their neighbours into one write
WINDOW = 64 << 10  # bytes of one read when reading the frame between small chunks


# ---- reading


def locate(storage: Storage, max_manifest: int) -> Located:
    """Find the commit record at the end of the file, and the manifest. [READ-001]"""
    size = storage.size(OBJECT)
    start = max(0, size - TAIL)
    tail = storage.read(OBJECT, start, size - start)
    line = commit.find(tail)
    if line is None:
        head = storage.read(OBJECT, 0, min(size, 512))
        if head[:4] == b"PK\3\4" and head[30:38] == b"tensors/":
            raise fault(
                "truncated", "the file begins like a checkpoint, but has no commit record at its end", path=storage.path
            )  # [COM-004]
        from ..foreign import looks_like

        raise fault("not-a-checkpoint", f"this is {looks_like(head, storage)}", path=storage.path)  # [COM-005]
    record = commit.decode(line, FORMAT[0])
    if record.layout != "file" or record.offset + record.length > size - len(line):
        raise fault(
            "bad-record",
            "the commit record does not fit the file that it stands in [COM-002] [LAY-006]",
            path=storage.path,
        )
    check_manifest_length(record, max_manifest, storage.path)
    if record.offset >= start:
        raw = tail[record.offset - start : record.offset - start + record.length]
    else:
        raw = storage.read(OBJECT, record.offset, record.length)
    return Located(record, line, raw)


def chunk_object(manifest: Manifest, tensor: int, chunk: int) -> str:
    return OBJECT


def frame(storage: Storage, located: Located, manifest: Manifest) -> Iterator[bytes]:
    """All bytes but chunks, manifest and commit record, in order. [FRM-001]"""
    table, record = manifest.table, located.record
    taken = sorted([*zip(table.offsets, table.lengths, strict=True), (record.offset, record.length)])
    end = storage.size(OBJECT) - len(located.line)
    position, window, window_start = 0, b"", 0
    for offset, length in [*taken, (end, 0)]:
        while position < offset:
            if not window_start <= position < window_start + len(window):
                window_start, window = (
                    position,
                    storage.read(
                        OBJECT,
                        position,
                        min(WINDOW, end - position) if offset - position < WINDOW else offset - position,
                    ),
                )
            piece = window[position - window_start : offset - window_start]
            yield piece
            position += len(piece)
        position = offset + length


def frame_damage(
    storage: Storage, located: Located, manifest: Manifest, damaged: set[int]
) -> Iterator[tuple[str, int, str]]:
    """(object, offset, what) of each place where the frame differs from the canonical one; nothing if it was written
    in another legal way."""
    table, record = manifest.table, located.record
    members: list[pack.Member] = []
    documents = [header + text for header, text in _documents(manifest.names, manifest.specs, members)]
    canonical = [(0, b"".join(documents), "a node document")]
    end = members[-1].end
    for row, length in enumerate(table.lengths):
        tensor, chunk = table.tensor_of(row)
        member = pack.place(
            _chunk_name(manifest.names[tensor], manifest.specs[tensor], chunk), end, length, aligned=True
        )
        if member.payload != table.offsets[row]:
            return  # written in another legal way: nothing to compare with
        if member.payload in damaged:  # its crc32 cannot be computed: believe the header
            crc = int.from_bytes(storage.read(OBJECT, member.offset + pack.CRC32_AT, 4), "little")
        else:
            crc = _crc32(storage, member)
        members.append(member._replace(crc32=crc))
        canonical.append((member.offset, pack.local_header(members[-1]), f"the ZIP header of {member.name.decode()}"))
        end = member.end
    header, directory = _tail(members, end, located.manifest, len(located.line))
    after = record.offset + record.length
    if end + len(header) != record.offset or after + len(directory) + len(located.line) != storage.size(OBJECT):
        return
    canonical += [(end, header, "the ZIP header of the manifest"), (after, directory, "the ZIP directory")]
    for offset, expected, what in canonical:
        found = storage.read(OBJECT, offset, len(expected))
        if found != expected:
            at = offset + first_difference(found, expected)
            yield OBJECT, at, f"{what} changed at byte {at:,}"


def _crc32(storage: Storage, member: pack.Member) -> int:
    crc = 0
    for start in range(0, member.size, PIECE):
        crc = zlib_ng.crc32(storage.read(OBJECT, member.payload + start, min(PIECE, member.size - start)), crc)
    return crc


# ---- writing


def write(draft: Draft, attempt: Attempt) -> Written:
    """Write the whole file; see the module's text."""
    out = attempt.create(OBJECT)
    out.reserve(sum(spec.chunks * spec.chunk_nbytes for spec in draft.specs if spec.is_raw))
    from concurrent.futures import ThreadPoolExecutor  # here, as opening needs no threads

    with ThreadPoolExecutor(1, thread_name_prefix="ckptfmt-digest") as pool:
        writer = _PackWriter(out, draft, pool)
        for header, payload in _documents(draft.names, draft.specs, writer.members):
            writer.add_document(header, payload)
        for name, spec, array in zip(draft.names, draft.specs, draft.arrays, strict=True):
            for chunk in range(spec.chunks):
                writer.add_chunk(_chunk_name(name, spec, chunk), spec, array, chunk)
                writer.settle(16)
        writer.settle(0)
    raw = draft.manifest("file", OBJECT, writer.table()).encode()
    record = CommitRecord(FORMAT, "file", 0, len(raw), hashlib.sha256(raw).digest(), bytes(draft.digest.size))
    offset = pack.place(MANIFEST, writer.end, len(raw), aligned=False).payload
    record = CommitRecord(record.format, "file", offset, len(raw), record.sha256, record.frame)
    header, directory = _tail(writer.members, writer.end, raw, len(record.encode()))
    writer.frame_parts += [header, directory]
    frame_digest = draft.digest.of(b"".join(writer.frame_parts))
    record = CommitRecord(record.format, "file", offset, len(raw), record.sha256, frame_digest)
    tail = b"".join((header, raw, directory, record.encode()))
    writer.append(len(tail), tail)
    writer.flush()
    out.finish(writer.position)
    return Written(writer.position, record)


class _PackWriter:
    """Appends members to a pack. `end` is where the next member begins; `members` are in order."""

    def __init__(self, out: ObjectWriter, draft: Draft, pool: ThreadPoolExecutor) -> None:
        self.out, self.draft, self.pool = out, draft, pool
        self.members: list[pack.Member] = []
        self.frame_parts: list[bytes] = []
        self.end = 0
        self.position = 0  # where the joined parts below will be written
        self._joined: list[Any] = []
        self._joined_size = 0
        self._digests: list[bytes] = []
        self._unsettled: list[tuple[int, Future[tuple[int, bytes]]]] = []  # (row, crc32 and digests) of large chunks
        self._first_chunk = 0

    def add_document(self, header: bytes, payload: bytes) -> None:
        self.append(len(header) + len(payload), header, payload)
        self.frame_parts += (header, payload)
        self.end = self.position + self._joined_size
        self._first_chunk = len(self.members)

    def add_chunk(self, name: bytes, spec: ArraySpec, array: Array, chunk: int) -> None:
        pieces: Iterable[Array] = stored_pieces(array, spec, chunk)
        if spec.is_raw:
            size = spec.chunk_nbytes
        else:
            pieces = list(pieces)
            size = sum(piece.size for piece in pieces)
        if size >= INLINE:
            self.flush()
            member = pack.place(name, self.end, size, aligned=True)
            self._write_large(member, pieces)
        else:
            (piece,) = pieces
            member = pack.place(name, self.end, size, zlib_ng.crc32(piece), aligned=True)
            header = pack.local_header(member)
            self.append(len(header) + size, header, piece)
            self.frame_parts.append(header)
            self._digests.append(self.draft.digest.of_blocks(bytes_of(piece), self.draft.block))
        self.members.append(member)
        self.end = member.end

    def _write_large(self, member: pack.Member, pieces: Iterable[Array]) -> None:
        position = member.payload
        digesting: Future[tuple[int, bytes]] | None = None
        before: Future[tuple[int, bytes]] | None = None
        for piece in pieces:
            if before is not None:
                before.result()  # at most two pieces wait, which bounds the memory of converted arrays
            before, digesting = digesting, self.pool.submit(self._digest, bytes_of(piece), digesting)
            self.out.write(position, piece)
            position += piece.size
        assert digesting is not None  # a large chunk has at least one piece
        self._unsettled.append((len(self._digests), digesting))
        self.frame_parts.append(b"")
        self._digests.append(b"")
        self.position = member.end

    def _digest(self, piece: memoryview, before: Future[tuple[int, bytes]] | None) -> tuple[int, bytes]:
        crc, digests = before.result() if before is not None else (0, b"")
        return zlib_ng.crc32(piece, crc), digests + self.draft.digest.of_blocks(piece, self.draft.block)

    def settle(self, keep: int) -> None:
        """Write the headers of all large chunks but the last `keep`."""
        while len(self._unsettled) > keep:
            row, digesting = self._unsettled.pop(0)
            crc, self._digests[row] = digesting.result()
            number = self._first_chunk + row
            member = self.members[number] = self.members[number]._replace(crc32=crc)
            header = pack.local_header(member)
            self.frame_parts[2 * self._first_chunk + row] = header
            self.out.write(member.offset, header)

    def append(self, size: int, *parts: Any) -> None:
        """Join `size` bytes to what will be written at `position`."""
        self._joined += parts
        self._joined_size += size
        if self._joined_size >= PIECE:
            self.flush()

    def flush(self) -> None:
        if self._joined:
            self.out.write(self.position, b"".join(self._joined))
            self.position += self._joined_size
            self._joined, self._joined_size = [], 0

    def table(self) -> ChunkTable:
        chunks = self.members[self._first_chunk :]
        offset = np.array([member.payload for member in chunks], np.uint64)
        length = np.array([member.size for member in chunks], np.uint64)
        digest = self.draft.digest
        return ChunkTable(
            offset, length, b"".join(self._digests), digest.size, self.draft.block, first_rows(self.draft.specs)
        )


def _documents(names: Any, specs: Any, members: list[pack.Member]) -> Iterator[tuple[bytes, bytes]]:
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


def _chunk_name(name: str, spec: ArraySpec, chunk: int) -> bytes:
    return f"tensors/{name}/{spec.chunk_key(chunk)}".encode() if name else f"tensors/{spec.chunk_key(chunk)}".encode()


def _tail(members: list[pack.Member], end: int, manifest: bytes, comment_length: int) -> tuple[bytes, bytes]:
    """(the manifest's local header, central directory and end records) of a pack whose chunks end at `end`."""
    last = pack.place(MANIFEST, end, len(manifest), zlib_ng.crc32(manifest), aligned=False)
    entries = [pack.central_entry(member) for member in (*members, last)]
    directory = b"".join(entries)
    return pack.local_header(last), directory + pack.end_records(len(entries), last.end, len(directory), comment_length)
