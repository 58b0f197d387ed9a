"""Layout `packed`: a directory of packs, each with the chunks of one writer and a part manifest (SPEC.md sections 7 to
9). For many processes, and for sizes past one file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DAMAGED, StorageError, fault
from ..format.chunk_table import ChunkTable, columns, first_chunks, joined_tables, rows_of_each
from ..format.digests import digest_named
from ..format.dtypes import Array
from ..format.limits import Limits
from ..format.manifest import Manifest, Part, PartReference
from ..format.placement import placement_of
from ..storage import COMMIT, Attempt, Storage
from . import Frame, Located, Written, bytes_between, chunk_object, directory
from .chunk_index import ChunkIndex

if TYPE_CHECKING:
    from ..format.tensor_pages import PagedObject
    from .draft import Draft
    from .shared_packs import SharedPacks

PACK_BYTES = 32 << 30  # a writer begins another pack when one has this many bytes, or sooner


# ---- reading


def locate(storage: Storage, limits: Limits) -> Located:
    """Read `COMMIT` and the manifest, no part manifest. [READ-001]"""
    return directory.locate(storage, limits)


def frames(storage: Storage, located: Located, index: ChunkIndex) -> Iterator[Frame]:
    """Of the record, which covers no bytes, and of the packs. [FRM-003] [FRM-005]"""
    none = digest_named(index.manifest.digest).of(b"")
    yield Frame(COMMIT, located.record.frame, iter(()))
    yield from directory.pages_frame(storage, index.manifest)
    for number, pack in enumerate(_packs(index.manifest)):
        try:
            table = index.table(number)
        except (*DAMAGED, StorageError):  # which is damage enough: nobody knows where its chunks are [FRM-007]
            yield Frame(pack.object or "", none, _frame(storage, pack, None))
        else:
            yield Frame(pack.object or "", pack.frame or b"", _frame(storage, pack, table))


def _packs(manifest: Manifest) -> Sequence[Part | PagedObject]:
    """What is known of the packs without a table."""
    return manifest.parts if manifest.pages is None else manifest.pages.objects


def _frame(storage: Storage, pack: Part | PagedObject, table: ChunkTable | None) -> Iterator[bytes]:
    """The bytes of a pack but for its chunks, if it is known where these are; its size is known in any case."""
    name = pack.object or ""
    size = storage.size(name)
    if size != pack.size:
        raise fault("bad-extent", "the pack has another size than its part says [LAY-007]", path=storage.path)
    if table is not None:
        yield from bytes_between(storage, name, [*zip(table.offsets, table.lengths, strict=True)], size)


def frame_damage(
    storage: Storage, located: Located, index: ChunkIndex, damaged: set[tuple[str, int]], object: str
) -> Iterator[tuple[str, int, str]]:
    """(object, offset, what) of each place where the frame of a pack differs from that of a canonical writer; nothing
    if the pack was written in another legal way, as those are that steps have in common. [LAY-005] [LAY-009]"""
    from ..format.zarr_nodes import node_members
    from .framing import Framing  # these here, as opening needs none of them

    manifest = index.manifest
    objects = [pack.object for pack in _packs(manifest)]
    if object not in objects:
        return
    number = objects.index(object)
    table, framing = index.table(number), Framing(storage, object, damaged)
    if number == 0:
        framing.add_documents(node_members(tuple(manifest.names), list(manifest.specs), manifest.format))
    numbers = np.arange(len(table.length)) if table.numbers is None else table.numbers
    cells = list(zip(*(column.tolist() for column in columns(numbers, manifest.first_chunks)), strict=True))
    for row in np.argsort(table.offsets).tolist():
        tensor, chunk = cells[row]
        name = chunk_object(manifest.names[tensor], manifest.specs[tensor], chunk)
        framing.add(name, table.offsets[row], table.lengths[row])
    yield from framing.differences(storage.size(object))


# ---- writing


def write(draft: Draft, attempt: Attempt) -> Written:
    """Write a whole checkpoint from one process."""
    from .paging import decided
    from .part_writer import part_numbers  # these here, as readers need no writer

    draft = decided(draft)
    counts = np.array([spec.chunks for spec in draft.specs], np.int64)
    tensors = np.repeat(np.arange(len(counts)), counts)
    firsts = np.cumsum(counts) - counts
    chunk_numbers = np.arange(len(tensors)) - firsts[tensors]
    sizes = np.array([spec.chunk_nbytes for spec in draft.specs], np.int64)[tensors]
    if draft.base is None:
        return _written(draft, attempt, (tensors, chunk_numbers), part_numbers(sizes, PACK_BYTES))
    from .shared_packs import share

    numbers, shared = share(draft, draft.base, attempt, (tensors, chunk_numbers), sizes)
    written = _written(draft, attempt, (tensors, chunk_numbers), numbers, shared)
    return written._replace(shared=shared.bytes, refused=shared.refused)


def _written(
    draft: Draft, attempt: Attempt, cells: tuple[Array, Array], numbers: Array, shared: SharedPacks | None = None
) -> Written:
    """Write the chunks, of which `cells` are the first columns of a table, into parts with these numbers, but for those
    in the packs that are `shared`, which are there."""
    from .encoding import Chunk
    from .part_writer import PartOrder, PartWriter, room_for

    tensors, chunk_numbers = cells
    orders = []

    def chunks_of(rows: Array) -> Iterator[Chunk]:
        cells = zip(tensors[rows].tolist(), chunk_numbers[rows].tolist(), strict=True)
        return (Chunk(draft.names[t], draft.specs[t], draft.sources[t], c) for t, c in cells)

    count = int(numbers.max(initial=0)) + 1 if shared is None else shared.first
    for number, rows in enumerate(rows_of_each(numbers, count)):
        chunks = partial(chunks_of, rows)
        room = room_for(draft.specs[t] for t in tensors[rows].tolist())
        documents = draft.documents if number == 0 else None
        orders.append(PartOrder(number, tensors[rows], chunk_numbers[rows], chunks, room, documents))
    is_paged = draft.paged is True
    writer = PartWriter(attempt, draft.digest, draft.block, draft.report, draft.watch, is_paged=is_paged)
    parts = writer.write(orders)
    if shared is not None:
        parts += shared.parts(attempt, cells, is_paged=is_paged)
        for row in np.flatnonzero(numbers >= shared.first).tolist() if draft.watch is not None else ():
            draft.look(int(tensors[row]), int(chunk_numbers[row]))
    return commit(draft, attempt, tuple(parts), numbers)


def folders(draft: Draft) -> list[str]:
    """The folders of the objects of a draft."""
    return ["packs"] if draft.paged else ["packs", "parts"]


def commit(draft: Draft, attempt: Attempt, parts: tuple[Part, ...], numbers: Array) -> Written:
    """Write manifest and commit record; `numbers` is the part of each chunk. Parts of a draft that is paged have their
    tables with them."""
    frame = draft.digest.of(b"")  # [FRM-003]
    if draft.paged:
        from . import paging

        table = _joined(parts, numbers, draft)
        written = paging.commit(draft, attempt, "packed", table, frame, parts, numbers)
    else:
        manifest = draft.manifest("packed", parts, placement_of(numbers, first_chunks(draft.specs)))
        raw = draft.with_statistics(manifest).encode()
        written = directory.commit(attempt, "packed", draft.format, raw, frame)
    references = (part.chunks.length for part in parts if isinstance(part.chunks, PartReference))
    return Written(written.bytes + sum(part.size or 0 for part in parts) + sum(references), written.record)


def _joined(parts: tuple[Part, ...], numbers: Array, draft: Draft) -> ChunkTable:
    """The table of all chunks, in their order, of which each part has its own in that order."""
    tables = [part.chunks for part in parts if isinstance(part.chunks, ChunkTable)]
    if len(tables) == 1:
        return tables[0]._replace(numbers=None)
    by_part = np.argsort(numbers, kind="stable")
    return joined_tables(tables, draft.digest.size, draft.block).of_rows(np.argsort(by_part), None)
