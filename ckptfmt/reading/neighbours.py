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
from ..format.spec_columns import MAX_RANK
from .blocks import BlockReader

SMALL = 256 << 10  # tensors up to this size are read together with their neighbours
RUN = 4 << 20  # bytes of such a common read
FEW = 8  # tensors one after another, which are worth to be looked at as one array
SLAB = 64 << 10  # bytes of memory that tensors share: to ask for it costs more than to copy what is so small


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
        for first, stop in groups_of(starts, ends):
            yield run._replace(rows=run.rows[first:stop], tensors=run.tensors[first:stop])


def groups_of(starts: Array, ends: Array) -> Iterator[tuple[int, int]]:
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
    for alike in _alike(buffer, run, specs):
        if verify:
            _check(blocks, run, alike)
        together = max(1, SLAB // alike.spec.nbytes)
        for at in range(0, len(alike.tensors), together):
            numbers = alike.tensors[at : at + together]
            values = _values(blocks, alike.spec, numbers, alike.copied(at, at + together))
            _give(zip(numbers, values, strict=True), found, targets)


class Alike(NamedTuple):
    """Tensors that are alike, by their places in a run and their numbers; and their stored bytes, in one array if they
    lie one after another."""

    spec: ArraySpec
    places: Array
    tensors: list[int]
    rows: Array | list[Array]

    def copied(self, start: int, stop: int) -> Array:
        """Some of the rows, in other memory."""
        some = self.rows[start:stop]
        return some.copy() if isinstance(some, np.ndarray) else np.concatenate(some)


def _alike(buffer: Array, run: PackRun, specs: Sequence[ArraySpec]) -> Iterator[Alike]:
    """The tensors of a run, whose bytes are in `buffer`."""
    groups: dict[int, list[int]] = {}
    numbers = run.tensors.tolist()
    for place, key in enumerate(map(id, map(specs.__getitem__, numbers))):
        groups.setdefault(key, []).append(place)
    offsets = run.offsets
    offsets -= offsets[0]
    for group in groups.values():
        spec, places = specs[numbers[group[0]]], np.array(group, np.int64)
        starts, size = offsets[places], spec.nbytes
        begins = np.concatenate([[0], np.flatnonzero(np.diff(starts) != size) + 1])
        if len(begins) * FEW > len(group):
            rows = [buffer[start : start + size] for start in starts.tolist()]
            yield Alike(spec, places, run.tensors[places].tolist(), rows)
            continue
        for first, last in pairwise([*begins.tolist(), len(group)]):
            block = buffer[starts[first] : starts[last - 1] + size].reshape(last - first, size)
            yield Alike(spec, places[first:last], run.tensors[places[first:last]].tolist(), block)


def _give(values: Iterable[tuple[int, Array]], found: dict[int, Array], targets: dict[int, Array]) -> None:
    """Copy tensors into their targets; those that have none keep the memory that they are in."""
    if not targets:
        found.update(values)
        return
    for tensor, value in values:
        if tensor in targets:
            targets[tensor][...] = value
        else:
            found[tensor] = value


def _check(blocks: BlockReader, run: PackRun, alike: Alike) -> None:
    """Check the digests of tensors, whose stored bytes are at hand: all at once where each is one block. [BLK-004]"""
    expected = run.table.first_digests(run.rows[alike.places])
    if alike.spec.nbytes <= run.table.block and b"".join(map(blocks.digest.of, alike.rows)) == expected:
        return
    for tensor, row in zip(alike.tensors, alike.rows, strict=True):
        blocks.check_chunk(blocks.place(tensor, 0), memoryview(row))


def _values(blocks: BlockReader, spec: ArraySpec, tensors: list[int], stored: Array) -> Iterable[Array]:
    """Tensors that are alike, of their logical dtype, in the memory of their stored bytes."""
    rows = stored.view(spec.dtype.stored).reshape(len(tensors), *spec.shape)
    if spec.dtype.is_narrow and stored.max() >> spec.dtype.used:
        for tensor, row in zip(tensors, rows, strict=True):
            blocks.decoded(blocks.place(tensor, 0), partial(settled, row, spec.dtype))  # in place [DTYPE-010]
    values = rows.view(spec.dtype.numpy)
    return values if spec.shape else (values[row, ...] for row in range(len(tensors)))  # arrays of scalars, too
