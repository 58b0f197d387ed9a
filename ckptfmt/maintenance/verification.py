"""Whole verification: every block against its digest, the frame against its own, and exact places for what does not
match. [FRM-004]"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..brief import Brief
from ..calls import takes
from ..errors import CODES, DAMAGED, CkptError, CorruptError, StorageError, fault
from ..format.chunk_table import ChunkTable, columns
from ..format.chunks import decoded_array
from ..format.dtypes import settled
from ..format.limits import DEFAULT, Limits
from ..format.manifest import Manifest
from ..format.names import Path, path_label
from ..format.node import PagedNode
from ..layouts import Layout, Located
from ..progress import Progress, counter, growing
from ..reading.blocks import BlockReader, ChunkPlace
from ..reading.checkpoint import REPLACED, StoredCheckpoint
from ..storage import path_of, place_of
from ..storage.ahead import ahead, in_order
from .marks import ChunkKey, Done, Mark

if TYPE_CHECKING:
    from ..reading.bases import PatchBase
    from ..storage import Place

RUN, STRETCH = 4 << 20, 32 << 20  # bytes checked by one job: of neighbouring small chunks, of a large one


@dataclass(frozen=True, slots=True)
class Damage:
    """One damaged place. `where`: "block", "frame", or the phase in which opening failed. `path` is the typed path of
    the tensor, `tensor` its label. `object` is "" for the file itself; `offset`
    and `length` (bytes) are places in the object. Fields that do not apply are None."""

    code: str
    where: str
    message: str
    object: str = ""
    tensor: str | None = None
    chunk: int | None = None
    block: int | None = None
    offset: int | None = None
    length: int | None = None
    path: Path | None = None


@dataclass(frozen=True, slots=True, repr=False)
class VerifyReport(Brief):
    """What was checked (`tensors`, `blocks`, `bytes` of chunks) and what is damaged. `base`: of a patch the sha256 of
    its base, in hexadecimal; `base_report`: what was found in that, None if it was not looked at. [PATCH-016]"""

    path: str
    damage: tuple[Damage, ...]
    tensors: int = 0
    blocks: int = 0
    bytes: int = 0
    base: str | None = None
    base_report: VerifyReport | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is damaged, in a base that was looked at neither."""
        return not self.damage and (self.base_report is None or self.base_report.ok)


@takes()
def verify(
    path: Place,
    *,
    progress: Progress | None = None,
    resume: str | os.PathLike[str] | None = None,
    limits: Limits = DEFAULT,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
    base: PatchBase = None,
) -> VerifyReport:
    """Check every byte of a checkpoint and say what is damaged, and where. Changes nothing. [BLK-007]

    `progress(done, total)` is called with bytes as they are checked. `resume`: a file that keeps how far a verification
    has come, for as long as it has not ended, so that the next one goes on there. `limits`, `storage_options` and
    `follow_links`: as in `open`. Damage is reported, not raised; what is no checkpoint, requires a newer reader or
    cannot be opened raises as `open` does, and so do a `resume` file of another checkpoint (`bad-option`) and a package
    that decodes chunks and cannot be imported (`missing-package`); what the system cannot read afterwards is damage
    (`io`). `verify_folder` goes through many checkpoints.

    `base`: of a patch, as in `open`; all of it is checked, too, and of a chain of patches each, but not with `resume`.
    """
    options = {"limits": limits, "storage_options": storage_options, "follow_links": follow_links, "base": base}
    return checked(path, options, lambda found: verify_stored(found, progress, resume))


def checked(
    path: Place,
    options: Mapping[str, Any],
    check: Callable[[StoredCheckpoint], VerifyReport],
) -> VerifyReport:
    """What `check` says of the checkpoint at `path`, opened with `options`, or what is damaged where it cannot be. It
    is checked anew where another has taken its place: the files of a directory go away then."""
    for attempts_left in reversed(range(REPLACED + 1)):
        try:
            checkpoint = StoredCheckpoint(path, **options)
        except CorruptError as error:
            damage = Damage(error.code, CODES[error.code].phase, error.message, offset=error.offset)
            base = error.path if options.get("base") is not None else None  # or of the patch itself
            return VerifyReport(base or place_of(path), (damage,))
        with checkpoint:
            report = check(checkpoint)
            if report.ok or not attempts_left or not checkpoint.was_replaced():
                return report
    raise AssertionError("the last attempt returns")


def verify_stored(
    checkpoint: StoredCheckpoint, progress: Progress | None = None, resume: str | os.PathLike[str] | None = None
) -> VerifyReport:
    """`verify` for a checkpoint that is open, and the bases that it is read through."""
    if checkpoint.base is None:
        return _verify_one(checkpoint, progress, resume)
    if resume is not None:
        raise fault("bad-option", "resume= is for one checkpoint: verify the base by itself", path=checkpoint.path)
    chained = list(_chain(checkpoint))
    report = counter(progress, sum(map(_stored, chained)))
    found: VerifyReport | None = None
    for one in reversed(chained):
        found = replace(_verify_one(one, growing(report), None), base_report=found)
    assert found is not None
    return found


def _chain(checkpoint: StoredCheckpoint | None) -> Iterator[StoredCheckpoint]:
    """A patch, its base, and so on."""
    while checkpoint is not None:
        yield checkpoint
        checkpoint = checkpoint.base


def _stored(checkpoint: StoredCheckpoint) -> int:
    """The bytes of all chunks, as far as tables of them are whole."""
    blocks, pages = checkpoint.blocks, checkpoint.manifest.pages
    parts = range(len(blocks.manifest.parts if pages is None else pages))
    tables = (_table(blocks, part) for part in parts)
    return sum(sum(table.lengths) for table in tables if not isinstance(table, Damage))


def _verify_one(
    checkpoint: StoredCheckpoint, progress: Progress | None, resume: str | os.PathLike[str] | None
) -> VerifyReport:
    blocks, layout, located = checkpoint.blocks, checkpoint.rules, checkpoint.located
    manifest = blocks.manifest
    mark = None if resume is None else Mark.at(path_of(resume), located.record.sha256.hex())
    checked = verify_chunks(blocks, progress, mark)
    damage = [*checked.damage, *_check_pages(manifest, checked.damage)]
    damaged = {(found.object, found.offset) for found in damage if found.offset is not None}
    damage += _check_frames(blocks, layout, located, damaged)
    if mark is not None:
        mark.remove()
    base = None if manifest.patch is None else manifest.patch.base.hex()
    return VerifyReport(blocks.storage.path, tuple(damage), len(manifest.specs), checked.blocks, checked.bytes, base)


class Checked(NamedTuple):
    """What `verify_chunks` found, and how many blocks and bytes there are."""

    damage: list[Damage]
    blocks: int
    bytes: int


def verify_chunks(blocks: BlockReader, progress: Progress | None, mark: Mark | None = None) -> Checked:
    """Check every part manifest, or page of tensors, and every chunk."""
    from ..threads import Pool

    damage: list[Damage] = []
    pages = blocks.manifest.pages
    parts = range(len(blocks.manifest.parts if pages is None else pages))
    tables: dict[int, ChunkTable] = {}
    for part, table in enumerate(ahead(blocks.storage, (partial(_table, blocks, part) for part in parts))):
        if isinstance(table, Damage):
            damage.append(table)
        else:
            tables[part] = table
    total = sum(sum(table.lengths) for table in tables.values())
    report = counter(progress, total)
    if mark is not None and mark.checked:
        report(sum(islice(chain.from_iterable(table.lengths for table in tables.values()), mark.checked)))
    batches = (batch for part, table in tables.items() for batch in _batches(part, table, blocks))
    again = [Work(mark.again)] if mark is not None and mark.again else []
    rest = (work for batch in (mark.rest(batches) if mark else batches) for work in _works(batch, blocks.manifest))
    readers = blocks.storage.readers
    with Pool(readers, "ckptfmt-verify") as pool:
        try:
            for done in in_order(pool, (partial(_check, blocks, work) for work in chain(again, rest)), 4 * readers):
                damage += done.damage
                report(done.bytes)
                if mark is not None:
                    mark.move(done)
        finally:
            if mark is not None:
                mark.write()
    return Checked(damage, sum(table.blocks for table in tables.values()), total)


class Work(NamedTuple):
    """What one job checks: chunks, which are checked then; or some `blocks` of a `large` chunk, which is one of `rows`
    if they are its last."""

    rows: list[ChunkKey]
    large: ChunkKey | None = None
    blocks: range = range(0)


def _table(blocks: BlockReader, part: int) -> ChunkTable | Damage:
    """The chunk table of a part, or of a page of tensors, or what is wrong with it. [CHK-006] [PAGE-009]"""
    pages = blocks.manifest.pages
    try:
        return blocks.index.table(part) if pages is None else pages.page(part).table
    except (*DAMAGED, StorageError) as error:
        chunks = blocks.manifest.parts[part].chunks if pages is None else None
        place = getattr(chunks, "path", error.object or "")
        return Damage(error.code, "manifest", error.message, place, offset=error.offset)


def page_damage(error: CkptError) -> Damage:
    """What is wrong with a page of the manifest."""
    return Damage(error.code, "manifest", error.message, error.object or "", offset=error.offset)


def _check_pages(manifest: Manifest, damage: list[Damage]) -> Iterator[Damage]:
    """Check the pages of the tree, and where no page is damaged whether all of them agree. [PAGE-009]"""
    root = manifest.root
    if not isinstance(root, PagedNode):
        return
    found = list(map(page_damage, root.damage()))
    yield from found
    if found or any(place.where == "manifest" for place in damage):
        return
    from ..format.paged_manifest import check_whole  # here, as it is seldom met

    try:
        check_whole(manifest)
    except DAMAGED as error:
        yield page_damage(error)


def _batches(part: int, table: ChunkTable, blocks: BlockReader) -> Iterator[list[ChunkKey]]:
    """A large chunk, or neighbouring small ones, but for those that are objects of their own on a store."""
    manifest = blocks.manifest
    most = 0 if blocks.storage.is_remote and manifest.layout == "loose" else RUN
    if manifest.pages is not None:
        tensors, chunks = manifest.pages.keys(part)
    else:
        numbers = np.arange(len(table.lengths)) if table.numbers is None else table.numbers
        tensors, chunks = columns(numbers, manifest.first_chunks)
    batch: list[ChunkKey] = []
    size = 0
    for tensor, chunk, length in zip(tensors.tolist(), chunks.tolist(), table.lengths, strict=True):
        batch.append((tensor, chunk))
        size += length
        if size >= most:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _works(batch: list[ChunkKey], manifest: Manifest) -> Iterator[Work]:
    """A batch as one job; or as several, if it is a large raw chunk."""
    tensor, chunk = batch[0]
    spec = manifest.specs[tensor]
    blocks, most = -(-spec.chunk_nbytes // manifest.block), max(1, STRETCH // manifest.block)
    if len(batch) > 1 or not spec.is_raw or blocks <= most:
        yield Work(batch)
        return
    for first in range(0, blocks, most):
        last = min(first + most, blocks)
        yield Work(batch if last == blocks else [], (tensor, chunk), range(first, last))


def _check(blocks: BlockReader, work: Work) -> Done:
    if work.large is None:
        return _check_chunks(blocks, work.rows)
    place = blocks.place(*work.large)
    damaged = list(_check_blocks(blocks, place, work.blocks))
    if work.rows and not damaged:
        damaged = list(_check_whole(blocks, place, None))
    size = blocks.manifest.block
    checked = min(work.blocks.stop * size, place.extent.length) - work.blocks.start * size
    return Done(work.rows, checked, damaged, [work.large] if damaged else [])


def _check_chunks(blocks: BlockReader, rows: list[ChunkKey]) -> Done:
    checked, found, where = 0, [], []
    places = [blocks.place(tensor, chunk) for tensor, chunk in rows]
    failure = None
    try:
        together = blocks.together(places)
    except CkptError as error:
        failure, together = error, [None] * len(places)
    for row, place, stored in zip(rows, places, together, strict=True):
        checked += place.extent.length
        damaged = list(_check_chunk(blocks, place, stored))
        found += damaged
        where += [row] if damaged else []
    if failure is not None and not found:  # it was read the second time, but not by a sound disk
        found, where = [_damage(blocks, places[0], failure)], rows[:1]
    return Done(rows, checked, found, where)


def _check_chunk(blocks: BlockReader, place: ChunkPlace, stored: memoryview | None) -> Iterator[Damage]:
    """Check a chunk, whose stored bytes may be at hand."""
    if stored is not None:
        try:
            blocks.check_chunk(place, stored)
        except CkptError:
            stored = None  # to be looked at block by block
    if stored is None:
        damaged = list(_check_blocks(blocks, place, range(-(-place.extent.length // blocks.manifest.block))))
        if damaged:
            yield from damaged
            return
    yield from _check_whole(blocks, place, stored)


def _check_blocks(blocks: BlockReader, place: ChunkPlace, numbers: range) -> Iterator[Damage]:
    """Check blocks of a chunk against their digests. [BLK-004]"""
    size = blocks.manifest.block
    for number in numbers:
        try:
            blocks.read_block(place, number)
        except CkptError as error:
            yield _damage(blocks, place, error, number, min(size, place.extent.length - number * size))


def _check_whole(blocks: BlockReader, place: ChunkPlace, stored: memoryview | None) -> Iterator[Damage]:
    try:
        _check_contents(blocks, place, stored)
    except CkptError as error:
        if error.code == "missing-package":  # which says nothing of these bytes
            raise
        yield _damage(blocks, place, error)


def _check_contents(blocks: BlockReader, place: ChunkPlace, stored: memoryview | None) -> None:
    """Check what digests cannot: that a chunk decodes [ZARR-011], and that its object ends with it [LAY-003]."""
    alone = blocks.manifest.layout == "loose"
    if alone and blocks.storage.size(place.object) > place.extent.length:
        raise fault("bad-extent", f"{place.object} is longer than its chunk [LAY-003]")
    spec = blocks.manifest.specs[place.tensor]
    if spec.is_raw and spec.dtype.name != "bool":
        return
    if spec.is_contiguous and stored is None:  # no padding, so bools can be looked at piece by piece
        for start in range(0, place.extent.length, RUN):
            piece = blocks.storage.read(place.object, place.extent.offset + start, min(RUN, spec.chunk_nbytes - start))
            blocks.decoded(place, partial(settled, np.frombuffer(piece, np.bool_), spec.dtype))
        return
    if stored is None:
        stored = blocks.chunk(place, False)
    else:
        blocks.admit_chunk(place)
    blocks.decoded(place, lambda: decoded_array(stored, spec, place.chunk))


def _damage(
    blocks: BlockReader, place: ChunkPlace, error: CkptError, block: int | None = None, length: int | None = None
) -> Damage:
    offset = place.extent.offset + (block or 0) * blocks.manifest.block
    length = place.extent.length if length is None else length
    path = blocks.path_of(place.tensor)
    return Damage(
        error.code, "block", error.message, place.object, path_label(path), place.chunk, block, offset, length, path
    )


def _check_frames(blocks: BlockReader, layout: Layout, located: Located, damaged: set[tuple[str, int]]) -> list[Damage]:
    """[FRM-001] to [FRM-004]"""
    found: list[Damage] = []
    for frame in layout.frames(blocks.storage, located, blocks.index):
        name = frame.object or "the file"
        hasher = blocks.digest.stream()
        places: list[tuple[str, int, str]] = []
        try:
            try:
                for part in frame.parts:
                    hasher.update(part)
                if hasher.digest() == frame.digest:
                    continue
            except DAMAGED:
                if frame.object:
                    raise
                # else a node document is missing; the places below say which
            places += layout.frame_damage(blocks.storage, located, blocks.index, damaged, frame.object)
        except (*DAMAGED, StorageError) as error:
            found.append(Damage(error.code, "frame", f"{name}: {error.message}", frame.object))
            continue
        if not places:  # written in another legal way, so there is nothing to compare with
            message = f"{name}: bytes outside chunks and manifest do not match the frame digest; values are intact"
            found.append(Damage("frame-digest", "frame", f"{message} [FRM-004]", frame.object))
        for place, at, what in places:
            message = f"{place or 'the file'}: {what}; values are intact [FRM-004]"
            found.append(Damage("frame-digest", "frame", message, place, offset=at))
    return found
