"""A read-only zarr `Store` over a manifest: zarr-python's own arrays over our verified bytes. Importing this module
imports zarr."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

import zarr
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from ..format.zarr_nodes import node_documents

if TYPE_CHECKING:
    from .reader import Checkpoint


def open_zarr(checkpoint: Checkpoint) -> zarr.Group | zarr.Array[Any]:
    """The hierarchy under `tensors/`; the checkpoint must stay open while it is used."""
    return zarr.open(ManifestStore(checkpoint), mode="r")


class ManifestStore(Store):
    """Keys are those under `tensors/`. Node documents come from the manifest, chunks from storage, verified as the
    checkpoint is."""

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__(read_only=True)
        self._checkpoint = checkpoint
        manifest = checkpoint.manifest
        self._documents = dict(node_documents(manifest.names, manifest.specs))
        self._chunks = {
            f"{name}/{key}" if name else key: (tensor, chunk)
            for tensor, (name, spec) in enumerate(zip(manifest.names, manifest.specs, strict=True))
            for chunk, key in enumerate(spec.chunk_keys())
        }

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other._checkpoint is self._checkpoint

    def __hash__(self) -> int:
        return id(self._checkpoint)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        data: Any = self._documents.get(key)
        if data is None:
            place = self._chunks.get(key)
            if place is None:
                return None
            blocks = self._checkpoint.blocks
            data = await asyncio.to_thread(blocks.chunk, blocks.place(*place), self._checkpoint.verifies)
        return prototype.buffer.from_bytes(part(data, byte_range))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return list(await asyncio.gather(*(self.get(key, prototype, byte_range) for key, byte_range in key_ranges)))

    async def exists(self, key: str) -> bool:
        return key in self._documents or key in self._chunks

    async def set(self, key: str, value: Buffer) -> None:
        raise ValueError("a checkpoint is read-only")

    async def delete(self, key: str) -> None:
        raise ValueError("a checkpoint is read-only")

    async def list(self) -> AsyncIterator[str]:
        for key in (*self._documents, *self._chunks):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        async for key in self.list():
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        prefix = f"{prefix.rstrip('/')}/" if prefix else ""
        seen = {key[len(prefix) :].partition("/")[0]: None async for key in self.list_prefix(prefix)}
        for name in seen:
            yield name


def part(data: Any, asked: ByteRequest | None) -> bytes:
    """The bytes of a value that a reader asked for."""
    match asked:
        case RangeByteRequest(start, end):
            data = data[start:end]
        case OffsetByteRequest(offset):
            data = data[offset:]
        case SuffixByteRequest(suffix):
            data = data[max(0, len(data) - suffix) :]
    return bytes(data)
