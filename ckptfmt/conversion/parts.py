"""Tensors that lie in parts: each part begins somewhere in the whole."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from ..errors import fault
from ..format.dtypes import Array
from .source import LazyArray, LeadingSlices, SourceTensor

CELLS = 1 << 24  # most cells into which the parts of a tensor may cut it

TensorPart = tuple[tuple[int, ...], SourceTensor]  # where it begins, and its values


def joined(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], parts: list[TensorPart]) -> SourceTensor:
    """One tensor of parts, which must cover it without overlapping; raises ValueError."""
    if any(type(n) is not int or not 0 <= n < 1 << 63 for n in shape):
        raise ValueError(f"{name!r} has the shape {shape}")
    if any(len(at) != len(shape) or part.ndim != len(shape) for at, part in parts):
        raise ValueError(f"a part of {name!r} has other axes than its shape {shape}")
    ends = [a + n for at, part in parts for a, n in zip(at, part.shape, strict=True)]
    fits = all(end <= n for end, n in zip(ends, shape * len(parts), strict=True))
    if not fits or sum(prod(part.shape) for _, part in parts) != prod(shape) or _overlap(parts):
        raise ValueError(f"the parts of {name!r} do not make up its shape {shape}")
    if len(parts) == 1:
        return parts[0][1]

    def read(index: LeadingSlices) -> Array:
        bounds = [axis.indices(n)[:2] for axis, n in zip(index, shape, strict=False)]
        bounds += [(0, n) for n in shape[len(index) :]]
        out = np.empty([high - low for low, high in bounds], dtype)
        for at, part in parts:
            stops = [a + n for a, n in zip(at, part.shape, strict=True)]
            spans = [(max(low, a), min(high, b)) for (low, high), a, b in zip(bounds, at, stops, strict=True)]
            if all(first < last for first, last in spans):
                lows = [low for low, _ in bounds]
                out[_shifted(spans, lows)] = part[_shifted(spans, at)]
        return out

    return LazyArray(shape, dtype, read)


def _overlap(parts: list[TensorPart]) -> bool:
    """Whether parts have elements in common: each axis is cut where a part begins or ends, and the cells counted."""
    corners = [at for at, _ in parts] + [
        tuple(a + n for a, n in zip(at, part.shape, strict=True)) for at, part in parts
    ]
    places = [{border: i for i, border in enumerate(sorted(set(axis)))} for axis in zip(*corners, strict=True)]
    if prod(len(axis) for axis in places) > CELLS:
        raise fault("limit-exceeded", "a tensor in too many parts")
    taken = np.zeros([len(axis) for axis in places], bool)
    for at, part in parts:
        cells = tuple(slice(axis[a], axis[a + n]) for axis, a, n in zip(places, at, part.shape, strict=True))
        if taken[cells].any():
            return True
        taken[cells] = True
    return False


def _shifted(spans: list[tuple[int, int]], origin: Sequence[int]) -> tuple[slice, ...]:
    """Spans of a tensor as an index into a part of it that begins at `origin`."""
    return tuple(slice(first - zero, last - zero) for (first, last), zero in zip(spans, origin, strict=True))


def run_of(flat: SourceTensor, first: int, last: int) -> SourceTensor:
    """Elements [first, last) of a tensor of one axis."""
    if isinstance(flat, np.ndarray):
        return flat[first:last]

    def read(index: LeadingSlices) -> Array:
        low, high, _ = index[0].indices(last - first) if index else (0, last - first, 1)
        return flat[(slice(first + low, first + high),)]

    whole = flat.mapped
    return LazyArray((last - first,), flat.dtype, read, mapped=None if whole is None else lambda: whole()[first:last])


def reshaped(flat: SourceTensor, shape: tuple[int, ...]) -> SourceTensor:
    """The elements of a tensor of one axis in another shape; of a part of it only that is read."""
    if isinstance(flat, np.ndarray):
        return flat.reshape(shape)

    def read(index: LeadingSlices) -> Array:
        if not shape:
            return flat[(slice(0, 1),)].reshape(())
        bounds = [axis.indices(n)[:2] for axis, n in zip(index, shape, strict=False)] or [(0, shape[0])]
        depth = next((i for i, (low, high) in enumerate(bounds) if high - low != 1), len(bounds) - 1)
        steps = [prod(shape[i + 1 :]) for i in range(depth + 1)]
        start = sum(low * step for (low, _), step in zip(bounds, steps, strict=False))
        low, high = bounds[depth]
        part = flat[(slice(start, start + max(0, high - low) * steps[depth]),)]
        whole = part.reshape([1] * depth + [max(0, high - low), *shape[depth + 1 :]])
        return whole[(*[slice(None)] * (depth + 1), *index[depth + 1 :])]

    whole = flat.mapped
    return LazyArray(shape, flat.dtype, read, mapped=None if whole is None else lambda: whole().reshape(shape))
