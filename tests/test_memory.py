"""Memory for tensors that are read: where it begins, what it costs, and that it is given back."""

from __future__ import annotations

import gc
import math
import mmap

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt.format.memory import ALIGNMENT, HUGE_PAGE, LARGE, aligned

DTYPES = [
    np.dtype(kind) for kind in (np.bool_, np.int16, np.float64, np.complex128, ml_dtypes.bfloat16, ml_dtypes.int4)
]


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


@given(shape=st.lists(st.integers(0, 9), max_size=4), dtype=st.sampled_from(DTYPES))
def test_small_arrays_begin_at_a_multiple_of_the_alignment(shape: list[int], dtype: np.dtype) -> None:
    array = aligned(tuple(shape), dtype)
    assert (array.shape, array.dtype) == (tuple(shape), dtype)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert address(array) % ALIGNMENT == 0


@pytest.mark.parametrize("nbytes", [LARGE, LARGE + 1, 5 * HUGE_PAGE - 2, 5 * HUGE_PAGE])
def test_large_arrays_begin_at_a_huge_page_and_hold_what_is_written(nbytes: int) -> None:
    array = aligned((nbytes,), np.dtype(np.uint8))
    assert address(array) % (HUGE_PAGE if hasattr(mmap, "MADV_HUGEPAGE") else ALIGNMENT) == 0
    array[:] = 7
    assert int(array.sum()) == 7 * nbytes


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="huge pages are a matter of Linux")
def test_no_more_memory_is_taken_than_the_array_has_and_it_is_given_back() -> None:
    count, shape = 24, (2 * HUGE_PAGE + 4096,)  # the worst case: a huge page for the end would cost 2 MiB
    before = resident()
    arrays = [aligned(shape, np.dtype(np.uint8)) for _ in range(count)]
    for array in arrays:
        array[:] = 1
    assert resident() - before < count * (math.prod(shape) + (64 << 10)) + (8 << 20)
    view = arrays[0][5:9]
    del array, arrays
    gc.collect()
    assert resident() - before < 2 * math.prod(shape) + (8 << 20)  # one is held by the view
    assert view.tolist() == [1, 1, 1, 1]


def test_without_mappings_an_array_is_made_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", refuse)
    array = aligned((LARGE,), np.dtype(np.uint8))
    assert address(array) % ALIGNMENT == 0
    assert array.nbytes == LARGE
