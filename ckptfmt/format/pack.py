"""ZIP framing (SPEC.md section 9): local headers, central directory and end records, down to the byte. Pure.

Members are STORED, so a chunk's payload is its stored bytes, and aligned, so it can be mapped. Headers are canonical:
nothing in them depends on clock, machine or umask. [PACK-005]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from struct import Struct
from typing import NamedTuple

_LOCAL = Struct("<4s5H3I2H")
_CENTRAL = Struct("<4s6H3I5H2I")
_ALIGNMENT = Struct("<3H")
_END = Struct("<4s4H2IH")
_END64 = Struct("<4sQ2H2I4Q")
_LOCATOR64 = Struct("<4sIQI")
_DATE_1980 = 0x0021
_MODE = 0o100644 << 16
_MAX32 = 0xFFFFFFFF
_MAX16 = 0xFFFF
_ALIGNMENT_ID = 0xD935  # [PACK-002]; also what Android's zipalign writes

SMALL_ALIGNMENT = 64
LARGE_ALIGNMENT = 4096
LARGE = 65536
CRC32_AT = 14  # of a local header

_ZEROS = bytes(LARGE_ALIGNMENT + SMALL_ALIGNMENT)


class Member(NamedTuple):
    """One member: `offset` of its local header, `payload` of its first byte, in bytes from the start of the pack."""

    name: bytes
    offset: int
    payload: int
    size: int
    crc32: int

    @property
    def end(self) -> int:
        return self.payload + self.size


def place(name: bytes, offset: int, size: int, crc32: int = 0, *, aligned: bool) -> Member:
    """Lay a member of `size` bytes out at `offset`; its place does not depend on its crc32."""
    plain = offset + _LOCAL.size + len(name) + (20 if size >= _MAX32 else 0)
    if not aligned:
        return Member(name, offset, plain, size, crc32)
    alignment = LARGE_ALIGNMENT if size >= LARGE else SMALL_ALIGNMENT  # [PACK-002]
    return Member(name, offset, (plain + 6 + alignment - 1) & -alignment, size, crc32)


def local_header(member: Member) -> bytes:
    """The bytes from `member.offset` to `member.payload`."""
    name, offset, payload, size, crc32 = member
    gap = payload - offset - _LOCAL.size - len(name)
    extra, needed, size32 = b"", 20, size
    if size >= _MAX32:
        extra, needed, size32 = Struct("<2H2Q").pack(1, 16, size, size), 45, _MAX32  # [PACK-003]
    if gap > len(extra):
        room = gap - len(extra) - 4
        alignment = LARGE_ALIGNMENT if size >= LARGE else SMALL_ALIGNMENT
        extra += _ALIGNMENT.pack(_ALIGNMENT_ID, room, alignment) + _ZEROS[: room - 2]
    return _LOCAL.pack(b"PK\3\4", needed, 0, 0, 0, _DATE_1980, crc32, size32, size32, len(name), gap) + name + extra


def central_entry(member: Member) -> bytes:
    """The member's entry in the central directory."""
    name, offset, _, size, crc32 = member
    extra, needed, size32, offset32 = b"", 20, size, offset
    if size >= _MAX32 or offset >= _MAX32:
        large = [value for value in (size, size, offset) if value >= _MAX32]
        extra, needed = Struct(f"<2H{len(large)}Q").pack(1, 8 * len(large), *large), 45  # [PACK-003]
        size32, offset32 = min(size, _MAX32), min(offset, _MAX32)
    sizes = (crc32, size32, size32, len(name), len(extra))
    fixed = _CENTRAL.pack(b"PK\1\2", 0x0314, needed, 0, 0, 0, _DATE_1980, *sizes, 0, 0, 0, _MODE, offset32)
    return fixed + name + extra


def end_records(count: int, directory: int, directory_size: int, comment_length: int) -> bytes:
    """What follows a central directory of `count` entries at offset `directory`, up to the comment."""
    records = b""
    if count >= _MAX16 or directory >= _MAX32 or directory_size >= _MAX32:  # [PACK-003]
        records = _END64.pack(b"PK\6\6", 44, 0x0314, 45, 0, 0, count, count, directory_size, directory)
        records += _LOCATOR64.pack(b"PK\6\7", 0, directory + directory_size, 1)
    count16 = min(count, _MAX16)
    return records + _END.pack(
        b"PK\5\6", 0, 0, count16, count16, min(directory_size, _MAX32), min(directory, _MAX32), comment_length
    )


def directory(members: Sequence[Member], comment_length: int) -> bytes:
    """Central directory and end records that follow the last member, up to the comment."""
    entries = [central_entry(member) for member in members]
    entries_size = sum(map(len, entries))
    return b"".join((*entries, end_records(len(entries), members[-1].end, entries_size, comment_length)))


class Entry(NamedTuple):
    """What the central directory says of a member."""

    name: bytes
    offset: int
    size: int
    crc32: int


def entries(read: Callable[[int, int], bytes], size: int, comment_length: int) -> Iterator[Entry]:
    """The entries of the central directory of a pack of `size` bytes; `read(offset, length)` gives its bytes. Raises
    ValueError, or struct.error, if it is none."""
    at = size - comment_length - _END.size
    _, _, _, _, count, length, start, _ = _END.unpack(read(at, _END.size))
    if count == _MAX16 or _MAX32 in (length, start):
        _, _, at64, _ = _LOCATOR64.unpack(read(at - _LOCATOR64.size, _LOCATOR64.size))
        *_, count, length, start = _END64.unpack(read(at64, _END64.size))
    directory = memoryview(read(start, length))
    position = 0
    for _ in range(count):
        signature, *fields = _CENTRAL.unpack_from(directory, position)
        crc32, _, member_size, name_length, extra_length, comment = fields[6:12]
        if signature != b"PK\1\2":
            raise ValueError("no entry of a central directory")
        begin = position + _CENTRAL.size
        end = begin + name_length + extra_length
        extra, offset = directory[begin + name_length : end], fields[-1]
        large = iter(Struct(f"<{len(extra) // 8}Q").unpack_from(extra, 4) if bytes(extra[:2]) == b"\1\0" else ())
        if member_size == _MAX32:
            member_size, _ = next(large, 0), next(large, 0)
        if offset == _MAX32:
            offset = next(large, 0)
        yield Entry(bytes(directory[begin : begin + name_length]), offset, member_size, crc32)
        position = end + comment
