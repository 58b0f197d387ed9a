"""Finding chunks: from a tensor and a chunk number to an object, an extent and digests, through parts that are loaded
when they are first needed [CHK-006]."""

from __future__ import annotations

from _thread import RLock
from collections import deque
from collections.abc import Iterator
from functools import partial

import numpy as np

from ..errors import fault
from ..format.chunk_table import ChunkTable, rows_by
from ..format.digests import digest_named, sha256
from ..format.dtypes import Array
from ..format.limits import DEFAULT, Limits
from ..format.manifest import Manifest, Part, PartReference, check_part, decode_part
from ..storage import Storage
from ..tuples import NamedTuple


class Found(NamedTuple):
    """Chunks that one part holds: `rows` of its table, for the chunks at `positions` of those asked for."""

    part: Part
    table: ChunkTable
    rows: Array
    positions: Array


class ChunkIndex:
    """Knows every chunk of one checkpoint. May be used from several threads."""

    def __init__(self, storage: Storage, manifest: Manifest, limits: Limits = DEFAULT) -> None:
        self._storage, self._limits = storage, limits
        self.manifest: Manifest = manifest
        self._loaded: dict[int, ChunkTable] = {}
        self._loading = [RLock() for _ in range(len(manifest.parts))]

    def find(self, tensor: int, chunk: int) -> tuple[Part, ChunkTable, int]:
        """The part, table and row of one chunk."""
        if self.manifest.pages is not None:
            return self.manifest.pages.place(tensor, chunk)
        number = self.manifest.first_chunks[tensor] + chunk
        parts = self.manifest.parts_of(np.array([number]))
        part = 0 if parts is None else int(parts[0])
        table = self.table(part)
        return self.manifest.parts[part], table, table.row(number)

    def find_first(self, tensors: Array) -> Iterator[Found]:
        """The first chunk of each of these tensors, part by part, or page by page where some pages do."""
        pages = self.manifest.pages
        at = None if pages is None else pages.pages_of(tensors)
        if pages is None or at is None or len(np.unique(at)) == len(pages):
            yield from self.find_all(np.asarray(self.manifest.first_chunks)[tensors])
            return
        for number, of_page in rows_by(at):
            for part, table, rows, positions in pages.first_rows(number, tensors[of_page]):
                yield Found(part, table, rows, of_page[positions])

    def find_all(self, numbers: Array) -> Iterator[Found]:
        """All of the chunks with these numbers, part by part."""
        parts = self.manifest.parts_of(numbers)
        if parts is None:
            yield Found(self.manifest.parts[0], self.table(0), numbers, np.arange(len(numbers)))
            return
        for part, positions in rows_by(parts):
            table = self.table(part)
            assert table.numbers is not None
            rows = np.searchsorted(table.numbers, numbers[positions])
            yield Found(self.manifest.parts[part], table, rows, positions)

    def table(self, part: int) -> ChunkTable:
        """The chunk table of a part; raises `manifest-digest`, `missing-object`, `bad-manifest` or `bad-extent`."""
        chunks = self.manifest.parts[part].chunks
        if isinstance(chunks, ChunkTable):
            return chunks
        with self._loading[part]:
            if part not in self._loaded:
                self._loaded[part] = self._load(part, chunks)
            return self._loaded[part]

    def load(self, numbers: Array) -> None:
        """Load the tables that chunks with these numbers are in, many at a time over a network; raises as `table`."""
        parts = self.manifest.parts_of(numbers)
        if parts is not None:
            from ..storage.ahead import ahead

            tables = (partial(self.table, part) for part in np.unique(parts).tolist())
            deque(ahead(self._storage, tables), maxlen=0)

    def _load(self, number: int, reference: PartReference) -> ChunkTable:
        manifest, part = self.manifest, self.manifest.parts[number]
        self._limits.check_manifest(reference.length, self._storage.path)
        length = self._storage.size(reference.path)
        raw = self._storage.read(reference.path, 0, length) if length == reference.length else b""
        if sha256(raw) != reference.sha256:  # [CHK-006]
            raise fault(
                "manifest-digest",
                f"the part manifest {reference.path} does not match its length and sha256 [CHK-006]",
                path=self._storage.path,
            )
        memory = self._limits.values(length)
        table = decode_part(raw, manifest.specs, digest_named(manifest.digest), manifest.block, memory)
        check_part(table, part, number, manifest)
        return table
