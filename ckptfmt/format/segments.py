"""Runs of elements that are reduced together, and the memory for what is made of them (docs/reference/statistics.md).
Pure.

What is summed is summed in one order, by operations that round in one way, so that the same elements give the same bits
on every machine and with any number of threads. That is why no BLAS is asked.
"""

from __future__ import annotations

import math
import threading
from functools import cached_property
from typing import Any

import numpy as np

from .dtypes import Array

PIECE = 1 << 16  # elements that are looked at together, so that they stay in the processor's cache
WIDE = 400  # exponents from which on a square may have no place in a float64
CANCELLED = 2.0**-10  # share of a sum of squares below which too few digits of their distances are left


class Scratch(threading.local):
    """Memory for what is made of a piece, used again for the next: new pages would take longer than the work."""

    def __init__(self) -> None:
        self._held: dict[int, Array] = {}

    def take(self, number: int, count: int, dtype: Any) -> Array:
        """The array of that number, of so many elements that are not set; who takes it again has it alone."""
        nbytes = count * np.dtype(dtype).itemsize
        if nbytes > 16 * PIECE:
            return np.empty(count, dtype)
        if number not in self._held:
            self._held[number] = np.empty(16 * PIECE, np.uint8)
        return self._held[number][:nbytes].view(dtype)

    def cast(self, number: int, values: Array, dtype: Any) -> Array:
        out = self.take(number, len(values), dtype)
        np.copyto(out, values)
        return out


scratch = Scratch()


class Segments:
    """Runs of elements, one after another, none of them empty."""

    def __init__(self, counts: Array) -> None:
        self.counts = counts
        self.is_one = len(counts) == 1

    @cached_property
    def starts(self) -> Array:
        starts: Array = np.cumsum(self.counts) - self.counts
        return starts

    def reduce(self, ufunc: Any, values: Array) -> Array:
        """`ufunc` over each; of one alone in the same order as of several."""
        return ufunc.reduceat(values, self.starts)  # type: ignore[no-any-return]

    def count(self, mask: Array) -> Array:
        """How many of each are true."""
        if self.is_one:
            return np.array([np.count_nonzero(mask)])
        counts: Array = np.add.reduceat(mask, self.starts, dtype=np.int64)
        return counts

    def repeated(self, values: Array) -> Array:
        """What each has, for each element."""
        return values if self.is_one else np.repeat(values, self.counts)


def moments(values: Array, runs: Segments, peaks: list[float]) -> list[tuple[float, float]]:
    """Mean and standard deviation of each run of finite numbers, whose greatest magnitudes are `peaks`."""
    exponents = [math.frexp(peak)[1] for peak in peaks]
    wide = [exponent if abs(exponent) > WIDE else 0 for exponent in exponents]
    if any(wide):
        scaled = np.ldexp(values, -runs.repeated(np.array(wide)))
        found = moments(scaled, runs, [1.0] * len(peaks))
        return [(math.ldexp(mean, e), math.ldexp(std, e)) for (mean, std), e in zip(found, wide, strict=True)]
    counts, totals = runs.counts.tolist(), runs.reduce(np.add, values)
    squares = np.square(values, out=scratch.take(1, len(values), np.float64))
    both = zip(counts, totals.tolist(), runs.reduce(np.add, squares).tolist(), strict=True)
    found, cancelled = [], []
    for number, (count, total, square) in enumerate(both):
        mean = total / count
        spread = square - total * mean
        if spread < CANCELLED * square:
            cancelled.append(number)
        found.append((mean, math.sqrt(max(spread, 0.0) / count)))
    if cancelled:  # far from 0, where such a difference has too few digits left
        again = _moments_about(totals / runs.counts, values, runs)
        for number in cancelled:
            found[number] = again[number]
    return found


def _moments_about(means: Array, values: Array, runs: Segments) -> list[tuple[float, float]]:
    """The same in a second pass, where the means are known."""
    away = np.subtract(values, runs.repeated(means), out=scratch.take(1, len(values), np.float64))
    rests = runs.reduce(np.add, away).tolist()
    squares = runs.reduce(np.add, np.square(away, out=away)).tolist()
    return [
        (mean + rest / count, math.sqrt(max(square - rest * (rest / count), 0.0) / count))
        for mean, count, rest, square in zip(means.tolist(), runs.counts.tolist(), rests, squares, strict=True)
    ]
