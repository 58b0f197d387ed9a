"""Small tensors that lie close together in a pack: read together, and checked and copied with little work for each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from ..errors import CkptError
from ..format.arrays import ArraySpec
from ..format.chunk_table import ChunkTable
from ..format.dtypes import Array, settled
from .blocks import BlockReader

SMALL = 256 << 10  # tensors up to this size are read together with their neighbours
RUN = 4 << 20  # bytes of such a common read
FEW = 4  # rows of a stack, for which it is no use to look at them as one array


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
        run = PackRun(part.object or "", table, np.array(rows, np.int64), numbered[positions])
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
    """Read a run at once, and copy each of its tensors into its target or an array of its own."""
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
    places = (starts - first).tolist()
    view = memoryview(memory)
    parts = [view[at : at + length] for at, length in zip(places, lengths.tolist(), strict=True)]
    if verify:
        _check(blocks, run, parts)
    kinds = np.fromiter((id(specs[tensor]) for tensor in tensors), np.int64, len(tensors))
    is_begun = (np.diff(kinds) != 0) | (starts[1:] != starts[:-1] + lengths[:-1])
    cuts = [0, *(np.flatnonzero(is_begun) + 1).tolist(), len(tensors)]
    for low, high in pairwise(cuts):
        count, spec, size, alike = high - low, specs[tensors[low]], len(parts[low]), tensors[low:high]
        values: Iterable[Array]
        if count < FEW:
            values = [_value(blocks, spec, part, tensor) for part, tensor in zip(parts[low:high], alike, strict=True)]
        else:
            values = _values(blocks, spec, buffer[places[low] : places[low] + size * count].reshape(count, size), alike)
        _give(values, alike, found, targets)


def _give(values: Iterable[Array], tensors: list[int], found: dict[int, Array], targets: dict[int, Array]) -> None:
    """Copy tensors into their targets, or arrays of their own."""
    if not targets:
        found.update(zip(tensors, [value.copy() for value in values], strict=True))
        return
    for tensor, value in zip(tensors, values, strict=True):
        if tensor in targets:
            targets[tensor][...] = value
        else:
            found[tensor] = value.copy()


def _check(blocks: BlockReader, run: PackRun, parts: list[memoryview]) -> None:
    """Check the digests of tensors, whose stored bytes are at hand: all at once where each is one block. [BLK-004]"""
    table = run.table
    if int(run.lengths.max()) <= table.block:
        digests = np.frombuffer(table.digest, f"V{table.digest_size}")[np.asarray(table.first_blocks)[run.rows]]
        if b"".join(map(blocks.digest.of, parts)) == digests.tobytes():
            return
    for tensor, part in zip(run.tensors.tolist(), parts, strict=True):
        blocks.check_chunk(blocks.place(tensor, 0), part)


def _value(blocks: BlockReader, spec: ArraySpec, stored: memoryview, tensor: int) -> Array:
    """A tensor, of its logical dtype, in the memory of its stored bytes where that can be."""
    value: Array = np.ndarray(spec.shape, spec.dtype.stored, stored)
    if spec.dtype.is_narrow:
        value = blocks.decoded(blocks.place(tensor, 0), partial(settled, value, spec.dtype))
    return value.view(spec.dtype.numpy)


def _values(blocks: BlockReader, spec: ArraySpec, rows: Array, tensors: list[int]) -> Any:
    """The same of tensors that are alike, which are the rows of one array."""
    stored = rows.view(spec.dtype.stored).reshape(len(tensors), *spec.shape)
    if spec.dtype.is_narrow and rows.max() >> spec.dtype.used:
        found = [
            blocks.decoded(blocks.place(tensor, 0), partial(settled, one, spec.dtype))
            for tensor, one in zip(tensors, stored, strict=True)
        ]
        stored = np.stack(found)
    values = stored.view(spec.dtype.numpy)
    return values if spec.shape else [values[row, ...] for row in range(len(tensors))]  # arrays, where rows are scalars
