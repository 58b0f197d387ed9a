"""Stored bytes of chunks, verified block by block (SPEC.md sections 6 and 12).

A read is cut into jobs of one block (verified) or a few (not verified), which may run on several threads. A block
that is wanted whole goes straight into the destination and is checked there; others pass through a buffer. Nothing
else is read.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .chunk_table import Extent
from .digests import digest_named
from .dtypes import bytes_of
from .errors import CkptError, fault
from .layouts import Layout
from .manifest import Manifest
from .storage import Storage

UNVERIFIED = 16 << 20  # bytes of one read without verification
PIECE = 256 << 10  # bytes of one read of a block that is wanted in part: they stay in the processor's cache
NOTHING = memoryview(b"")
THREADS = max(2, min(8, os.cpu_count() or 2))

Job = Callable[[], None]


def run(jobs: list[Job]) -> None:
    """Run jobs, on several threads if there is more than one; the first failure in order is raised, after all have
    ended."""
    if len(jobs) < 2:
        for job in jobs:
            job()
        return
    from concurrent.futures import ThreadPoolExecutor  # here, as a small read needs no threads

    with ThreadPoolExecutor(min(THREADS, len(jobs)), thread_name_prefix="ckptfmt-read") as pool:
        futures = [pool.submit(job) for job in jobs]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


class ChunkPlace(NamedTuple):
    """One chunk: which it is, the object that holds it, and where."""

    tensor: int
    chunk: int
    object: str
    extent: Extent


class BlockReader:
    """Reads the chunks of one checkpoint. `describe(tensor)` gives a tensor's path text for messages."""

    def __init__(self, storage: Storage, layout: Layout, manifest: Manifest, describe: Callable[[int], str]) -> None:
        self.storage, self.manifest, self.describe = storage, manifest, describe
        self.bytes_read = 0
        self.digest = digest_named(manifest.digest)
        self._layout = layout
        self._counting = threading.Lock()

    def place(self, tensor: int, chunk: int) -> ChunkPlace:
        """Where a chunk lies."""
        name = self._layout.chunk_object(self.manifest, tensor, chunk)
        return ChunkPlace(tensor, chunk, name, self.manifest.table.extent(tensor, chunk))

    def read(self, name: str, offset: int, out: memoryview) -> None:
        """Fill `out` from an object, unverified, and count the bytes."""
        self.storage.read_into(name, offset, out)
        with self._counting:
            self.bytes_read += len(out)

    def map(self, place: ChunkPlace) -> memoryview:
        """The object that holds a chunk, mapped."""
        try:
            return self.storage.map(place.object)
        except CkptError as error:
            self._blame(error, place)
            raise

    def chunk(self, place: ChunkPlace, verify: bool) -> memoryview:
        """All stored bytes of a chunk."""
        out = bytes_of(np.empty(place.extent.length, np.uint8))
        run(list(self.jobs(place, 0, out, verify)))
        return out

    def jobs(self, place: ChunkPlace, low: int, out: memoryview, verify: bool) -> Iterator[Job]:
        """Jobs that fill `out` with the stored bytes of a chunk from byte `low` on."""
        high = low + len(out)
        if not verify:
            for start in range(low, high, UNVERIFIED):
                yield partial(self._read_exactly, place, start, out[start - low : start - low + UNVERIFIED])
            return
        block = self.manifest.block
        for number in range(low // block, -(-high // block)):
            yield partial(self._read_block, place, number, low, out)

    def _read_exactly(self, place: ChunkPlace, start: int, out: memoryview) -> None:
        try:
            self.read(place.object, place.extent.offset + start, out)
        except CkptError as error:
            self._blame(error, place)
            raise

    def _read_block(self, place: ChunkPlace, number: int, low: int, out: memoryview) -> None:
        """Read and check a block: straight into `out`, from byte `low` of the chunk on, if it is wanted whole."""
        start = number * self.manifest.block
        end = min(start + self.manifest.block, place.extent.length)
        try:
            if start >= low and end <= low + len(out):
                block = out[start - low : end - low]
                self.read(place.object, place.extent.offset + start, block)
                self.check(place, number, self.digest.of(block))
            else:
                self.read_through(place, number, low, out)
        except CkptError as error:
            self._blame(error, place)
            raise

    def read_through(self, place: ChunkPlace, number: int, low: int = 0, out: memoryview = NOTHING) -> None:
        """Read and check a block through a small buffer, and keep what of it lies in `out`, which begins at byte `low`
        of the chunk."""
        begin = number * self.manifest.block
        end = min(begin + self.manifest.block, place.extent.length)
        hasher, buffer = self.digest.stream(), memoryview(bytearray(min(PIECE, end - begin)))
        for start in range(begin, end, PIECE):
            piece = buffer[: end - start]
            self.read(place.object, place.extent.offset + start, piece)
            hasher.update(piece)
            first, last = max(start, low), min(start + len(piece), low + len(out))
            if first < last:
                out[first - low : last - low] = piece[first - start : last - start]
        self.check(place, number, hasher.digest())

    def check_chunk(self, place: ChunkPlace, stored: memoryview) -> None:
        """Check every block of a chunk whose stored bytes are at hand."""
        block = self.manifest.block
        for number, start in enumerate(range(0, place.extent.length, block)):
            self.check(place, number, self.digest.of(stored[start : start + block]))

    def check(self, place: ChunkPlace, number: int, digest: bytes) -> None:
        """Compare the digest of a block's bytes with the stored one; raises `block-digest`. [BLK-004]"""
        size = self.digest.size
        if digest == place.extent.digests[number * size : (number + 1) * size]:
            return
        length = min(self.manifest.block, place.extent.length - number * self.manifest.block)
        tensor, offset = self.describe(place.tensor), place.extent.offset + number * self.manifest.block
        raise fault(
            "block-digest",
            f"tensor {tensor!r} is damaged: block {number} of chunk {place.chunk}, {length:,} bytes "
            f"at byte {offset:,} of {place.object or 'the file'}, does not match its digest [BLK-004]",
            path=self.storage.path,
            tensor=tensor,
            chunk=place.chunk,
            block=number,
            offset=offset,
        )

    def decoded(self, place: ChunkPlace, decode: Callable[[], Any]) -> Any:
        """What `decode` gives; its ValueError becomes `bad-chunk`."""
        try:
            return decode()
        except ValueError as error:
            raised = fault("bad-chunk", str(error))
            self._blame(raised, place)
            raise raised from error

    def _blame(self, error: CkptError, place: ChunkPlace) -> None:
        """Say in an error which tensor it is about."""
        error.path = error.path or self.storage.path
        if error.tensor is None:
            error.tensor, error.chunk = self.describe(place.tensor), place.chunk
            error.message = f"tensor {error.tensor!r}, chunk {place.chunk}: {error.message}"
