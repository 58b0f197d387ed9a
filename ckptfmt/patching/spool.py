"""Compressed chunks that wait in a temporary file until it is known which of them are kept."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from zlib_ng import zlib_ng

from ..errors import CkptError, os_fault
from ..format.digests import Digest
from ..frameworks.sources import StoredChunk
from ..storage import disk as disks
from ..storage import is_url
from ..storage.attempt import LocalFile
from ..storage.held import HeldPlace
from ..storage.local import LocalStorage
from ..storage.temporaries import folder_beside


class SpooledChunk(NamedTuple):
    """A chunk: where it stands in the file, the digests of its blocks, and its crc32."""

    offset: int
    length: int
    digests: bytes
    crc32: int


class Spool:
    """One temporary file, to which chunks are added from any thread."""

    def __init__(self, file: LocalFile, path: str) -> None:
        self._file, self._path = file, path
        self._end, self._adding = 0, threading.Lock()
        self._storage: LocalStorage | None = None

    def add(self, data: bytes, digest: Digest, block: int) -> SpooledChunk:
        """The stored bytes of a chunk."""
        with self._adding:
            offset, self._end = self._end, self._end + len(data)
        self._file.write(offset, data)
        return SpooledChunk(offset, len(data), digest.of_blocks(memoryview(data), block), zlib_ng.crc32(data))

    def stored(self, chunk: SpooledChunk) -> StoredChunk:
        """The chunk as what a save copies."""
        if self._storage is None:
            self._storage = LocalStorage(self._path)
        return StoredChunk(self._storage, "", chunk.offset, chunk.length, chunk.digests, chunk.crc32)

    def close(self) -> None:
        self._file.close()
        if self._storage is not None:
            self._storage.close()


@contextmanager
def spool_beside(target: str) -> Iterator[Spool]:
    """A spool for what is to be at a path: beside it, where there is room for it, or among the temporary files of this
    machine for what is no path. Raises `StorageError`."""
    is_path = not is_url(target) and not isinstance(target, HeldPlace)
    try:
        with folder_beside(target) if is_path else tempfile.TemporaryDirectory(prefix="ckptfmt-") as folder:
            spool = Spool(LocalFile(f"{folder}/chunks", disks.current(), False, target), f"{folder}/chunks")
            try:
                yield spool
            finally:
                spool.close()
    except OSError as error:
        if isinstance(error, CkptError):
            raise
        raise os_fault(error, "cannot write what waits to be saved", target) from error
