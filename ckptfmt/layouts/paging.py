"""Whether a draft gets a paged manifest (SPEC.md section 7.1), and in directories the object with its pages."""

from __future__ import annotations

from dataclasses import replace
from operator import itemgetter

import numpy as np

from ..format.chunk_table import ChunkTable, first_chunks
from ..format.dtypes import Array
from ..format.limits import uncollected
from ..format.manifest import Part
from ..format.paged_manifest import is_paged, paged
from ..format.pages import OBJECT
from ..format.tree import renumbered
from ..storage import Attempt
from . import Written, directory
from .draft import Draft

MOST_OF_RANKS = 1 << 20  # chunks that many processes write into pages: rank 0 holds the tables of all, 32 bytes a row


def decided(draft: Draft) -> Draft:
    """The draft with the word whether its manifest is paged. [PAGE-010]"""
    return draft if draft.paged is not None else replace(draft, paged=is_paged(draft.names, draft.tree))


def decided_by_ranks(draft: Draft) -> Draft:
    """The same for one that many processes write: of very many chunks each part keeps its own table."""
    is_small = first_chunks(draft.specs)[-1] <= MOST_OF_RANKS
    return decided(draft if is_small else replace(draft, paged=False))


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
