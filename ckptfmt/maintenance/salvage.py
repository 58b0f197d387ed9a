"""Repair: what is whole of a damaged checkpoint, as a new one, and a list of what is lost (docs/spec/migrations.md).

The source is never changed. Nothing is taken over that was not verified: tensors with damage are left out, or their
damaged blocks are filled with a value, and the new checkpoint's provenance says so. Trees and metadata are taken over
node by node, so that tags whose framework is not installed stay what they are.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from zlib_ng import zlib_ng

from .._version import __version__
from ..brief import Brief
from ..calls import takes
from ..errors import DAMAGED, NotACheckpointError, fault
from ..format import manifest as manifests
from ..format.casts import cast
from ..format.digests import digest_named
from ..format.dtypes import Array, bytes_of
from ..format.grid import Axis, Piece, Shape, pieces, spans
from ..format.limits import DEFAULT, Limits
from ..format.manifest import Manifest
from ..format.names import Path, name_of
from ..format.node import Node
from ..format.pages import ReadBytes
from ..format.remains import remains_of
from ..frameworks.sources import Lazy, Region
from ..layouts import Written, layout_named
from ..layouts.draft import Draft
from ..migration.apply import further_keys
from ..progress import Progress, Report, counter
from ..reading.blocks import BlockReader
from ..reading.checkpoint import StoredCheckpoint
from ..reading.fetch import SPAN
from ..reading.tensor import Tensor
from ..storage import COMMIT, MANIFEST, Storage, attempt_for, options_at, path_of, storage_for
from ..writing.writer import SaveReport, committed
from .verification import Damage, page_damage, verify_chunks

WINDOW = 1 << 20  # bytes looked through at a time
_HEADER = re.compile(rb"PK\x03\x04.{10}(....)(....)(....)\x10\x00..manifest\.msgpack", re.DOTALL)
_SHA256 = re.compile(rb"sha256=([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Lost:
    """A tensor that is damaged: its typed path, Zarr name, dtype and shape; the bytes that could not be read; and
    whether they were filled, or the tensor left out. `dtype`, `shape` and `bytes` are None where the page of the
    manifest that said them is damaged."""

    path: Path
    name: str
    dtype: str | None
    shape: Shape | None
    bytes: int | None
    filled: bool


@dataclass(frozen=True, slots=True, repr=False)
class RepairReport(Brief):
    """What `repair` did. `proof`: what says that the manifest is whole: "record", "sha256" (what is left of the
    record), "crc32" (of the ZIP) or "none". `tensors` were taken over whole; `damage`: each damaged place of the
    others."""

    path: str
    proof: str
    tensors: int
    lost: tuple[Lost, ...]
    damage: tuple[Damage, ...]
    saved: SaveReport

    @property
    def ok(self) -> bool:
        """Whether nothing is lost."""
        return not (self.lost or self.damage)


@takes(former={"src": "source", "dst": "target"})
def repair(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    fill: float | None = None,
    uncommitted: bool = False,
    layout: str | None = None,
    overwrite: bool = False,
    durable: bool = True,
    progress: Progress | None = None,
    limits: Limits = DEFAULT,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
) -> RepairReport:
    """Save what is whole of the checkpoint at `source` to `target`: all of that, or nothing. `source` is only read.

    - Tensors with damage are left out: dict entries vanish, items of lists and tuples become None. With `fill` they
      are kept, and the elements of damaged blocks (of compressed tensors: chunks) have that value.
    - A commit record that is damaged is done without where what is left of it, or the ZIP, proves that the manifest is
      whole. `uncommitted=True` takes a directory's manifest as it is, without proof and without `COMMIT`: it may be of
      a save that never ended.
    - Where a page of a paged manifest is damaged, the tensors that it tells of are lost, or that part of the tree with
      its plain values; tensors of which another page tells stand then where their names say, in dicts and lists.
    - `layout` (that of the source by default), `overwrite` and `durable` are those of `save`. `storage_options` are for
      whichever of `source` and `target` is a URL; `limits` are as in `ckptfmt.open`.
    - `follow_links`: also through links in the source's folder, as in `ckptfmt.open`; those that may not be followed
      count as damage. Unasked, a link is refused.
    - `progress(done, total)` is called with bytes: each of the source is read once to verify, and once to copy.

    Raises what `open` raises where no whole manifest is found, and what `save` raises; `bad-option` for a `target` that
    is `source` and for a `fill` that a dtype cannot hold. [REP-001] [REP-002]
    """
    source, target = path_of(source), path_of(target)
    if _is_same(source, target):
        raise fault("bad-option", "a checkpoint cannot be repaired in its own place", path=target)
    read_options = options_at(source, storage_options)
    opened, proof = _no_patch(_opened(source, uncommitted, limits, read_options, follow_links))
    with opened:
        remains = remains_of(opened.manifest)
        checkpoint = opened if remains is None else opened.with_manifest(remains.manifest)
        manifest = checkpoint.manifest
        stored = sum(spec.chunks * spec.chunk_nbytes for spec in manifest.specs)
        report = counter(progress, 2 * stored)
        found = verify_chunks(checkpoint.blocks, _share(report, stored) if progress else None).damage
        damage = (*map(page_damage, () if remains is None else remains.damage), *found)
        if not follow_links:
            _refuse_links(source, damage)
        broken = _broken(checkpoint.blocks, checkpoint.handles, found)
        lost = tuple(_lost(checkpoint, index, damaged, fill) for index, damaged in broken.items())
        kept = len(manifest.names) - len(lost)
        if remains is not None:
            lost += tuple(Lost(path, name_of(path), None, None, None, False) for path in remains.lost)
        draft = _drafted(checkpoint, broken, lost, fill, report)
        layout, options = layout or manifest.layout, options_at(target, storage_options)
        module = layout_named(layout)
        attempt = attempt_for(target, directory=layout != "file", overwrite=overwrite, durable=durable, options=options)
        saved = _saved(committed(module, draft, attempt), target, layout, len(draft.names))
        return RepairReport(source, proof, kept, lost, damage, saved)


def _saved(written: Written, target: str, layout: str, tensors: int) -> SaveReport:
    return SaveReport(target, layout, written.bytes, tensors, written.record.sha256.hex(), ())


def _share(report: Report, stored: int) -> Progress:
    """Progress of the verification, in bytes that are reported as they are done."""
    before = 0

    def verified(done: int, total: int) -> None:
        nonlocal before
        report(stored * done // total - before)
        before = stored * done // total

    return verified


def _drafted(
    checkpoint: StoredCheckpoint,
    broken: Mapping[int, Broken],
    lost: tuple[Lost, ...],
    fill: float | None,
    report: Report,
) -> Draft:
    """What is whole of a checkpoint, and with `fill` what is damaged, too."""
    manifest = checkpoint.manifest
    kept = [index for index in range(len(manifest.names)) if index not in broken or fill is not None]
    return Draft(
        sources=[_source(checkpoint, index, broken.get(index), fill) for index in kept],
        names=tuple(manifest.names[index] for index in kept),
        specs=tuple(manifest.specs[index] for index in kept),
        tree=_without(manifest.tree, {index: number for number, index in enumerate(kept)}),
        metadata=manifest.metadata,
        schema=manifest.schema,
        digest=digest_named(manifest.digest),
        block=manifest.block,
        generator=f"ckptfmt {__version__}",
        report=report,
        extra=further_keys(checkpoint, _record(checkpoint, lost, fill)),
    )


def _refuse_links(path: str, damage: Iterable[Damage]) -> None:
    """What lies behind a link is not lost: it is read on request."""
    for place in damage:
        if place.code == "linked-object":
            raise fault(place.code, place.message, path=path, object=place.object, tensor=place.tensor)


def _is_same(one: str, other: str) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samefile(one, other)
    return one == other


# ---- the manifest


def _no_patch(found: tuple[StoredCheckpoint, str]) -> tuple[StoredCheckpoint, str]:
    """Refuse a patch, whose tensors are mostly in its base."""
    if found[0].manifest.patch is None:
        return found
    with found[0] as opened:
        advice = "Make it again with ckptfmt.patch; until then tensors without damage can be read"
        raise fault("bad-option", "a patch cannot be repaired", path=opened.path, advice=advice)


def _opened(
    path: str, uncommitted: bool, limits: Limits, options: Mapping[str, Any] | None, follow_links: bool
) -> tuple[StoredCheckpoint, str]:
    """The checkpoint, and what proves that its manifest is whole."""
    try:
        whole = StoredCheckpoint(path, limits=limits, storage_options=options, follow_links=follow_links)
        return whole, "record"
    except (*DAMAGED, NotACheckpointError) as error:
        if error.code == "temporary":
            raise
        reason = error
    storage = storage_for(path, options, follow_links=follow_links)
    try:
        found = _in_directory(storage, uncommitted, limits) if storage.is_directory else _in_file(storage, limits)
        if found is None:
            raise reason
        layout = layout_named(found.manifest.layout)
        checkpoint = StoredCheckpoint.over(storage, layout, found.manifest, found.sha256, path, limits)
    except BaseException:
        storage.close()
        raise
    return checkpoint, found.proof


class _ProvenManifest(NamedTuple):
    manifest: Manifest
    sha256: bytes
    proof: str


def _found(raw: bytes, left: bytes, proof: str, limits: Limits, size: int, read: ReadBytes) -> _ProvenManifest | None:
    """A manifest, if its bytes are proven: by what is `left` of a commit record, or else by `proof`; `read` gives the
    bytes of its pages."""
    digest = hashlib.sha256(raw).digest()
    if any(found == digest.hex().encode() for found in _SHA256.findall(left)):
        proof = "sha256"
    if not proof:
        return None
    return _ProvenManifest(
        manifests.decode(raw, limits.values(max(size, len(raw))), read, limits.manifest), digest, proof
    )


def _in_directory(storage: Storage, uncommitted: bool, limits: Limits) -> _ProvenManifest | None:
    try:
        size = storage.size(MANIFEST)
        limits.check_manifest(size, storage.path)
        raw = storage.read(MANIFEST, 0, size)
    except DAMAGED:
        return None
    try:
        left = storage.read(COMMIT, 0, min(storage.size(COMMIT), 4096))
    except DAMAGED:
        left = b""
    found = _found(raw, left, "none" if uncommitted else "", limits, size, storage.read)
    return found if found is not None and found.manifest.layout != "file" else None


def _in_file(storage: Storage, limits: Limits) -> _ProvenManifest | None:
    """The last member of the ZIP that is called as the manifest, and whose crc32 is right; by the local headers, as
    the directory may be damaged too."""
    size = storage.size("")
    left = storage.read("", max(0, size - 4096), min(size, 4096))
    for offset, length, crc in _members(storage, size, limits):
        raw = storage.read("", offset, length)
        if zlib_ng.crc32(raw) != crc:
            continue
        found = _found(raw, left, "crc32", limits, size, storage.read)
        if found is not None and found.manifest.layout == "file":
            found.manifest.check_extents(offset)
            return found
    return None


def _members(storage: Storage, size: int, limits: Limits) -> Iterator[tuple[int, int, int]]:
    """(offset, length, crc32) of what may be the manifest's member, the last first. What comes after it is smaller
    than a manifest may be."""
    lowest = max(0, size - 2 * limits.manifest)
    for start in range(max(lowest, size - WINDOW), lowest - WINDOW, -WINDOW):
        start = max(start, lowest)
        window = storage.read("", start, min(WINDOW + 64, size - start))
        for header in reversed(list(_HEADER.finditer(window))):
            crc, length, full = (int.from_bytes(field, "little") for field in header.groups())
            extra = int.from_bytes(window[header.start() + 28 : header.start() + 30], "little")
            offset = start + header.end() + extra
            if length == full and length <= limits.manifest and offset + length <= size:
                yield offset, length, crc


# ---- what is damaged


Broken = dict[int, set[int] | None]  # chunk: its damaged blocks, or None for all of it


def _broken(blocks: BlockReader, handles: list[Tensor], damage: list[Damage]) -> dict[int, Broken]:
    """The damaged chunks of each damaged tensor."""
    numbers = {tensor.path: tensor.index for tensor in handles}
    broken: dict[int, Broken] = {}
    for place in damage:
        if place.path is not None and place.chunk is not None:
            chunks = broken.setdefault(numbers[place.path], {})
            if place.block is None:
                chunks[place.chunk] = None
            elif (known := chunks.setdefault(place.chunk, set())) is not None:
                known.add(place.block)
    if any(place.path is None for place in damage):  # a part manifest is lost, and with it where its chunks are
        for tensor in handles:
            for chunk in range(blocks.manifest.specs[tensor.index].chunks):
                try:
                    blocks.place(tensor.index, chunk)
                except DAMAGED:
                    broken.setdefault(tensor.index, {})[chunk] = None
    return dict(sorted(broken.items()))


def _lost(checkpoint: StoredCheckpoint, index: int, broken: Broken, fill: float | None) -> Lost:
    tensor, spec, block = checkpoint.handles[index], checkpoint.manifest.specs[index], checkpoint.manifest.block
    nbytes = 0
    for chunk, numbers in broken.items():
        try:
            length = checkpoint.blocks.place(index, chunk).extent.length
        except DAMAGED:
            length = spec.chunk_nbytes
        if numbers is None or not spec.is_raw:
            nbytes += length
        else:
            nbytes += sum(min(block, length - number * block) for number in numbers)
    return Lost(tensor.path, tensor.name, tensor.dtype_name, tensor.shape, nbytes, fill is not None)


def _without(node: Node, numbers: Mapping[int, int]) -> Node:
    """A tree with the tensors that have a new number, and without the others."""
    found = _pruned(node, numbers)
    return None if found is _GONE else found


_GONE: Any = object()


def _pruned(node: Node, numbers: Mapping[int, int]) -> Node:
    match node:
        case ["tensor", index]:
            return ["tensor", numbers[index]] if index in numbers else _GONE
        case ["dict", keys, items]:
            pairs = zip(keys, (_pruned(item, numbers) for item in items), strict=True)
            left = [(key, item) for key, item in pairs if item is not _GONE]
            return ["dict", [key for key, _ in left], [item for _, item in left]]
        case ["list" | "tuple" as kind, items]:
            return [kind, [_without(item, numbers) for item in items]]
        case ["tag", name, param, child]:
            child = _pruned(child, numbers)
            return _GONE if child is _GONE else ["tag", name, param, child]
    return node


# ---- what is written


def _source(checkpoint: StoredCheckpoint, index: int, broken: Broken | None, fill: float | None) -> Any:
    tensor = checkpoint.handles[index]
    return tensor if broken is None or fill is None else FilledTensor(tensor, checkpoint.blocks, broken, fill)


class FilledTensor(Lazy):
    """A damaged tensor to be saved: verified elements, and `fill` for those of damaged blocks."""

    __slots__ = ("_blocks", "_broken", "_fill", "_tensor", "dtype", "shape")

    def __init__(self, tensor: Tensor, blocks: BlockReader, broken: Broken, fill: float) -> None:
        self.shape, self.dtype = tensor.shape, tensor.stored_dtype
        self._tensor, self._blocks, self._broken = tensor, blocks, broken
        self._fill, beyond = cast(np.array(fill, np.float64), self.dtype)
        is_float = tensor.spec.dtype.range is None or tensor.spec.dtype.range.exponent
        if beyond or not (is_float or float(self._fill) == fill):
            message = f"fill= cannot stand in a tensor of {tensor.dtype_name}"
            raise fault("bad-option", message, tensor=blocks.describe(tensor.index), found=fill)

    def __getitem__(self, region: Region, /) -> Array:
        spec = self._blocks.manifest.specs[self._tensor.index]
        axes = tuple(Axis(side.start, side.stop - side.start, 1) for side in region)
        out = np.full(tuple(axis.length for axis in axes), self._fill, self.dtype)
        if 0 in out.shape:
            return out
        scale = (1,) * (len(spec.grid) - 1) + (spec.dtype.per,) if spec.grid else ()
        sides = tuple(side * k for side, k in zip(spec.grid, scale, strict=True))
        for piece in pieces(axes, sides, spec.chunk_counts):
            if piece.chunk not in self._broken:
                low = (side.start for side in region)
                inside: Any = tuple(slice(a + o.start, a + o.stop) for a, o in zip(low, piece.out, strict=True))
                out[piece.out] = self._tensor[inside]
            elif self._broken[piece.chunk] is not None and spec.is_raw and spec.dtype.per == 1:
                part: Any = (*piece.out, ...)  # with the Ellipsis a view also of a 0-d array
                self._salvage(piece, out[part])
        return out

    def _salvage(self, piece: Piece, out: Array) -> None:
        """Fill `out` with what lies in the whole blocks of a raw chunk."""
        spec, block = self._blocks.manifest.specs[self._tensor.index], self._blocks.manifest.block
        place = self._blocks.place(self._tensor.index, piece.chunk)
        damaged = self._broken[piece.chunk] or set()
        itemsize = spec.dtype.stored.itemsize
        for span in spans(piece.axes, spec.grid, itemsize, SPAN, block):
            buffer = np.full((span.high - span.low) // itemsize, self._fill, self.dtype.newbyteorder("<"))
            for number in range(span.low // block, -(-span.high // block)):
                if number not in damaged:
                    self._blocks.read_block(place, number, span.low, bytes_of(buffer))
            cells = np.ndarray(span.shape, spec.dtype.stored, buffer, strides=span.strides)
            stored = cells.astype(spec.dtype.stored.newbyteorder("="), copy=False)
            part = out[span.out] if span.out else out
            part[...] = stored if spec.dtype.is_core else stored.view(self.dtype)


def _record(checkpoint: StoredCheckpoint, lost: tuple[Lost, ...], fill: float | None) -> dict[str, Any]:
    """The provenance of what was repaired. [REP-002]"""
    return {
        "operation": "repair",
        "generator": f"ckptfmt {__version__}",
        "source": bytes.fromhex(checkpoint.manifest_sha256),
        "fill": None if fill is None else float(fill),
        "lost": [
            {"name": one.name, "dtype": one.dtype, "shape": one.shape and list(one.shape), "bytes": one.bytes}
            for one in lost
        ],
    }
