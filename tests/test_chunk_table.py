"""Chunk tables (SPEC.md section 7): columns, and extents that no reader may trust unchecked."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt.errors import CkptError
from ckptfmt.format.arrays import ArraySpec
from ckptfmt.format.chunk_table import (
    ChunkTable,
    Extent,
    columns,
    decode_table,
    encode_table,
    first_chunks,
    rows_by,
    rows_of_each,
)
from ckptfmt.format.codecs import RAW, codec_asked
from ckptfmt.format.digests import digest_named
from ckptfmt.format.dtypes import DTYPES

DIGEST = digest_named("xxh3-128")
BLOCK = 4096
SPECS = (
    ArraySpec(DTYPES["uint8"], (2, 5000), (1, 5000), RAW),  # two chunks of two blocks
    ArraySpec(DTYPES["int8"], (0,), (1,), RAW),
    ArraySpec(DTYPES["float32"], (3,), (3,), codec_asked("zstd")),
)
U64 = np.zeros(0, np.uint64)
LENGTHS = [5000, 5000, 9]
DIGESTS = bytes(range(5 * 16))


def u64(*values: int) -> bytes:
    return np.array(values, "<u8").tobytes()


def document(**columns: Any) -> dict[str, Any]:
    good = {"tensor": None, "chunk": None, "offset": u64(64, 8192, 20_000), "length": u64(*LENGTHS), "digest": DIGESTS}
    return good | columns


def decoded(**columns: Any) -> ChunkTable:
    return decode_table(document(**columns), SPECS, DIGEST, BLOCK)


def test_encoding_is_the_inverse_of_decoding() -> None:
    assert encode_table(decoded()) == document()
    assert encode_table(decoded(offset=None)) == document(offset=None)
    assert list(encode_table(decoded())) == ["tensor", "chunk", "offset", "length", "digest"]  # [MAN-004]


def test_rows() -> None:  # [CHK-002]
    table = decoded()
    assert first_chunks(SPECS) == (0, 2, 2, 3)
    assert table.first_blocks == [0, 2, 4, 5]
    assert table.blocks == 5
    assert table.extent(0) == Extent(64, 5000, DIGESTS[:32])
    assert table.extent(1) == Extent(8192, 5000, DIGESTS[32:64])
    assert table.extent(2) == Extent(20_000, 9, DIGESTS[64:])
    tensors, chunks = columns(np.arange(3), first_chunks(SPECS))
    assert (tensors.tolist(), chunks.tolist()) == ([0, 0, 2], [0, 1, 0])
    assert decoded(offset=None).extent(2).offset == 0


def test_a_table_without_rows() -> None:
    empty = {"tensor": None, "chunk": None, "offset": b"", "length": b"", "digest": b""}
    table = decode_table(empty, SPECS[1:2], DIGEST, BLOCK)
    table.check_extents(0)
    assert table.blocks == 0


REFUSED = [
    ("CHK-001", "bad-manifest", {"length": u64(5000, 5000)}),
    ("CHK-001", "bad-manifest", {"length": u64(*LENGTHS, 9)}),
    ("CHK-001", "bad-manifest", {"length": u64(*LENGTHS)[:-1]}),
    ("CHK-001", "bad-manifest", {"offset": u64(64, 8192)}),
    ("CHK-001", "bad-manifest", {"offset": b""}),
    ("CHK-001", "bad-manifest", {"digest": DIGESTS[:-16]}),
    ("CHK-001", "bad-manifest", {"digest": DIGESTS[:-1]}),
    ("CHK-001", "bad-manifest", {"digest": DIGESTS + bytes(16)}),
    ("CHK-001", "bad-manifest", {"length": u64(5000, 5000, 4097)}),  # two blocks, one digest
    ("CHK-011", "bad-manifest", {"tensor": b""}),
    ("CHK-011", "bad-manifest", {"chunk": u64(0, 1, 0)}),
    ("MAN-002", "bad-manifest", {"offset": [64, 8192, 20_000]}),
    ("MAN-002", "bad-manifest", {"length": None}),
    ("MAN-002", "bad-manifest", {"digest": "text"}),
    ("CHK-005", "bad-extent", {"length": u64(4999, 5000, 9)}),
    ("CHK-005", "bad-extent", {"length": u64(5000, 5001, 9)}),
    ("CHK-005", "bad-extent", {"length": u64(5000, 5000, 0)}),
    ("CHK-005", "bad-extent", {"length": u64(5000, 5000, 1 << 62)}),
    ("CHK-005", "bad-extent", {"length": u64(5000, 5000, (1 << 64) - 1)}),
]


@pytest.mark.parametrize(("statement", "code", "columns"), REFUSED, ids=[f"{s}-{c}" for s, _, c in REFUSED])
def test_tables_that_break_the_specification_are_refused(statement: str, code: str, columns: dict[str, Any]) -> None:
    with pytest.raises(CkptError, match=statement) as raised:
        decoded(**columns)
    assert raised.value.code == code


@pytest.mark.parametrize(("rows", "rest"), [(1 << 14, 0), ((1 << 14) + 1, 1), (1 << 15, 0)])
def test_more_blocks_than_a_sum_can_tell_are_refused(rows: int, rest: int) -> None:  # [CHK-001]
    """There are 2^64 of them, or twice as many, which an int64 takes for none."""
    spec = ArraySpec(DTYPES["uint8"], (rows,), (1,), codec_asked("zstd"))
    length = u64(*[5] * rest, *[(1 << 62) - 1] * (rows - rest))
    table = {"tensor": None, "chunk": None, "offset": None, "length": length, "digest": bytes(16 * rest)}
    with pytest.raises(CkptError, match="CHK-001") as raised:
        decode_table(table, [spec], DIGEST, BLOCK)
    assert raised.value.code == "bad-manifest"


@pytest.mark.parametrize(
    "columns", [None, [], {}, {"length": b""}, {"path": "parts/0", "length": 5, "sha256": bytes(32)}]
)
def test_what_is_no_table_is_refused(columns: Any) -> None:  # [MAN-002]
    with pytest.raises(CkptError) as raised:
        decode_table(columns, SPECS, DIGEST, BLOCK)
    assert raised.value.code == "bad-manifest"


# ---- extents


def of_extents(extents: list[tuple[int, int]]) -> ChunkTable:
    offset = np.array([offset for offset, _ in extents], "<u8")
    length = np.array([length for _, length in extents], "<u8")
    return ChunkTable(offset, length, b"", 16, BLOCK)


def is_accepted(extents: list[tuple[int, int]], end: int) -> bool:
    try:
        of_extents(extents).check_extents(end)
    except CkptError as error:
        if error.code != "bad-extent":
            raise
        return False
    return True


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 12)), max_size=6), st.integers(0, 50))
def test_extents_neither_overlap_nor_reach_out(extents: list[tuple[int, int]], end: int) -> None:  # [CHK-005]
    inside = all(offset + length <= end for offset, length in extents)
    apart = all(
        one[0] + one[1] <= other[0] or other[0] + other[1] <= one[0]
        for one, other in itertools.combinations(extents, 2)
    )
    assert is_accepted(extents, end) is (inside and apart)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=8), st.randoms())
def test_extents_may_touch_and_stand_in_any_order(lengths: list[int], random: Any) -> None:  # [CHK-005]
    starts = itertools.accumulate(lengths, initial=0)
    extents = list(zip(starts, lengths, strict=False))
    random.shuffle(extents)
    assert is_accepted(extents, sum(lengths))
    assert not is_accepted(extents, sum(lengths) - 1)


def test_extents_that_share_one_byte_are_refused() -> None:  # [CHK-005]
    assert is_accepted([(0, 10), (10, 5)], 15)
    assert not is_accepted([(0, 10), (9, 5)], 15)
    assert not is_accepted([(9, 5), (0, 10)], 15)


@pytest.mark.parametrize("offset", [1 << 63, (1 << 64) - 1, (1 << 64) - 10, 1000])
def test_extents_that_would_overflow_are_refused(offset: int) -> None:  # [CHK-005]
    assert not is_accepted([(0, 10), (offset, (1 << 62) - 1)], 100)
    assert not is_accepted([(0, 10), (offset, 20)], 100)


def test_a_table_of_loose_chunks_has_no_extents() -> None:
    decoded(offset=None).check_extents(0)


# ---- rows of many parts


@given(st.lists(st.integers(0, 9)), st.sampled_from(["<u4", "<i8", "<u8"]))
def test_rows_by_their_numbers(numbers: list[int], dtype: str) -> None:
    column = np.array(numbers, dtype)
    expected = {number: np.flatnonzero(column == number).tolist() for number in sorted(set(numbers))}
    assert [(number, rows.tolist()) for number, rows in rows_by(column)] == [*expected.items()]
    assert [rows.tolist() for rows in rows_of_each(column, 12)] == [expected.get(number, []) for number in range(12)]


EXTENTS = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 4), st.integers(0, 2)), max_size=8)


@given(EXTENTS)
def test_extents_of_several_parts_are_those_of_each(rows: list[tuple[int, int, int]]) -> None:  # [CHK-005]
    offset, length, parts = (np.array(column, np.uint64) for column in zip(*rows, strict=True)) if rows else [U64] * 3
    table = ChunkTable(offset, length, b"", 16, BLOCK)
    ends = np.array([16, 10, 12], np.uint64)

    def check_each() -> None:
        for part, own in rows_by(parts):
            table._replace(offset=offset[own], length=length[own]).check_extents(int(ends[part]))

    together, each = (
        caught_code(call) for call in (lambda: table.check_extents(ends[parts.astype(int)], parts), check_each)
    )
    assert together == each


def caught_code(call: Any) -> str | None:
    try:
        call()
    except CkptError as error:
        return error.code
    return None
