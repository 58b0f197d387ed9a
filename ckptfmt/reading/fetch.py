"""Tensors and parts of tensors as arrays: what a grid says is needed, read through verified blocks.

The memory of a load is its result and a buffer for each thread, and there are as many threads as `in_flight` has room
for. Small neighbouring tensors of a pack are read together.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NoReturn

import numpy as np

from ..errors import fault
from ..format.arrays import ArraySpec
from ..format.chunks import decode_into, decoded_array, decoded_chunk, logical
from ..format.dtypes import Array, bytes_of
from ..format.grid import Axis, Shape, Span, pieces, spans
from ..format.manifest import Manifest
from ..format.memory import aligned
from ..tuples import NamedTuple
from .blocks import BlockReader, ChunkPlace, ReadJob, Runner, in_turn

SPAN = 32 << 20  # most bytes read at once for scattered elements
SPAN_UNVERIFIED, GAP_UNVERIFIED = 64 << 10, 512  # without verification only gaps this small are read along


class Wanted(NamedTuple):
    """The elements of a tensor at `axes` (over its shape), and a native, contiguous array of its stored dtype with one
    axis for each of them, to be filled."""

    tensor: int
    axes: tuple[Axis, ...]
    out: Array


class Fetcher:
    """Reads the tensors of one checkpoint through its `BlockReader`."""

    def __init__(self, blocks: BlockReader) -> None:
        self.blocks = blocks
        self.manifest: Manifest = blocks.manifest

    def for_load(self, in_flight: int) -> Fetcher:
        """What reads the same for one load, whose memory beside its result is `in_flight` bytes over a network."""
        return Fetcher(self.blocks.for_load(in_flight))

    @property
    def readers(self) -> Sequence[BlockReader]:
        """All that it reads with."""
        return (self.blocks,)

    def tell(self, on_read: Callable[[int], None] | None) -> None:
        """Have the bytes of each read told, from any thread."""
        for blocks in self.readers:
            blocks.on_read = on_read

    def mapped(self, wanted: Iterable[int], verify: bool) -> dict[int, Array]:
        """Those of the tensors that can be mapped, as private, copy-on-write memory."""
        from .mapping import mapped  # here, as most loads map nothing

        return mapped(self.blocks, wanted, verify)

    def __reduce__(self) -> NoReturn:
        raise TypeError("an open checkpoint cannot be pickled or copied: hand its path over, and open it there")

    def admit(self, wanted: Iterable[int]) -> None:
        """Refuse tensors for whose memory too little is stored; see `BlockReader.admit`."""
        specs = self.specs(wanted := list(wanted))
        if self.manifest.layout == "file":  # where nothing is read that is not there
            wanted = [tensor for tensor in wanted if not specs[tensor].is_raw]
        self.blocks.admit((tensor, specs[tensor].nbytes, range(specs[tensor].chunks)) for tensor in wanted)

    def admit_cells(self, tensor: int, axes: tuple[Axis, ...]) -> None:
        """The same for the storage elements at `axes`."""
        spec = self.manifest.specs[tensor]
        needed = math.prod(axis.length for axis in axes) * spec.dtype.stored.itemsize
        self.blocks.admit([(tensor, needed, (piece.chunk for piece in pieces(axes, spec.grid, spec.chunk_counts)))])

    def specs(self, wanted: list[int]) -> Sequence[ArraySpec]:
        """The specs, of which those of `wanted` are to be looked at."""
        specs = self.manifest.specs
        return tuple(specs) if len(wanted) * 8 > len(specs) else specs

    def tensors(self, wanted: Iterable[int], verify: bool, targets: dict[int, Array]) -> dict[int, Array]:
        """Whole tensors as arrays of their own; those in `targets`, which have the stored form, are filled in place."""
        from .neighbours import RUN, SMALL, can_be_joined, read_run, runs_of  # here, as reading a slice needs none

        specs = self.specs(wanted := list(wanted))
        self.blocks.prepare((tensor, range(specs[tensor].chunks)) for tensor in wanted)
        self.admit(tensor for tensor in wanted if tensor not in targets)
        found: dict[int, Array] = {tensor: targets[tensor] for tensor in wanted if tensor in targets}
        jobs: list[ReadJob] = []
        fills: list[ReadJob] = []  # with memory of their own for a chunk and what it decodes to
        spare: deque[Array] = deque()  # memory for stored bytes, used again as new pages cost more than decoding
        chunk_bytes = 0
        joinable = self.manifest.layout != "loose"
        keys = list(map(id, map(specs.__getitem__, wanted)))
        kinds = dict(zip(keys, map(specs.__getitem__, wanted), strict=True))
        alike = {key for key, spec in kinds.items() if joinable and can_be_joined(spec)}
        small = wanted
        if len(alike) < len(kinds):
            small = [tensor for tensor, key in zip(wanted, keys, strict=True) if key in alike]
        for tensor, key in zip(wanted, keys, strict=True) if len(small) < len(wanted) else ():
            if key in alike:
                continue
            spec = kinds[key]
            if tensor not in found:
                found[tensor] = self._array(tensor, spec.shape)
            before = len(fills)
            self._add_jobs(tensor, found[tensor], verify, jobs, fills, spare)
            if len(fills) > before:
                chunk_bytes = max(chunk_bytes, spec.chunk_nbytes)
        runs = runs_of(self.blocks, small) if small else iter(())
        reads = (partial(read_run, self.blocks, run, specs, verify, found, targets) for run in runs)
        if self.blocks.storage.is_remote:
            jobs = [*reads, *jobs]
        else:
            in_turn(list(reads))  # of which a disk, and what is to be done with them, keeps one thread busy
        self.blocks.run(jobs, RUN + SMALL if small else 0)
        self.blocks.run(fills, 2 * chunk_bytes)
        return found

    def _array(self, tensor: int, shape: Shape) -> Array:
        """An array for elements of a tensor. Where there are none, its sides may be more than NumPy knows."""
        try:
            return aligned(shape, self.manifest.specs[tensor].dtype.numpy)
        except ValueError as error:
            text = self.blocks.describe(tensor)
            message = f"tensor {text!r} of shape {shape} cannot be an array: {error}"
            raise fault("limit-exceeded", message, path=self.blocks.storage.path, tensor=text) from error

    def _add_jobs(
        self,
        tensor: int,
        array: Array,
        verify: bool,
        jobs: list[ReadJob],
        fills: list[ReadJob],
        spare: deque[Array],
    ) -> None:
        """Jobs that fill a contiguous array of the tensor's own shape and dtype: straight from storage, or through
        memory."""
        spec = self.manifest.specs[tensor]
        plain = spec.is_raw and spec.dtype.per == 1 and spec.dtype.stored.isnative and not spec.dtype.is_narrow
        for chunk in range(spec.chunks):
            place = self.blocks.place(tensor, chunk)
            region: Any = (*spec.chunk_region(chunk), ...)  # with the Ellipsis a view also of a 0-d array
            part = array[region]
            # rows of a chunk that is as wide as the tensor follow each other in both; padding comes after them
            if plain and part.shape[1:] == spec.grid[1:] and part.flags.c_contiguous:
                jobs += self.blocks.jobs(place, 0, bytes_of(part), verify)
            elif _is_a_chunk(part, spec):
                fills.append(partial(self._decode_into, place, spec, part, verify, spare))
            else:
                fills.append(partial(self._decode, place, spec, array, verify))

    def _decode_into(self, place: ChunkPlace, spec: ArraySpec, part: Array, verify: bool, spare: deque[Array]) -> None:
        """Decode one chunk straight into memory that is as it is."""
        self.blocks.admit_chunk(place)
        try:
            buffer = spare.pop()
        except IndexError:
            buffer = np.empty(0, np.uint8)
        if buffer.size < place.extent.length:
            buffer = np.empty(place.extent.length, np.uint8)
        stored = bytes_of(buffer[: place.extent.length])
        in_turn(list(self.blocks.jobs(place, 0, stored, verify)))
        self.blocks.decoded(place, lambda: decode_into(stored, spec, part))
        spare.append(buffer)

    def _decode(self, place: ChunkPlace, spec: ArraySpec, array: Array, verify: bool) -> None:
        """Decode one chunk into its place in an array."""
        stored = self.blocks.chunk(place, verify, in_turn)
        region = spec.chunk_region(place.chunk)
        array[region] = self.blocks.decoded(place, lambda: decoded_array(stored, spec, place.chunk))

    def select(self, tensor: int, axes: tuple[Axis, ...], verify: bool) -> Array:
        """The elements at `axes` (over the tensor's shape), as an array of the logical dtype and one axis for each of
        `axes`."""
        spec = self.manifest.specs[tensor]
        counts = tuple(axis.length for axis in axes)
        if 0 in counts:
            return self._array(tensor, counts)
        stored_axes, per = axes, spec.dtype.per
        if per > 1 and axes:  # whole storage elements along the packed axis
            first = axes[-1].start // per
            stored_axes = (*axes[:-1], Axis(first, axes[-1].last // per - first + 1, 1))
        shape = tuple(axis.length for axis in stored_axes)
        self.admit_cells(tensor, stored_axes)
        out = aligned(shape, spec.dtype.stored)
        self.read_cells([Wanted(tensor, stored_axes, out)], verify)
        if per == 1 or not axes:
            return self.logical(tensor, out, None)
        values = self.logical(tensor, out, stored_axes[-1].length * per)
        start = axes[-1].start - first * per
        return np.ascontiguousarray(values[..., start : start + (counts[-1] - 1) * axes[-1].step + 1 : axes[-1].step])

    def fill(self, parts: Iterable[Wanted], verify: bool) -> None:
        """Fill arrays with elements of tensors, many at a time."""
        direct: list[Wanted] = []
        for part in parts:
            dtype = self.manifest.specs[part.tensor].dtype
            if dtype.per > 1 or not dtype.stored.isnative:
                part.out[...] = self.select(part.tensor, part.axes, verify)
            elif part.out.size:
                direct.append(part._replace(out=part.out.view(dtype.stored)))
        self.read_cells(direct, verify)
        for tensor, _, out in direct:
            self.logical(tensor, out, None)

    def read_cells(self, parts: list[Wanted], verify: bool) -> None:
        """Fill arrays with storage elements; `axes` are over the storage shape, and `out` is of the stored dtype."""
        specs = self.manifest.specs
        cut = [
            (tensor, piece, out[piece.out] if piece.out else out)
            for tensor, axes, out in parts
            for piece in pieces(axes, specs[tensor].grid, specs[tensor].chunk_counts)
        ]
        self.blocks.prepare((tensor, (piece.chunk,)) for tensor, piece, _ in cut)
        run = self.blocks.run if len(cut) == 1 else in_turn  # within a job: all at once if it is the only one
        jobs: list[ReadJob] = []
        picks: list[ReadJob] = []  # with memory of their own, of at most `each` bytes
        each = 0
        for tensor, (chunk, axes, _), out in cut:
            spec, place = specs[tensor], self.blocks.place(tensor, chunk)
            span = next(self._spans(spec, axes, verify)) if spec.is_raw else None
            if span is not None and span.shape == out.shape and _is_straight(span, spec, out):
                jobs += self.blocks.jobs(place, span.low, bytes_of(out), verify)
            else:
                picks.append(partial(self._pick, place, axes, out, verify, run))
                each = max(each, SPAN if spec.is_raw else 2 * spec.chunk_nbytes)
        self.blocks.run(jobs, self.manifest.block if verify else 0)  # of which some is wanted
        self.blocks.run(picks, each)

    def _pick(self, place: ChunkPlace, axes: tuple[Axis, ...], out: Array, verify: bool, run: Runner) -> None:
        """Read elements of a chunk that are not all that lies between them there, or are compressed."""
        spec = self.manifest.specs[place.tensor]
        if not spec.is_raw:
            stored = self.blocks.chunk(place, verify, run)
            cells = self.blocks.decoded(place, lambda: decoded_chunk(stored, spec))
            out[...] = cells[tuple(slice(axis.start, axis.last + 1, axis.step) for axis in axes)]
            return
        for span in self._spans(spec, axes, verify):
            part = out[span.out] if span.out else out
            if _is_straight(span, spec, part):
                run(list(self.blocks.jobs(place, span.low, bytes_of(part), verify)))
                continue
            buffer = np.empty(span.high - span.low, np.uint8)
            run(list(self.blocks.jobs(place, span.low, bytes_of(buffer), verify)))
            part[...] = np.ndarray(span.shape, spec.dtype.stored, buffer, strides=span.strides)

    def _spans(self, spec: ArraySpec, axes: tuple[Axis, ...], verify: bool) -> Iterator[Span]:
        limit, gap = (SPAN, self.manifest.block) if verify else (SPAN_UNVERIFIED, GAP_UNVERIFIED)
        return spans(axes, spec.grid, spec.dtype.stored.itemsize, limit, gap)

    def logical(self, tensor: int, cells: Array, last: int | None) -> Array:
        """Storage elements of a tensor, at least one, as its logical dtype; see `format.chunks.logical`."""
        spec = self.manifest.specs[tensor]
        result: Array = self.blocks.decoded(self.blocks.place(tensor, 0), lambda: logical(cells, spec, last))
        return result


def _is_a_chunk(part: Array, spec: ArraySpec) -> bool:
    """Whether memory for elements is what a compressed chunk of them decodes to, any bits of which are elements."""
    dtype = spec.dtype
    is_same = dtype.per == 1 and dtype.stored.isnative and not dtype.is_narrow
    return not spec.is_raw and is_same and part.shape == spec.grid and bool(part.flags.c_contiguous)


def _is_straight(span: Span, spec: ArraySpec, out: Array) -> bool:
    """Whether a span is what an array is to hold, byte for byte."""
    return span.is_dense(spec.dtype.stored.itemsize) and bool(out.flags.c_contiguous)
