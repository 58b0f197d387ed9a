"""Layout `file`: one file that is a checkpoint, a plain ZIP and a Zarr ZipStore at once (SPEC.md sections 8 and 9)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import DAMAGED, StorageError, fault
from ..format import commit
from ..format.commit import CommitRecord
from ..format.limits import Limits
from ..format.manifest import FORMAT, Manifest, Part
from ..storage import MANIFEST, TAIL, Attempt, ObjectWriter, Storage
from . import Frame, Located, Written, bytes_between, chunk_object
from .chunk_index import ChunkIndex

if TYPE_CHECKING:
    from ..format import pack
    from .draft import Draft
    from .pack_writer import PackWriter

OBJECT = ""


# ---- reading


def locate(storage: Storage, limits: Limits) -> Located:
    """Find the commit record at the end of the file, and the manifest. [READ-001]"""
    size = storage.size(OBJECT)
    start = max(0, size - TAIL)
    tail = storage.read(OBJECT, start, size - start)
    line = commit.find(tail)
    if line is None:
        from .foreign import HEAD, refusal

        head = storage.read(OBJECT, 0, min(size, HEAD))
        if head[:4] == b"PK\3\4" and head[30:38] == b"tensors/":
            raise fault(
                "truncated", "the file begins like a checkpoint, but has no commit record at its end", path=storage.path
            )  # [COM-004]
        raise refusal(storage, head)  # [COM-005]
    record = commit.decode(line, FORMAT[0])
    if record.layout != "file" or record.offset + record.length > size - len(line):
        raise fault(
            "bad-record",
            "the commit record does not fit the file that it stands in [COM-002] [LAY-006]",
            path=storage.path,
        )
    limits.check_manifest(record.length, storage.path)
    if record.offset >= start:
        raw = tail[record.offset - start : record.offset - start + record.length]
    else:
        raw = storage.read(OBJECT, record.offset, record.length)
    return Located(record, line, raw, size)


def frames(storage: Storage, located: Located, index: ChunkIndex) -> Iterator[Frame]:
    """None where a page of tensors is damaged, which is damage enough: nobody knows then where chunks are. [FRM-001]"""
    record = located.record
    try:
        table = index.manifest.table
    except (*DAMAGED, StorageError):
        return
    taken = [*zip(table.offsets, table.lengths, strict=True), (record.offset, record.length)]
    if index.manifest.pages is not None:
        taken.append(index.manifest.pages.extent)
    end = storage.size(OBJECT) - len(located.line)
    yield Frame(OBJECT, record.frame, bytes_between(storage, OBJECT, taken, end))


def frame_damage(
    storage: Storage, located: Located, index: ChunkIndex, damaged: set[tuple[str, int]], object: str
) -> Iterator[tuple[str, int, str]]:
    """(object, offset, what) of each place where the frame differs from the canonical one; nothing if it was written
    in another legal way."""
    from . import paged_file
    from .framing import Framing  # these here, as opening needs none of them

    manifest, record = index.manifest, located.record
    framing = Framing(storage, OBJECT, damaged)
    if manifest.pages is not None:
        paged_file.lay_out(framing, manifest)
    else:
        framing.add_documents(_node_members(manifest))
        rows = ((name, spec, chunk) for name, spec in manifest.tensors for chunk in range(spec.chunks))
        for row, offset, length in zip(rows, manifest.table.offsets, manifest.table.lengths, strict=True):
            framing.add(chunk_object(*row), offset, length)
    framing.add(MANIFEST, record.offset, record.length, is_aligned=False)
    comment = len(located.line)
    yield from framing.differences(storage.size(OBJECT) - comment, comment)


# ---- writing


def write(draft: Draft, attempt: Attempt) -> Written:
    """Write the whole file: node documents, chunks, manifest, central directory, end record, commit record."""
    from ..format import pack
    from ..format.arrays import raw_nbytes
    from ..format.digests import sha256
    from ..threads import Pool  # these here, as opening needs neither threads nor a writer
    from . import paged_file
    from .pack_writer import Changed, PackWriter
    from .paging import decided

    draft = decided(draft)
    add = paged_file.add if draft.paged else _add

    def filled(out: ObjectWriter, *, holds: bool = False) -> tuple[PackWriter, bytes]:
        out.reserve(raw_nbytes(draft.specs))
        watch, report = draft.watch, draft.report
        writer = PackWriter(out, draft.digest, draft.block, pool, report, holds=holds, watch=watch)
        return writer, add(writer, draft)

    with Pool(1, "ckptfmt-write") as pool:
        out = attempt.create(OBJECT)
        try:
            writer, raw = filled(out)
        except Changed:
            out.close()
            writer, raw = filled(attempt.create(OBJECT), holds=True)
        last = _manifest_member(writer.end, raw)
        frame = bytes(draft.digest.size)
        record = CommitRecord(draft.format, "file", last.payload, len(raw), sha256(raw), frame)
        header = pack.local_header(last)
        writer.members.append(last)
        directory = pack.directory(writer.members, len(record.encode()))
        record = record._replace(frame=writer.frame(header, directory))
        return Written(writer.finish(header, raw, directory, record.encode()), record)


def _add(writer: PackWriter, draft: Draft) -> bytes:
    """Write node documents and chunks; gives the manifest."""
    from .encoding import Chunk

    writer.add_documents(_node_members(draft))
    tensors = zip(draft.names, draft.specs, draft.sources, strict=True)
    writer.add_chunks(Chunk(*tensor, chunk) for tensor in tensors for chunk in range(tensor[1].chunks))
    return draft.with_statistics(draft.manifest("file", (Part(OBJECT, writer.table()),))).encode()


def _node_members(described: Manifest | Draft) -> Iterator[tuple[str, bytes]]:
    """The node documents of the tensors that a manifest, or a draft of one, describes."""
    from ..format.zarr_nodes import node_members, patch_members  # here, as opening needs none of it

    members = node_members if described.patch is None else patch_members
    return members(described.names, described.specs, described.format)


def _manifest_member(end: int, raw: bytes) -> pack.Member:
    from zlib_ng import zlib_ng

    from ..format import pack

    return pack.place(MANIFEST.encode(), end, len(raw), zlib_ng.crc32(raw), aligned=False)
