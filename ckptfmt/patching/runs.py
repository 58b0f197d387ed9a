"""Runs: parts of a tensor that are read at once, each of them whole chunks of some grid."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np

from ..format.arrays import ArraySpec, grid_for
from ..format.dtypes import Array
from ..format.grid import Axis
from ..format.memory import aligned
from ..frameworks.sources import Buffers
from ..reading.fetch import Fetcher, Wanted

RUN = 16 << 20  # bytes


class ChunkRun(NamedTuple):
    """The chunks with these numbers, in C order, which are all storage elements at `axes`; they follow each other
    `along` one of these."""

    chunks: range
    axes: tuple[Axis, ...]
    along: int


def runs_of(spec: ArraySpec) -> Iterator[ChunkRun]:
    """The runs of a tensor whose chunks are as `spec` says, in C order: of about `RUN` bytes, or one chunk."""
    counts = spec.chunk_counts
    if 0 in counts:
        return
    split = max((axis for axis, count in enumerate(counts) if count > 1), default=0)  # along which chunks are joined
    several = max(1, RUN // spec.chunk_nbytes)
    for lead in product(*map(range, counts[:split])):
        before = 0
        for position, count in zip(lead, counts, strict=False):
            before = before * count + position
        along = counts[split] if counts else 1
        for first in range(0, along, several):
            last = min(first + several, along)
            places = [*((position, position + 1) for position in lead), (first, last)][: len(counts)]
            places += [(0, 1)] * (len(counts) - len(places))
            axes = [
                Axis(low * side, min(high * side, n) - low * side, 1)
                for (low, high), side, n in zip(places, spec.grid, spec.storage_shape, strict=True)
            ]
            start = before * along + first
            yield ChunkRun(range(start, start + last - first), tuple(axes), split)


def are_in_order(spec: ArraySpec) -> bool:
    """Whether the elements of all runs, one after another, are those of the tensor in C order."""
    counts = spec.chunk_counts
    split = max((axis for axis, count in enumerate(counts) if count > 1), default=0)
    return all(side == 1 for side in spec.grid[:split])


def in_pieces(spec: ArraySpec, nbytes: int) -> ArraySpec:
    """A tensor cut into chunks of at most `nbytes`."""
    return spec._replace(grid=grid_for(spec.storage_shape, spec.dtype.stored.itemsize, nbytes))


def cells_of(fetcher: Fetcher, tensor: int, axes: tuple[Axis, ...], buffers: Buffers | None = None) -> Array:
    """Storage elements of a tensor, verified; in memory of `buffers`, if they hold `RUN` bytes and that is enough."""
    dtype, shape = fetcher.manifest.specs[tensor].dtype.stored, tuple(axis.length for axis in axes)
    nbytes = math.prod(shape) * dtype.itemsize
    taken = None if buffers is None or nbytes > RUN else buffers.take(nbytes)
    out = aligned(shape, dtype) if taken is None else taken.view(dtype).reshape(shape)
    fetcher.read_cells([Wanted(tensor, axes, out)], True)
    return out


def chunks_in(run: ChunkRun, cells: Array, spec: ArraySpec) -> Iterator[Array]:
    """The chunks of a run, whose storage elements these are; what lies outside the tensor is zeros. [ZARR-004]"""
    side = spec.grid[run.along] if spec.grid else 1
    for number in range(len(run.chunks)):
        start = number * side
        part = cells[(*(slice(None),) * run.along, slice(start, start + side))] if spec.grid else cells
        if part.shape != spec.grid:
            whole = np.zeros(spec.grid, spec.dtype.stored)
            whole[tuple(slice(0, n) for n in part.shape)] = part
            part = whole
        yield np.ascontiguousarray(part)
