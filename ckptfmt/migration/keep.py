"""Tensors that are merely moved, kept as they are stored: files are shared, and the payloads of packs copied by the
system (docs/spec/migrations.md, MIG-020). Nothing of them is read or hashed.

The digests of blocks come from the manifest. The crc32 that a pack needs comes from the source pack's own directory,
which is trusted once the digest of its frame has been checked: that reads what lies between the chunks.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Hashable
from functools import partial
from typing import NamedTuple

from ..errors import CkptError
from ..format import pack
from ..format.arrays import WHOLE
from ..format.manifest import BLOCK
from ..frameworks.sources import KeptTensor, StoredChunk
from ..reading.checkpoint import StoredCheckpoint
from ..reading.tensor import Tensor
from ..storage.local import LocalStorage


class Directory(NamedTuple):
    """The central directory of one pack: where the headers of members begin, in order, and the members."""

    offsets: list[int]
    entries: list[pack.CentralEntry]

    def crc32(self, payload: int, length: int) -> int | None:
        """That of the member whose payload is there."""
        number = bisect_left(self.offsets, payload) - 1
        return self.entries[number].crc32 if number >= 0 and self.entries[number].size == length else None


class Keeper:
    """Keeps tensors of one checkpoint as they are stored."""

    def __init__(self, checkpoint: StoredCheckpoint, directories: dict[str, Directory]) -> None:
        self._checkpoint, self._directories = checkpoint, directories

    def keep(self, tensor: Tensor, identity: Hashable) -> KeptTensor | None:
        """The tensor as a source; None where a pack does not say its crc32, or a patch has not all of the tensor."""
        if tensor.spec.form != WHOLE:
            return None
        chunks = [self._chunk(tensor.index, chunk) for chunk in range(tensor.chunks)]
        return None if None in chunks else KeptTensor(tensor, chunks.__getitem__, identity)  # type: ignore[arg-type]

    def _chunk(self, tensor: int, chunk: int) -> StoredChunk | None:
        blocks = self._checkpoint.blocks
        _, _, name, extent = blocks.place(tensor, chunk)
        directory = self._directories.get(name)
        crc32 = 0 if directory is None else directory.crc32(extent.offset, extent.length)
        if crc32 is None:
            return None
        return StoredChunk(blocks.storage, name, extent.offset, extent.length, extent.digests, crc32)


def keeper(checkpoint: StoredCheckpoint, layout: str, digest: str) -> Keeper | None:
    """What keeps tensors for a save of that layout and digest algorithm; None where bytes must be read instead."""
    manifest, storage = checkpoint.manifest, checkpoint.blocks.storage
    alike = (manifest.layout == "loose") == (layout == "loose") and (manifest.digest, manifest.block) == (digest, BLOCK)
    if not alike or not isinstance(storage, LocalStorage):
        return None
    if layout == "loose":
        return Keeper(checkpoint, {})
    try:
        if not _has_sound_frames(checkpoint):
            return None
        names = [part.object or "" for part in manifest.parts]
        return Keeper(checkpoint, {name: _directory(checkpoint, name) for name in names})
    except (CkptError, ValueError, struct.error):
        return None  # the tensors can be read all the same


def _has_sound_frames(checkpoint: StoredCheckpoint) -> bool:
    digest = checkpoint.blocks.digest
    frames = list(checkpoint.frames())
    for frame in frames:
        hasher = digest.stream()
        for part in frame.parts:
            hasher.update(part)
        if hasher.digest() != frame.digest:
            return False
    return bool(frames)


def _directory(checkpoint: StoredCheckpoint, name: str) -> Directory:
    storage = checkpoint.blocks.storage
    comment = len(checkpoint.record.encode()) if checkpoint.layout == "file" else 0
    found = sorted(pack.entries(partial(storage.read, name), storage.size(name), comment), key=lambda e: e.offset)
    return Directory([entry.offset for entry in found], found)
