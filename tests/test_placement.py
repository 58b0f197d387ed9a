"""Placement (SPEC.md section 7): which part holds which chunk, in runs. [CHK-008]"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt.errors import CkptError
from ckptfmt.format.placement import Placement, decode_placement, placement_of


def firsts_of(chunks: list[int]) -> tuple[int, ...]:
    return (0, *np.cumsum(np.array(chunks, np.int64)).tolist())


@st.composite
def placements(draw: st.DrawFn) -> tuple[list[int], tuple[int, ...]]:
    """The part of each chunk, and the first chunk of each tensor; runs with equal steps are common."""
    tensors = draw(st.lists(st.integers(0, 6), max_size=6))
    parts: list[int] = []
    while len(parts) < sum(tensors):
        first, step, length = draw(st.tuples(st.integers(0, 9), st.integers(-2, 3), st.integers(1, 5)))
        parts += [max(0, first + i * step) for i in range(length)]
    return parts[: sum(tensors)], firsts_of(tensors)


@given(placements())
def test_every_chunk_has_its_part(case: tuple[list[int], tuple[int, ...]]) -> None:
    parts, firsts = case
    placement = placement_of(np.array(parts, np.int64), firsts)
    assert placement.total == len(parts)
    assert placement.parts_of(np.arange(len(parts))).tolist() == parts
    for part in range(25):
        assert placement.chunks_in(part) == parts.count(part)
    tensors = np.searchsorted(firsts, placement.first, side="right")
    ends = np.append(placement.first[1:], placement.total) - 1
    assert (tensors == np.searchsorted(firsts, ends, side="right")).all(), "no run is in two tensors"
    assert (placement.step >= 0).all()


@given(placements())
def test_decoding_is_the_inverse_of_encoding(case: tuple[list[int], tuple[int, ...]]) -> None:
    parts, firsts = case
    placement = placement_of(np.array(parts, np.int64), firsts)
    document = placement.encode(firsts)
    assert list(document) == ["tensor", "chunk", "count", "part", "step"]
    decoded = decode_placement({**document, "later": 1}, firsts, max(parts, default=0) + 1)  # [MAN-003]
    assert decoded.encode(firsts) == document
    assert decoded.parts_of(np.arange(len(parts))).tolist() == parts
    if parts:
        with pytest.raises(CkptError, match="CHK-008"):
            decode_placement(document, firsts, max(parts))


def test_a_run_of_one_chunk_takes_no_step() -> None:
    """Whatever it says: it costs no memory. [LIM-003]"""
    parts = np.array([0, 0, 1], np.int64)
    placement = placement_of(parts, (0, 1, 2, 3))._replace(step=np.array([(1 << 32) - 1] * 3))
    assert [placement.chunks_in(part) for part in range(3)] == [2, 1, 0]
    assert placement.parts_of(np.arange(3)).tolist() == parts.tolist()


def runs(parts: Any, chunks: list[int]) -> int:
    """Rows that the placement of chunks takes; checks it on the way."""
    flat = np.concatenate([np.ravel(tensor) for tensor in parts])
    placement = placement_of(flat, firsts_of(chunks))
    assert np.array_equal(placement.parts_of(np.arange(len(flat))), flat)
    return len(placement.first)


def test_what_is_common_takes_few_rows() -> None:
    """A row a tensor: sharded along axis 0 or 1, over a mesh, whole on one rank; a few for a transposed mesh."""
    ranks = np.arange(64)
    mesh = ranks.reshape(4, 16)
    assert runs([ranks] * 100, [64] * 100) == 100
    assert runs([mesh] * 100, [64] * 100) == 100
    assert runs([mesh[:, 3]] * 100, [4] * 100) == 100  # replicated along the other axis
    assert runs([np.array([i % 64]) for i in range(100)], [1] * 100) == 100
    assert runs([np.repeat(ranks, 5)] * 10, [320] * 10) == 640  # compressed: five chunks a rank
    assert runs([mesh.T] * 100, [64] * 100) == 1600


GOOD = placement_of(np.array([0, 1, 2, 5, 5]), (0, 3, 3, 5)).encode((0, 3, 3, 5))


def u32(*values: int) -> bytes:
    return np.array(values, "<u4").tobytes()


def u64(*values: int) -> bytes:
    return np.array(values, "<u8").tobytes()


def test_the_document_that_the_others_are_made_from() -> None:
    assert {"tensor": u32(0, 2), "chunk": u64(0, 0), "count": u64(3, 2), "part": u32(0, 5), "step": u32(1, 0)} == GOOD
    assert decode_placement(GOOD, (0, 3, 3, 5), 6).parts_of(np.arange(5)).tolist() == [0, 1, 2, 5, 5]


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "a column of another type": ("MAN-002", {"part": [0, 5]}),
    "a column that is nil": ("MAN-002", {"step": None}),
    "a short column": ("CHK-008", {"step": u32(1)}),
    "a torn column": ("CHK-008", {"count": u64(3, 2)[:-1]}),
    "all columns torn": ("CHK-008", {"tensor": u32(0, 2)[:-2]}),
    "no tensor of this number": ("CHK-008", {"tensor": u32(0, 3)}),
    "a tensor without chunks": ("CHK-008", {"tensor": u32(0, 1)}),
    "an empty run": ("CHK-008", {"count": u64(3, 0)}),
    "too many chunks": ("CHK-008", {"count": u64(3, 3)}),
    "too few chunks": ("CHK-008", {"count": u64(3, 1)}),
    "far too many chunks": ("CHK-008", {"count": u64(3, (1 << 64) - 1)}),
    "a chunk that is not there": ("CHK-008", {"chunk": u64(0, (1 << 64) - 1)}),
    "a gap": ("CHK-008", {"chunk": u64(0, 1), "count": u64(3, 1)}),
    "not sorted": ("CHK-008", {"tensor": u32(2, 0), "count": u64(2, 3)}),
    "twice": ("CHK-008", {"tensor": u32(0, 0), "count": u64(3, 3)}),
    "no part of this number": ("CHK-008", {"part": u32(0, 6)}),
    "a step out of all parts": ("CHK-008", {"step": u32(1, 1)}),
    "a huge step": ("CHK-008", {"step": u32(1, (1 << 32) - 1)}),
    "nothing at all": ("CHK-008", dict.fromkeys(GOOD, b"")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_breaks_the_specification_is_refused(case: str) -> None:
    statement, change = REFUSED[case]
    with pytest.raises(CkptError, match=statement) as caught:
        decode_placement({**GOOD, **change}, (0, 3, 3, 5), 6)
    assert caught.value.code == "bad-manifest"


@pytest.mark.parametrize("document", [None, [], {}, {key: GOOD[key] for key in list(GOOD)[:4]}])
def test_what_is_no_placement_is_refused(document: Any) -> None:
    with pytest.raises(CkptError, match="MAN-002"):
        decode_placement(document, (0, 3, 3, 5), 6)


@given(
    st.fixed_dictionaries(
        {
            "tensor": st.lists(st.integers(0, 3), min_size=2, max_size=2).map(lambda v: u32(*v)),
            "chunk": st.lists(st.sampled_from([0, 1, 2, (1 << 64) - 1]), min_size=2, max_size=2).map(lambda v: u64(*v)),
            "count": st.lists(st.sampled_from([0, 1, 2, 3, (1 << 64) - 1]), min_size=2, max_size=2).map(
                lambda v: u64(*v)
            ),
            "part": st.lists(st.sampled_from([0, 1, 5, (1 << 32) - 1]), min_size=2, max_size=2).map(lambda v: u32(*v)),
            "step": st.lists(st.sampled_from([0, 1, 2, (1 << 32) - 1]), min_size=2, max_size=2).map(lambda v: u32(*v)),
        }
    )
)
def test_whatever_is_accepted_is_sound(document: dict[str, bytes]) -> None:
    firsts, there = (0, 3, 3, 5), 6
    try:
        placement = decode_placement(document, firsts, there)
    except CkptError as error:
        assert error.code == "bad-manifest"
        return
    parts = placement.parts_of(np.arange(5))
    assert ((parts >= 0) & (parts < there)).all()
    assert sum(placement.chunks_in(part) for part in range(there)) == 5


def test_large_numbers_do_not_wrap() -> None:
    """Steps and counts near their limits are computed without overflow."""
    count = (1 << 32) - 1
    one = Placement(np.array([0]), np.array([0]), np.array([1]), count)
    firsts = (0, count)
    last = decode_placement(one.encode(firsts), firsts, count).parts_of(np.array([count - 1]))
    assert last.tolist() == [count - 1]
    with pytest.raises(CkptError, match="CHK-008"):
        decode_placement(one.encode(firsts), firsts, count - 1)
    two = Placement(np.array([0]), np.array([1]), np.array([2]), count)
    with pytest.raises(CkptError, match="CHK-008"):
        decode_placement(two.encode(firsts), firsts, count)
