"""How each tensor is stored in a patch: not at all where it is the same in the base, as the bits that differ, or whole,
whichever is smaller. Both forms are compressed to be compared, on all cores."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from ..format.arrays import SAME, WHOLE, XOR, ArraySpec
from ..format.codecs import RAW, Codec
from ..format.digests import digest_named
from ..format.dtypes import Array
from ..format.patch import NO_SOURCE, xor
from ..layouts.pieces import joined, stored_parts
from ..progress import Report
from ..reading.checkpoint import StoredCheckpoint
from ..reading.fetch import Fetcher
from ..storage.ahead import in_order
from ..threads import Pool
from .matching import Match
from .runs import ChunkRun, cells_of, chunks_in, in_pieces, runs_of
from .spool import Spool, SpooledChunk

THREADS = max(2, min(16, os.cpu_count() or 2))
CHUNK = 4 << 20  # bytes before compression: a part of a tensor is read through one block of each side [PATCH-012]

Spooled = list[SpooledChunk | None]  # of a difference: None where there is none
Trials = Iterable[Callable[[], Spooled]]
TrialRunner = Callable[[Trials], Iterator[Spooled]]


class StoredForm(NamedTuple):
    """How a tensor is stored in the patch, the number of the one in the base, and its compressed chunks; None for those
    of a raw one."""

    spec: ArraySpec
    source: int = NO_SOURCE
    chunks: list[SpooledChunk] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of its chunks."""
        if self.chunks is None:
            return self.spec.chunks * self.spec.chunk_nbytes
        return sum(chunk.length for chunk in self.chunks)


def one_after_another(works: Trials) -> Iterator[Spooled]:
    return (work() for work in works)


class FormChooser:
    """Compares two checkpoints, tensor by tensor, and chooses forms; what is compressed goes into a spool."""

    def __init__(
        self, base: Fetcher, new: StoredCheckpoint, codec: Codec, spool: Spool, report: Report, *, verify: bool
    ) -> None:
        """`verify`: read and compare also what digests say is the same."""
        self._base, self._new, self._codec, self._spool = base, new, codec, spool
        self._report, self._verify = report, verify
        self._digest, self._block = digest_named(new.manifest.digest), new.manifest.block

    def stored(self, found: Mapping[int, Match]) -> list[StoredForm]:
        """All tensors of the checkpoint, of which these are matched with some of the base."""
        specs = tuple(self._new.manifest.specs)
        results: dict[int, StoredForm] = {}
        with Pool(THREADS, "ckptfmt-patch") as pool:
            small = [number for number, spec in enumerate(specs) if spec.nbytes <= CHUNK]
            calls = (partial(self._chosen, number, found.get(number), one_after_another) for number in small)
            results |= zip(small, in_order(pool, calls, 2 * THREADS), strict=True)
            for number in (number for number in range(len(specs)) if number not in results):
                results[number] = self._chosen(
                    number, found.get(number), lambda works: in_order(pool, works, 2 * THREADS)
                )
        return [results[number] for number in range(len(specs))]

    def _chosen(self, number: int, match: Match | None, run: TrialRunner) -> StoredForm:
        """The smallest form of a tensor. What would be larger than another is given up before it is whole."""
        spec = self._new.manifest.specs[number]
        whole = tuple(max(1, n) for n in spec.storage_shape)
        best = StoredForm(spec._replace(form=WHOLE, codec=RAW, grid=whole))
        difference = None if match is None else self._difference(number, match, run)
        if match is not None and difference is None:
            best = StoredForm(best.spec._replace(form=SAME), match.source, [])
        else:
            if difference is not None and difference.nbytes < best.nbytes:
                best = difference
            best = self._whole(number, best.nbytes, run) or best
        self._report(spec.nbytes)
        return best

    def _cut(self, number: int, form: int) -> ArraySpec:
        """The chunks of a tensor, compressed."""
        spec = self._new.manifest.specs[number]._replace(form=form)
        return in_pieces(spec, CHUNK)._replace(codec=self._codec.for_itemsize(spec.dtype.stored.itemsize))

    def _difference(self, number: int, match: Match, run: TrialRunner) -> StoredForm | None:
        """What is different in a tensor; None if nothing is."""
        if match.is_same and not self._verify:
            return None
        cut = self._cut(number, XOR)
        works = (partial(self._differences, number, match.source, cut, part) for part in runs_of(cut))
        chunks = [chunk for found in run(works) for chunk in found]
        if all(chunk is None for chunk in chunks):
            return None
        nothing = self._add(cut, np.zeros(cut.grid, cut.dtype.stored)) if None in chunks else None
        return StoredForm(cut, match.source, [chunk or nothing for chunk in chunks])  # type: ignore[misc]

    def _differences(self, number: int, source: int, cut: ArraySpec, part: ChunkRun) -> Spooled:
        cells = cells_of(self._new.fetcher, number, part.axes)
        xor(cells, cells_of(self._base, source, part.axes))
        return [self._add(cut, chunk) if chunk.view(np.uint8).any() else None for chunk in chunks_in(part, cells, cut)]

    def _add(self, cut: ArraySpec, chunk: Array) -> SpooledChunk:
        return self._spool.add(cut.codec.encode(chunk), self._digest, self._block)

    def _whole(self, number: int, most: int, run: TrialRunner) -> StoredForm | None:
        """All of a tensor, compressed; None if that takes `most` bytes, or more."""
        cut, total = self._cut(number, WHOLE), 0
        chunks: list[SpooledChunk] = []
        for found in run(partial(self._elements, number, cut, chunk) for chunk in range(cut.chunks)):
            chunks += (chunk for chunk in found if chunk is not None)
            total += sum(chunk.length for chunk in chunks[-len(found) :])
            if total >= most:
                return None
        return StoredForm(cut, NO_SOURCE, chunks) if chunks else None

    def _elements(self, number: int, cut: ArraySpec, chunk: int) -> Spooled:
        data = joined(stored_parts(self._new.handles[number], cut, chunk))
        return [self._spool.add(data, self._digest, self._block)]
