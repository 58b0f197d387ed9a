"""Stored elements to summaries of them, for every dtype (docs/reference/statistics.md). Pure.

Elements are looked at in pieces that stay in the processor's cache, and many small tensors of one dtype at once, as
runs of one array.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from .code_summaries import nan_octets, octets_in, of_counts, of_octets
from .dtypes import Array, DType
from .float_summaries import nan_mask, native, of_complex, of_floats
from .segments import PIECE, Segments, moments, scratch
from .summary import Summary, integer_bits


def summaries(dtype: DType, data: Array, sizes: Array, padding: int = 0) -> list[Summary]:
    """Those of runs of stored elements that lie one after another in `data` (uint8), with `sizes` in bytes (k,);
    `padding` elements of each are no elements of the tensor, and 0. Runs should have no more than `PIECE` elements."""
    held = sizes[sizes > 0]
    if dtype.bits <= 8:
        found = iter(of_octets(dtype, data, held, padding) if len(held) else ())
    else:
        found = _few_at_a_time(dtype, data, held)
    return [next(found) if size else Summary() for size in sizes.tolist()]


def _few_at_a_time(dtype: DType, data: Array, sizes: Array) -> Iterator[Summary]:
    """In groups that stay in the processor's cache."""
    is_float = dtype.range is not None and dtype.range.exponent > 0
    kernel = of_complex if dtype.part is not None else of_floats if is_float else _of_integers
    ends = np.cumsum(sizes)
    first, start = 0, 0
    while first < len(sizes):
        last = max(first + 1, int(np.searchsorted(ends, start + PIECE * dtype.stored.itemsize, "right")))
        stop = int(ends[last - 1])
        yield from kernel(dtype, data[start:stop], sizes[first:last])
        first, start = last, stop


class Measure:
    """The summary of one run of stored elements that come in order, some bytes at a time, each some whole elements.
    The same bytes give the same summary where they are cut at multiples of `PIECE` elements."""

    def __init__(self, dtype: DType) -> None:
        self._dtype, self._itemsize = dtype, dtype.stored.itemsize
        self._found = Summary()
        self._octets: Array | None = np.zeros(256, np.int64) if dtype.bits <= 8 else None

    def add(self, data: Array) -> None:
        """Some more of it (uint8)."""
        if self._octets is not None:
            for start in range(0, data.size, 8 * PIECE):
                self._octets += octets_in(data[start : start + 8 * PIECE])
            return
        step = PIECE * self._itemsize
        for start in range(0, data.size, step):
            piece = data[start : start + step]
            (found,) = summaries(self._dtype, piece, np.array([piece.size]))
            self._found = self._found.joined(found)

    def summary(self, padding: int = 0) -> Summary:
        """Of all so far; `padding` as `summaries` has it."""
        if self._octets is None:
            return self._found
        return of_counts(self._dtype, self._octets[None], padding)[0] if self._octets.any() else Summary()


def _of_integers(dtype: DType, data: Array, sizes: Array) -> list[Summary]:
    values = native(data, np.dtype(dtype.name))
    runs = Segments(sizes // values.itemsize)
    ends = runs.reduce(np.minimum, values)
    least, greatest = ends.tolist(), runs.reduce(np.maximum, values).tolist()
    has_zeros = any(low <= 0 <= high for low, high in zip(least, greatest, strict=True))
    zeros = runs.count(values == 0).tolist() if has_zeros else [0] * len(least)
    if values.itemsize < 8:  # of which sums are exact
        floats = scratch.cast(0, values, np.float64)
        totals = list(map(int, runs.reduce(np.add, floats).tolist()))
        peaks = [float(max(-low, high)) for low, high in zip(least, greatest, strict=True)]
    else:
        floats, totals = _above(values, runs, ends)
        peaks = [float(high - low) for low, high in zip(least, greatest, strict=True)]
    rows = zip(
        *(runs.counts.tolist(), zeros, least, greatest, totals, moments(floats, runs, peaks)),
        strict=True,
    )
    return [
        Summary(*(n, 0, 0, 0, zero, 0, 0, integer_bits(low, high), low, high), Fraction(total, n), std)
        for n, zero, low, high, total, (_, std) in rows
    ]


def _above(values: Array, runs: Segments, least: Array) -> tuple[Array, list[int]]:
    """How far integers of 64 bits are above the least one of their run, as float64, and the exact sums of runs."""
    above = values.view(np.uint64) - runs.repeated(least.view(np.uint64))  # which wraps, and so is never negative
    low, high = (runs.reduce(np.add, half) for half in (above & np.uint64(0xFFFFFFFF), above >> np.uint64(32)))
    rows = zip(*map(np.ndarray.tolist, (least, runs.counts, high, low)), strict=True)
    totals = [first * count + (more << 32) + rest for first, count, more, rest in rows]
    return above.astype(np.float64), totals


# ---- NaNs alone, which cost a fraction of all figures


class NanCount:
    """How many elements of a run are NaN: of the summary it has no more."""

    def __init__(self, dtype: DType) -> None:
        self._dtype, self._count = dtype, 0

    def add(self, data: Array) -> None:
        """Some more of it (uint8), some whole elements."""
        step = 4 * PIECE
        for start in range(0, data.size, step):
            self._count += int(_is_nan(self._dtype, data[start : start + step]).sum())

    def summary(self, padding: int = 0) -> Summary:
        """Of all so far."""
        return Summary(elements=self._count, nan=self._count)


def count_nans(dtype: DType, data: Array, sizes: Array) -> list[int]:
    """How many elements of each run, as `summaries` has them, are NaN."""
    found = _is_nan(dtype, data)
    if not found.any():
        return [0] * len(sizes)
    counts = sizes // dtype.stored.itemsize
    before = np.concatenate([[0], np.cumsum(found)])
    ends = np.cumsum(counts)
    return (before[ends] - before[ends - counts]).tolist()  # type: ignore[no-any-return]


def _is_nan(dtype: DType, data: Array) -> Array:
    return nan_octets(dtype, data) if dtype.bits <= 8 else nan_mask(dtype, data)
