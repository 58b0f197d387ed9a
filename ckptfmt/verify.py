"""Whole verification: every block against its digest, the frame against its own, and exact places for what does not
match. [FRM-004]"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .blocks import THREADS
from .errors import CODES, CkptError, CorruptError, fault

if TYPE_CHECKING:
    from .reader import Checkpoint

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
    """Check every byte of a checkpoint and say what is damaged, and where. Changes nothing.

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
        return verify_checkpoint(checkpoint, progress)


def verify_checkpoint(checkpoint: Checkpoint, progress: Progress | None) -> VerifyReport:
    """`verify` for a checkpoint that is open."""
    table, specs = checkpoint.manifest.table, checkpoint.manifest.specs
    total = sum(table.lengths)
    done = 0
    damage: list[Damage] = []
    rows = [(tensor, chunk) for tensor, spec in enumerate(specs) for chunk in range(spec.chunks)]
    with ThreadPoolExecutor(THREADS, thread_name_prefix="ckptfmt-verify") as pool:
        for checked, found in pool.map(lambda batch: _check_rows(checkpoint, batch), _batches(rows, table.lengths)):
            damage += found
            done += checked
            if progress is not None:
                progress(done, total)
    damage += _check_frame(checkpoint)
    return VerifyReport(checkpoint.path, tuple(damage), len(specs), table.blocks, total)


Row = tuple[int, int]  # tensor, chunk


def _batches(rows: list[Row], lengths: list[int]) -> Iterator[list[Row]]:
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


def _check_rows(checkpoint: Checkpoint, rows: list[Row]) -> tuple[int, list[Damage]]:
    """Check chunks block by block; gives the bytes checked and what is damaged."""
    blocks, storage = checkpoint.blocks, checkpoint._storage
    found: list[Damage] = []
    checked = 0
    for tensor, chunk in rows:
        place = blocks.place(tensor, chunk)
        for number, start in enumerate(range(0, place.extent.length, checkpoint.manifest.block)):
            offset = place.extent.offset + start
            length = min(checkpoint.manifest.block, place.extent.length - start)
            try:
                blocks.check(place, number, memoryview(storage.read(place.object, offset, length)))
                if place.object and number == 0 and storage.size(place.object) > place.extent.length:  # [LAY-003]
                    raise fault("bad-extent", f"{place.object} is longer than its chunk [LAY-003]")
            except CkptError as error:
                text = checkpoint._describe(tensor)
                found.append(
                    Damage(error.code, "block", error.message, place.object, text, chunk, number, offset, length)
                )
            checked += length
    return checked, found


def _check_frame(checkpoint: Checkpoint) -> list[Damage]:
    """[FRM-001] [FRM-002]"""
    located, manifest, storage, layout = (
        checkpoint._located,
        checkpoint.manifest,
        checkpoint._storage,
        checkpoint._layout,
    )
    hasher = checkpoint.blocks.digest.stream()
    try:
        for part in layout.frame(storage, located, manifest):
            hasher.update(part)
    except CkptError as error:
        return [Damage(error.code, "frame", error.message, offset=error.offset)]
    if hasher.digest() == located.record.frame:
        return []
    places = list(layout.frame_damage(storage, located, manifest))
    if not places:  # written in another legal way, so there is nothing to compare with
        message = "bytes outside chunks and manifest do not match the frame digest; values are intact [FRM-004]"
        return [Damage("frame-digest", "frame", message)]
    return [
        Damage("frame-digest", "frame", f"{name or 'the file'}: {what}; values are intact [FRM-004]", name, offset=at)
        for name, at, what in places
    ]
