"""The commit record (SPEC.md section 10): its grammar, and that no byte of it can change unnoticed."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt.errors import CkptError, CorruptError, UnsupportedError
from ckptfmt.format.commit import MAX_LENGTH, CommitRecord, decode, find

SHA256 = bytes(range(32))
FRAME = bytes(range(16))
RECORD = CommitRecord((1, 0), "file", 448, 1181, SHA256, FRAME)
LINE = (
    b"ckptfmt/1.0 file manifest=448+1181 sha256=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f "
    b"frame=000102030405060708090a0b0c0d0e0f crc32=359f3a2b\n"
)

NUMBERS = st.integers(0, 2**62 - 1)
RECORDS = st.builds(
    CommitRecord,
    st.tuples(st.just(1), st.integers(0, 999)),
    st.sampled_from(["file", "packed", "loose"]),
    NUMBERS,
    NUMBERS,
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=16, max_size=16) | st.binary(min_size=32, max_size=32),
)


def sealed(body: bytes) -> bytes:
    """A line with the right crc32, whatever else it says."""
    return body + b"crc32=%08x\n" % zlib.crc32(body)


def test_a_record() -> None:  # [COM-001]
    assert RECORD.encode() == LINE
    assert decode(LINE, 1) == RECORD


@given(RECORDS)
def test_decoding_is_the_inverse_of_encoding(record: CommitRecord) -> None:
    line = record.encode()
    assert decode(line, 1) == record
    assert len(line) <= MAX_LENGTH
    assert line.isascii()
    assert find(b"ckptfmt/9.9 " + bytes(300) + line) == line


def test_every_change_of_a_byte_is_refused() -> None:  # [COM-001]
    """Each byte of the record, changed to each other value."""
    for at in range(len(LINE)):
        for value in range(256):
            if value == LINE[at]:
                continue
            with pytest.raises(CkptError) as raised:
                decode(LINE[:at] + bytes([value]) + LINE[at + 1 :], 1)
            assert raised.value.code == ("newer-format" if at == 8 and chr(value) in "23456789" else "bad-record")


@given(st.integers(0, len(LINE) - 1), st.binary(max_size=3))
def test_lost_and_added_bytes_are_refused(at: int, added: bytes) -> None:  # [COM-001]
    for line in (LINE[:at], LINE[:at] + LINE[at + 1 :], LINE + added + b"\n", LINE[:-1] + added):
        if line != LINE:
            with pytest.raises(CorruptError) as raised:
                decode(line, 1)
            assert raised.value.code == "bad-record"


BODY = LINE[: LINE.index(b"crc32=")]
UNGRAMMATICAL = [
    BODY.replace(b"1.0", b"1"),
    BODY.replace(b"1.0", b"1.0000"),
    BODY.replace(b"1.0", b"1.x"),
    BODY.replace(b"1.0", b"1.00"),
    BODY.replace(b"1.0", b"01.0"),
    BODY.replace(b"file", b"File"),
    BODY.replace(b"file", b"zip"),
    BODY.replace(b" file", b"  file"),
    BODY.replace(b" file", b"\tfile"),
    BODY.replace(b"448", b"0448"),
    BODY.replace(b"448", b"-448"),
    BODY.replace(b"448", b""),
    BODY.replace(b"448", b"1" * 20),
    BODY.replace(b"448", b"9223372036854775808"),
    BODY.replace(b"448", b"9223372036854775000"),  # the manifest would end beyond 2**63
    BODY.replace(b"448+1181", b"448-1181"),
    BODY.replace(b"0a0b", b"0A0B"),
    BODY.replace(b"sha256=00", b"sha256="),
    BODY.replace(b"frame=00", b"frame="),
    BODY.replace(b"frame=", b"frame=" + b"0" * 33),
    BODY.replace(b"frame=", b"frame=0"),
    BODY + b" ",
    BODY + b"more=1 ",
    b" " + BODY,
    BODY.replace(b"ckptfmt", b"CKPTFMT"),
]


@pytest.mark.parametrize("body", UNGRAMMATICAL, ids=range(len(UNGRAMMATICAL)))
def test_other_lines_are_refused_whatever_their_crc32(body: bytes) -> None:  # [COM-001]
    with pytest.raises(CorruptError) as raised:
        decode(sealed(body), 1)
    assert raised.value.code == "bad-record"


@pytest.mark.parametrize(
    "line", [b"ckptfmt/2.0 anything", b"ckptfmt/2.", b"ckptfmt/999.\xff\x00", sealed(BODY.replace(b"1.0", b"2.0"))]
)
def test_newer_versions_are_refused_by_name_whatever_follows(line: bytes) -> None:  # [VER-002]
    with pytest.raises(UnsupportedError, match=line[8:].split(b".")[0].decode()) as raised:
        decode(line, 1)
    assert raised.value.code == "newer-format"


def test_minor_versions_are_accepted() -> None:  # [VER-003]
    assert decode(sealed(BODY.replace(b"1.0", b"1.7")), 1).format == (1, 7)


def test_the_record_is_the_last_one_within_the_last_255_bytes() -> None:  # [COM-004]
    assert find(b"") is None
    assert find(b"no record here") is None
    assert find(b"ckptfmt/1.0 " + bytes(244)) is None
    assert find(b"ckptfmt/1.0 " + bytes(243)) == b"ckptfmt/1.0 " + bytes(243)
    assert find(b"ckptfmt/2 ckptfmt/1") == b"ckptfmt/1"
    assert find(b"ckptfmt/1 ckptfmt/x") == b"ckptfmt/1 ckptfmt/x"  # only with a digit
    assert find(b"ckptfmt/") is None
