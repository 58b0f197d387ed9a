"""The stored bytes of tensors in the order in which they are written: made on several threads, while what came before
is written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from ..format.arrays import ArraySpec
from ..format.dtypes import Array
from ..frameworks.sources import Buffers, Streamed
from ..reading.checkpoint import StoredCheckpoint
from ..storage.ahead import in_order
from ..threads import Pool
from .matching import whole_one
from .runs import RUN, ChunkRun, are_in_order, cells_of, in_pieces, runs_of

SMALL = 1 << 20  # bytes of tensors that are read together
TOGETHER = 8 << 20  # bytes of those

Elements = dict[int, Array]  # elements, by the number of their tensor


def can_stream(spec: ArraySpec) -> bool:
    """Whether the elements in memory are the stored bytes, whatever they are."""
    dtype = spec.dtype
    return dtype.bits % 8 == 0 and dtype.name != "bool" and dtype.stored.isnative and bool(spec.nbytes)


class _Making(NamedTuple):
    """What is made at once: a group of small tensors, or the part of a large one at a `place` among its parts."""

    group: tuple[int, ...]
    place: int
    make: Callable[[], Elements]


class Stream:
    """Tensors of a checkpoint, verified. What is asked for in order was made ahead, all else is made then."""

    def __init__(self, checkpoint: StoredCheckpoint, numbers: Iterable[int], pool: Pool, ahead: int) -> None:
        """`numbers` of the tensors in order; at most `ahead` parts are under way, or wait."""
        self._checkpoint = checkpoint
        works = list(self._works(numbers))
        self._coming = deque(works)
        self._made = in_order(pool, [work.make for work in works], ahead)
        self._held: Elements = {}  # of the group that was made last
        self._buffers = Buffers(RUN)

    def source(self, number: int) -> Streamed:
        """A tensor, as a save takes it."""
        return Streamed(self._checkpoint.handles[number], partial(self._pieces, number))

    def _works(self, numbers: Iterable[int]) -> Iterator[_Making]:
        specs = self._checkpoint.manifest.specs
        group: list[int] = []
        size = 0
        for number in numbers:
            is_small = specs[number].nbytes <= SMALL
            if group and (not is_small or size > TOGETHER):
                yield _Making(tuple(group), 0, partial(self._together, group))
                group, size = [], 0
            if is_small:
                group.append(number)
                size += specs[number].nbytes
            else:
                yield from self._parts(number)
        if group:
            yield _Making(tuple(group), 0, partial(self._together, group))

    def _together(self, group: Iterable[int]) -> Elements:
        return self._checkpoint.fetcher.tensors(group, True, {})

    def _parts(self, number: int) -> Iterator[_Making]:
        """A large tensor, part by part in C order."""
        for place, run in enumerate(self._runs(number)):
            yield _Making((number,), place, partial(self._part, number, run))

    def _part(self, number: int, run: ChunkRun) -> Elements:
        return {number: cells_of(self._checkpoint.fetcher, number, run.axes, self._buffers)}

    def _runs(self, number: int) -> Iterator[ChunkRun]:
        """As it is stored, so that each chunk is decoded once."""
        found = whole_one(self._checkpoint, number)
        holder, tensor = (self._checkpoint, number) if found is None else found
        spec = holder.manifest.specs[tensor]
        return runs_of(in_pieces(spec, RUN) if spec.is_raw or not are_in_order(spec) else spec)

    def _pieces(self, number: int) -> Iterator[Array]:
        """The stored bytes of a tensor (uint8)."""
        if self._checkpoint.manifest.specs[number].nbytes <= SMALL:
            yield self._small(number).reshape(-1).view(np.uint8)
            return
        for work in self._parts(number):
            is_next = bool(self._coming) and self._coming[0][:2] == work[:2]
            made = next(self._made) if is_next else work.make()
            if is_next:
                self._coming.popleft()
            yield made[number].reshape(-1).view(np.uint8)

    def _small(self, number: int) -> Array:
        if number not in self._held and self._coming and number in self._coming[0].group:
            self._coming.popleft()
            self._held = next(self._made)
        return self._held.pop(number) if number in self._held else self._together([number])[number]
