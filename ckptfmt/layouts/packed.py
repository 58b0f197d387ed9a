"""Layout `packed`: a directory of packs, each with the chunks of one writer and a part manifest (SPEC.md sections 7 to
9). For many processes, and for sizes past one file."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

import msgpack
import numpy as np

from ..arrays import ArraySpec
from ..chunk_index import ChunkIndex
from ..chunk_table import ChunkTable, encode_table, first_chunks
from ..digests import Digest
from ..dtypes import Array
from ..errors import CorruptError, fault
from ..limits import Limits
from ..manifest import Manifest, Part, PartReference
from ..placement import placement_of
from ..progress import Report
from ..sources import Source
from ..storage import Attempt, Storage
from . import Frame, Located, Written, bytes_between, directory

if TYPE_CHECKING:
    from .draft import Draft

PACK_BYTES = 32 << 30  # a writer begins another pack when one has this many bytes


# ---- reading


def locate(storage: Storage, limits: Limits) -> Located:
    """Read `COMMIT` and the manifest, no part manifest. [READ-001]"""
    return directory.locate(storage, limits)


def frames(storage: Storage, located: Located, index: ChunkIndex) -> Iterator[Frame]:
    """Of the packs whose table is sound; a damaged part manifest is damage enough. [FRM-003]"""
    for number, part in enumerate(index.manifest.parts):
        with contextlib.suppress(CorruptError):
            table = index.table(number)
            yield Frame(part.object or "", part.frame or b"", _frame(storage, part, table))


def _frame(storage: Storage, part: Part, table: ChunkTable) -> Iterator[bytes]:
    name = part.object or ""
    size = storage.size(name)
    if size != part.size:
        raise fault("bad-extent", "the pack has another size than its part says [LAY-004]", path=storage.path)
    yield from bytes_between(storage, name, [*zip(table.offsets, table.lengths, strict=True)], size)


def frame_damage(
    storage: Storage, located: Located, manifest: Manifest, damaged: set[int]
) -> Iterator[tuple[str, int, str]]:
    """Nothing: the bytes of packs are not canonical. [LAY-005]"""
    return iter(())


# ---- writing


class Chunk(NamedTuple):
    """A chunk to be written: the tensor's name, spec and elements, and its number in the tensor."""

    name: str
    spec: ArraySpec
    source: Source
    chunk: int


class PartWriter(NamedTuple):
    """What all parts of a checkpoint are written with."""

    attempt: Attempt
    digest: Digest
    block: int
    report: Report

    def write(
        self,
        number: int,
        chunks: Iterable[Chunk],
        tensors: Array,
        chunk_numbers: Array,
        documents: tuple[Sequence[str], Sequence[ArraySpec]] | None,
    ) -> Part:
        """Write pack and part manifest number `number`. `tensors` and `chunk_numbers`: the table's columns for
        `chunks`, sorted [CHK-003]. `documents`: names and specs of the node documents, in part 0 [LAY-005]."""
        from concurrent.futures import ThreadPoolExecutor

        from .pack_writer import PackWriter

        path = f"packs/{number:05d}.zip"
        out = self.attempt.create(path)
        with ThreadPoolExecutor(1, thread_name_prefix="ckptfmt-digest") as pool:
            writer = PackWriter(out, self.digest, self.block, pool, self.report)
            if documents is not None:
                writer.add_documents(*documents)
            for name, spec, source, chunk in chunks:
                writer.add_chunk(name, spec, source, chunk)
            size, frame = writer.finish_pack()
        raw = bytes(msgpack.packb(encode_table(writer.table(), tensors, chunk_numbers)))
        reference = PartReference(f"parts/{number:05d}.msgpack", len(raw), hashlib.sha256(raw).digest())
        directory.put(self.attempt, reference.path, raw)
        return Part(path, reference, size, frame)


def part_numbers(sizes: Array, pack_bytes: int) -> Array:
    """For each chunk (bytes in `sizes`) of one writer, in order, the number of the pack it goes to, from 0 on: a new
    one where `pack_bytes` is passed."""
    before: Array = np.concatenate([[0], np.cumsum(sizes)[:-1]]) if len(sizes) else np.zeros(0)
    _, numbers = np.unique(before // pack_bytes, return_inverse=True)
    return numbers


def write(draft: Draft, attempt: Attempt) -> Written:
    """Write a whole checkpoint from one process."""
    counts = np.array([spec.chunks for spec in draft.specs], np.int64)
    tensors = np.repeat(np.arange(len(counts)), counts)
    firsts = np.cumsum(counts) - counts
    chunk_numbers = np.arange(len(tensors)) - firsts[tensors]
    sizes = np.array([spec.chunk_nbytes for spec in draft.specs], np.int64)[tensors]
    numbers = part_numbers(sizes, PACK_BYTES)
    writer = PartWriter(attempt, draft.digest, draft.block, draft.report)
    parts = []
    for number in range(int(numbers.max(initial=0)) + 1):
        rows = np.flatnonzero(numbers == number)
        chunks = (
            Chunk(draft.names[t], draft.specs[t], draft.sources[t], c)
            for t, c in zip(tensors[rows].tolist(), chunk_numbers[rows].tolist(), strict=True)
        )
        documents = (draft.names, draft.specs) if number == 0 else None
        parts.append(writer.write(number, chunks, tensors[rows], chunk_numbers[rows], documents))
    return commit(draft, attempt, tuple(parts), numbers)


def commit(draft: Draft, attempt: Attempt, parts: tuple[Part, ...], numbers: Array) -> Written:
    """Write manifest and commit record; `numbers` is the part of each chunk."""
    manifest = draft.manifest("packed", parts, placement_of(numbers, first_chunks(draft.specs)))
    written = directory.commit(attempt, manifest, draft.digest.of(b""))  # [FRM-003]
    references = (part.chunks.length for part in parts if isinstance(part.chunks, PartReference))
    return Written(written.bytes + sum(part.size or 0 for part in parts) + sum(references), written.record)
