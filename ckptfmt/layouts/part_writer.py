"""Writing the parts of layout `packed` (SPEC.md sections 7 and 9): packs and their part manifests. Two packs at a time,
as one thread cannot fill a file as fast as the system takes it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, NamedTuple

import msgpack
import numpy as np

from ..format.arrays import ArraySpec
from ..format.chunk_table import ChunkTable, encode_table
from ..format.digests import Digest
from ..format.dtypes import Array
from ..format.manifest import Part, PartReference
from ..format.zarr_nodes import node_members
from ..progress import Report
from ..storage import Attempt, ObjectWriter
from ..threads import Pool
from . import directory
from .encoding import Chunk
from .pack_writer import Changed, Ended, PackWriter

if TYPE_CHECKING:
    from .watch import ElementWatch

STREAMS = 2  # packs that are written at a time
STREAM_BYTES = 512 << 20  # a pack is not begun for less, only to have something to write beside another


class PartOrder(NamedTuple):
    """A part to be written: its number, the columns of its table, sorted [CHK-003], and what gives its rows' chunks.
    `documents`: names and specs of the node documents, in part 0, and the version that these say [LAY-005]."""

    number: int
    tensors: Array
    chunk_numbers: Array
    chunks: Callable[[], Iterator[Chunk]]
    room: int
    """Bytes to make room for on the disk beforehand."""
    documents: tuple[Sequence[str], Sequence[ArraySpec], tuple[int, int]] | None

    @property
    def object(self) -> str:
        return pack_name(self.number)


_Pack = tuple[Ended, ChunkTable]


class PartWriter:
    """Writes the parts of one process. The chunks of two orders are taken on two threads at once. `is_paged`: no part
    manifests are written, and the parts have their tables with them."""

    def __init__(
        self,
        attempt: Attempt,
        digest: Digest,
        block: int,
        report: Report,
        watch: ElementWatch | None = None,
        *,
        is_paged: bool = False,
    ) -> None:
        self._is_paged = is_paged
        self.attempt, self.digest, self.block, self.report, self.watch = attempt, digest, block, report, watch
        self._is_over = False  # a pack has failed, or the process is interrupted: the others need not go on

    def write(self, orders: Sequence[PartOrder]) -> list[Part]:
        """Write packs and part manifests."""
        outs = [self.attempt.create(order.object) for order in orders]
        with Pool(STREAMS, "ckptfmt-pack") as pool:
            calls = [pool.submit(self._write_pack, order, out) for order, out in zip(orders, outs, strict=True)]
            try:
                for call in calls:
                    call.wait()
            finally:
                self._is_over = True
        packs = [call.result() for call in calls]
        return [self._part(order, pack) for order, pack in zip(orders, packs, strict=True) if pack is not None]

    def _write_pack(self, order: PartOrder, out: ObjectWriter) -> _Pack | None:
        """None if another pack has failed."""
        try:
            with Pool(1, "ckptfmt-write") as pool:
                try:
                    return self._fill_pack(order, self._writer(out, pool))
                except Changed:
                    out.close()
                    out = self.attempt.create(order.object)
                    return self._fill_pack(order, self._writer(out, pool, holds=True))
        except BaseException:
            self._is_over = True
            raise

    def _writer(self, out: ObjectWriter, pool: Pool, *, holds: bool = False) -> PackWriter:
        return PackWriter(out, self.digest, self.block, pool, self.report, holds=holds, watch=self.watch)

    def _fill_pack(self, order: PartOrder, writer: PackWriter) -> _Pack | None:
        writer.out.reserve(order.room)
        if order.documents is not None:
            writer.add_documents(node_members(*order.documents))
        writer.add_chunks(takewhile(lambda _: not self._is_over, order.chunks()))
        return None if self._is_over else (writer.finish_pack(), writer.table())

    def _part(self, order: PartOrder, pack: _Pack) -> Part:
        (size, frame), table = pack
        if self._is_paged:
            return Part(order.object, table, size, frame)
        reference = put_table(self.attempt, order.number, table, order.tensors, order.chunk_numbers)
        return Part(order.object, reference, size, frame)


def put_table(attempt: Attempt, number: int, table: ChunkTable, tensors: Array, chunks: Array) -> PartReference:
    """Write the part manifest of a part; `tensors` and `chunks` are the first columns of its table. [CHK-006]"""
    raw = bytes(msgpack.packb(encode_table(table, tensors, chunks)))
    reference = PartReference(f"parts/{number:05d}.msgpack", len(raw), hashlib.sha256(raw).digest())
    directory.put(attempt, reference.path, raw)
    return reference


def pack_name(number: int) -> str:
    """[LAY-005]"""
    return f"packs/{number:05d}.zip"


def room_for(specs: Iterable[ArraySpec]) -> int:
    """Bytes of raw chunks, one of each of the tensors; how long others will be is not known."""
    return sum(spec.chunk_nbytes for spec in specs if spec.is_raw)


def part_numbers(sizes: Array, pack_bytes: int) -> Array:
    """For each chunk (bytes in `sizes`) of one writer, in order, the number of the pack it goes to, from 0 on: a new
    one where `pack_bytes` is passed, and for much data sooner, so that `STREAMS` packs are filled at a time."""
    total = int(sizes.sum())
    if total >= STREAMS * STREAM_BYTES:
        pack_bytes = min(pack_bytes, -(-total // STREAMS))
    before: Array = np.concatenate([[0], np.cumsum(sizes)[:-1]]) if len(sizes) else np.zeros(0)
    _, numbers = np.unique(before // pack_bytes, return_inverse=True)
    return numbers
