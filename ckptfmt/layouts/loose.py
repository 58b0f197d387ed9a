"""Layout `loose`: a directory with a plain Zarr v3 hierarchy, the manifest and `COMMIT` (SPEC.md section 8).

Every chunk is a file of its own, exactly as long as the chunk, so that any Zarr tool reads it over any store.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import DAMAGED, CorruptError, StorageError
from ..format.chunk_table import ChunkTable, Extent
from ..format.limits import Limits
from ..format.manifest import Manifest, Part
from ..format.zarr_nodes import node_documents
from ..frameworks.sources import Buffers, KeptTensor, StoredChunk
from ..storage import Attempt, Storage
from ..storage.ahead import ahead
from . import Frame, Located, Written, chunk_object, directory, first_difference
from .chunk_index import ChunkIndex
from .pieces import stored_parts

if TYPE_CHECKING:
    from ..format.dtypes import Array
    from ..threads import Pool
    from .draft import Draft
    from .encoding import Chunk

TENSORS = "tensors/"


# ---- reading


def locate(storage: Storage, limits: Limits) -> Located:
    """Read `COMMIT` and the manifest. [READ-001]"""
    return directory.locate(storage, limits)


def frames(storage: Storage, located: Located, index: ChunkIndex) -> Iterator[Frame]:
    """[FRM-002]"""
    yield from directory.pages_frame(storage, index.manifest)
    try:
        documents = _node_documents(index.manifest)
    except (*DAMAGED, StorageError):  # a page of tensors, which is damage enough [FRM-007]
        return
    yield Frame("", located.record.frame, _documents(storage, documents))


def _node_documents(described: Manifest | Draft) -> dict[str, bytes]:
    """The canonical node documents, in C-string order of their paths."""
    documents = node_documents(tuple(described.names), tuple(described.specs), described.format)
    return dict(sorted((TENSORS + key, text) for key, text in documents))


def _documents(storage: Storage, names: Iterable[str]) -> Iterator[bytes]:
    """The node documents that are there."""
    yield from ahead(storage, (partial(_document, storage, name) for name in names))


def _document(storage: Storage, name: str) -> bytes:
    return storage.read(name, 0, storage.size(name))


def frame_damage(
    storage: Storage, located: Located, index: ChunkIndex, damaged: set[tuple[str, int]], object: str
) -> Iterator[tuple[str, int, str]]:
    """(object, offset, what) of each node document that is missing or differs from the canonical one."""
    for name, expected in _node_documents(index.manifest).items() if not object else ():
        try:
            found = _document(storage, name)
        except CorruptError as error:
            if error.code != "missing-object":
                raise
            yield name, 0, "the node document is missing"
            continue
        if found != expected:
            at = first_difference(found, expected)
            yield name, at, f"the node document changed at byte {at}"


# ---- writing


def write(draft: Draft, attempt: Attempt) -> Written:
    """Write every chunk and node document as a file of its own, then the manifest, then `COMMIT`."""
    from .paging import decided  # this and those below here, as readers need none of it

    draft = decided(draft)
    documents = _node_documents(draft)
    total = 0
    for name, text in documents.items():
        total += directory.put(attempt, name, text)
    lengths: list[int] = []
    digests: list[bytes] = []
    from ..threads import Pool
    from .encoding import Chunk, encoded
    from .staging import STAGED

    rows = [(tensor, chunk) for tensor, spec in enumerate(draft.specs) for chunk in range(spec.chunks)]
    shared = _shared(draft, attempt, rows)
    buffers = Buffers(STAGED)
    rest = (
        Chunk(draft.names[tensor], draft.specs[tensor], draft.sources[tensor], chunk)
        for tensor, chunk in rows
        if (tensor, chunk) not in shared.chunks
    )
    with closing(encoded(rest, draft.watch)) as ready, Pool(1, "ckptfmt-write") as pool:
        for cell in rows:
            known = shared.chunks.get(cell)
            length, digest = known or _write_chunk(draft, attempt, *next(ready), buffers, pool)
            if known is not None:
                draft.look(*cell)
            lengths.append(length)
            digests.append(digest)
            draft.report(draft.specs[cell[0]].chunk_nbytes)
    table = ChunkTable(None, np.array(lengths, np.uint64), b"".join(digests), draft.digest.size, draft.block)
    written = _commit(draft, attempt, table, draft.digest.of(b"".join(documents.values())))
    size = sum(length for length, _ in shared.chunks.values())
    return Written(total + sum(lengths) + written.bytes, written.record, size, shared.refused)


def _commit(draft: Draft, attempt: Attempt, table: ChunkTable, frame: bytes) -> Written:
    """Write the manifest, with pages or without, and `COMMIT`."""
    if draft.paged:
        from . import paging

        return paging.commit(draft, attempt, "loose", table, frame)
    manifest = draft.with_statistics(draft.manifest("loose", (Part(None, table),)))
    return directory.commit(attempt, "loose", draft.format, manifest.encode(), frame)


class _LinkedChunks(NamedTuple):
    """Chunks that are objects of an earlier checkpoint, too, by tensor and number: their lengths and digests."""

    chunks: dict[tuple[int, int], tuple[int, bytes]]
    refused: str


def _shared(draft: Draft, attempt: Attempt, cells: list[tuple[int, int]]) -> _LinkedChunks:
    """Link what a draft can share with its base."""
    base = draft.base
    if base is None or not cells:
        return _LinkedChunks({}, "")
    from ..threads import Pool
    from .sharing import HeldChunks, equal_chunks, why_nothing

    refused = why_nothing(base, "loose", draft.digest, draft.block)
    if refused:
        return _LinkedChunks({}, refused)
    tensors = zip(draft.names, draft.specs, draft.sources, strict=True)
    held = [HeldChunks(*tensor, np.arange(tensor[1].chunks)) for tensor in tensors]
    same = np.concatenate(equal_chunks(held, base, draft.digest, draft.block)).tolist()
    table = base.chunks.manifest.table
    equal = [(cell, table.extent(number)) for cell, number in zip(cells, same, strict=True) if number >= 0]

    def link(cell: tuple[int, int], extent: Extent) -> str:
        name = chunk_object(draft.names[cell[0]], draft.specs[cell[0]], cell[1])
        return attempt.link(name, base.storage, name, extent.length)

    with Pool(base.storage.readers if base.storage.is_remote else 1, "ckptfmt-link") as pool:
        answers = list(pool.map(link, *zip(*equal, strict=True))) if equal else []
    there = {cell: extent[1:] for (cell, extent), why in zip(equal, answers, strict=True) if not why}
    return _LinkedChunks(there, next(filter(None, answers), ""))


def _write_chunk(
    draft: Draft, attempt: Attempt, chunk: Chunk, data: Array | None, buffers: Buffers, pool: Pool
) -> tuple[int, bytes]:
    """Write one chunk, whose stored bytes are `data` if it is compressed; gives its length and its blocks' digests."""
    from .staging import STAGED, Checks, WriteBehind, staged, watched

    tensor, spec, source, number = chunk
    name = chunk_object(tensor, spec, number)
    if isinstance(source, KeptTensor):
        return _take_over(attempt, name, source.chunk(number))
    out, checks = attempt.create(name), Checks(draft.digest, draft.block, crc32=False)
    behind = WriteBehind(out, pool)
    position = 0
    looks = None if draft.watch is None else draft.watch.of_stream(tensor, spec, number)
    seen = None if draft.watch is None else draft.watch.of_elements(tensor, spec, number)
    parts = stored_parts(source, spec, number, seen) if data is None else [data]
    for piece in watched(staged(parts, checks, buffers), looks):
        if position == 0 and piece.size == STAGED and spec.is_raw:
            out.reserve(spec.chunk_nbytes)
        behind.write(position, piece)
        position += piece.size
    behind.wait()
    out.finish(position)
    return position, checks.digests


def _take_over(attempt: Attempt, name: str, chunk: StoredChunk) -> tuple[int, bytes]:
    """Make an object of the stored bytes of a chunk of another checkpoint; gives what `_write_chunk` gives.
    [MIG-020]"""
    if attempt.link(name, chunk.storage, chunk.object, chunk.length):
        out = attempt.create(name)
        out.copy(0, chunk.storage, chunk.object, chunk.offset, chunk.length)
        out.finish(chunk.length)
    return chunk.length, chunk.digests
