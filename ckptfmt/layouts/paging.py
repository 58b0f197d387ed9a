"""Whether a draft gets a paged manifest (SPEC.md section 7.1), and in directories the object with its pages."""

from __future__ import annotations

from dataclasses import replace
from operator import itemgetter

import numpy as np

from ..errors import fault
from ..format.arrays import ArraySpec
from ..format.chunk_table import ChunkTable, first_chunks
from ..format.dtypes import Array
from ..format.limits import DEFAULT, uncollected
from ..format.manifest import Part
from ..format.paged_manifest import is_paged, paged
from ..format.pages import OBJECT
from ..format.tensor_pages import ROWS
from ..format.tree import renumbered
from ..storage import Attempt
from . import Written, directory
from .draft import Draft

MOST_OF_RANKS = 1 << 20  # chunks that many processes page by themselves: rank 0 holds all tables, 32 bytes a row
LARGEST = DEFAULT.manifest  # bytes of a page that readers take, if nobody says otherwise


def decided(draft: Draft) -> Draft:
    """The draft with the word whether its manifest is paged. [PAGE-010]"""
    return draft if draft.paged is not None else replace(draft, paged=is_paged(draft.names, draft.tree))


def decided_by_ranks(draft: Draft) -> Draft:
    """The same for one that many processes write: of very many chunks each part keeps its own table, unless the user
    says otherwise. Raises `bad-option`."""
    if draft.paged is None and first_chunks(draft.specs)[-1] > MOST_OF_RANKS:
        return replace(draft, paged=False)
    if draft.paged:
        _refuse_large_pages(draft)
    return decided(draft)


def _refuse_large_pages(draft: Draft) -> None:
    """Refuse to page what readers would refuse to read. [LIM-011]"""
    order = sorted(range(len(draft.names)), key=draft.names.__getitem__)
    specs = [draft.specs[tensor] for tensor in order]
    bytes_of_tensors = [spec.chunks * _row_bytes(spec, draft) for spec in specs]
    largest = max((sum(bytes_of_tensors[first : first + ROWS]) for first in range(0, len(specs), ROWS)), default=0)
    if largest > LARGEST:
        message = "paged=True makes a page that is too large to be read"
        raise fault("bad-option", message, found=f"{largest:,} bytes", expected=f"at most {LARGEST:,}, or paged=False")


def _row_bytes(spec: ArraySpec, draft: Draft) -> int:
    """What a chunk takes in a page: offset, length, part, and digests of blocks, of a compressed one at most."""
    return 20 + draft.digest.size * max(1, -(-spec.chunk_nbytes // draft.block))


def in_order(draft: Draft) -> tuple[Draft, list[int]]:
    """The draft with its tensors in the order of their names, and which they are of the draft's. [PAGE-005]"""
    with uncollected():
        order = sorted(range(len(draft.names)), key=draft.names.__getitem__)
        if order == list(range(len(order))):
            return draft, order
        numbers = np.empty(len(order), np.int64)
        numbers[order] = np.arange(len(order))
        placed = itemgetter(*order)  # of two or more
        ordered = replace(
            draft,
            sources=list(placed(draft.sources)) if draft.sources else [],
            names=placed(draft.names),
            specs=placed(draft.specs),
            tree=renumbered(draft.tree, numbers.tolist()),
        )
        return ordered, order


def commit(
    draft: Draft,
    attempt: Attempt,
    layout: str,
    table: ChunkTable,
    frame: bytes,
    parts: tuple[Part, ...] = (),
    numbers: Array | None = None,
) -> Written:
    """Write the pages of a directory, its manifest and `COMMIT`; gives the bytes of all. `table`: that of all chunks,
    in the order of the draft; in layout `packed` there are `parts`, and the `numbers` of those of the chunks."""
    pages, manifest = _encoded(draft, layout, table, parts, numbers)
    size = directory.put(attempt, OBJECT, pages)
    written = directory.commit(attempt, layout, draft.format, manifest, frame)
    return written._replace(bytes=written.bytes + size)


@uncollected()
def _encoded(
    draft: Draft, layout: str, table: ChunkTable, parts: tuple[Part, ...], numbers: Array | None
) -> tuple[bytes, bytes]:
    """The pages and the manifest. Nothing of what they are made of is left for the collector to look at."""
    ordered, order = in_order(replace(draft, sources=[]))
    if ordered.names is not draft.names:
        rows = _rows_of(np.array(order, np.int64), np.array(first_chunks(draft.specs), np.int64))
        table, numbers = table.of_rows(rows, None), None if numbers is None else numbers[rows]
    made = paged(ordered.manifest(layout, parts), table, numbers, ordered.statistics())
    return b"".join(made.pages), made.encode(0)


def _rows_of(tensors: Array, firsts: Array) -> Array:
    """The rows of the chunks of these tensors, one after another, in a table of all chunks."""
    begins, counts = firsts[tensors], np.diff(firsts)[tensors]
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    rows: Array = np.repeat(begins, counts) + within
    return rows
