"""ZIP framing (SPEC.md section 9), read back by the standard library and byte by byte."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt.format import pack
from ckptfmt.format.pack import Member, Members, central_entry, end_records, local_header, place

GiB = 1 << 30


def archive(members: list[tuple[bytes, bytes, bool]], comment: bytes = b"") -> tuple[bytes, list[Member]]:
    """A whole archive of (name, payload, aligned)."""
    data, placed, directory = b"", [], b""
    for name, payload, aligned in members:
        member = place(name, len(data), len(payload), zlib.crc32(payload), aligned=aligned)
        data += local_header(member) + payload
        assert len(data) == member.end
        directory += central_entry(member)
        placed.append(member)
    end = end_records(len(members), len(data), len(directory), len(comment))
    return data + directory + end + comment, placed


NAMES = st.text("abcdefgh/._-~", min_size=1, max_size=40).map(str.encode)
MEMBERS = st.lists(st.tuples(NAMES, st.binary(max_size=300), st.booleans()), max_size=8, unique_by=lambda m: m[0])


@given(MEMBERS, st.binary(max_size=40).filter(lambda comment: b"PK" not in comment))
def test_the_standard_library_reads_a_pack(members: list[tuple[bytes, bytes, bool]], comment: bytes) -> None:
    data, placed = archive(members, comment)
    with zipfile.ZipFile(io.BytesIO(data)) as found:
        assert found.comment == comment
        assert found.testzip() is None
        assert found.namelist() == [name.decode() for name, _, _ in members]
        for info, (name, payload, aligned), member in zip(found.infolist(), members, placed, strict=True):
            assert found.read(info) == payload == data[member.payload : member.end]
            assert info.header_offset == member.offset
            assert info.compress_type == zipfile.ZIP_STORED  # [PACK-001]
            assert info.flag_bits == 0
            assert info.date_time == (1980, 1, 1, 0, 0, 0)  # [PACK-005]
            assert (info.create_system, info.create_version, info.extract_version) == (3, 20, 20)
            assert info.external_attr == 0o100644 << 16
            assert info.extra == b""
            assert not aligned or member.payload % 64 == 0, name  # [PACK-002]


@given(st.binary(min_size=1, max_size=200), st.integers(0, 8 * GiB), st.integers(0, 8 * GiB), st.booleans())
def test_members_lie_where_they_should(name: bytes, offset: int, size: int, aligned: bool) -> None:  # [PACK-002]
    member = place(name, offset, size, aligned=aligned)
    header = local_header(member)
    assert len(header) == member.payload - member.offset
    assert member.offset == offset
    assert member.end == member.payload + size
    least = 30 + len(name) + (20 if size >= 0xFFFFFFFF else 0)
    if not aligned:
        assert len(header) == least
        return
    alignment = 4096 if size >= 65_536 else 64
    assert member.payload % alignment == 0
    assert least + 6 <= len(header) < least + 6 + alignment


def test_a_local_header() -> None:  # [PACK-005]
    header = local_header(place(b"tensors/zarr.json", 0, 5, 0x01020304, aligned=False))
    assert (
        header
        == bytes.fromhex("504b0304 1400 0000 0000 0000 2100 04030201 05000000 05000000 1100 0000")
        + b"tensors/zarr.json"
    )


def test_an_aligned_local_header() -> None:  # [PACK-002]
    member = place(b"tensors/w/c", 10, 5, aligned=True)
    assert member == Member(b"tensors/w/c", 10, 64, 5, 0)
    fields = "504b0304 1400 0000 0000 0000 2100 00000000 05000000 05000000 0b00 0d00"
    extra = "35d9 0900 4000 00000000000000"
    assert local_header(member) == bytes.fromhex(fields) + b"tensors/w/c" + bytes.fromhex(extra)


@pytest.mark.parametrize(("size", "alignment"), [(0, 64), (65_535, 64), (65_536, 4096), (5 * GiB, 4096)])
def test_alignment(size: int, alignment: int) -> None:  # [PACK-002]
    member = place(b"c", 0, size, aligned=True)
    assert member.payload == alignment
    assert local_header(member).count(struct.pack("<H", 0xD935)) == 1
    at = local_header(member).index(struct.pack("<H", 0xD935))
    room, stated = struct.unpack_from("<HH", local_header(member), at + 2)
    assert stated == alignment
    assert at + 4 + room == alignment


def test_a_central_entry() -> None:  # [PACK-005]
    entry = central_entry(Member(b"a/c", 7, 64, 5, 0x01020304))
    fields = (
        "504b0102 1403 1400 0000 0000 0000 2100 04030201 05000000 05000000 0300 0000 0000 0000 0000 0000a481 07000000"
    )
    assert entry == bytes.fromhex(fields) + b"a/c"


@pytest.mark.parametrize(
    ("size", "offset", "extra"),
    [
        (0xFFFFFFFE, 0xFFFFFFFE, []),
        (0xFFFFFFFF, 0, [0xFFFFFFFF, 0xFFFFFFFF]),
        (5 * GiB, 0, [5 * GiB, 5 * GiB]),
        (1, 6 * GiB, [6 * GiB]),
        (5 * GiB, 6 * GiB, [5 * GiB, 5 * GiB, 6 * GiB]),
    ],
)
def test_zip64_is_used_where_it_is_needed_only(size: int, offset: int, extra: list[int]) -> None:  # [PACK-003]
    member = place(b"c", offset, size, aligned=True)
    entry = central_entry(member)
    needed, extra_length = struct.unpack_from("<6xH22xH", entry)
    assert needed == (45 if extra else 20)
    values = struct.pack(f"<2H{len(extra)}Q", 1, 8 * len(extra), *extra) if extra else b""
    assert entry[47:] == values
    assert extra_length == len(values)
    header = local_header(member)
    assert header[4] == (45 if size >= 0xFFFFFFFF else 20)
    if size >= 0xFFFFFFFF:
        assert header[18:26] == b"\xff" * 8
        assert header[31:51] == struct.pack("<2H2Q", 1, 16, size, size)


def test_end_records() -> None:
    assert end_records(3, 100, 50, 7) == bytes.fromhex("504b0506 0000 0000 0300 0300 32000000 64000000 0700")
    plain = end_records(65_534, 0xFFFFFFFE, 0xFFFFFFFE, 0)
    assert len(plain) == 22


@pytest.mark.parametrize(("count", "directory", "size"), [(65_535, 0, 0), (1, 5 * GiB, 50), (1, 0, 5 * GiB)])
def test_zip64_end_records(count: int, directory: int, size: int) -> None:  # [PACK-003]
    records = end_records(count, directory, size, 0)
    assert len(records) == 56 + 20 + 22
    assert struct.unpack_from("<4sQHHIIQQQQ", records) == (
        b"PK\6\6",
        44,
        0x0314,
        45,
        0,
        0,
        count,
        count,
        size,
        directory,
    )
    assert struct.unpack_from("<4sIQI", records, 56) == (b"PK\6\7", 0, directory + size, 1)


def test_the_standard_library_reads_more_members_than_16_bits_count() -> None:  # [PACK-003]
    count = 65_537
    members = [place(b"%d" % i, 0, 0, aligned=False) for i in range(count)]
    offsets, end = [], 0
    for member in members:
        offsets.append(end)
        end += member.payload
    placed = [
        member._replace(offset=offset, payload=offset + member.payload)
        for member, offset in zip(members, offsets, strict=True)
    ]
    directory = b"".join(central_entry(member) for member in placed)
    data = b"".join(local_header(member) for member in placed) + directory
    with zipfile.ZipFile(io.BytesIO(data + end_records(count, end, len(directory), 0))) as found:
        assert len(found.namelist()) == count
        assert found.read(b"%d".decode() % (count - 1)) == b""


def test_constants() -> None:
    assert (pack.SMALL_ALIGNMENT, pack.LARGE_ALIGNMENT, pack.LARGE) == (64, 4096, 65_536)


@given(
    st.lists(st.tuples(st.integers(0, 1 << 40), st.integers(0, 1 << 40), st.integers(0, (1 << 32) - 1)), max_size=6),
    st.sampled_from([b"", b"a comment"]),
)
def test_entries_are_what_a_directory_says(rows: list[tuple[int, int, int]], comment: bytes) -> None:
    """With sizes and offsets that need ZIP64, and those that do not. [PACK-003]"""
    check_entries(rows, comment, 1)


def test_entries_of_more_members_than_16_bits_count() -> None:  # [PACK-003]
    check_entries([], b"", 65_535)


def check_entries(rows: list[tuple[int, int, int]], comment: bytes, more: int) -> None:
    members = [pack.Member(b"m%d" % i, offset, offset + 100, size, crc) for i, (offset, size, crc) in enumerate(rows)]
    members += [pack.Member(b"x", 0, 100, 1, 0)] * more
    raw = pack.directory(Members(members), len(comment)) + comment
    start = members[-1].end
    found = list(pack.entries(lambda offset, length: raw[offset - start :][:length], start + len(raw), len(comment)))
    assert found == [pack.CentralEntry(m.name, m.offset, m.size, m.crc32) for m in members]


def test_what_is_no_directory_has_no_entries() -> None:
    raw = bytearray(pack.directory(Members([Member(b"x", 0, 100, 1, 0)]), 0))
    raw[0] ^= 1
    with pytest.raises(ValueError, match="no entry"):
        list(pack.entries(lambda offset, length: bytes(raw[offset - 101 :][:length]), 101 + len(raw), 0))


SMALL = st.lists(st.tuples(NAMES, st.integers(0, 65_535), st.integers(0, 0xFFFFFFFF)), min_size=1, max_size=20)


@given(SMALL, st.integers(0, 8 * GiB), st.booleans())
def test_many_members_are_laid_out_as_one_after_another(
    wanted: list[tuple[bytes, int, int]], offset: int, aligned: bool
) -> None:
    one_by_one: list[Member] = []
    for name, size, crc32 in wanted:
        start = one_by_one[-1].end if one_by_one else offset
        one_by_one.append(place(name, start, size, crc32, aligned=aligned))
    names, sizes, crc32s = zip(*wanted, strict=True)
    found = pack.place_all(names, offset, sizes, crc32s, aligned=aligned)
    assert (list(found), len(found), found.end) == (one_by_one, len(wanted), one_by_one[-1].end)


@given(st.lists(st.tuples(NAMES, st.integers(0, 8 * GiB), st.integers(0, 8 * GiB)), min_size=1, max_size=20))
def test_many_headers_are_those_of_each_member(wanted: list[tuple[bytes, int, int]]) -> None:
    members = [place(name, offset, size, size & 0xFFFF, aligned=True) for name, offset, size in wanted]
    assert pack.local_headers(Members(members)) == [local_header(member) for member in members]
    assert pack.central_entries(Members(members)) == [central_entry(member) for member in members]
