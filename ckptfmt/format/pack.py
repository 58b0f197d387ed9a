"""ZIP framing (SPEC.md section 9): local headers, central directory and end records, down to the byte. Pure.

Members are STORED, so a chunk's payload is its stored bytes, and aligned, so it can be mapped. Headers are canonical:
nothing in them depends on clock, machine or umask. [PACK-005]

There may be millions of members, so their headers are made for many at a time, column by column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import repeat
from struct import Struct
from typing import Any, NamedTuple, Self

import numpy as np

from .dtypes import Array

_LOCAL = Struct("<4s5H3I2H")
_CENTRAL = Struct("<4s6H3I5H2I")
_COMMON = {  # the fields that a local header and a central entry have in common, and their types
    **dict.fromkeys(("needed", "flags", "method", "time", "date"), "<u2"),
    **dict.fromkeys(("crc32", "stored", "size"), "<u4"),
    **dict.fromkeys(("name", "extra"), "<u2"),
}
_LOCALS = np.dtype([("signature", "S4"), *_COMMON.items()])
_CENTRALS = np.dtype(
    [
        ("signature", "S4"),
        ("made", "<u2"),
        *_COMMON.items(),
        ("comment", "<u2"),
        ("disk", "<u2"),
        ("internal", "<u2"),
        ("mode", "<u4"),
        ("offset", "<u4"),
    ]
)
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


class Members:
    """Members of a pack, of which there may be millions: a list for each field, as so many tuples would have Python
    look for cycles among them again and again."""

    def __init__(self, members: Iterable[Member] = ()) -> None:
        self.columns: tuple[list[Any], ...] = ([], [], [], [], [])
        for member in members:
            self.append(member)

    def __len__(self) -> int:
        return len(self.columns[0])

    def __iter__(self) -> Iterator[Member]:
        return map(Member._make, zip(*self.columns, strict=True))

    @property
    def payloads(self) -> list[int]:
        return self.columns[2]

    @property
    def sizes(self) -> list[int]:
        return self.columns[3]

    @property
    def end(self) -> int:
        """The byte after the last."""
        return self.payloads[-1] + self.sizes[-1]

    def append(self, member: Member) -> None:
        for column, value in zip(self.columns, member, strict=True):
            column.append(value)

    def extend(self, *columns: Iterable[Any]) -> Self:
        """Add many, column by column."""
        for column, values in zip(self.columns, columns, strict=True):
            column.extend(values)
        return self


def place(name: bytes, offset: int, size: int, crc32: int = 0, *, aligned: bool) -> Member:
    """Lay a member of `size` bytes out at `offset`; its place does not depend on its crc32."""
    plain = offset + _LOCAL.size + len(name) + (20 if size >= _MAX32 else 0)
    if not aligned:
        return Member(name, offset, plain, size, crc32)
    alignment = LARGE_ALIGNMENT if size >= LARGE else SMALL_ALIGNMENT  # [PACK-002]
    return Member(name, offset, (plain + 6 + alignment - 1) & -alignment, size, crc32)


def place_all(
    names: Sequence[bytes], offset: int, sizes: Sequence[int], crc32s: Sequence[int], *, aligned: bool
) -> Members:
    """Lay many members of less than `LARGE` bytes out, one after another from `offset` on."""
    lengths = np.fromiter(map(len, names), np.int64, len(names))
    bodies = np.array(sizes, np.int64)
    steps = bodies[:-1] + lengths[1:] + _LOCAL.size  # from payload to payload
    first = place(names[0], offset, sizes[0], aligned=aligned).payload
    if aligned:  # as each payload lies on a multiple, so do all sums of what is between them
        steps = (steps + 6 + SMALL_ALIGNMENT - 1) & -SMALL_ALIGNMENT
    payloads = np.concatenate([[first], first + np.cumsum(steps)])
    ends = payloads + bodies
    offsets = [offset, *ends[:-1].tolist()]
    return Members().extend(names, offsets, payloads.tolist(), sizes, crc32s)


def local_headers(members: Members) -> list[bytes]:
    """For each member the bytes from its `offset` to its `payload`."""
    names, offsets, payloads, sizes, crc32s = members.columns
    lengths = np.fromiter(map(len, names), np.int64, len(names))
    gaps = np.array(payloads, np.int64) - np.array(offsets, np.int64) - lengths - _LOCAL.size
    fixed = _fixed(_LOCALS, b"PK\3\4", np.array(sizes, np.int64), crc32s, lengths, gaps)
    extras = map(_local_extra, sizes if max(sizes) >= LARGE else repeat(0), gaps.tolist())
    return _joined(fixed, names, extras)


@lru_cache(maxsize=256)
def _local_extra(size: int, gap: int) -> bytes:
    """What fills a header of a member of a size (0 for any small one) up to its payload."""
    extra = Struct("<2H2Q").pack(1, 16, size, size) if size >= _MAX32 else b""  # [PACK-003]
    if gap <= len(extra):
        return extra
    room = gap - len(extra) - 4
    alignment = LARGE_ALIGNMENT if size >= LARGE else SMALL_ALIGNMENT
    return extra + _ALIGNMENT.pack(_ALIGNMENT_ID, room, alignment) + _ZEROS[: room - 2]


def local_header(member: Member) -> bytes:
    return local_headers(Members([member]))[0]


def central_entries(members: Members) -> list[bytes]:
    """The members' entries in the central directory."""
    names, offsets, _, sizes, crc32s = members.columns
    lengths = np.fromiter(map(len, names), np.int64, len(names))
    places, bodies = np.array(offsets, np.int64), np.array(sizes, np.int64)
    is_large = (places >= _MAX32) | (bodies >= _MAX32)
    extras = [b""] * len(members)
    for row in np.flatnonzero(is_large).tolist():
        large = [value for value in (sizes[row], sizes[row], offsets[row]) if value >= _MAX32]
        extras[row] = Struct(f"<2H{len(large)}Q").pack(1, 8 * len(large), *large)  # [PACK-003]
    extra_lengths = np.fromiter(map(len, extras), np.int64, len(extras)) if is_large.any() else np.zeros_like(lengths)
    fixed = _fixed(_CENTRALS, b"PK\1\2", bodies, crc32s, lengths, extra_lengths)
    fixed["needed"][is_large] = 45
    fixed["made"], fixed["mode"], fixed["offset"] = 0x0314, _MODE, np.minimum(places, _MAX32)
    return _joined(fixed, names, extras)


def central_entry(member: Member) -> bytes:
    return central_entries(Members([member]))[0]


def _fixed(dtype: Any, signature: bytes, sizes: Array, crc32s: Sequence[int], names: Array, extras: Array) -> Array:
    """The fields of fixed width that local headers and central entries have in common; `names` and `extras` are the
    lengths of what follows."""
    fixed = np.zeros(len(sizes), dtype)
    fixed["signature"], fixed["date"], fixed["crc32"] = signature, _DATE_1980, crc32s
    fixed["needed"] = np.where(sizes >= _MAX32, 45, 20)
    fixed["stored"] = fixed["size"] = np.minimum(sizes, _MAX32)
    fixed["name"], fixed["extra"] = names, extras
    return fixed


def _joined(fixed: Array, names: Sequence[bytes], extras: Any) -> list[bytes]:
    raw, size = fixed.tobytes(), fixed.dtype.itemsize
    starts = range(0, len(raw), size)
    return [raw[at : at + size] + name + extra for at, name, extra in zip(starts, names, extras)]  # noqa: B905


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


def directory(members: Members, comment_length: int) -> bytes:
    """Central directory and end records that follow the last member, up to the comment."""
    entries = central_entries(members)
    entries_size = sum(map(len, entries))
    return b"".join((*entries, end_records(len(entries), members.end, entries_size, comment_length)))


class CentralEntry(NamedTuple):
    """What the central directory says of a member."""

    name: bytes
    offset: int
    size: int
    crc32: int


def entries(read: Callable[[int, int], bytes], size: int, comment_length: int) -> Iterator[CentralEntry]:
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
        yield CentralEntry(bytes(directory[begin : begin + name_length]), offset, member_size, crc32)
        position = end + comment
