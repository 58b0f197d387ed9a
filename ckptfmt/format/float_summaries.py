"""Floats of 16 bits and more, and complex numbers of them, to summaries (docs/reference/statistics.md). Pure.

Floats are compared as the integers that their bits are: four integers of a run tell whether it has NaNs, infinities,
zeros and subnormals at all, and only then these are counted.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .dtypes import DTYPES, Array, DType
from .segments import Segments, moments, scratch
from .summary import GREATEST, Summary, significand


class FloatLayout:
    """Where the bits of a float are, as unsigned integers of its width."""

    def __init__(self, dtype: DType) -> None:
        assert dtype.range is not None
        width, self.mantissa = dtype.bits, dtype.range.mantissa
        self.unsigned, self.signed = np.dtype(f"u{width // 8}"), np.dtype(f"i{width // 8}")
        self.sign = 1 << (width - 1)
        self.fraction = (1 << self.mantissa) - 1
        self.normal = 1 << self.mantissa  # the least number that is not subnormal
        self.infinity = ((1 << dtype.range.exponent) - 1) << self.mantissa
        # shifted, a float of 16 bits is one of float32 whose exponent is too small by a constant
        self.shift = 23 - self.mantissa
        self.scale = 2.0 ** (128 - (1 << (dtype.range.exponent - 1))) if width == 16 else 1.0
        self.mask = ((self.sign - 1) << self.shift) - (1 << 31) if width == 16 else -1
        self.number = struct.Struct("<d" if width == 64 else "<f")
        self.code = struct.Struct("<Q" if width == 64 else "<I")

    def values(self, bits: Array) -> Array:
        """Floats as float64, divided by `scale`."""
        if bits.itemsize == 8:
            return bits.view(np.float64)
        if bits.itemsize == 4:
            return scratch.cast(0, bits.view(np.float32), np.float64)
        wide = scratch.cast(1, bits.view(np.int16), np.int32)
        np.left_shift(wide, self.shift, out=wide)
        if self.scale != 1.0:  # else the sign's copies have been shifted out
            np.bitwise_and(wide, self.mask, out=wide)
        return scratch.cast(0, wide.view(np.float32), np.float64)

    def value(self, magnitude: int) -> float:
        """The float of these bits but the sign."""
        shifted = magnitude << self.shift if self.unsigned.itemsize == 2 else magnitude
        (found,) = self.number.unpack(self.code.pack(shifted))
        return float(found) * self.scale

    def signed_value(self, magnitude: int, is_negative: bool) -> float:
        """The same with a sign; no −0."""
        return -self.value(magnitude) if is_negative and magnitude else self.value(magnitude)


@lru_cache
def layout_of(dtype: DType) -> FloatLayout:
    return FloatLayout(dtype)


def native(data: Array, dtype: np.dtype[Any]) -> Array:
    """Little-endian bytes as integers."""
    return data.view(dtype.newbyteorder("<")).astype(dtype, copy=False)


class _Peaks(NamedTuple):
    """The bits of the least and greatest number of a run, each the magnitude and whether it is negative, and the least
    and greatest magnitude."""

    least: tuple[int, bool]
    greatest: tuple[int, bool]
    near: int
    far: int


def of_floats(dtype: DType, data: Array, sizes: Array) -> list[Summary]:
    layout = layout_of(dtype)
    bits = native(data, layout.unsigned)
    runs = Segments(sizes // layout.unsigned.itemsize)
    peaks = _peaks(bits, runs, layout)
    if all(one.far < layout.infinity for one in peaks):
        return _of_finite(bits, runs, layout, peaks)
    magnitude = bits & layout.unsigned.type(layout.sign - 1)
    is_finite = magnitude < layout.infinity
    odd = [
        runs.count(magnitude > layout.infinity),
        runs.count(bits == layout.infinity),
        runs.count(bits == layout.infinity + layout.sign),
    ]

    def of_finite(left: Segments) -> list[Summary]:
        kept = bits[is_finite]
        return _of_finite(kept, left, layout, _peaks(kept, left, layout))

    return _joined(odd, runs.count(is_finite), of_finite)


def _joined(odd: list[Array], kept: Array, of_finite: Callable[[Segments], list[Summary]]) -> list[Summary]:
    """Summaries of runs with so many elements that are NaN and infinite, and `kept` others."""
    rows = [Summary(sum(row), *row) for row in zip(*map(np.ndarray.tolist, odd), strict=True)]
    found = iter(of_finite(Segments(kept[kept > 0])) if kept.any() else ())
    return [next(found).joined(row) if there else row for row, there in zip(rows, kept.tolist(), strict=True)]


def _peaks(bits: Array, runs: Segments, layout: FloatLayout) -> list[_Peaks]:
    """The order of integers is that of floats for each sign: as signed ones the negative come first, as unsigned ones
    the positive do."""
    signed, sign = bits.view(layout.signed), layout.sign
    ends = [runs.reduce(ufunc, kind) for kind in (signed, bits) for ufunc in (np.maximum, np.minimum)]
    found = []
    for top, bottom, high, low in zip(*map(np.ndarray.tolist, ends), strict=True):
        if bottom >= 0:
            found.append(_Peaks((bottom, False), (top, False), bottom, top))
        elif top < 0:
            near, far = low - sign, high - sign
            found.append(_Peaks((far, True), (near, True), near, far))
        else:
            near, far = min(low, bottom + sign), max(top, high - sign)
            found.append(_Peaks((high - sign, True), (top, False), near, far))
    return found


def _of_finite(bits: Array, runs: Segments, layout: FloatLayout, peaks: list[_Peaks]) -> list[Summary]:
    zeros = subnormals = saturated = [0] * len(peaks)
    if any(one.near < layout.normal or one.far == layout.infinity - 1 for one in peaks):
        magnitude = np.bitwise_and(bits, layout.sign - 1, out=scratch.take(0, len(bits), layout.unsigned))
        zeros, tiny, saturated = (
            runs.count(mask).tolist()
            for mask in (magnitude == 0, magnitude < layout.normal, magnitude == layout.infinity - 1)
        )
        subnormals = [both - zero for both, zero in zip(tiny, zeros, strict=True)]
    used = runs.reduce(np.bitwise_or, bits).tolist()
    fars = [layout.value(one.far) for one in peaks]
    figures = moments(layout.values(bits), runs, [far / layout.scale for far in fars])
    rows = zip(runs.counts.tolist(), zeros, subnormals, saturated, used, peaks, figures, strict=True)
    return [
        Summary(
            *(n, 0, 0, 0, zero, small, full),
            significand(either & layout.fraction, layout.mantissa) if zero < n else 0,
            *(layout.signed_value(*one.least), layout.signed_value(*one.greatest)),
            *(mean * layout.scale, std * layout.scale),
        )
        for n, zero, small, full, either, one, (mean, std) in rows
    ]


# ---- complex numbers, by their absolute values


def of_complex(dtype: DType, data: Array, sizes: Array) -> list[Summary]:
    assert dtype.part is not None
    layout = layout_of(DTYPES[dtype.part])
    bits = native(data, layout.unsigned)
    runs = Segments(sizes // (2 * layout.unsigned.itemsize))
    magnitude = bits & layout.unsigned.type(layout.sign - 1)
    is_nan, is_inf = _either(magnitude > layout.infinity), _either(magnitude == layout.infinity)
    is_inf &= ~is_nan
    odd = [runs.count(is_nan), runs.count(is_inf)]
    is_finite = ~(is_nan | is_inf)

    def of_finite(left: Segments) -> list[Summary]:
        return _of_finite_complex(bits[np.repeat(is_finite, 2)], left, layout)

    return _joined(odd, runs.count(is_finite), of_finite)


def _either(parts: Array) -> Array:
    """Whether it is so of one part of a number."""
    either: Array = parts[0::2] | parts[1::2]
    return either


def _of_finite_complex(bits: Array, runs: Segments, layout: FloatLayout) -> list[Summary]:
    magnitude = bits & layout.unsigned.type(layout.sign - 1)
    parts = np.abs(layout.values(bits)) * layout.scale
    real, imaginary = parts[0::2], parts[1::2]
    far = np.maximum(real, imaginary)
    unit = np.where(far == 0, 1.0, far)
    with np.errstate(over="ignore", under="ignore"):
        lengths = np.minimum(far * np.sqrt(np.square(real / unit) + np.square(imaginary / unit)), GREATEST)
    least, greatest = runs.reduce(np.minimum, lengths).tolist(), runs.reduce(np.maximum, lengths).tolist()
    columns = (
        runs.counts - runs.count(_either(magnitude != 0)),
        runs.count(_either((magnitude != 0) & (magnitude < layout.normal))),
        runs.count(_either(magnitude == layout.infinity - 1)),
        runs.reduce(np.bitwise_or, bits[0::2] | bits[1::2]),
    )
    figures = moments(lengths, runs, greatest)
    rows = zip(*map(np.ndarray.tolist, (runs.counts, *columns)), least, greatest, figures, strict=True)
    return [
        Summary(
            *(n, 0, 0, 0, zero, small, full),
            significand(either & layout.fraction, layout.mantissa) if zero < n else 0,
            *(low, high, *both),
        )
        for n, zero, small, full, either, low, high, both in rows
    ]


def nan_mask(dtype: DType, data: Array) -> Array:
    """Which elements are NaN; none of a complex number's parts alone counts. Looks at each twice only if one is."""
    layout = layout_of(DTYPES[dtype.part] if dtype.part else dtype)
    bits = native(data, layout.unsigned)
    top, high = bits.view(layout.signed).max(initial=0), bits.max(initial=0)
    if top <= layout.infinity and high <= layout.infinity + layout.sign:
        return np.zeros(len(bits) // (2 if dtype.part else 1), bool)
    found = (bits & layout.unsigned.type(layout.sign - 1)) > layout.infinity
    return _either(found) if dtype.part else found
