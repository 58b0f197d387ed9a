"""The store through which zarr-python reads chunks of a directory, which believes no claim about their length: ranges
of shards that are not in the file, and chunks that decompress to far more than a chunk has, are refused. Importing this
module imports zarr."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from zarr.abc.store import ByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore

from ..threads import Pool
from .zarr_claims import check_decoded

if TYPE_CHECKING:
    import zarr

T = TypeVar("T")


class Chunks(LocalStore):
    """A directory, read only. Arrays must be expected before they are read."""

    def __init__(self, path: str) -> None:
        super().__init__(path, read_only=True)
        self._expected: dict[str, tuple[dict[str, Any], int]] = {}
        self._pool, self._loop = Pool(1, "ckptfmt-zarr"), asyncio.Runner()

    def expect(self, folder: str, document: dict[str, Any], nbytes: int) -> None:
        """Chunks of an array with these metadata, of `nbytes` at most, are to be read."""
        self._expected[folder] = document, nbytes

    def selected(self, array: zarr.Array[Any], selection: tuple[slice, ...]) -> Any:
        """What `array[selection]` gives, read in an event loop of this store. Where one chunk fails, zarr-python
        (3.1.6) leaves the others at work in its own loop, which it closes over them when the process ends; here they
        end."""
        return self._pool.submit(self._loop.run, _alone(array.async_array.getitem(selection))).result()

    def end(self) -> None:
        """End the event loop, if there was one."""
        with self._pool as pool:
            pool.submit(self._loop.close).result()

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        try:
            size = os.stat(os.path.join(self.root, key)).st_size
        except OSError:
            return None
        if isinstance(byte_range, RangeByteRequest) and not 0 <= byte_range.start <= byte_range.end <= size:
            raise ValueError(f"{key!r} has {size:,} bytes, and claims a chunk at {byte_range}")
        found = await super().get(key, prototype, byte_range)
        expected = self._expectation(key)
        if found is not None and expected is not None and not isinstance(byte_range, SuffixByteRequest):
            await asyncio.to_thread(check_decoded, expected[0], found.to_bytes(), expected[1])
        return found

    def _expectation(self, key: str) -> tuple[dict[str, Any], int] | None:
        folder = key
        while folder:
            folder = folder.rpartition("/")[0]
            if folder in self._expected:
                return self._expected[folder]
        return None


async def _alone(reading: Coroutine[Any, Any, T]) -> T:
    """What a coroutine gives, which leaves no task behind."""
    try:
        return await reading
    finally:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
