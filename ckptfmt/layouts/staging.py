"""The way of a chunk's bytes from its source to an object (SPEC.md section 6): through memory that nobody else has.

What is digested there is what is written, whatever another thread or process does to the source meanwhile. So a tensor
that changes while it is saved holds old and new values, and can always be read. [BLK-008]
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from zlib_ng import zlib_ng

from ..format.digests import Digest, Hasher
from ..format.dtypes import Array, bytes_of
from ..frameworks.sources import Buffers
from ..storage import ObjectWriter
from ..threads import Call, Pool

if TYPE_CHECKING:
    from .watch import ChunkWatch

STAGED = 4 << 20  # bytes of a piece, which is written at once
STEP = 512 << 10  # bytes copied and digested at a time: they stay in the processor's nearest cache
BEHIND = 2  # writes that may wait
WAITING = 4  # pieces that may wait to be looked at


class Checks:
    """The digests of a chunk's blocks, and its crc32 if that is wanted, of bytes that come in parts."""

    def __init__(self, digest: Digest, block: int, *, crc32: bool = True) -> None:
        self.crc32 = 0
        self._digest, self._block, self._wants_crc32 = digest, block, crc32
        self._ended: list[bytes] = []
        self._stream: Hasher = digest.stream()
        self._filled = 0  # bytes of the block that has begun

    def add(self, data: memoryview) -> None:
        if self._wants_crc32:
            self.crc32 = zlib_ng.crc32(data, self.crc32)
        while data:
            part = data[: self._block - self._filled]
            self._stream.update(part)
            self._filled, data = self._filled + len(part), data[len(part) :]
            if self._filled == self._block:
                self._ended.append(self._stream.digest())
                self._stream, self._filled = self._digest.stream(), 0

    def can_become(self, digests: bytes) -> bool:
        """Whether the blocks that have ended have the first of these digests."""
        return digests.startswith(b"".join(self._ended))

    @property
    def digests(self) -> bytes:
        """Of all blocks so far, one after another. [BLK-001]"""
        return b"".join([*self._ended, self._stream.digest()] if self._filled else self._ended)


def staged(parts: Iterable[Array], checks: Checks, buffers: Buffers) -> Iterator[Array]:
    """The bytes of `parts` (uint8), which others may change, in pieces of `STAGED` bytes, which nobody changes; the
    last may be shorter. `checks` are of the pieces, whose memory is used again when nobody looks at them."""
    piece, filled = buffers.take(STAGED), 0
    for part in parts:
        taken = 0
        while taken < part.size:
            if filled == STAGED:
                yield piece
                piece, filled = buffers.take(STAGED), 0
            step = min(STEP, part.size - taken, STAGED - filled)
            here = piece[filled : filled + step]
            np.copyto(here, part[taken : taken + step])
            checks.add(bytes_of(here))
            taken, filled = taken + step, filled + step
    if filled:
        yield piece[:filled]


def unchanged(parts: Iterable[Array], checks: Checks, _: Buffers) -> Iterator[Array]:
    """The same of parts whose memory nobody else has: they need no copy."""
    for part in parts:
        for start in range(0, part.size, STEP):
            checks.add(bytes_of(part[start : start + STEP]))
        yield part


def watched(pieces: Iterator[Array], watch: ChunkWatch | None) -> Iterator[Array]:
    """The pieces of a chunk, which `watch` looks at on another thread, while the caller goes on."""
    if watch is None:
        yield from pieces
        return
    waiting: deque[Call[None]] = deque()
    with Pool(1, "ckptfmt-watch") as pool:
        for piece in pieces:
            if len(waiting) == WAITING:
                waiting.popleft().result()
            waiting.append(pool.submit(watch.add, piece))
            yield piece
        for call in waiting:
            call.result()
    watch.end()


class WriteBehind:
    """Writes to an object in order on the one thread of `pool`, while the caller makes what comes next."""

    def __init__(self, out: ObjectWriter, pool: Pool) -> None:
        self._out, self._pool = out, pool
        self._waiting: deque[Call[None]] = deque()

    def write(self, offset: int, data: Any) -> None:
        """Have bytes written; raises what an earlier write raised."""
        if len(self._waiting) == BEHIND:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(self._out.write, offset, data))

    def wait(self) -> None:
        """Until all is written."""
        while self._waiting:
            self._waiting.popleft().result()
