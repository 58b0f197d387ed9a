"""A read-only zarr `Store` over a manifest: zarr-python's own arrays over our verified bytes. Importing this module
imports zarr."""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..format.arrays import ArraySpec
from ..format.zarr_nodes import DOCUMENT, node_document
from ..packages import missing
from .blocks import CHUNKS

if TYPE_CHECKING:
    from .checkpoint import StoredCheckpoint

try:
    import zarr
    from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
    from zarr.core.buffer import Buffer, BufferPrototype
except Exception as error:
    raise missing("a checkpoint as Zarr arrays", error, "zarr") from error


def open_zarr(checkpoint: StoredCheckpoint) -> zarr.Group | zarr.Array[Any]:
    """The hierarchy under `tensors/`; the checkpoint must stay open while it is used."""
    return zarr.open(ManifestStore(checkpoint), mode="r")


class ManifestStore(Store):
    """Keys are those under `tensors/`. Node documents come from the manifest, chunks from storage, verified as the
    checkpoint is. Keys are parsed when they are asked for, and none is kept, as a manifest may claim any number of
    chunks. [LIM-003]"""

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, checkpoint: StoredCheckpoint) -> None:
        super().__init__(read_only=True)
        self._checkpoint = checkpoint
        self._tensors = {name: tensor for tensor, name in enumerate(checkpoint.manifest.names)}

    @cached_property
    def _names(self) -> list[str]:
        """The names of all tensors, sorted: those in a group follow one another."""
        return sorted(self._tensors)

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._checkpoint is self._checkpoint

    def __hash__(self) -> int:
        return id(self._checkpoint)

    # ---- values

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        data: Any = await asyncio.to_thread(self._value, key)
        if data is None:
            return None
        match byte_range:
            case RangeByteRequest(start, end):
                data = data[start:end]
            case OffsetByteRequest(offset):
                data = data[offset:]
            case SuffixByteRequest(suffix):
                data = data[max(0, len(data) - suffix) :]
        return prototype.buffer.from_bytes(bytes(data))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return list(await asyncio.gather(*(self.get(key, prototype, byte_range) for key, byte_range in key_ranges)))

    async def exists(self, key: str) -> bool:
        return self._is_document(key) or self._chunk(key) is not None

    def _value(self, key: str) -> bytes | memoryview | None:
        """A node document, or the verified bytes of a chunk, which decode to the size that it must have. [LIM-008]"""
        if self._is_document(key):
            name = key.rpartition("/")[0]
            return node_document(name, self._admitted(name) if name in self._tensors else None)
        found = self._chunk(key)
        if found is None:
            return None
        blocks, spec = self._checkpoint.blocks, self._checkpoint.manifest.specs[found[0]]
        place = blocks.place(*found)
        stored = blocks.chunk(place, self._checkpoint.verifies)
        blocks.decoded(place, lambda: spec.codec.check_size(stored, spec.chunk_nbytes))
        return stored

    def _admitted(self, name: str) -> ArraySpec:
        """The spec of a tensor; zarr makes a list of all chunks of a selection, so many must be there. [LIM-003]"""
        tensor = self._tensors[name]
        spec = self._checkpoint.manifest.specs[tensor]
        if spec.chunks > CHUNKS:
            self._checkpoint.blocks.stored_bytes(tensor)
        return spec

    def _is_document(self, key: str) -> bool:
        folder, _, last = key.rpartition("/")
        return last == DOCUMENT and (
            not folder or folder in self._tensors or next(self._inside(folder), None) is not None
        )

    def _chunk(self, key: str) -> tuple[int, int] | None:
        """Tensor and number of the chunk with a key."""
        found = self._in_chunks(key)
        if found is None:
            return None
        tensor, position = found
        spec, chunk = self._checkpoint.manifest.specs[tensor], 0
        for number, count in zip(position, spec.chunk_counts, strict=False):
            chunk = chunk * count + number
        return (tensor, chunk) if len(position) == len(spec.grid) and spec.chunks else None

    def _in_chunks(self, key: str) -> tuple[int, list[int]] | None:
        """A tensor and a position in its grid, or the beginning of one, for NAME/c/0/0. [ZARR-003]"""
        parts = key.split("/")
        at = max((i for i, part in enumerate(parts) if not part.isdecimal()), default=-1)
        tensor = self._tensors.get("/".join(parts[:at])) if at >= 0 and parts[at] == "c" else None
        if tensor is None:
            return None
        position = []
        for text, count in zip(parts[at + 1 :], self._checkpoint.manifest.specs[tensor].chunk_counts, strict=False):
            number = int(text) if len(text) <= len(str(count)) else count
            if number >= count or str(number) != text:
                return None
            position.append(number)
        return (tensor, position) if len(position) == len(parts) - at - 1 else None

    async def set(self, key: str, value: Buffer) -> None:
        raise ValueError("a checkpoint is read-only")

    async def delete(self, key: str) -> None:
        raise ValueError("a checkpoint is read-only")

    # ---- listing

    async def list(self) -> AsyncIterator[str]:
        async for key in self.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for key in self._keys():
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        for name in self._children(prefix.rstrip("/")):
            yield name

    def _keys(self) -> Iterator[str]:
        """All keys, one after another."""
        if "" not in self._tensors:
            yield DOCUMENT
        before: list[str] = []
        for name in self._names:
            parts = name.split("/") if name else []
            new = (n for n in range(1, len(parts)) if parts[:n] != before[:n])
            yield from ("/".join([*parts[:n], DOCUMENT]) for n in new)
            before = parts
            for key in chain([DOCUMENT], self._admitted(name).chunk_keys()):
                yield "/".join([*parts, key])

    def _children(self, folder: str) -> Iterator[str]:
        """The names in a folder: of a group, of a tensor or of its chunks."""
        if folder in self._tensors:
            yield from [DOCUMENT, "c"] if self._admitted(folder).chunks else [DOCUMENT]
        elif (found := self._in_chunks(folder)) is not None:
            counts = self._checkpoint.manifest.specs[found[0]].chunk_counts[len(found[1]) :]
            yield from map(str, range(counts[0] if counts else 0))
        elif self._is_document(f"{folder}/{DOCUMENT}" if folder else DOCUMENT):
            yield DOCUMENT
            start = len(folder) + 1 if folder else 0
            yield from (name[start:].partition("/")[0] for name in self._inside(folder))

    def _inside(self, group: str) -> Iterator[str]:
        """The first tensor of each child of a group, in order; nothing if it is none."""
        prefix = f"{group}/" if group else ""
        at = bisect_left(self._names, prefix)
        while at < len(self._names) and self._names[at].startswith(prefix):
            yield self._names[at]
            child, slash, _ = self._names[at][len(prefix) :].partition("/")
            at = bisect_left(self._names, f"{prefix}{child}0", at) if slash else at + 1  # "0" comes right after "/"
