"""Whole verification: every block against its digest, the frame against its own, and exact places for what does not
match. [FRM-004]"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from .blocks import BlockReader, ChunkPlace
from .chunk_table import ChunkTable
from .chunks import decoded_array
from .errors import CODES, CkptError, CorruptError, fault
from .layouts import Layout, Located
from .manifest import Manifest
from .progress import Progress, counter

RUN = 4 << 20  # bytes of neighbouring small chunks checked by one job


@dataclass(frozen=True, slots=True)
class Damage:
    """One damaged place. `where`: "block", "frame", or the phase in which opening failed. `object` is "" for the file
    itself; `offset` and `length` (bytes) are places in the object. Fields that do not apply are None."""

    code: str
    where: str
    message: str
    object: str = ""
    tensor: str | None = None
    chunk: int | None = None
    block: int | None = None
    offset: int | None = None
    length: int | None = None


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was checked (`tensors`, `blocks`, `bytes` of chunks) and what is damaged."""

    path: str
    damage: tuple[Damage, ...]
    tensors: int = 0
    blocks: int = 0
    bytes: int = 0

    @property
    def ok(self) -> bool:
        return not self.damage


def verify(
    path: str | os.PathLike[str],
    *,
    progress: Progress | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> VerifyReport:
    """Check every byte of a checkpoint and say what is damaged, and where. Changes nothing. [BLK-007]

    `progress(done, total)` is called with bytes as they are checked. Damage is reported, not raised; what is no
    checkpoint, needs a newer reader or cannot be read at all raises as `open` does.
    """
    from .reader import Checkpoint

    try:
        checkpoint = Checkpoint(path, storage_options=storage_options)
    except CorruptError as error:
        damage = Damage(error.code, CODES[error.code].phase, error.message, offset=error.offset)
        return VerifyReport(os.fspath(path), (damage,))
    with checkpoint:
        return checkpoint.verify(progress=progress)


def verify_blocks(blocks: BlockReader, layout: Layout, located: Located, progress: Progress | None) -> VerifyReport:
    """`verify` for a checkpoint that is open."""
    from concurrent.futures import ThreadPoolExecutor

    manifest = blocks.manifest
    damage: list[Damage] = []
    tables = [table for part in range(len(manifest.parts)) if (table := _table(blocks, part, damage)) is not None]
    total = sum(sum(table.lengths) for table in tables)
    report = counter(progress, total)
    with ThreadPoolExecutor(blocks.storage.readers, thread_name_prefix="ckptfmt-verify") as pool:
        batches = (batch for table in tables for batch in _batches(table, manifest))
        for checked, found in pool.map(partial(_check_chunks, blocks), batches):
            damage += found
            report(checked)
    damaged = {(found.offset or 0) - (found.block or 0) * manifest.block for found in damage if found.chunk is not None}
    damage += _check_frames(blocks, layout, located, damaged)
    blocks_checked = sum(table.blocks for table in tables)
    return VerifyReport(blocks.storage.path, tuple(damage), len(manifest.specs), blocks_checked, total)


def _table(blocks: BlockReader, part: int, damage: list[Damage]) -> ChunkTable | None:
    """The chunk table of a part, or None and damage. [CHK-006]"""
    try:
        return blocks.index.table(part)
    except CorruptError as error:
        chunks = blocks.manifest.parts[part].chunks
        damage.append(Damage(error.code, "manifest", error.message, getattr(chunks, "path", "")))
        return None


Row = tuple[int, int]  # tensor, chunk


def _batches(table: ChunkTable, manifest: Manifest) -> Iterator[list[Row]]:
    """Chunks to be checked by one job: a large one, or neighbouring small ones."""
    firsts = np.asarray(manifest.first_chunks)
    numbers = np.arange(len(table.lengths)) if table.numbers is None else table.numbers
    tensors = np.searchsorted(firsts, numbers, side="right") - 1
    chunks = numbers - firsts[tensors]
    batch: list[Row] = []
    size = 0
    for tensor, chunk, length in zip(tensors.tolist(), chunks.tolist(), table.lengths, strict=True):
        batch.append((tensor, chunk))
        size += length
        if size >= RUN:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _check_chunks(blocks: BlockReader, rows: list[Row]) -> tuple[int, list[Damage]]:
    """Check chunks; gives the stored bytes checked and what is damaged."""
    checked, found = 0, []
    for tensor, chunk in rows:
        place = blocks.place(tensor, chunk)
        checked += place.extent.length
        damaged = list(_check_blocks(blocks, place))
        try:
            if not damaged:
                _check_whole(blocks, place)
        except CkptError as error:
            damaged = [_damage(blocks, place, error)]
        found += damaged
    return checked, found


def _check_blocks(blocks: BlockReader, place: ChunkPlace) -> Iterator[Damage]:
    """Check each block of a chunk against its digest. [BLK-004]"""
    size = blocks.manifest.block
    for number, start in enumerate(range(0, place.extent.length, size)):
        length = min(size, place.extent.length - start)
        try:
            blocks.read_block(place, number)
        except CkptError as error:
            yield _damage(blocks, place, error, number, length)


def _check_whole(blocks: BlockReader, place: ChunkPlace) -> None:
    """Check what digests cannot: that a chunk decodes [ZARR-011], and that its object ends with it [LAY-003]."""
    alone = blocks.manifest.layout == "loose"
    if alone and blocks.storage.size(place.object) > place.extent.length:
        raise fault("bad-extent", f"{place.object} is longer than its chunk [LAY-003]")
    spec = blocks.manifest.specs[place.tensor]
    if not spec.is_raw or spec.dtype.name == "bool":
        stored = memoryview(blocks.storage.read(place.object, place.extent.offset, place.extent.length))
        blocks.decoded(place, lambda: decoded_array(stored, spec, place.chunk))


def _damage(
    blocks: BlockReader, place: ChunkPlace, error: CkptError, block: int | None = None, length: int | None = None
) -> Damage:
    offset = place.extent.offset + (block or 0) * blocks.manifest.block
    tensor = blocks.describe(place.tensor)
    length = place.extent.length if length is None else length
    return Damage(error.code, "block", error.message, place.object, tensor, place.chunk, block, offset, length)


def _check_frames(blocks: BlockReader, layout: Layout, located: Located, damaged: set[int]) -> list[Damage]:
    """[FRM-001] to [FRM-004]"""
    found: list[Damage] = []
    for frame in layout.frames(blocks.storage, located, blocks.index):
        name = frame.object or "the file"
        hasher = blocks.digest.stream()
        try:
            for part in frame.parts:
                hasher.update(part)
            if hasher.digest() == frame.digest:
                continue
        except CorruptError as error:
            if frame.object:
                found.append(Damage(error.code, "frame", f"{name}: {error.message}", frame.object))
                continue  # else a node document is missing; the places below say which
        places = list(layout.frame_damage(blocks.storage, located, blocks.manifest, damaged))
        if not places:  # written in another legal way, so there is nothing to compare with
            message = f"{name}: bytes outside chunks and manifest do not match the frame digest; values are intact"
            found.append(Damage("frame-digest", "frame", f"{message} [FRM-004]", frame.object))
        for place, at, what in places:
            message = f"{place or 'the file'}: {what}; values are intact [FRM-004]"
            found.append(Damage("frame-digest", "frame", message, place, offset=at))
    return found
