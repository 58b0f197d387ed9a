"""Summaries of the elements of stored tensors: blocks are read, verified and looked at while they are in the cache of a
processor, in jobs that may run on several threads (docs/reference/statistics.md)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from ..format.arrays import WHOLE, ArraySpec
from ..format.chunks import decoded_array
from ..format.dtypes import Array, DType
from ..format.measure import Measure, summaries
from ..format.segments import PIECE
from ..format.summary import Summary
from .blocks import BlockReader, ChunkPlace, in_turn

FEW = 4 << 20  # bytes of neighbouring small chunks that are read at once
SMALL = 64 << 10  # bytes of a chunk that counts as small
CACHED = 256 << 10  # bytes that are read, digested and looked at together

Summaries = list[tuple[int, Summary]]
Origin = tuple[BlockReader, int]  # a checkpoint, and the number of a tensor in it


class MeasureJob(NamedTuple):
    """A call that gives summaries of parts of tensors, by their numbers, and how many bytes, decoded, it looks at."""

    bytes: int
    call: Callable[[], Summaries]


def unpacked(dtype: DType) -> DType:
    """A dtype as it is in memory, one element in a byte or more."""
    return dtype if dtype.per == 1 else dtype._replace(per=1)


def in_stored_order(array: Array) -> Array:
    """The bytes of an array of any dtype, one element after another, little-endian."""
    native = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8)
    return native != 0 if array.dtype == bool else native  # [DTYPE-005]


def measure_array(dtype: DType, array: Array) -> Summary:
    """The summary of an array in memory."""
    measure = Measure(unpacked(dtype))
    measure.add(in_stored_order(array).view(np.uint8))
    return measure.summary()


def is_measurable(spec: ArraySpec) -> bool:
    """Whether each chunk can be looked at alone without more memory than its codec takes: it is compressed, or its
    elements are its first bytes, with nothing between them; and of a patch, the tensor is whole."""
    if spec.form != WHOLE:  # what is stored is no elements
        return False
    if not spec.is_raw:
        return True
    if spec.dtype.per > 1 and spec.shape and spec.shape[-1] % spec.dtype.per:
        return False
    split = next((axis for axis, count in enumerate(spec.chunk_counts) if count > 1), len(spec.grid))
    return all(count == 1 for count in spec.chunk_counts[split + 1 :]) and all(
        side == 1 or count == 1 for side, count in zip(spec.grid[:split], spec.chunk_counts[:split], strict=True)
    )


def measure_jobs(blocks: BlockReader, tensors: Iterable[int]) -> Iterator[MeasureJob]:
    """Jobs that look at all elements of measurable tensors; parts of one tensor come in order. Damage is raised by the
    job that meets it. [BLK-004]"""
    few: list[ChunkPlace] = []
    size = 0
    for tensor in tensors:
        spec = blocks.manifest.specs[tensor]
        for chunk in range(spec.chunks):
            place = blocks.place(tensor, chunk)
            if spec.chunks == 1 and place.extent.length < SMALL and spec.chunk_nbytes < SMALL:
                few.append(place)
                size += spec.chunk_nbytes
            elif spec.is_raw:
                yield from _of_blocks(blocks, spec, place)
            else:
                yield MeasureJob(spec.chunk_nbytes, partial(_of_chunk, blocks, spec, place))
        if size >= FEW:
            yield MeasureJob(size, partial(_of_few, blocks, few))
            few, size = [], 0
    if few:
        yield MeasureJob(size, partial(_of_few, blocks, few))


def _of_blocks(blocks: BlockReader, spec: ArraySpec, place: ChunkPlace) -> Iterator[MeasureJob]:
    """A job for each block of a raw chunk."""
    shape = tuple(axis.stop - axis.start for axis in spec.chunk_region(place.chunk))
    held = math.prod(spec.dtype.storage_shape(shape)) * spec.dtype.stored.itemsize
    for number in range(-(-place.extent.length // blocks.manifest.block)):
        size = min(blocks.manifest.block, place.extent.length - number * blocks.manifest.block)
        yield MeasureJob(size, partial(_of_block, blocks, spec.dtype, place, number, held))


def _of_block(blocks: BlockReader, dtype: DType, place: ChunkPlace, number: int, held: int) -> Summaries:
    """`held`: how many bytes of the chunk are elements of the tensor; what follows is only verified."""
    measure = Measure(dtype)
    left = held - number * blocks.manifest.block
    for piece in blocks.pieces(place, number, max(CACHED, PIECE * dtype.stored.itemsize)):
        if left > 0:
            measure.add(np.frombuffer(piece[:left], np.uint8))
        left -= len(piece)
    return [(place.tensor, blocks.decoded(place, measure.summary))]


def _of_chunk(blocks: BlockReader, spec: ArraySpec, place: ChunkPlace) -> Summaries:
    stored = blocks.chunk(place, True, in_turn)
    return [(place.tensor, _decoded(blocks, spec, place, stored))]


def _decoded(blocks: BlockReader, spec: ArraySpec, place: ChunkPlace, stored: memoryview) -> Summary:
    array: Array = blocks.decoded(place, lambda: decoded_array(stored, spec, place.chunk))
    return measure_array(spec.dtype, array)


def _of_few(blocks: BlockReader, places: list[ChunkPlace]) -> Summaries:
    """Small chunks, each all of a tensor: those of one dtype are looked at together."""
    found: Summaries = []
    alike: dict[DType, list[tuple[int, memoryview]]] = {}
    for place, stored in zip(places, blocks.together(places), strict=True):
        spec = blocks.manifest.specs[place.tensor]
        if stored is None:
            stored = blocks.chunk(place, True, in_turn)
        else:
            blocks.check_chunk(place, stored)
        if spec.is_contiguous and spec.dtype.name != "bool":
            alike.setdefault(spec.dtype, []).append((place.tensor, stored))
        else:
            found.append((place.tensor, _decoded(blocks, spec, place, stored)))
    for dtype, tensors in alike.items():
        data = np.frombuffer(b"".join([stored for _, stored in tensors]), np.uint8)
        sizes = np.array([len(stored) for _, stored in tensors], np.int64)
        found += zip([tensor for tensor, _ in tensors], summaries(dtype, data, sizes), strict=True)
    return found
