"""Tensors of a patch (SPEC.md section 7.4): those that are whole are read as ever, the others through the base. Blocks
of both are verified by the digests of the checkpoint that they are in. [PATCH-007]"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from ..errors import fault
from ..format.arrays import SAME, WHOLE, XOR
from ..format.chunks import decoded_chunk
from ..format.dtypes import Array
from ..format.grid import Axis, pieces
from ..format.patch import Patch, xor
from .blocks import UNCHECKED, BlockReader, ChunkPlace, ReadJob, in_turn
from .fetch import Fetcher, Wanted


class _Divided(NamedTuple):
    """Tensors by how they are read: `whole`; through the base and combined in their memory (`based`); and those whose
    storage elements have to be taken apart after that."""

    whole: list[int]
    based: list[int]
    others: list[int]


class PatchFetcher(Fetcher):
    """Reads the tensors of a patch. `base` reads those of its base; without one only whole tensors can be read."""

    def __init__(self, blocks: BlockReader, patch: Patch, base: Fetcher | None) -> None:
        super().__init__(blocks)
        self.patch: Patch = patch
        self._base = base

    def for_load(self, in_flight: int) -> PatchFetcher:
        base = None if self._base is None else self._base.for_load(in_flight)
        return PatchFetcher(self.blocks.for_load(in_flight), self.patch, base)

    @property
    def readers(self) -> Sequence[BlockReader]:
        return (self.blocks, *(() if self._base is None else self._base.readers))

    def base(self, tensor: int) -> Fetcher:
        """What reads the base, for a tensor; raises `missing-base`. [PATCH-004]"""
        if self._base is not None:
            return self._base
        text = self.blocks.describe(tensor)
        raise fault(
            "missing-base",
            f"tensor {text!r} is made of one of the patch's base, which was not given [PATCH-004]",
            path=self.blocks.storage.path,
            tensor=text,
            expected=f"the checkpoint whose manifest has the sha256 {self.patch.base.hex()}",
        )

    def source(self, tensor: int) -> int:
        """The number of the tensor in the base that one is made of."""
        return int(self.patch.sources[tensor])

    # ---- what there is room for

    def admit(self, wanted: Iterable[int]) -> None:
        specs = self.specs(wanted := list(wanted))
        super().admit(tensor for tensor in wanted if specs[tensor].form != SAME)
        based = [tensor for tensor in wanted if specs[tensor].form != WHOLE]
        if not based:
            return
        first = {self.source(tensor): tensor for tensor in based}
        self.base(based[0]).admit(first)
        distinct = sum(specs[tensor].nbytes for tensor in first.values())
        repeated = sum(specs[tensor].nbytes for tensor in based) - distinct
        if repeated > UNCHECKED:  # what many tensors are made of one [PATCH-011]
            self.blocks.limits.check_expansion(repeated, distinct)

    def admit_cells(self, tensor: int, axes: tuple[Axis, ...]) -> None:
        form = self.manifest.specs[tensor].form
        if form != SAME:
            super().admit_cells(tensor, axes)
        if form != WHOLE:
            self.base(tensor).admit_cells(self.source(tensor), axes)

    # ---- reading

    def mapped(self, wanted: Iterable[int], verify: bool) -> dict[int, Array]:
        """What is the same is mapped where it is in the base, once each, as no two tensors share memory."""
        specs = self.specs(wanted := list(wanted))
        arrays = super().mapped((tensor for tensor in wanted if specs[tensor].form == WHOLE), verify)
        same = {self.source(tensor): tensor for tensor in wanted if specs[tensor].form == SAME}
        if not same:
            return arrays
        found = self.base(next(iter(same.values()))).mapped(same, verify)
        return arrays | {same[source]: array for source, array in found.items()}

    def tensors(self, wanted: Iterable[int], verify: bool, targets: dict[int, Array]) -> dict[int, Array]:
        wanted = list(wanted)
        self.admit(tensor for tensor in wanted if tensor not in targets)
        divided = self._divide(wanted)
        found = super().tensors(divided.whole, verify, targets)
        for tensor in divided.based:
            found[tensor] = targets[tensor] if tensor in targets else self._array(tensor, self._shape(tensor))
        if divided.based:
            self._fill_based(divided.based, verify, found)
        for tensor in divided.others:
            values = self.select(tensor, tuple(Axis(0, n, 1) for n in self._shape(tensor)), verify)
            found[tensor] = targets.get(tensor, values)
            if tensor in targets:
                found[tensor][...] = values
        return found

    def _shape(self, tensor: int) -> tuple[int, ...]:
        return self.manifest.specs[tensor].shape

    def _divide(self, wanted: list[int]) -> _Divided:
        specs, divided = self.specs(wanted), _Divided([], [], [])
        for tensor in wanted:
            spec = specs[tensor]
            is_direct = spec.dtype.per == 1 and spec.dtype.stored.isnative and not spec.dtype.is_narrow
            group = divided.whole if spec.form == WHOLE else divided.based
            (group if spec.form != XOR or is_direct else divided.others).append(tensor)
        return divided

    def _fill_based(self, wanted: list[int], verify: bool, found: dict[int, Array]) -> None:
        """Fill arrays of tensors: with elements of the base, and then with what is different."""
        first: dict[int, int] = {}
        for tensor in wanted:
            first.setdefault(self.source(tensor), tensor)
        self.base(wanted[0]).tensors(first, verify, {source: found[tensor] for source, tensor in first.items()})
        for tensor in wanted:
            source = first[self.source(tensor)]
            if source != tensor:
                np.copyto(found[tensor], found[source])
        jobs: list[ReadJob] = []
        each = 0
        for tensor in wanted:
            spec = self.manifest.specs[tensor]
            if spec.form == XOR:
                axes = tuple(Axis(0, n, 1) for n in spec.storage_shape)
                jobs += self._differences(Wanted(tensor, axes, found[tensor]), verify)
                each = max(each, 2 * spec.chunk_nbytes)
        self.blocks.run(jobs, each)

    def read_cells(self, parts: list[Wanted], verify: bool) -> None:
        specs = self.manifest.specs
        super().read_cells([part for part in parts if specs[part.tensor].form == WHOLE], verify)
        based = [part for part in parts if specs[part.tensor].form != WHOLE]
        if not based:
            return
        of_base = [part._replace(tensor=self.source(part.tensor)) for part in based]
        self.base(based[0].tensor).read_cells(of_base, verify)
        different = [part for part in based if specs[part.tensor].form == XOR]
        jobs = [job for part in different for job in self._differences(part, verify)]
        each = max((specs[part.tensor].chunk_nbytes for part in different), default=0)
        self.blocks.run(jobs, 2 * each)

    def _differences(self, part: Wanted, verify: bool) -> Iterator[ReadJob]:
        """Jobs that combine what an array holds of the base with what is different. [PATCH-006]"""
        spec = self.manifest.specs[part.tensor]
        for piece in pieces(part.axes, spec.grid, spec.chunk_counts) if part.out.size else ():
            index: Any = (*piece.out, ...)  # with the Ellipsis a view also of a 0-d array
            yield partial(
                self._combine, self.blocks.place(part.tensor, piece.chunk), piece.axes, part.out[index], verify
            )

    def _combine(self, place: ChunkPlace, axes: tuple[Axis, ...], out: Array, verify: bool) -> None:
        spec = self.manifest.specs[place.tensor]
        stored = self.blocks.chunk(place, verify, in_turn)
        cells = self.blocks.decoded(place, lambda: decoded_chunk(stored, spec))
        index: Any = (*(slice(axis.start, axis.last + 1, axis.step) for axis in axes), ...)
        xor(out, cells[index])

    def logical(self, tensor: int, cells: Array, last: int | None) -> Array:
        if self.manifest.specs[tensor].form == SAME:
            return self.base(tensor).logical(self.source(tensor), cells, last)
        return super().logical(tensor, cells, last)
