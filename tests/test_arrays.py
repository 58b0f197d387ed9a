"""How one tensor becomes a Zarr array: grids, chunk numbers and keys (SPEC.md section 5)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt.format.arrays import ArraySpec, grid_for
from ckptfmt.format.codecs import RAW, codec_asked
from ckptfmt.format.dtypes import DTYPES

MiB = 1 << 20


def spec(dtype: str, shape: tuple[int, ...], grid: tuple[int, ...]) -> ArraySpec:
    return ArraySpec(DTYPES[dtype], shape, grid, RAW)


GRIDS = [
    ((), 8, None, ()),
    ((), 8, 1, ()),
    ((0, 3), 4, None, (1, 3)),
    ((0, 3), 4, 4, (1, 1)),
    ((100, 50), 4, None, (100, 50)),
    ((100, 50), 4, 20_000, (100, 50)),
    ((100, 50), 4, 19_999, (50, 50)),  # evened out: two times 50, not 99 and 1
    ((100, 50), 4, 1_000, (5, 50)),
    ((100, 50), 4, 100, (1, 25)),
    ((100, 50), 4, 1, (1, 1)),
    ((3, 4, 5), 1, 20, (1, 4, 5)),
    ((3, 4, 5), 1, 10, (1, 2, 5)),
    ((50_257, 4_096), 4, 16 * MiB, (1_006, 4_096)),
    ((100_000_000,), 4, 64 * MiB, (16_666_667,)),
]


@pytest.mark.parametrize(("shape", "itemsize", "target", "grid"), GRIDS)
def test_grids(shape: tuple[int, ...], itemsize: int, target: int | None, grid: tuple[int, ...]) -> None:
    assert grid_for(shape, itemsize, target) == grid


@given(
    st.lists(st.integers(0, 300), max_size=5).map(tuple),
    st.sampled_from([1, 2, 4, 8, 16]),
    st.none() | st.integers(1, 100_000),
)
def test_grids_are_legal_and_bounded(shape: tuple[int, ...], itemsize: int, target: int | None) -> None:
    grid = grid_for(shape, itemsize, target)
    assert len(grid) == len(shape)
    assert all(1 <= side <= max(1, n) for side, n in zip(grid, shape, strict=True))  # [ZARR-002]
    if target is None:
        assert grid == tuple(max(1, n) for n in shape)
        return
    assert math.prod(grid) * itemsize <= max(target, itemsize)
    split = [side < n for side, n in zip(grid, shape, strict=True)]
    if any(split):  # along the first axes: one row each before the last axis that is split, whole ones after
        last = len(split) - 1 - split[::-1].index(True)
        assert all(side == 1 for side in grid[:last])
        assert all(side == max(1, n) for side, n in zip(grid[last + 1 :], shape[last + 1 :], strict=True))
    padding = [-n % side for n, side in zip(shape, grid, strict=True)]
    counts = [-(-n // side) for n, side in zip(shape, grid, strict=True)]
    assert all(pad < count or pad == 0 for pad, count in zip(padding, counts, strict=True))


def test_chunks_of_a_grid() -> None:  # [ZARR-003]
    array = spec("int16", (5, 4), (2, 3))
    assert array.chunk_counts == (3, 2)
    assert array.chunks == 6
    assert list(array.chunk_keys()) == ["c/0/0", "c/0/1", "c/1/0", "c/1/1", "c/2/0", "c/2/1"]
    assert array.chunk_index(3) == (1, 1)
    assert array.chunk_nbytes == 12  # [ZARR-007]
    assert array.nbytes == 40


def test_a_scalar_has_one_chunk_and_an_empty_tensor_none() -> None:  # [ZARR-003]
    assert list(spec("float64", (), ()).chunk_keys()) == ["c"]
    assert list(spec("float64", (3, 0), (3, 1)).chunk_keys()) == []
    assert spec("float64", (3, 0), (3, 1)).nbytes == 0


def test_grids_count_storage_elements() -> None:  # [DTYPE-003]
    array = spec("int4", (3, 5), (3, 3))
    assert array.storage_shape == (3, 3)
    assert array.chunks == 1
    assert array.nbytes == array.chunk_nbytes == 9


@given(st.lists(st.integers(1, 4), max_size=4).map(tuple))
def test_chunks_are_numbered_in_c_order(counts: tuple[int, ...]) -> None:
    array = spec("int8", counts, (1,) * len(counts))
    assert [array.chunk_index(chunk) for chunk in range(array.chunks)] == list(np.ndindex(counts))


def test_what_is_contiguous() -> None:
    assert spec("float32", (4, 4), (4, 4)).is_contiguous
    assert spec("float32", (0,), (1,)).is_contiguous
    assert not spec("float32", (4, 4), (2, 4)).is_contiguous
    assert not spec("int4", (4, 4), (4, 2)).is_contiguous
    assert not ArraySpec(DTYPES["float32"], (4,), (4,), codec_asked("zstd")).is_contiguous
