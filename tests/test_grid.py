"""Slices to chunks to byte ranges, against NumPy (SPEC.md section 12)."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt.errors import SelectionError
from ckptfmt.format.grid import Axis, pieces, select, spans
from ckptfmt.testing.strategies import basic_indices, shapes


def stored_chunks(array: Any, grid: tuple[int, ...]) -> list[bytes]:
    """The chunks of an array, in C order, those at the far edge padded."""
    counts = [-(-n // side) for n, side in zip(array.shape, grid, strict=True)]
    padded = np.full([count * side for count, side in zip(counts, grid, strict=True)], -1, array.dtype)
    padded[tuple(slice(0, n) for n in array.shape)] = array
    cells = (
        padded[tuple(slice(i * side, (i + 1) * side) for i, side in zip(index, grid, strict=True))]
        for index in np.ndindex(*counts)
    )
    return [cell.tobytes() for cell in cells]


@st.composite
def reads(draw: st.DrawFn) -> tuple[Any, tuple[int, ...], Any]:
    shape = draw(shapes(4, 7))
    grid = tuple(draw(st.integers(1, max(1, n))) for n in shape)
    return np.arange(np.prod(shape, dtype=int), dtype="<i4").reshape(shape), grid, draw(basic_indices(shape))


@given(reads(), st.integers(4, 200), st.integers(0, 100))
def test_partial_reads_are_what_numpy_gives(drawn: Any, limit: int, gap: int) -> None:  # [READ-003]
    array, grid, index = drawn
    chunks = stored_chunks(array, grid)
    counts = tuple(-(-n // side) for n, side in zip(array.shape, grid, strict=True))
    selection = select(index, array.shape)
    out = np.full(selection.shape, -2, "<i4")
    for piece in [] if 0 in selection.shape else pieces(selection.axes, grid, counts):
        part = out[(*piece.out, ...)]
        for span in spans(piece.axes, grid, 4, limit, gap):
            data = chunks[piece.chunk]
            assert 0 <= span.low < span.high <= len(data)
            assert span.high - span.low <= limit or span.is_dense(4)
            values = np.ndarray(span.shape, "<i4", data[span.low : span.high], strides=span.strides)
            place = (*span.out, ...)
            assert (part[place] == -2).all()  # nothing is read twice
            part[place] = values
    found, expected = out[selection.finish], array[index]
    assert found.shape == expected.shape
    assert (found == expected).all()


@given(reads(), st.integers(0, 100))
def test_spans_leave_long_gaps_out(drawn: Any, gap: int) -> None:
    """Between two wanted elements of one span lie at most `gap` unwanted bytes."""
    array, grid, index = drawn
    selection = select(index, array.shape)
    if 0 in selection.shape:
        return
    for piece in pieces(selection.axes, grid, tuple(-(-n // side) for n, side in zip(array.shape, grid, strict=True))):
        for span in spans(piece.axes, grid, 4, 1 << 30, gap):
            positions = [
                range(0, n * stride, stride) if stride else [0]
                for n, stride in zip(span.shape, span.strides, strict=True)
            ]
            starts = sorted(map(sum, itertools.product(*positions)))
            assert starts[0] == 0
            assert starts[-1] + 4 == span.high - span.low
            assert all(after - before - 4 <= gap for before, after in itertools.pairwise(starts))


# ---- exact examples


def test_select() -> None:
    assert select(np.s_[2, ::-2], (5, 7)).axes == (Axis(2, 1, 1), Axis(0, 4, 2))
    assert select(np.s_[-1], (5,)).axes == (Axis(4, 1, 1),)
    assert select(np.s_[..., 3:1], (5, 7)).axes == (Axis(0, 5, 1), Axis(0, 0, 1))
    assert select((), ()).axes == ()
    assert select(np.s_[5:100:3], (7,)).axes == (Axis(5, 1, 3),)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (np.s_[:], [(0, 4000)]),  # one run, whatever the limit
        (np.s_[3], [(300, 400)]),
        (np.s_[3:5, :], [(300, 500)]),
        (np.s_[3, 10:20], [(310, 320)]),
        (np.s_[3:5, 10:20], [(310, 320), (410, 420)]),  # 90 bytes between them: too long a gap
        (np.s_[3:5, 0:95], [(300, 495)]),  # five unwanted bytes are read along
        (np.s_[0:10, 0:95], [(0, 495), (500, 995)]),  # at most 500 bytes each
        (np.s_[7, ::50], [(700, 701), (750, 751)]),
    ],
)
def test_spans(index: Any, expected: list[tuple[int, int]]) -> None:
    found = spans(select(index, (40, 100)).axes, (40, 100), 1, 500, 20)
    assert [(span.low, span.high) for span in found] == expected


def test_pieces() -> None:  # [READ-003]
    (first, second, third) = pieces((Axis(1, 1, 1), Axis(2, 4, 3)), (2, 5), (2, 3))
    assert first == (0, (Axis(1, 1, 1), Axis(2, 1, 3)), (slice(0, 1), slice(0, 1)))
    assert second == (1, (Axis(1, 1, 1), Axis(0, 2, 3)), (slice(0, 1), slice(1, 3)))
    assert third == (2, (Axis(1, 1, 1), Axis(1, 1, 3)), (slice(0, 1), slice(3, 4)))


BAD_INDICES = [
    None,
    (0, None),
    True,
    np.True_,
    1.0,
    "a",
    b"a",
    [1],
    np.array([1]),
    np.array([True, False, True]),
    {"a": 1},
    slice(None, None, 0),
    slice("a"),
    slice(1.5, 2),
    (..., ...),
    (0, 0, 0),
    (0, 0, 0, ...),
    3,
    -4,
    (0, 4),
    1 << 70,
]


@pytest.mark.parametrize("index", BAD_INDICES, ids=lambda index: str(index)[:30])
def test_indices_that_a_stored_tensor_does_not_take(index: Any) -> None:
    with pytest.raises(SelectionError) as raised:
        select(index, (3, 4))
    assert raised.value.code == "bad-index"
