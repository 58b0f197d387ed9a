"""Memory for tensors that are about to be read: most of the time of an eager load goes into taking new pages, and huge
pages, which the system gives only where an array begins at one, cost a fraction of small ones."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Any

import numpy as np

from .dtypes import Array

ALIGNMENT = 64  # bytes; memory that begins so is taken over by JAX, without a copy
HUGE_PAGE = 2 << 20  # bytes
LARGE = 4 << 20  # bytes from which on a mapping of its own is worth its cost


def aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """A C-contiguous array whose elements are not set yet, in memory that begins at a multiple of `ALIGNMENT`, or of
    `HUGE_PAGE` if it is large. Raises ValueError for a shape that NumPy does not hold, even without elements."""
    nbytes = math.prod(shape) * dtype.itemsize
    if nbytes >= LARGE:
        # a system or a kernel without huge pages, or a process with as many mappings as it may have
        with suppress(AttributeError, OSError):
            return _in_huge_pages(shape, dtype, nbytes)
    return _placed(np.empty(nbytes + ALIGNMENT, np.uint8), ALIGNMENT, shape, dtype)


def _in_huge_pages(shape: tuple[int, ...], dtype: np.dtype[Any], nbytes: int) -> Array:
    """Huge pages for all of the array but its end, which may fill one only in part."""
    import mmap  # here, as small arrays need none

    advice = mmap.MADV_HUGEPAGE
    memory = mmap.mmap(-1, nbytes + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    array = _placed(memory, HUGE_PAGE, shape, dtype)
    start = -_address(memory) % HUGE_PAGE
    memory.madvise(advice, start, nbytes // HUGE_PAGE * HUGE_PAGE)
    return array


def _placed(memory: Any, alignment: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array in `memory` from the first multiple of `alignment` on."""
    return np.ndarray(shape, dtype, memory, -_address(memory) % alignment)


def _address(memory: Any) -> int:
    address: int = np.frombuffer(memory, np.uint8).__array_interface__["data"][0]
    return address
