"""Whether a draft gets a paged manifest (SPEC.md section 7.1), and in directories the object with its pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

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
        numbers = [0] * len(order)
        for number, tensor in enumerate(order):
            numbers[tensor] = number
        ordered = replace(
            draft,
            sources=[draft.sources[tensor] for tensor in order] if draft.sources else [],
            names=tuple([draft.names[tensor] for tensor in order]),
            specs=tuple([draft.specs[tensor] for tensor in order]),
            tree=renumbered(draft.tree, numbers),
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
    with uncollected():
        ordered, order = in_order(draft)
        rows = _rows_of(order, first_chunks(draft.specs))
        numbers = None if numbers is None else numbers[rows]
        made = paged(ordered.manifest(layout, parts), table.of_rows(rows, None), numbers, ordered.statistics())
    size = directory.put(attempt, OBJECT, b"".join(made.pages))
    written = directory.commit(attempt, layout, draft.format, made.encode(0), frame)
    return written._replace(bytes=written.bytes + size)


def _rows_of(tensors: list[int], firsts: Sequence[int]) -> Array:
    """The rows of the chunks of these tensors, one after another, in a table of all chunks."""
    begins, counts = np.asarray(firsts, np.int64)[tensors], np.diff(firsts)[tensors]
    within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
    rows: Array = np.repeat(begins, counts) + within
    return rows
