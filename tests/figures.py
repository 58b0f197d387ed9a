"""The figures of elements by their definition (docs/reference/statistics.md), one element after another, in exact
arithmetic: what `ckptfmt.format.measure` is held against."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import ml_dtypes
import numpy as np

from ckptfmt.format.dtypes import DTYPES, DType
from ckptfmt.format.summary import Summary


def expected(dtype: DType, values: Any) -> Summary:
    """Of an array of the dtype, as it is in memory."""
    elements = [_parts(dtype, one) for one in np.asarray(values).reshape(-1)]
    nan = [one for one in elements if any(map(math.isnan, one))]
    finite = [one for one in elements if all(map(math.isfinite, one))]
    infinite = [one for one in elements if one not in nan and not all(map(math.isfinite, one)) and one[0] == one[0]]
    infinite = [one for one in infinite if not any(map(math.isnan, one))]
    negative = sum(len(one) == 1 and one[0] < 0 for one in infinite)
    numbers = [abs_of(one) for one in finite]
    least_normal, greatest = _bounds(dtype)
    counts = (
        *(len(elements), len(nan), len(infinite) - negative, negative, numbers.count(0)),
        sum(any(0 < abs(part) < least_normal for part in one) for one in finite),
        sum(any(abs(part) == greatest for part in one) for one in finite),
    )
    if not finite:
        return Summary(*counts)
    exact = list(map(Fraction, numbers))
    mean = sum(exact) / len(exact)
    variance = sum((one - mean) ** 2 for one in exact) / len(exact)
    return Summary(*counts, bits_of(dtype, finite), min(numbers), max(numbers), mean, root(variance))


def root(square: Fraction) -> float:
    """The square root of any fraction that is not negative, to the last digits of a float."""
    if not square:
        return 0.0
    shift = (square.numerator.bit_length() - square.denominator.bit_length()) // 2
    return math.ldexp(math.sqrt(square / Fraction(4) ** shift), shift)


def abs_of(parts: tuple[Any, ...]) -> Any:
    return parts[0] if len(parts) == 1 else min(math.hypot(*parts), math.ulp(0.0).fromhex("0x1.fffffffffffffp+1023"))


def _parts(dtype: DType, value: Any) -> tuple[Any, ...]:
    if dtype.part is None:
        is_float = dtype.range is not None and dtype.range.exponent
        return (float(value),) if is_float else (int(value),)
    pair = np.asarray(value).reshape(1).view(DTYPES[dtype.part].numpy)
    return float(pair[0]), float(pair[1])


def _bounds(dtype: DType) -> tuple[float, float]:
    """The least normal and the greatest number of a float; of integers none is subnormal or saturated."""
    real = DTYPES[dtype.part] if dtype.part else dtype
    if real.range is None or not real.range.exponent:
        return 0.0, math.inf
    return float(ml_dtypes.finfo(real.numpy).smallest_normal), real.range.greatest


def bits_of(dtype: DType, finite: list[tuple[Any, ...]]) -> int:
    """Significand bits down to the last that any element has, or the width of an integer that holds all."""
    real = DTYPES[dtype.part] if dtype.part else dtype
    if real.range is None or not real.range.exponent:
        numbers = [one[0] for one in finite]
        if min(numbers) >= 0:
            return max(numbers).bit_length()
        return next(
            width for width in range(1, 65) if -(1 << width - 1) <= min(numbers) and max(numbers) < 1 << width - 1
        )
    return max(_significand(real, part) for one in finite for part in one)


def _significand(real: DType, part: float) -> int:
    """How far the last bit lies below the leading one; in a subnormal, below where that of the least normal one is."""
    if not part:
        return 0
    least_normal, _ = _bounds(real)
    exponent = math.frexp(max(abs(part), least_normal))[1] - 1
    last = Fraction(abs(part)).numerator & -Fraction(abs(part)).numerator
    lowest = last.bit_length() - Fraction(abs(part)).denominator.bit_length()
    return exponent - lowest + 1
