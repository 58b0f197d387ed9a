"""Where the ZIP framing of an object differs from that of a canonical writer (SPEC.md sections 7.2 and 9): its members
are laid out once more, one after another, and what stands around them is compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from zlib_ng import zlib_ng

from ..format import pack
from ..format.chunks import PIECE
from ..storage import Storage
from . import first_difference
from .pack_writer import documents

Differences = Iterator[tuple[str, int, str]]


class Framing:
    """The framing of an `object`. `damaged`: objects and offsets of what is damaged there: the crc32 of a member with
    such bytes cannot be computed, and that of its header is believed."""

    def __init__(self, storage: Storage, object: str, damaged: Iterable[tuple[str, int]]) -> None:
        self._storage, self._object = storage, object
        self._damaged = [offset for place, offset in damaged if place == object]
        self._members = pack.Members()
        self._expected: list[tuple[int, bytes, str]] = []
        self._is_canonical = True
        self.end = 0

    def add_documents(self, found: Iterable[tuple[str, bytes]]) -> None:
        """The node documents (member name, text), which come first."""
        texts = b"".join(chain.from_iterable(documents(found, self._members)))
        if texts:
            self._expected.append((0, texts, "a node document"))
            self.end = self._members.end

    def add(self, name: str, payload: int, size: int, *, is_aligned: bool = True, padding: int = 0) -> None:
        """The next member, whose bytes lie at `payload`; the last of them are `padding`, which is of the frame."""
        member = pack.place(name.encode(), self.end, size, aligned=is_aligned)
        if member.payload != payload:
            self._is_canonical = False
        if not self._is_canonical:
            return
        member = member._replace(crc32=self._crc32(member))
        self._members.append(member)
        self._expected.append((member.offset, pack.local_header(member), f"the ZIP header of {name}"))
        if padding:
            self._expected.append((member.end - padding, bytes(padding), f"what follows the last row of {name}"))
        self.end = member.end

    def differences(self, end: int, comment: int = 0) -> Differences:
        """(object, offset, what) of each place that differs; nothing if it was written in another legal way. The ZIP
        directory ends at `end`, before a comment of so many bytes."""
        directory = pack.directory(self._members, comment) if self._is_canonical and len(self._members) else b""
        if not directory or self.end + len(directory) != end:
            return
        for offset, expected, what in [*self._expected, (self.end, directory, "the ZIP directory")]:
            found = self._storage.read(self._object, offset, len(expected))
            if found != expected:
                at = offset + first_difference(found, expected)
                yield self._object, at, f"{what} changed at byte {at:,}"

    def _crc32(self, member: pack.Member) -> int:
        if any(member.payload <= offset < member.end for offset in self._damaged):
            return int.from_bytes(self._storage.read(self._object, member.offset + pack.CRC32_AT, 4), "little")
        crc = 0
        for start in range(0, member.size, PIECE):
            size = min(PIECE, member.size - start)
            crc = zlib_ng.crc32(self._storage.read(self._object, member.payload + start, size), crc)
        return crc
