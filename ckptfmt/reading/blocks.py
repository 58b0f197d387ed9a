"""Stored bytes of chunks, verified block by block (SPEC.md sections 6 and 12).

A read is cut into jobs of one block (verified) or a few (not verified), which may run on several threads. Bytes go
straight into the destination and are checked there; what of a block is not wanted passes through a small buffer.
Nothing else is read.
"""

from __future__ import annotations

from _thread import RLock
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from itertools import chain, count, islice
from time import monotonic
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import CkptError, fault
from ..format.chunk_table import Extent
from ..format.digests import Digest, digest_named
from ..format.dtypes import bytes_of
from ..format.limits import DEFAULT, Limits
from ..format.manifest import Manifest
from ..format.names import Path, path_label
from ..layouts import chunk_object
from ..layouts.chunk_index import ChunkIndex
from ..storage import IN_FLIGHT, Storage
from ..tuples import NamedTuple

if TYPE_CHECKING:
    from ..threads import Call
    from .pace import Pace

UNVERIFIED = 16 << 20  # bytes of one read without verification
SCRAP = 256 << 10  # bytes that are read at a time to be digested and forgotten
UNCHECKED = 16 << 20  # bytes of memory for which nobody looks whether as much is stored
TOGETHER = 8 << 20  # most bytes that neighbouring chunks are read in at once
CHUNKS = 1 << 16  # chunks looked up at a time
NOTHING = memoryview(b"")

ReadJob = Callable[[], None]
Runner = Callable[[list[ReadJob]], None]


def in_turn(jobs: list[ReadJob]) -> None:
    """Run jobs on this thread."""
    for job in jobs:
        job()


def run(jobs: list[ReadJob], threads: int, pace: Pace | None = None) -> None:
    """Run jobs, on several threads if there is more than one, this one among them, and on no more than a `pace` says;
    the first failure in order is raised, after all have ended. By hand, as importing the library's pools takes longer
    than most small reads."""
    if len(jobs) <= 1:
        in_turn(jobs)
        return
    if pace is not None and len(jobs) <= pace.threads:  # too few to tell what more threads would do
        threads, pace = min(threads, pace.threads), None
    _Running(jobs, threads, pace).finish()


class _Running:
    """Jobs that several threads do."""

    def __init__(self, jobs: list[ReadJob], threads: int, pace: Pace | None) -> None:
        self.threads, self.pace = min(threads, len(jobs)), pace
        self.pending = deque(enumerate(jobs))
        self.failures: dict[int, BaseException] = {}
        self.helpers: list[Call[None]] = []
        self.numbers = count(1)  # of the helpers

    def finish(self) -> None:
        try:
            self.begin()
            self.work(0)
        except BaseException as error:  # an interrupt, which ends the others after the jobs that they have begun
            self.failures[-1] = error
        for helper in self.helpers:  # also those that one of them begins meanwhile
            helper.wait()
        if self.failures:  # jobs begin in order, so every earlier one that fails is here too
            raise self.failures[min(self.failures)]

    def most(self) -> int:
        """Threads that there are to be."""
        return min(self.threads, self.pace.threads) if self.pace else self.threads

    def begin(self) -> None:
        from ..threads import Call, start_thread  # here, as reading a slice needs none

        while len(self.helpers) < self.most() - 1:
            helper = Call(self.work, next(self.numbers))
            if not start_thread("ckptfmt-read", helper.make):  # there are no more, so those that there are do it all
                break
            self.helpers.append(helper)

    def work(self, number: int) -> None:
        while self.pending and not self.failures and number < self.most():
            try:
                place, job = self.pending.popleft()
            except IndexError:  # another thread took the last one
                return
            begun = monotonic()
            try:
                job()
            except BaseException as error:
                self.failures[place] = error
                return
            if self.pace and self.pending and self.pace.ended(begun, self.threads):
                self.begin()


def _cut(start: int, stop: int, size: int) -> Iterator[tuple[int, int]]:
    """A range in pieces of at most `size`."""
    return ((at, min(at + size, stop)) for at in range(start, stop, size))


class ChunkPlace(NamedTuple):
    """One chunk: which it is, the object that holds it, and where."""

    tensor: int
    chunk: int
    object: str
    extent: Extent


class Count:
    """A number to which several threads add."""

    def __init__(self) -> None:
        self.value: int = 0
        self._adding = RLock()  # which a signal handler may need, too

    def add(self, number: int) -> None:
        with self._adding:
            self.value += number


class BlockReader:
    """Reads the chunks of one checkpoint. `path_of(tensor)` gives the first path at which a tensor stands.

    May be used from several threads. What one load says of its reads (`on_read`, `in_flight`) belongs to the reader of
    that load, which `for_load` gives.
    """

    def __init__(
        self, storage: Storage, manifest: Manifest, path_of: Callable[[int], Path], limits: Limits = DEFAULT
    ) -> None:
        self.storage: Storage = storage
        self.manifest: Manifest = manifest
        self.path_of: Callable[[int], Path] = path_of
        self.limits: Limits = limits
        self.index: ChunkIndex = ChunkIndex(storage, manifest, limits)
        self.total: Count = Count()  # bytes read, by all loads
        self.on_read: Callable[[int], None] | None = None  # told the bytes of each read, from any thread
        self.digest: Digest = digest_named(manifest.digest)
        self.in_flight = IN_FLIGHT  # bytes of memory for what comes over a network, beside its destination
        self._pace: Pace | None = None  # once many requests were made of a store

    def for_load(self, in_flight: int) -> BlockReader:
        """A reader of the same chunks for one load."""
        import copy  # here, as reading a slice needs none

        other = copy.copy(self)
        other.in_flight, other.on_read, other._pace = in_flight, None, None
        return other

    def describe(self, tensor: int) -> str:
        """The label of a tensor's path, for messages."""
        return path_label(self.path_of(tensor))

    def place(self, tensor: int, chunk: int) -> ChunkPlace:
        """Where a chunk lies."""
        try:
            part, table, row = self.index.find(tensor, chunk)
        except CkptError as error:
            raise self._blamed(error, tensor, chunk) from None
        name = part.object
        if name is None:
            name = chunk_object(self.manifest.names[tensor], self.manifest.specs[tensor], chunk)
        return ChunkPlace(tensor, chunk, name, table.extent(row))

    def prepare(self, wanted: Iterable[tuple[int, Iterable[int]]]) -> None:
        """Over a network, load what says where chunks (of tensor, chunks) are, many parts at a time; of the first
        chunks, as a manifest may claim any number. What fails, and the rest, comes up where it is used. [LIM-003]"""
        if not self.storage.is_remote or self.manifest.pages is not None or len(self.manifest.parts) == 1:
            return
        firsts = self.manifest.first_chunks
        with suppress(CkptError):
            numbers = (firsts[tensor] + chunk for tensor, chunks in wanted for chunk in chunks)
            self.index.load(np.fromiter(islice(numbers, CHUNKS), np.int64))

    def stored_bytes(self, tensor: int) -> int:
        """Bytes of a tensor's chunks on storage."""
        if self.manifest.pages is not None:
            _, table, row = self.manifest.pages.place(tensor, 0)
            return sum(table.lengths[row : row + self.manifest.specs[tensor].chunks])
        first, last = self.manifest.first_chunks[tensor : tensor + 2]
        total = 0
        for start in range(first, last, CHUNKS):  # which are there: each is in a table that is loaded
            found = self.index.find_all(np.arange(start, min(start + CHUNKS, last)))
            total += sum(int(table.length[rows].sum()) for _, table, rows, _ in found)
        return total

    def admit(self, wanted: Iterable[tuple[int, int, Iterable[int]]]) -> None:
        """Refuse a read for whose memory too little is stored, before any is allocated [LIM-003] [LIM-008]; `wanted`:
        tensor, bytes of its elements, and the chunks that they are in."""
        in_file = self.manifest.layout == "file"  # where extents were compared with the file when it was opened
        total = decoded = stored = largest = 0
        sizes: dict[str, int] = {}
        for tensor, nbytes, chunks in wanted:
            total += nbytes
            is_raw = self.manifest.specs[tensor].is_raw
            if is_raw and (in_file or total <= UNCHECKED):
                continue
            for chunk in chunks:
                place = self.place(tensor, chunk)
                stored += 0 if is_raw else place.extent.length
                if not in_file:
                    self._check_object(place, sizes)
            if not is_raw:
                decoded, largest = decoded + nbytes, max(largest, self.manifest.specs[tensor].chunk_nbytes)
        decoded += min(decoded, largest * self.storage.most_readers)  # what is decoded before it comes into its place
        if decoded > UNCHECKED:
            self.limits.check_expansion(decoded, stored)

    def admit_chunk(self, place: ChunkPlace) -> None:
        """The same for a chunk that is read and decoded whole."""
        spec = self.manifest.specs[place.tensor]
        if max(place.extent.length, 0 if spec.is_raw else spec.chunk_nbytes) <= UNCHECKED:
            return
        try:
            if self.manifest.layout != "file":
                self._check_object(place, {})
            if not spec.is_raw:
                self.limits.check_expansion(spec.chunk_nbytes, place.extent.length)
        except CkptError as error:
            self._blame(error, place)
            raise

    def _check_object(self, place: ChunkPlace, sizes: dict[str, int]) -> None:
        """Refuse a chunk that its object is too short for; `sizes` are those that are known. [READ-005]"""
        try:
            if place.object not in sizes:
                sizes[place.object] = self.storage.size(place.object)
            size = sizes[place.object]
            if size < place.extent.offset + place.extent.length:
                raise fault("short-object", f"{place.object} ends at byte {size:,}", offset=size)
        except CkptError as error:
            self._blame(error, place)
            raise

    def read(self, name: str, offset: int, out: memoryview) -> None:
        """Fill `out` from an object, unverified, and count the bytes."""
        self.storage.read_into(name, offset, out)
        self.count(len(out))

    def count(self, nbytes: int) -> None:
        """Count bytes as read."""
        self.total.add(nbytes)
        if self.on_read is not None:
            self.on_read(nbytes)

    def map(self, place: ChunkPlace) -> memoryview:
        """The object that holds a chunk, mapped."""
        try:
            return self.storage.map(place.object)
        except CkptError as error:
            self._blame(error, place)
            raise

    def chunk(self, place: ChunkPlace, verify: bool, run: Runner | None = None) -> memoryview:
        """All stored bytes of a chunk, by several threads unless `run` says otherwise."""
        self.admit_chunk(place)
        out = bytes_of(np.empty(place.extent.length, np.uint8))
        (run or self.run)(list(self.jobs(place, 0, out, verify)))
        return out

    def run(self, jobs: list[ReadJob], each: int = 0) -> None:
        """Run jobs, as many at a time as the storage likes, and over a network as `in_flight` has room for: each takes
        `each` bytes beside its destination, and what a request holds."""
        storage = self.storage
        if not storage.is_remote:
            run(jobs, storage.readers)
            return
        from .pace import Pace  # here, as a disk needs none

        held = min(each, self._span) if storage.held is None else storage.held
        taken = max(each + held, self._span if storage.held is None else 0)
        self._pace = self._pace or Pace(storage.readers, storage.most_readers)
        run(jobs, max(1, min(storage.most_readers, self.in_flight // taken)), self._pace)

    @property
    def _span(self) -> int:
        """Bytes of one request, at least a block: fewer where memory holds all of it, and `in_flight` has no room for
        as many of them as are best made at a time."""
        storage = self.storage
        if storage.held is not None:
            return storage.span
        return min(storage.span, max(self.manifest.block, self.in_flight // storage.readers))

    def jobs(self, place: ChunkPlace, low: int, out: memoryview, verify: bool) -> Iterator[ReadJob]:
        """Jobs that fill `out` with the stored bytes of a chunk from byte `low` on."""
        high = low + len(out)
        if not verify:
            size = self._span if self.storage.is_remote else UNVERIFIED
            for start in range(low, high, size):
                yield partial(self._read_exactly, place, start, out[start - low : start - low + size])
            return
        block = self.manifest.block
        group = max(1, self._span // block)
        for first in range(low // block, -(-high // block), group):
            yield partial(self._read_blocks, place, range(first, min(first + group, -(-high // block))), low, out)

    def _read_exactly(self, place: ChunkPlace, start: int, out: memoryview) -> None:
        try:
            self.read(place.object, place.extent.offset + start, out)
        except CkptError as error:
            self._blame(error, place)
            raise

    def _read_blocks(self, place: ChunkPlace, numbers: range, low: int, out: memoryview) -> None:
        """Read and check consecutive blocks, in one request where they are wanted whole."""
        block = self.manifest.block
        start, stop = numbers.start * block, min(numbers.stop * block, place.extent.length)
        try:
            if len(numbers) > 1 and low <= start and stop <= low + len(out):
                self.read(place.object, place.extent.offset + start, out[start - low : stop - low])
                for number in numbers:
                    piece = out[number * block - low : min((number + 1) * block, stop) - low]
                    self.check(place, number, self.digest.of(piece))
                return
            for number in numbers:
                self.read_block(place, number, low, out)
        except CkptError as error:
            self._blame(error, place)
            raise

    def read_block(self, place: ChunkPlace, number: int, low: int = 0, out: memoryview = NOTHING) -> None:
        """Read and check a block, and keep what of it lies in `out`, which begins at byte `low` of the chunk: what is
        wanted goes straight there, the rest through a small buffer."""
        begin = number * self.manifest.block
        end = min(begin + self.manifest.block, place.extent.length)
        high = low + len(out)
        span = self.storage.span
        pieces: Iterable[tuple[int, int]]
        if span >= end - begin:
            pieces, size = [(begin, end)], end - begin
        else:  # what is wanted apart, and the rest so that it stays in the processor's cache
            first, last = max(low, begin), min(high, end)
            wanted = (first, last) if first < last else (begin, begin)
            pieces = chain(_cut(begin, wanted[0], SCRAP), _cut(*wanted, span), _cut(wanted[1], end, SCRAP))
            size = SCRAP
        hasher, buffer = self.digest.stream(), NOTHING
        for start, stop in pieces:
            if low <= start and stop <= high:
                piece = out[start - low : stop - low]
            else:
                buffer = buffer or memoryview(bytearray(size))
                piece = buffer[: stop - start]
            self.read(place.object, place.extent.offset + start, piece)
            hasher.update(piece)
            first, last = max(start, low), min(stop, high)
            if first < last and last - first < stop - start:
                out[first - low : last - low] = piece[first - start : last - start]
        self.check(place, number, hasher.digest())

    def pieces(self, place: ChunkPlace, number: int, size: int) -> Iterator[memoryview]:
        """The bytes of a block in pieces of `size`, or in one where that is a request, each valid until the next is
        taken. A damaged block raises after the last: what is made of the pieces is not to be used before the end."""
        begin = number * self.manifest.block
        end = min(begin + self.manifest.block, place.extent.length)
        size = min(end - begin, max(size, self.storage.span if self.storage.is_remote else 0))
        hasher, buffer = self.digest.stream(), memoryview(bytearray(size))
        try:
            for start, stop in _cut(begin, end, size):
                piece = buffer[: stop - start]
                self.read(place.object, place.extent.offset + start, piece)
                hasher.update(piece)
                yield piece
        except CkptError as error:
            self._blame(error, place)
            raise
        self.check(place, number, hasher.digest())

    def together(self, places: list[ChunkPlace]) -> list[memoryview | None]:
        """The stored bytes of neighbouring chunks, read at once and not verified; None for each where they are no such
        chunks."""
        start = min(place.extent.offset for place in places)
        stop = max(place.extent.offset + place.extent.length for place in places)
        is_apart = stop - start > TOGETHER or len({place.object for place in places}) > 1
        if len(places) == 1 or is_apart:
            return [None] * len(places)
        data = memoryview(bytearray(stop - start))
        self.read(places[0].object, start, data)
        extents = [(place.extent.offset - start, place.extent.length) for place in places]
        return [data[offset : offset + length] for offset, length in extents]

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
            object=place.object,
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
        if error.object is None:
            error.object = place.object
        self._blamed(error, place.tensor, place.chunk)

    def _blamed(self, error: CkptError, tensor: int, chunk: int) -> CkptError:
        """The error, which now says which tensor it is about."""
        error.path = error.path or self.storage.path
        if error.tensor is None:
            error.tensor, error.chunk = self.describe(tensor), chunk
            error.message = f"tensor {error.tensor!r}, chunk {chunk}: {error.message}"
        return error
