"""Whole verification: every block against its digest, the frame against its own, and exact places for what does not
match. [FRM-004]"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from .blocks import THREADS, BlockReader, ChunkPlace
from .chunks import decoded_array
from .errors import CODES, CkptError, CorruptError, fault
from .layouts import Layout, Located

Progress = Callable[[int, int], None]
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


def verify(path: str | os.PathLike[str], *, progress: Progress | None = None) -> VerifyReport:
    """Check every byte of a checkpoint and say what is damaged, and where. Changes nothing. [BLK-007]

    `progress(done, total)` is called with bytes as they are checked. Damage is reported, not raised; what is no
    checkpoint, needs a newer reader or cannot be read at all raises as `open` does.
    """
    from .reader import Checkpoint

    try:
        checkpoint = Checkpoint(path)
    except CorruptError as error:
        damage = Damage(error.code, CODES[error.code].phase, error.message, offset=error.offset)
        return VerifyReport(os.fspath(path), (damage,))
    with checkpoint:
        return checkpoint.verify(progress=progress)


def verify_blocks(blocks: BlockReader, layout: Layout, located: Located, progress: Progress | None) -> VerifyReport:
    """`verify` for a checkpoint that is open."""
    from concurrent.futures import ThreadPoolExecutor

    table, specs = blocks.manifest.table, blocks.manifest.specs
    total = sum(table.lengths)
    done = 0
    damage: list[Damage] = []
    rows = [(tensor, chunk) for tensor, spec in enumerate(specs) for chunk in range(spec.chunks)]
    with ThreadPoolExecutor(THREADS, thread_name_prefix="ckptfmt-verify") as pool:
        batches = _batches(rows, table.lengths)
        for checked, found in pool.map(partial(_check_chunks, blocks), batches):
            damage += found
            done += checked
            if progress is not None:
                progress(done, total)
    damaged = {(found.offset or 0) - (found.block or 0) * blocks.manifest.block for found in damage}
    damage += _check_frame(blocks, layout, located, damaged)
    return VerifyReport(blocks.storage.path, tuple(damage), len(specs), table.blocks, total)


Row = tuple[int, int]  # tensor, chunk


def _batches(rows: list[Row], lengths: list[int]) -> Iterator[list[Row]]:
    """Chunks to be checked by one job: a large one, or neighbouring small ones."""
    batch: list[Row] = []
    size = 0
    for row, length in zip(rows, lengths, strict=True):
        batch.append(row)
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
            blocks.read_through(place, number)
        except CkptError as error:
            yield _damage(blocks, place, error, number, length)


def _check_whole(blocks: BlockReader, place: ChunkPlace) -> None:
    """Check what digests cannot: that a chunk decodes [ZARR-011], and that its object ends with it [LAY-003]."""
    if place.object and blocks.storage.size(place.object) > place.extent.length:
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


def _check_frame(blocks: BlockReader, layout: Layout, located: Located, damaged: set[int]) -> list[Damage]:
    """[FRM-001] [FRM-002] [FRM-004]"""
    hasher = blocks.digest.stream()
    try:
        for part in layout.frame(blocks.storage, located, blocks.manifest):
            hasher.update(part)
        if hasher.digest() == located.record.frame:
            return []
    except CorruptError:
        pass  # a node document is missing; the places below say which
    places = list(layout.frame_damage(blocks.storage, located, blocks.manifest, damaged))
    if not places:  # written in another legal way, so there is nothing to compare with
        message = "bytes outside chunks and manifest do not match the frame digest; values are intact [FRM-004]"
        return [Damage("frame-digest", "frame", message)]
    return [
        Damage("frame-digest", "frame", f"{name or 'the file'}: {what}; values are intact [FRM-004]", name, offset=at)
        for name, at, what in places
    ]
