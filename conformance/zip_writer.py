"""ZIPs and the digests of what is in them, as SPEC.md sections 6 and 9 have them."""

from __future__ import annotations

import hashlib
import struct
import zlib
from typing import TYPE_CHECKING, NamedTuple

from . import xxh3

if TYPE_CHECKING:
    from .build import Checkpoint

Piece = bytes | int  # bytes, or a number of zeros that need no room on a disk
MAX16, MAX32 = 0xFFFF, 0xFFFFFFFF


def digest(name: str, data: bytes) -> bytes:
    """The digest of SPEC.md section 6."""
    if name == "sha256":
        return hashlib.sha256(data).digest()
    if name == "xxh3-128":
        return xxh3.digest(data)
    from blake3 import blake3  # needed only to make the few cases of that digest

    return bytes(blake3(data).digest())


def digests(name: str, data: bytes, block: int) -> bytes:
    """Those of the blocks of a chunk, one after another. [BLK-001]"""
    return b"".join(digest(name, data[start : start + block]) for start in range(0, len(data), block))


class Row(NamedTuple):
    """One row of the chunk table."""

    tensor: int
    chunk: int
    member: str
    data: bytes


class Zip:
    """A ZIP under construction. [PACK-001] to [PACK-005]"""

    def __init__(self, options: Checkpoint) -> None:
        self.options = options
        self.pieces: list[Piece] = []
        self.frame: list[Piece] = []
        self.entries: list[bytes] = []
        self.position = 0

    def chunks(self, rows: list[Row], order: list[int] | None) -> list[int]:
        """Add the members of all rows; their offsets, in the order of the rows."""
        offsets = [0] * len(rows)
        for at in order or range(len(rows)):
            self.skip(self.options.gap)
            offsets[at] = self.add(rows[at].member, rows[at].data, aligned=True, framed=False)
        for name, data in self.options.foreign:
            self.add(name, data)
        return offsets

    def add(self, name: str, data: bytes, *, aligned: bool = False, framed: bool = True, tail: int = 0) -> int:
        """Append a member; where its payload begins. `framed`: whether its bytes are part of the frame, of which the
        last `tail` ones are in any case."""
        raw, start, size = name.encode(), self.position, len(data)
        extra = b""
        if aligned:  # [PACK-002] [PACK-008]
            alignment = self.options.align[size >= 65536]
            plain = start + 30 + len(raw)
            room = -(plain + 6) % alignment + 2
            extra = struct.pack("<3H", 0xD935, room, alignment) + bytes(room - 2)
        crc = zlib.crc32(data)
        self._append(
            struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 33, crc, size, size, len(raw), len(extra)) + raw + extra
        )
        payload = self.position
        self._append(data[: size - tail], framed=framed)
        self._append(data[size - tail :])
        if not self.options.directory:
            start, size, crc = 0, 0, 0
        extra, needed, start32 = b"", 20, start
        if start >= MAX32:  # [PACK-003] [PACK-009]
            extra, needed, start32 = struct.pack("<2HQ", 1, 8, start), 45, MAX32
        head = struct.pack("<4s6H3I2H", b"PK\1\2", 0x0314, needed, 0, 0, 0, 33, crc, size, size, len(raw), len(extra))
        self.entries.append(head + struct.pack("<3H2I", 0, 0, 0, 0o100644 << 16, start32) + raw + extra)
        return payload

    def skip(self, zeros: int) -> None:
        """Zeros that belong to no member."""
        if zeros:
            self.pieces.append(zeros)
            self.frame.append(zeros)
            self.position += zeros

    def finish(self, comment: int) -> None:
        """Central directory and end records, but for a comment of that length."""
        start, count = self.position, len(self.entries)
        self._append(b"".join(self.entries))
        size = self.position - start
        if count >= MAX16 or start >= MAX32:
            end64 = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 0x0314, 45, 0, 0, count, count, size, start)
            self._append(end64 + struct.pack("<4sIQI", b"PK\6\7", 0, start + size, 1))
        counts = (min(count, MAX16),) * 2
        self._append(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, *counts, size, min(start, MAX32), comment))

    def frame_digest(self, name: str) -> bytes:
        """[FRM-001] [FRM-003]"""
        if all(isinstance(piece, bytes) for piece in self.frame):
            return digest(name, b"".join(piece for piece in self.frame if isinstance(piece, bytes)))
        hasher = hashlib.sha256()
        for piece in self.frame:
            if isinstance(piece, bytes):
                hasher.update(piece)
                continue
            for done in range(0, piece, 1 << 20):
                hasher.update(bytes(min(1 << 20, piece - done)))
        return hasher.digest()

    def _append(self, data: bytes, *, framed: bool = True) -> None:
        self.pieces.append(data)
        self.position += len(data)
        if framed:
            self.frame.append(data)
