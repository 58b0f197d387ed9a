"""Casts between dtypes: each value becomes the nearest one, rounded once; what lies beyond the range of a dtype becomes
what the dtype table says, and is counted (SPEC.md section 3, DTYPE-006 to DTYPE-009). Pure.

ml_dtypes rounds from float32. What has more digits is rounded to odd on the way, wherever it could become a tie: so it
stays on its side, and comes to the nearest value as if it had been rounded once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .dtypes import DTYPES, Array, DType, Range, dtype_of

PIECE = 1 << 15  # elements that are cast at a time, so that they stay in the cache

Function = Callable[[Array], Array]


class CastArray(NamedTuple):
    """An array of another dtype, and how many of its elements lie `beyond` the range of that."""

    values: Array
    beyond: int


def cast(array: Array, dtype: np.dtype[Any], out: Array | None = None, function: Function | None = None) -> CastArray:
    """`array` as `dtype`, in memory of its own or in `out`, which has that shape and, in any byte order, that dtype.
    `function` maps arrays of float64: what it makes of the elements is cast. [DTYPE-006]

    Bools, real numbers of complex ones, and dtypes that the format lacks, are left to NumPy, which counts nothing."""
    source, target = dtype_of(array.dtype), dtype_of(dtype)
    is_same = source == target and function is None
    if is_same or source is None or target is None or not _is_defined(source, target):
        with np.errstate(all="ignore"):
            if out is None:
                return CastArray(array.astype(dtype), 0)
            out[...] = array
            return CastArray(out, 0)
    out = np.empty(array.shape, dtype) if out is None else out
    beyond = 0
    flags: Any = ["external_loop", "buffered", "zerosize_ok"]
    dense: Any = [["readonly", "contig", "aligned"], ["writeonly", "contig", "aligned"]]
    pieces = np.nditer((array, out), flags, dense, (source.numpy, target.numpy), casting="equiv", buffersize=PIECE)
    with np.errstate(all="ignore"), pieces:
        for values, into in pieces if array.size else ():
            beyond += _cast_piece(values, into, source, target, function)
    return CastArray(out, beyond)


def _is_defined(source: DType, target: DType) -> bool:
    """Whether SPEC.md says what a cast gives."""
    return target.name != "bool" and (source.part is None or target.part is not None)


@lru_cache(maxsize=4096)
def may_exceed(found: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Whether elements of one dtype may lie beyond the range of another."""
    source, target = (_real_range(dtype) for dtype in (found, wanted))
    if source is None or target is None or source == target:
        return False
    if target.least > 0 or (target.exponent and source.least < 0 == target.least):  # no zero, no negative numbers
        return True
    if target.beyond == "wraps":
        return bool(source.exponent) or source.least < target.least or source.greatest > target.greatest
    lacks = {"inf": (), "nan": ("inf",), "nearest": ("inf", "nan")}[target.beyond]
    return source.beyond in lacks or bool(_is_past(np.float64(source.greatest), target))


def rule_of(dtype: np.dtype[Any]) -> str:
    """What becomes of numbers beyond the range of a dtype, in words. [DTYPE-007]"""
    target = _real_range(dtype)
    if target is None:
        return "nothing is beyond its range"
    greatest = f"{target.greatest:.6g}"
    if target.beyond == "wraps":
        return f"integers outside {target.least} to {target.greatest} wrap, floats become the nearest, NaN becomes 0"
    if target.least >= 0:
        zero = "0, " if target.least else ""
        return f"{zero}negative numbers and what is beyond {greatest} become NaN"
    becomes = {"inf": "±inf", "nan": "NaN", "nearest": f"±{greatest}, and NaN −0"}[target.beyond]
    return f"what is beyond ±{greatest} becomes {becomes}"


def _real_range(dtype: np.dtype[Any]) -> Range | None:
    row = dtype_of(dtype)
    return None if row is None else row.range if row.part is None else DTYPES[row.part].range


def _cast_piece(values: Array, into: Array, source: DType, target: DType, function: Function | None) -> int:
    """Cast a contiguous piece; the number of its elements beyond the range."""
    if target.part is None:
        past = _cast_real(values, into, source, target, function)
        return 0 if past is None else int(np.count_nonzero(past))
    part = DTYPES[target.part]
    parts = into.view(part.numpy)
    if source.part is None:
        parts[1::2] = 0
        past = _cast_real(values, parts[0::2], source, part, function)
        return 0 if past is None else int(np.count_nonzero(past))
    past = _cast_real(values.view(DTYPES[source.part].numpy), parts, DTYPES[source.part], part, function)
    return 0 if past is None else int(np.count_nonzero(past.reshape(-1, 2).any(axis=-1)))


def _cast_real(values: Array, into: Array, source: DType, target: DType, function: Function | None) -> Array | None:
    """Cast real numbers; which of them lie beyond the range, None if none does."""
    assert target.range is not None  # it is no complex dtype
    wide = _widened(values, source)
    numbers = wide if function is None else function(wide.astype(np.float64, copy=False))
    near = _narrowed(numbers, target)
    into[...] = near
    seen = near if near.dtype == np.float32 else numbers  # half the bytes, and as far from the limits
    if target.range.least <= seen.min().item() and seen.max().item() <= target.range.greatest:
        return None
    past = _past(numbers, target.range)
    if function is not None:
        past |= np.isinf(numbers) & np.isfinite(wide)
    if numbers.dtype.kind == "f" and target.range.exponent:
        nans = np.isnan(numbers)
        if nans.any():
            found = (values, source) if function is None else (numbers, DTYPES["float64"])
            into[nans] = _cast_nans(found[0][nans], found[1], target)
    return past


def _widened(values: Array, source: DType) -> Array:
    """The same numbers in a dtype of NumPy's own."""
    if source.is_core:
        return values
    assert source.range is not None  # it is no complex dtype
    wide: Array = values.astype(np.float32 if source.range.exponent else np.int8 if source.range.least else np.uint8)
    return wide


def _narrowed(numbers: Array, target: DType) -> Array:
    """Numbers in a dtype from which an assignment makes the nearest of the target, and wraps integers."""
    assert target.range is not None
    if not target.range.exponent:
        whole = _truncated(numbers, target.range) if numbers.dtype.kind == "f" else numbers
        return whole if target.is_core else whole.astype(np.int8)
    if not target.range.mantissa:
        return _powers_of_two(numbers, target)
    return numbers if target.is_core else _odd_float32(numbers)


def _powers_of_two(numbers: Array, target: DType) -> Array:
    """Positive numbers as float8_e8m0fnu, whose codes are the exponents of float64 less a constant, all else as NaN.
    ml_dtypes goes by float32, which has no exponent for the least."""
    exact = _odd_float64(numbers)
    exponents = ((exact.view(np.uint64) + np.uint64(1 << 51)) >> np.uint64(52)).astype(np.int64)
    codes = np.clip(exponents - 1023 + 127, 0, 0xFF)
    codes[~(exact > 0)] = 0xFF
    return codes.astype(np.uint8).view(target.numpy)


def _odd_float32(numbers: Array) -> Array:
    """Numbers as float32. What has 12 digits or less there, and may be a tie, is rounded to odd: if digits were lost,
    the last one left is 1. So many have the middles between the numbers of all floats that are narrower."""
    nearest: Array = numbers.astype(np.float32, copy=False)
    if numbers.dtype.itemsize < 4 or numbers.dtype == np.float32 or _within(numbers, 1 << 24):
        return nearest
    bits = nearest.view(np.uint32)
    short = np.flatnonzero(bits & np.uint32(0xFFF) == 0)
    if numbers.dtype.kind == "f" and short.size > numbers.size // 8 and (nearest == numbers).all():
        return nearest  # they had no more digits
    exact, back = _odd_float64(numbers[short]), nearest[short].astype(np.float64)
    bits[short] = (bits[short] - (np.abs(back) > np.abs(exact))) | (back != exact)
    return nearest


def _odd_float64(numbers: Array) -> Array:
    """Integers as float64; where any has more than 53 digits, those without the last 11, rounded to odd."""
    if numbers.dtype.kind == "f" or _within(numbers, 1 << 53):
        return numbers.astype(np.float64, copy=False)
    lost = numbers & 0x7FF
    odd = (numbers - lost) | ((lost != 0).astype(numbers.dtype) << 11)
    return np.where((numbers >= -(1 << 53)) & (numbers <= 1 << 53), numbers, odd).astype(np.float64)


def _within(numbers: Array, limit: int) -> bool:
    """Whether these are integers, none of which is greater."""
    few = numbers.dtype.kind in "iu" and numbers.size > 0
    return few and -limit <= numbers.min().item() and numbers.max().item() <= limit


def _truncated(numbers: Array, target: Range) -> Array:
    """Floats as integers: towards zero, the nearest in the range; NaN is 0."""
    whole = np.trunc(numbers.astype(np.float64))
    end = float(target.greatest + 1)  # a power of two
    inside = (whole >= target.least) & (whole < end)
    out = np.zeros(numbers.shape, np.uint64 if target.least == 0 else np.int64)
    out[inside] = whole[inside]
    out[whole >= end] = target.greatest
    out[whole < target.least] = target.least
    return out


def _past(numbers: Array, target: Range) -> Array:
    """Which numbers lie beyond a range. [DTYPE-007]"""
    if not target.exponent:
        whole = numbers if numbers.dtype.kind != "f" else np.trunc(numbers.astype(np.float64))
        return np.less(whole, target.least) | np.greater_equal(whole, target.greatest + 1) | np.isnan(whole)
    past: Array = _is_past(_odd_float64(numbers), target)
    return past


def _is_past(numbers: Any, target: Range) -> Any:
    size, last = np.abs(numbers), 2.0 ** (math.frexp(target.greatest)[1] - 1 - target.mantissa)
    middle = target.greatest + last / 2  # the tie between the greatest number and what would follow it
    past = size >= middle if target.greatest / last % 2 else size > middle
    match target.beyond:
        case "inf":
            past &= np.isfinite(numbers)
        case "nearest":
            past |= np.isnan(numbers)
    if target.least < 0:
        return past
    return past | (numbers <= 0 if target.least else numbers < 0)


def _cast_nans(nans: Array, source: DType, target: DType) -> Array:
    """NaNs with their sign, and between those of IEEE 754 with the high bits of their payload. [DTYPE-008]"""
    one, other = source.range, target.range
    assert one is not None
    assert other is not None
    bits = nans.view(f"u{nans.dtype.itemsize}").astype(np.uint64)
    code = np.full(bits.shape, other.nan, np.uint64)
    if one.beyond == other.beyond == "inf":
        shift = other.mantissa - one.mantissa
        payload = bits & np.uint64((1 << one.mantissa) - 1)
        payload = payload << np.uint64(shift) if shift >= 0 else payload >> np.uint64(-shift)
        infinity = np.uint64(((1 << other.exponent) - 1) << other.mantissa)
        code = np.where(payload == 0, code, infinity | payload)  # all zeros would be an infinity
    if not (one.nan >> (source.bits - 1) or other.nan >> (target.bits - 1)):  # NaNs of both signs
        code |= (bits >> np.uint64(source.bits - 1)) << np.uint64(target.bits - 1)
    return code.astype(f"u{target.numpy.itemsize}").view(target.numpy)
