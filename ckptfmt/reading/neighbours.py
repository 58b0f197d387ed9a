"""Small tensors that lie close together in a pack: read together, and checked and copied with little work for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from ..errors import CkptError
from ..format.arrays import ArraySpec
from ..format.chunk_table import ChunkTable
from ..format.dtypes import Array, settled
from ..format.spec_columns import MAX_RANK
from .blocks import BlockReader

SMALL = 256 << 10  # tensors up to this size are read together with their neighbours
RUN = 4 << 20  # bytes of such a common read
SLAB = 64 << 10  # bytes of memory that tensors share


def can_be_joined(spec: ArraySpec) -> bool:
    """Whether tensors like this are read together; as rows of an array they have one axis more."""
    return 0 < spec.nbytes <= SMALL and spec.is_contiguous and len(spec.shape) < MAX_RANK


class PackRun(NamedTuple):
    """Small tensors of one object that are read together, by their places: rows of `table`, and their numbers."""

    object: str
    table: ChunkTable
    rows: Array
    tensors: Array

    @property
    def offsets(self) -> Array:
        assert self.table.offset is not None
        return self.table.offset[self.rows].astype(np.int64)

    @property
    def lengths(self) -> Array:
        return self.table.length[self.rows].astype(np.int64)


def runs_of(blocks: BlockReader, tensors: list[int]) -> Iterator[PackRun]:
    """Groups of small tensors that lie close together."""
    numbered = np.array(tensors, np.int64)
    try:
        found = list(blocks.index.find_first(numbered))
    except CkptError:
        for tensor in tensors:
            blocks.place(tensor, 0)  # raises for the tensor that is to blame
        raise
    for part, table, rows, positions in found:
        run = PackRun(part.object or "", table, rows, numbered[positions])
        order = np.argsort(run.offsets, kind="stable")
        run = run._replace(rows=run.rows[order], tensors=run.tensors[order])
        starts, ends = run.offsets, run.offsets + run.lengths
        for first, stop in _groups(starts, ends):
            yield run._replace(rows=run.rows[first:stop], tensors=run.tensors[first:stop])


def _groups(starts: Array, ends: Array) -> Iterator[tuple[int, int]]:
    """Consecutive extents, ascending, with no more than `SMALL` bytes between them, that span at most `RUN` bytes."""
    gaps = (np.flatnonzero(starts[1:] - ends[:-1] > SMALL) + 1).tolist()
    for first, stop in zip([0, *gaps], [*gaps, len(starts)], strict=True):
        while first < stop:
            last = max(first + 1, first + int(np.searchsorted(ends[first:stop], starts[first] + RUN, side="right")))
            yield first, last
            first = last


def read_run(
    blocks: BlockReader,
    run: PackRun,
    specs: Sequence[ArraySpec],
    verify: bool,
    found: dict[int, Array],
    targets: dict[int, Array],
) -> None:
    """Read a run at once, and copy each of its tensors into its target or memory of its own."""
    starts, lengths, tensors = run.offsets, run.lengths, run.tensors.tolist()
    first = int(starts[0])
    buffer = np.empty(int(starts[-1] + lengths[-1]) - first, np.uint8)
    memory: Any = buffer
    try:
        blocks.read(run.object, first, memoryview(memory))
    except CkptError:
        for tensor in tensors:
            blocks.chunk(blocks.place(tensor, 0), verify)  # raises for the tensor that is to blame
        raise
    kinds = np.fromiter(map(id, map(specs.__getitem__, tensors)), np.int64, len(tensors))
    is_begun = (np.diff(kinds) != 0) | (starts[1:] != starts[:-1] + lengths[:-1])
    begins = [0, *(np.flatnonzero(is_begun) + 1).tolist()]
    places, sizes = (starts[begins] - first).tolist(), lengths[begins].tolist()
    stacks = [
        Alike(specs[tensors[low]], tensors[low:high], _rows(buffer, at, high - low, size))
        for low, high, at, size in zip(begins, [*begins[1:], len(tensors)], places, sizes, strict=True)
    ]
    if verify:
        _check(blocks, run, stacks)
    for stack in stacks:
        _give(_values(blocks, stack), stack, found, targets)


class Alike(NamedTuple):
    """Tensors that are alike and lie one after another, and their stored bytes: one row each."""

    spec: ArraySpec
    tensors: list[int]
    rows: Array


def _rows(buffer: Array, start: int, count: int, size: int) -> Array:
    return buffer[start : start + count * size].reshape(count, size)


def _give(values: Array, stack: Alike, found: dict[int, Array], targets: dict[int, Array]) -> None:
    """Copy tensors into their targets, or memory of their own."""
    if not targets:
        found.update(zip(stack.tensors, _owned(values), strict=True))
        return
    for tensor, value in zip(stack.tensors, _each(values), strict=True):
        if tensor in targets:
            targets[tensor][...] = value
        else:
            found[tensor] = value.copy()


def _owned(values: Array) -> list[Array]:
    """Copies of the rows, of which a few share memory: to ask for it costs more than to copy what is so small."""
    together = max(1, SLAB * len(values) // values.nbytes)
    slabs = (values[at : at + together].copy() for at in range(0, len(values), together))
    return list(chain.from_iterable(map(_each, slabs)))


def _each(values: Array) -> Iterable[Array]:
    """The rows, as arrays where they are scalars, too."""
    return values if values.ndim > 1 else (values[row, ...] for row in range(len(values)))


def _check(blocks: BlockReader, run: PackRun, stacks: list[Alike]) -> None:
    """Check the digests of tensors, whose stored bytes are at hand: all at once where each is one block. [BLK-004]"""
    rows = chain.from_iterable(stack.rows for stack in stacks)
    if int(run.lengths.max()) <= run.table.block:
        if b"".join(map(blocks.digest.of, rows)) == run.table.first_digests(run.rows):
            return
        rows = chain.from_iterable(stack.rows for stack in stacks)
    for tensor, row in zip(run.tensors.tolist(), rows, strict=True):
        blocks.check_chunk(blocks.place(tensor, 0), memoryview(row))


def _values(blocks: BlockReader, stack: Alike) -> Array:
    """Tensors of their logical dtype, in the memory of their stored bytes where that can be."""
    spec = stack.spec
    stored = stack.rows.view(spec.dtype.stored).reshape(len(stack.tensors), *spec.shape)
    if spec.dtype.is_narrow and stack.rows.max() >> spec.dtype.used:
        settle = partial(settled, dtype=spec.dtype)
        pairs = zip(stack.tensors, stored, strict=True)
        stored = np.stack([blocks.decoded(blocks.place(tensor, 0), partial(settle, one)) for tensor, one in pairs])
    return stored.view(spec.dtype.numpy)
