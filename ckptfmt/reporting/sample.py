"""Histograms of some elements of each tensor: few enough that reading them again takes next to no time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..conversion.source import LazyArray, SourceTensor, nbytes
from ..format.dtypes import Array
from ..reading.tensor import ArrayLike

MEMORY = 64 << 20  # bytes of the samples of a whole checkpoint
LEAST, MOST = 128, 4096  # elements that are kept of a tensor
RUNS = 16  # of neighbours, that they lie in
BINS = 40
ROUNDED = 1e-5  # of a value: what lies nearer to others is one bin
TAIL = 0.002  # share of elements at either end that may lie beyond the bins, and count in the last ones


def most_of_each(tensors: int) -> int:
    """How many elements are kept of each tensor."""
    return max(LEAST, min(MOST, MEMORY // 4 // max(1, tensors)))


def sample(tensor: ArrayLike | SourceTensor, most: int, runs: int = RUNS) -> Array:
    """At most so many elements of a tensor, as float32, which are finite: in runs that lie evenly far from each
    other. Of complex numbers the absolute values; of times none."""
    if tensor.dtype.kind in "mM":
        return np.empty(0, np.float32)
    if math.prod(tensor.shape) <= most or not tensor.shape:
        parts = [np.asarray(tensor[()])]
    else:
        parts = [np.asarray(tensor[index]) for index in _runs(tensor.shape, most, runs)]
    found = np.concatenate([_plain(_thinned(part.reshape(-1), -(-most // len(parts)))) for part in parts])
    finite: Array = found[np.isfinite(found)]
    return finite


def runs_of(tensor: SourceTensor) -> int:
    """How many runs can be read of a tensor that decodes some of its bytes at once, without decoding all of it anew
    for each."""
    at_once = tensor.decoded_at_once if isinstance(tensor, LazyArray) else 0
    return RUNS if not at_once else max(1, min(RUNS, nbytes(tensor) // at_once))


def _runs(shape: tuple[int, ...], most: int, runs: int) -> Iterator[tuple[slice, ...]]:
    """Where they lie: each a part of one axis, and all of those after it."""
    wanted, axis, below = max(1, most // runs), len(shape) - 1, 1
    while axis and below * shape[axis] <= wanted:
        below *= shape[axis]
        axis -= 1
    length, places = min(shape[axis], max(1, wanted // below)), math.prod(shape[: axis + 1])
    for place in np.linspace(0, places - 1, min(runs, places)).astype(int).tolist():
        *above, at = map(int, np.unravel_index(place, shape[: axis + 1]))
        start = min(at, shape[axis] - length)
        yield (*(slice(i, i + 1) for i in above), slice(start, start + length))


def _thinned(values: Array, most: int) -> Array:
    return values[:: max(1, -(-values.size // most))]


def _plain(values: Array) -> Array:
    is_complex = values.dtype.kind == "c" or "complex" in values.dtype.name
    with np.errstate(over="ignore", invalid="ignore"):
        wide = np.abs(values.astype(np.complex64)) if is_complex else values
        return wide.astype(np.float32)


@dataclass(frozen=True, slots=True)
class Histogram:
    """Shares of elements between two ends, in bins of one width; what lies beyond counts in the first and the last."""

    low: float
    high: float
    shares: tuple[float, ...]


def ends_of(values: Array, weights: Array | None = None) -> tuple[float, float] | None:
    """Between what values most of them lie, each with its weight; None where there is none."""
    if not values.size:
        return None
    order = np.argsort(values)
    shares = np.arange(1, values.size + 1) if weights is None else np.cumsum(weights[order])
    places = np.searchsorted(shares, [TAIL * shares[-1], (1 - TAIL) * shares[-1]])
    low, high = (float(values[order[place]]) for place in places)
    if high - low > ROUNDED * max(abs(low), abs(high)):
        return low, high
    around = abs(low + high) / 4 or 0.5
    return low - around, high + around


def histogram(values: Array, ends: tuple[float, float], weights: Array | None = None) -> Histogram:
    """The shares of values, each with its weight, of which there is one at least."""
    counts, _ = np.histogram(np.clip(values.astype(np.float64), *ends), BINS, ends, weights=weights)
    total = counts.sum() or 1
    return Histogram(*ends, tuple(float(f"{share:.3g}") for share in counts / total))


def together(samples: Sequence[tuple[Array, int]]) -> tuple[Array, Array]:
    """The samples of several tensors, each with the number of its elements, and the weight of each value."""
    there = [(values, count) for values, count in samples if values.size]
    if not there:
        return np.empty(0, np.float32), np.empty(0)
    weights = [np.full(values.size, count / values.size) for values, count in there]
    return np.concatenate([values for values, _ in there]), np.concatenate(weights)
