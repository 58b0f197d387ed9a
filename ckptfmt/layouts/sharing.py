"""Chunks that a save has in common with an earlier checkpoint: found by their digests, and not written again.

A chunk is the same if the tensor of its name has the same dtype, shape, grid and codec there, and each of its blocks
the same digest. What is taken over are the bytes of that earlier chunk, whose digests are in its table: so a tensor
that changes while it is looked at is stored as it was at some moment, as if it had been written. [BLK-008]
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from ..errors import CkptError
from ..format.arrays import ArraySpec
from ..format.chunk_table import ChunkTable, rows_by
from ..format.digests import Digest
from ..format.dtypes import Array, bytes_of
from ..format.pack import LARGE
from ..frameworks.sources import Source
from ..storage import Storage
from ..threads import Pool
from .chunk_index import ChunkIndex
from .pieces import stored_bytes, stored_parts
from .staging import Checks

THREADS = os.cpu_count() or 2
TOGETHER = 16 << 20  # bytes of small tensors that a thread takes at a time


class Base(NamedTuple):
    """An earlier checkpoint, with which a save shares what has not changed: its open storage, its chunks, and the
    sha256 of its manifest."""

    storage: Storage
    chunks: ChunkIndex
    sha256: bytes


class HeldChunks(NamedTuple):
    """Chunks that a process has: the tensor's name, spec and elements, and their numbers in it (int64, ascending)."""

    name: str
    spec: ArraySpec
    source: Source
    chunks: Array


class _SharedRow(NamedTuple):
    """Where in the base a chunk may be: a table, and its row."""

    table: ChunkTable
    row: int


def why_nothing(base: Base, layout: str, digest: Digest, block: int) -> str:
    """Why a save of this kind shares nothing with `base`; "" if it may."""
    manifest = base.chunks.manifest
    if manifest.layout != layout:
        return f"the earlier checkpoint has layout {manifest.layout!r}, this one {layout!r}"
    if (manifest.digest, manifest.block) != (digest.name, block):
        return f"the earlier checkpoint has digests {manifest.digest} of {manifest.block} bytes, this one others"
    try:
        if manifest.pages is not None:
            _ = manifest.pages.parts  # all that is looked for in them
    except CkptError as error:
        return f"the manifest of the earlier checkpoint is damaged: {error.message}"
    return ""


def equal_chunks(held: Sequence[HeldChunks], base: Base, digest: Digest, block: int) -> list[Array]:
    """For each of the chunks held the number of the chunk of `base` that has the same bytes, or -1 (int64). All cores
    look, each at a tensor from its beginning to the first block that differs."""
    manifest = base.chunks.manifest
    there = dict(zip(manifest.names, enumerate(manifest.specs), strict=True))
    firsts = manifest.first_chunks
    equal = [np.full(len(one.chunks), -1, np.int64) for one in held]
    alike = []
    for number, one in enumerate(held):
        tensor, spec = there.get(one.name, (0, None))
        if spec == one.spec.stored and len(one.chunks):
            alike.append((number, firsts[tensor] + one.chunks))
    if not alike:
        return equal
    places = _located(base.chunks, np.concatenate([numbers for _, numbers in alike]))
    ends = np.cumsum([len(numbers) for _, numbers in alike]).tolist()

    def compare(run: range) -> None:
        for at in run:
            (number, numbers), end = alike[at], ends[at]
            found = _compared(held[number], places[end - len(numbers) : end], digest, block)
            equal[number][: len(found)][found] = numbers[: len(found)][found]

    with Pool(THREADS, "ckptfmt-compare") as pool:
        for _ in pool.map(compare, _runs([held[number] for number, _ in alike])):
            pass
    return equal


def _runs(held: Sequence[HeldChunks]) -> Iterator[range]:
    """Tensors in runs of some bytes each, which threads take one after another."""
    begin, size = 0, 0
    for number, one in enumerate(held):
        size += len(one.chunks) * one.spec.chunk_nbytes
        if size >= TOGETHER or number == len(held) - 1:
            yield range(begin, number + 1)
            begin, size = number + 1, 0


def _located(index: ChunkIndex, numbers: Array) -> list[_SharedRow | None]:
    """Where these chunks are; None for those of a part whose table cannot be read."""
    places: list[_SharedRow | None] = [None] * len(numbers)
    parts = index.manifest.parts_of(numbers)
    parts = np.zeros(len(numbers), np.int64) if parts is None else parts
    with suppress(CkptError):
        index.load(numbers)  # many at a time; what fails is met again
    for part, positions in rows_by(parts):
        try:
            table = index.table(part)
        except CkptError:
            continue
        for position, row in zip(positions.tolist(), rows_of(table, numbers[positions]).tolist(), strict=True):
            places[position] = _SharedRow(table, row)
    return places


def rows_of(table: ChunkTable, numbers: Array) -> Array:
    """The rows of chunks that are in a table."""
    rows: Array = numbers if table.numbers is None else np.searchsorted(table.numbers, numbers)
    return rows


def _compared(one: HeldChunks, places: Sequence[_SharedRow | None], digest: Digest, block: int) -> list[bool]:
    """Of each chunk of a tensor, whether it is the one at its place. If the first of one that is compressed has
    changed, the others are not compressed to find out: the list ends."""
    equal: list[bool] = []
    for chunk, place in zip(one.chunks.tolist(), places, strict=True):
        if equal and not (one.spec.is_raw or equal[0]):
            break
        equal.append(place is not None and _is_equal(one.source, one.spec, chunk, place, digest, block))
    return equal


def _is_equal(source: Source, spec: ArraySpec, chunk: int, place: _SharedRow, digest: Digest, block: int) -> bool:
    _, length, expected = place.table.extent(place.row)
    if spec.is_raw and spec.chunk_nbytes < LARGE <= block:
        return digest.of(stored_bytes(source, spec, chunk)) == expected
    checks, size = Checks(digest, block, crc32=False), 0
    for part in stored_parts(source, spec, chunk):
        data = bytes_of(part)
        for at in range(0, len(data), block):
            checks.add(data[at : at + block])
            if not checks.can_become(expected):
                return False
        size += len(data)
    return size == length and checks.digests == expected
