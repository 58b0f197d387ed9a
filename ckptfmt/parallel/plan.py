"""Who writes what: from the boxes of tensors that ranks hold to a chunk grid for each tensor and a rank for each chunk.
Pure.

A regular grid in which every box is made of whole chunks always exists: its sides are the greatest common divisors of
the boxes' bounds. Equal shards, and those of `torch.chunk`, give one chunk a shard.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import fault
from ..format.arrays import COMPRESSED_CHUNK, ArraySpec, grid_for
from ..format.codecs import Codec
from ..format.dtypes import DTYPES, Array, DType
from ..format.grid import Shape
from .proposal import Boxes

MAX_INT64 = 2**63 - 1
MAX_CHUNKS_PER_BOX = 4096  # of a raw tensor; more means shards whose bounds have hardly anything in common


@dataclass(frozen=True, slots=True)
class WritePlan:
    """`specs` of all tensors, and the rank that writes each chunk (int32, by chunk number)."""

    specs: tuple[ArraySpec, ...]
    owners: Array


def plan(tensors: Sequence[tuple[str, str, Shape, Codec]], held: Sequence[Boxes]) -> WritePlan:
    """The plan for `tensors` (name, dtype, shape, codec) of which rank r holds `held[r]`; raises `shards-missing` and
    `shards-overlap`. Boxes that several ranks hold are shared out, so that all write about as much."""
    ranks = np.repeat(np.arange(len(held), dtype=np.int32), [len(boxes.tensor) for boxes in held])
    tensor = np.concatenate([boxes.tensor for boxes in held]) if held else np.zeros(0, np.int64)
    axes = max((len(shape) for _, _, shape, _ in tensors), default=0)
    start = np.concatenate([_padded(boxes.start, axes) for boxes in held])
    extent = np.concatenate([_padded(boxes.extent, axes) for boxes in held])
    order = np.argsort(tensor, kind="stable")
    bounds = np.searchsorted(tensor[order], np.arange(len(tensors) + 1))
    loads = np.zeros(len(held), np.int64)
    specs, owners = [], []
    for index, (name, dtype, shape, codec) in enumerate(tensors):
        rows = order[bounds[index] : bounds[index + 1]]
        starts, extents = (columns[rows, : len(shape)].astype(np.int64) for columns in (start, extent))
        spec, owner = _plan_tensor(name, DTYPES[dtype], shape, codec, starts, extents, ranks[rows], loads)
        specs.append(spec)
        owners.append(owner)
    return WritePlan(tuple(specs), np.concatenate(owners) if owners else np.zeros(0, np.int32))


def _padded(columns: Array, axes: int) -> Array:
    missing = axes - columns.shape[1]
    return np.pad(columns, ((0, 0), (0, missing))) if missing else columns


def _plan_tensor(
    name: str, dtype: DType, shape: Shape, codec: Codec, starts: Array, extents: Array, ranks: Array, loads: Array
) -> tuple[ArraySpec, Array]:
    """The spec of one tensor, and the owner of each of its chunks. `starts`, `extents`: (k, axes), int64."""
    axes = len(shape)
    is_whole = len(ranks) == 1 and not starts.any() and tuple(extents[0].tolist()) == shape
    if is_whole and codec.name == "raw":  # as almost always in a process that is alone
        spec = ArraySpec(dtype, shape, dtype.storage_shape(shape), codec)
        loads[ranks[0]] += spec.chunk_nbytes
        return spec, ranks.copy()
    strides = [math.prod(shape[axis + 1 :]) & MAX_INT64 for axis in range(axes)]
    first_elements = starts @ np.array(strides, np.int64)  # different boxes with one first element overlap
    _, rows, which = np.unique(first_elements, return_index=True, return_inverse=True)
    if (extents != extents[rows][which]).any():
        raise _overlap(name)
    starts, ends = starts[rows], starts[rows] + extents[rows]
    spec = ArraySpec(
        dtype, shape, _grid(name, dtype, shape, codec, starts, ends), codec.for_itemsize(dtype.stored.itemsize)
    )
    sides = np.array(spec.grid, np.int64)
    if axes and dtype.per > 1:
        sides[-1] *= dtype.per
    first, last = starts // sides, -(-ends // sides)
    sizes = (last - first).prod(axis=1)
    if sizes.sum() > spec.chunks:
        raise _overlap(name)
    owner = np.full(spec.chunks, -1, np.int32)
    writers = _writers(ranks, which, sizes * spec.chunk_nbytes, loads)
    box, chunk = _chunks(first, last, spec.chunk_counts)
    owner[chunk] = writers[box]
    covered = int((owner >= 0).sum())
    if covered < len(chunk):
        raise _overlap(name)
    if covered < len(owner):
        corner = [region.start for region in spec.chunk_region(int((owner < 0).argmax()))]
        raise fault("shards-missing", f"no rank holds the elements of {name!r} from {corner} on", tensor=name)
    return spec, owner


def _overlap(name: str) -> Exception:
    return fault("shards-overlap", f"shards of {name!r} overlap without being the same", tensor=name)


def _chunks(first: Array, last: Array, counts: Shape) -> tuple[Array, Array]:
    """The chunks of boxes that reach from `first` to before `last` in a grid of `counts` chunks: for each chunk the row
    of its box, and its number in C order."""
    sides = last - first
    sizes = sides.prod(axis=1)
    box = np.repeat(np.arange(len(first)), sizes)
    rest = np.arange(len(box)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chunk, stride = np.zeros(len(box), np.int64), 1
    for axis in reversed(range(len(counts))):
        rest, step = np.divmod(rest, sides[box, axis])
        chunk += (first[box, axis] + step) * stride
        stride *= counts[axis]
    return box, chunk


def _grid(name: str, dtype: DType, shape: Shape, codec: Codec, starts: Array, ends: Array) -> Shape:
    """The largest grid in which every box is made of whole chunks; smaller for compressors. In storage elements."""
    sides, cut = [], []
    for axis, length in enumerate(shape):
        bounds = np.concatenate([starts[:, axis], ends[:, axis]])
        inner = bounds[(bounds > 0) & (bounds < length)]
        sides.append(int(np.gcd.reduce(inner)) if len(inner) else max(1, length))
        cut.append(len(inner) > 0)
    if shape and dtype.per > 1:
        if cut[-1] and sides[-1] % dtype.per:
            message = f"shards of {name!r} must be cut at multiples of {dtype.per} elements along the last axis"
            raise fault("unsupported-dtype", message, tensor=name)
        sides[-1] = -(-sides[-1] // dtype.per)
    chunks = math.prod(-(-n // side) for n, side in zip(dtype.storage_shape(shape), sides, strict=True))
    if chunks > MAX_CHUNKS_PER_BOX * max(1, len(starts)):
        raise fault(
            "unsupported-leaf",
            f"the shards of {name!r} have no grid in common that is coarse enough",
            tensor=name,
            found=f"{chunks:,} chunks of {sides}",
            expected="shards of equal size, but for the last along each axis",
        )
    if codec.name == "raw":
        return tuple(sides)
    if not any(cut):
        return grid_for(tuple(sides), dtype.stored.itemsize, COMPRESSED_CHUNK)
    return _divided(tuple(sides), dtype.stored.itemsize)


def _divided(sides: Shape, itemsize: int) -> Shape:
    """Sides that divide `sides`, for chunks of about the size that compressors want; larger where no divisor is near.
    [ZARR-009]"""
    divided = list(sides)
    for axis, side in enumerate(sides):
        row = itemsize * math.prod(sides[axis + 1 :])
        least = -(-side // max(1, COMPRESSED_CHUNK // row))
        divided[axis] = next((side // n for n in range(least, 4 * least) if side % n == 0), side)
        if row <= COMPRESSED_CHUNK:
            break
    return tuple(divided)


def _writers(ranks: Array, which: Array, nbytes: Array, loads: Array) -> Array:
    """For each distinct box the rank that writes it: of those that hold it the one with the least to write so far.
    Adds to `loads`."""
    writers = np.zeros(len(nbytes), np.int32)
    if len(ranks) == len(nbytes):  # nobody holds what another holds
        writers[which] = ranks
        np.add.at(loads, writers, nbytes)
        return writers
    order = np.argsort(which, kind="stable")
    holders, counts = ranks[order], np.bincount(which)
    if (counts == counts[0]).all() and len(np.unique(ranks)) == len(ranks):  # each rank holds one box: without a loop
        table = holders.reshape(len(nbytes), -1)
        writers[:] = np.take_along_axis(table, loads[table].argmin(axis=1)[:, None], axis=1)[:, 0]
        loads[writers] += nbytes
        return writers
    bounds = np.cumsum(counts) - counts
    for box, (start, count) in enumerate(zip(bounds.tolist(), counts.tolist(), strict=True)):
        those = holders[start : start + count]
        writers[box] = writer = int(those[loads[those].argmin()])
        loads[writer] += nbytes[box]
    return writers
