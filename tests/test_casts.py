"""Casts: every element is the nearest value, rounded once, and what lies beyond the range is what SPEC.md says, and
counted. [DTYPE-006] [DTYPE-007] [DTYPE-008]

The right value comes from the codes of a dtype, which lie in the order of their values: between two neighbours, it is
the one on the same side of their middle. That needs no rounding.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt.format.casts import CastArray, cast, may_exceed, rule_of
from ckptfmt.format.dtypes import DTYPES

INF, NAN = math.inf, math.nan


class Rule(NamedTuple):
    """The table of SPEC.md, in the words of this test: greatest number, where what lies beyond it begins, whether the
    tie is beyond itself, what becomes of it and of an infinity, what of a NaN, by its code."""

    greatest: float
    middle: float
    tie_is_beyond: bool
    beyond: float
    infinity: float
    nan: int
    negative_nan: int


RULES = {
    "float16": Rule(65504, 65520, True, INF, INF, 0x7E00, 0xFE00),
    "bfloat16": Rule(255 * 2.0**120, 511 * 2.0**119, True, INF, INF, 0x7FC0, 0xFFC0),
    "float8_e3m4": Rule(15.5, 15.75, True, INF, INF, 0x78, 0xF8),
    "float8_e4m3": Rule(240, 248, True, INF, INF, 0x7C, 0xFC),
    "float8_e5m2": Rule(57344, 61440, True, INF, INF, 0x7E, 0xFE),
    "float8_e4m3fn": Rule(448, 464, False, NAN, NAN, 0x7F, 0xFF),
    "float8_e4m3fnuz": Rule(240, 248, True, NAN, NAN, 0x80, 0x80),
    "float8_e4m3b11fnuz": Rule(30, 31, True, NAN, NAN, 0x80, 0x80),
    "float8_e5m2fnuz": Rule(57344, 61440, True, NAN, NAN, 0x80, 0x80),
    "float6_e2m3fn": Rule(7.5, 7.75, True, 7.5, 7.5, 0x20, 0x20),
    "float6_e3m2fn": Rule(28, 30, True, 28, 28, 0x20, 0x20),
    "float4_e2m1fn": Rule(6, 7, True, 6, 6, 0x8, 0x8),
}
UNSIGNED = ("float8_e5m3fnu", "float8_e8m0fnu")
FLOATS = [name for name, row in DTYPES.items() if row.range is not None and row.range.exponent]
INTS = [name for name, row in DTYPES.items() if row.range is not None and row.range.beyond == "wraps"]


def codes(array: Any) -> Any:
    return array.view(f"u{array.dtype.itemsize}")


@cache
def positives(name: str) -> Any:
    """All numbers from 0 on, as float64 in the order of their codes."""
    row = DTYPES[name]
    with np.errstate(invalid="ignore"):
        codes = np.arange(1 << (row.bits - (name not in UNSIGNED)), dtype=f"u{row.numpy.itemsize}")
        every = codes.view(row.numpy).astype(np.float64)
    return every[np.isfinite(every)]


def moved(values: Any, towards: float) -> Any:
    return np.nextafter(values, towards)


@pytest.mark.parametrize("name", RULES)
def test_every_value_and_every_middle_from_float64(name: str) -> None:
    """Each value, each middle of two neighbours, and what is next to both in float64; and the same negated."""
    values, rule, dtype = positives(name), RULES[name], DTYPES[name].numpy
    assert values[-1] == rule.greatest
    assert (np.diff(values) > 0).all()
    middles = (values[1:] + values[:-1]) / 2
    assert all(
        Fraction(m) * 2 == Fraction(a) + Fraction(b) for m, a, b in zip(middles, values, values[1:], strict=False)
    )
    number = np.arange(len(values))
    lower, upper = number[:-1], number[1:]
    cases = [
        (values, number),
        (moved(values, INF), number),
        (moved(values[1:], 0), upper),
        (middles, np.where(lower % 2 == 0, lower, upper)),
        (moved(middles, INF), upper),
        (moved(middles, 0), lower),
    ]
    for numbers, right in cases:
        for sign in (1, -1):
            out, beyond = cast(sign * numbers, dtype)
            wanted = np.copysign(values[right], sign)
            got = out.astype(np.float64)
            assert beyond == 0
            assert (got == wanted).all()
            if "fnuz" not in name:  # these have no negative zero
                assert (np.signbit(got) == np.signbit(wanted)).all()


@pytest.mark.parametrize("name", RULES)
def test_what_lies_beyond(name: str) -> None:
    rule, dtype = RULES[name], DTYPES[name].numpy
    past = [moved(rule.middle, INF), rule.middle * 1.5, 1e30, 1e39, 1e300, np.finfo(np.float64).max]
    inside = [rule.greatest, moved(rule.greatest, INF), moved(rule.middle, 0)]
    if name == "bfloat16":
        past = [value for value in past if value > rule.middle]
    (past if rule.tie_is_beyond else inside).append(rule.middle)
    for sign in (1, -1):
        out, beyond = cast(sign * np.array(past), dtype)
        assert beyond == len(past)
        assert np.array_equal(out.astype(np.float64), np.full(len(past), sign * rule.beyond), equal_nan=True)
        out, beyond = cast(sign * np.array(inside), dtype)
        assert beyond == 0
        assert (out.astype(np.float64) == sign * rule.greatest).all()
        out, beyond = cast(np.array([sign * INF]), dtype)
        assert beyond == (0 if math.isinf(rule.infinity) else 1)
        assert np.array_equal(out.astype(np.float64), [sign * rule.infinity], equal_nan=True)
        nan, beyond = cast(np.copysign(np.array([NAN]), sign), dtype)
        assert codes(nan)[0] == (rule.nan if sign > 0 else rule.negative_nan)
        assert beyond == ("float8" not in name and "float16" not in name)


def test_e8m0fnu() -> None:
    """Powers of two alone: ties go to the greater, as both significands are odd (IEEE 754-2019, 4.3.1)."""
    dtype = DTYPES["float8_e8m0fnu"].numpy
    powers = 2.0 ** np.arange(-127, 128)
    for numbers, right in (
        (powers, powers),
        (powers[:-1] * 1.5, powers[1:]),
        (moved(powers[:-1] * 1.5, 0), powers[:-1]),
        (moved(powers * 1.5, 0), powers),
        (np.array([5e-324, 1e-300, 2.0**-149, 2.0**-128, 2.0**-127 * 0.99]), np.full(5, powers[0])),
    ):
        out, beyond = cast(numbers, dtype)
        assert beyond == 0
        assert (out.astype(np.float64) == right).all()
    none = np.array([0.0, -0.0, -1.0, -1e-300, -INF, INF, 1.5 * 2.0**127, 1e300, NAN])
    out, beyond = cast(none, dtype)
    assert (codes(out) == 0xFF).all()
    assert beyond == 8
    assert cast(np.arange(3), dtype).beyond == 1
    assert cast(np.array([False, True]), dtype).beyond == 1


def test_e5m3fnu() -> None:
    """No sign: what is below 0 is beyond the range, however near, and −0 is 0. [DTYPE-006] [DTYPE-007]"""
    dtype = DTYPES["float8_e5m3fnu"].numpy
    values = positives("float8_e5m3fnu")
    number = np.arange(255)
    assert (values == np.where(number < 8, number * 2.0**-17, (8 + number % 8) * 2.0 ** (number // 8 - 18))).all()
    middles = (values[1:] + values[:-1]) / 2
    for numbers, right in (
        (values, number),
        (middles, number[:-1] + number[:-1] % 2),
        (moved(middles, INF), number[1:]),
        (moved(middles, 0), number[:-1]),
        (np.array([-0.0, 5e-324, 1e-300, 2.0**-18, 118784.0]), [0, 0, 0, 0, 254]),
    ):
        out, beyond = cast(numbers, dtype)
        assert beyond == 0
        assert (codes(out) == right).all()
    none = np.array([moved(118784.0, INF), 122880, 1e39, INF, -5e-324, -1e-300, -(2.0**-18), -1, -INF, NAN, -NAN])
    with np.errstate(over="ignore"):
        single = none.astype(np.float32)
    for wide in (none, single):
        out, beyond = cast(wide, dtype)
        inside = (wide == 0) | (wide == 118784)
        assert (codes(out)[~inside] == 0xFF).all()
        assert beyond == np.count_nonzero(~inside & ~np.isnan(wide))
    assert cast(np.array([-1, 0, 1, 118784, 118785]), dtype).beyond == 2
    assert cast(np.array([False, True]), dtype).beyond == 0
    assert not may_exceed(np.dtype(np.uint16), dtype)
    assert may_exceed(np.dtype(np.int8), dtype)


@pytest.mark.parametrize("source", [name for name in FLOATS if DTYPES[name].bits <= 16])
@pytest.mark.parametrize("target", FLOATS)
def test_narrow_floats_in_full(source: str, target: str) -> None:
    """Every code of every float of 16 bits and less, as every float: as by way of float64, which holds them all."""
    row = DTYPES[source]
    array = np.arange(1 << row.bits, dtype=f"u{row.numpy.itemsize}").view(row.numpy)
    with np.errstate(invalid="ignore"):
        wide = array.astype(np.float32).astype(np.float64)
    one, other = cast(array, DTYPES[target].numpy), cast(wide, DTYPES[target].numpy)
    nans = np.isnan(wide)
    assert (codes(one.values)[~nans] == codes(other.values)[~nans]).all()
    if source != target:
        assert one.beyond == other.beyond
        assert one.beyond == 0 or may_exceed(array.dtype, DTYPES[target].numpy)


@pytest.mark.parametrize("target", ["float32", *RULES, *UNSIGNED])
@pytest.mark.parametrize("source", ["int32", "uint32", "int64", "uint64"])
def test_wide_integers(source: str, target: str) -> None:
    """Integers beside every middle that they can meet, and beside 2**53, 2**63 and 2**64."""
    limits = np.iinfo(source)
    edges = {limits.min, limits.max, 2**24, 2**53, 2**62, 2**63, 2**31}
    if target in RULES or target == "float8_e5m3fnu":
        values = positives(target)
        middles = (values[1:] + values[:-1]) / 2
        whole = middles[(middles >= 1) & (middles < 2.0**64)]
        edges |= {int(middle) for middle in whole[:: 1 + len(whole) // 200]}
        edges |= {int(RULES[target].middle) if target in RULES else 118784}
    near = {sign * edge + step for edge in edges for step in (-1, 0, 1) for sign in (1, -1)}
    numbers = sorted(number for number in near if limits.min <= number <= limits.max)
    got = cast(np.array(numbers, source), DTYPES[target].numpy)
    right = [nearest(Fraction(number), target) for number in numbers]
    assert np.array_equal(got.values.astype(np.float64), [value for value, _ in right], equal_nan=True)
    assert got.beyond == sum(past for _, past in right)


@cache
def exact_positives(name: str) -> list[Fraction]:
    if name == "float8_e8m0fnu":
        return [Fraction(2) ** power for power in range(-127, 128)]
    return [Fraction(value) for value in positives(name)]


def nearest(number: Fraction, name: str) -> tuple[float, bool]:
    """The value that a finite number becomes, and whether it lies beyond the range."""
    if name == "float32":
        return nearest_float32(number)
    if name == "float8_e8m0fnu":
        if number <= 0 or number >= Fraction(3, 2) * 2**127:
            return NAN, True
    elif name == "float8_e5m3fnu":
        if number < 0 or number > 118784:
            return NAN, True
    else:
        rule = RULES[name]
        if abs(number) > rule.middle or (abs(number) == rule.middle and rule.tie_is_beyond):
            return math.copysign(rule.beyond, number), True
    values, size = exact_positives(name), abs(number)
    place = bisect_left(values, size)
    around = [at for at in (place - 1, place) if 0 <= at < len(values)]
    at = min(around, key=lambda at: (abs(values[at] - size), -at if name == "float8_e8m0fnu" else at % 2))
    return math.copysign(float(values[at]), number), False


def nearest_float32(number: Fraction) -> tuple[float, bool]:
    if number == 0:
        return 0.0, False
    size = abs(number)
    power = max(math.frexp(float(size))[1] - 24, -149)  # may be one too great, at a power of two
    while power > -149 and size < Fraction(2) ** (power + 23):
        power -= 1
    digits = round(size / Fraction(2) ** power)  # Python rounds ties to even
    rounded = digits * Fraction(2) ** power
    return (math.copysign(INF, number), True) if rounded >= 2**128 else (math.copysign(float(rounded), number), False)


wide_floats = st.floats(allow_nan=False, allow_infinity=False) | st.builds(
    lambda digits, power, tail: math.ldexp(digits + math.copysign(tail, digits), power),
    st.integers(-600, 600),
    st.integers(-160, 130),
    st.sampled_from([0.0, 0.5, 0.5 + 2.0**-42, 0.5 - 2.0**-43, 2.0**-30, 2.0**-43]),
)


@given(numbers=st.lists(wide_floats, min_size=1, max_size=40))
def test_any_float64(numbers: list[float]) -> None:
    array = np.array(numbers)
    for name in ("float32", *RULES, *UNSIGNED):
        got = cast(array, DTYPES[name].numpy)
        right = [nearest(Fraction(number), name) for number in numbers]
        assert np.array_equal(got.values.astype(np.float64), [value for value, _ in right], equal_nan=True), name
        assert got.beyond == sum(past for _, past in right), name


@given(numbers=st.lists(st.integers(-(2**63), 2**64 - 1), min_size=1, max_size=40))
def test_any_integer(numbers: list[int]) -> None:
    for source in ("int64", "uint64"):
        held = [number for number in numbers if np.iinfo(source).min <= number <= np.iinfo(source).max]
        for name in ("bfloat16", "float32", "float8_e5m2", "float8_e5m3fnu", "float16"):
            got = cast(np.array(held, source), DTYPES[name].numpy)
            right = [nearest(Fraction(number), name) for number in held]
            assert np.array_equal(got.values.astype(np.float64), [value for value, _ in right], equal_nan=True), name
            assert got.beyond == sum(past for _, past in right), name
        wide = cast(np.array(held, source), np.dtype(np.float64)).values
        assert wide.tolist() == [float(number) for number in held]  # Python rounds once


@pytest.mark.parametrize("target", INTS)
@pytest.mark.parametrize("source", INTS)
def test_integers_wrap_and_are_counted(source: str, target: str) -> None:
    one, other = DTYPES[source], DTYPES[target]
    least, greatest = (int(one.range.least), int(one.range.greatest)) if one.range else (0, 0)
    numbers = [n for n in {least, greatest, *range(-300, 301), 2**31, -(2**31) - 1} if least <= n <= greatest]
    wide = np.uint64 if greatest > 2**63 else np.int64
    array = np.array(numbers, wide).astype(one.numpy) if one.bits >= 8 else np.array(numbers, np.int8).astype(one.numpy)
    got = cast(array, other.numpy)
    low = 0 if target.startswith("u") else -(1 << (other.bits - 1))
    right = [(n - low) % (1 << other.bits) + low for n in numbers]
    assert [int(n) for n in got.values] == right
    assert got.beyond == sum(n != m for n, m in zip(numbers, right, strict=True))
    assert may_exceed(one.numpy, other.numpy) or not got.beyond


@pytest.mark.parametrize("target", INTS)
@pytest.mark.parametrize("source", ["float64", "float32", "bfloat16", "float16"])
def test_floats_as_integers(source: str, target: str) -> None:
    """Towards zero, and to the nearest of the range; a NaN is 0. Whatever the processor does."""
    row = DTYPES[target]
    assert row.range is not None
    low, high = int(row.range.least), int(row.range.greatest)
    given = np.array([0.9, -0.9, 1.5, -1.5, low, float(high), 2.0 * high + 2, 2.0 * low - 2, INF, -INF, NAN])
    with np.errstate(over="ignore"):
        array = given.astype(np.float32).astype(DTYPES[source].numpy)
    wide = [float(value) for value in array]
    right = [0 if math.isnan(value) else max(low, min(high, math.trunc(value) if abs(value) < INF else
             int(math.copysign(2**70, value)))) for value in wide]  # fmt: skip
    past = sum(math.isnan(value) or math.isinf(value) or not low <= math.trunc(value) <= high for value in wide)
    got = cast(array, row.numpy)
    assert [int(value) for value in got.values] == right
    assert got.beyond == past


def test_nans_keep_sign_and_payload() -> None:
    ieee = [name for name in FLOATS if DTYPES[name].range.beyond == "inf"]  # type: ignore[union-attr]
    for source in ieee:
        one = DTYPES[source]
        for target in ieee:
            other = DTYPES[target]
            m, n, e = one.range.mantissa, other.range.mantissa, other.range.exponent  # type: ignore[union-attr]
            for sign in (0, 1):
                for payload in {1, 1 << (m - 1), (1 << m) - 1, (1 << (m - 1)) | 1}:
                    bits = sign << (one.bits - 1) | ((1 << one.range.exponent) - 1) << m | payload  # type: ignore[union-attr]
                    nan = np.array([bits], f"u{one.numpy.itemsize}").view(one.numpy)
                    kept = payload << (n - m) if n >= m else payload >> (m - n)
                    right = sign << (other.bits - 1) | ((1 << e) - 1) << n | (kept or 1 << (n - 1))
                    assert int(codes(cast(nan, other.numpy).values)[0]) == right, (source, target, payload)
    for source, sign in (("float8_e4m3fn", 1), ("float8_e4m3fnuz", 0), *((name, 0) for name in UNSIGNED)):
        row = DTYPES[source]
        nan = np.array([0xFF if sign or source in UNSIGNED else 0x80], np.uint8).view(row.numpy)
        assert int(codes(cast(nan, np.dtype(np.float32)).values)[0]) == sign << 31 | 0x7FC00000


@pytest.mark.parametrize(("name", "part"), [("complex32", np.float16), ("bcomplex32", ml_dtypes.bfloat16)])
def test_complex_numbers_part_by_part(name: str, part: Any) -> None:
    dtype = DTYPES[name].numpy
    tie = 1 + 2.0**-8 + 2.0**-40
    real, imaginary = np.array([tie, 1.5, 1e300, NAN]), np.array([-(1 + 2.0**-11 + 2.0**-40), 1e300, 1e300, 2])
    for source in (np.complex128, np.complex64):
        numbers = np.empty(4, source)
        with np.errstate(over="ignore"):
            numbers.real[...], numbers.imag[...] = real, imaginary
        got = cast(numbers, dtype)
        parts = got.values.view(part).reshape(-1, 2)
        for at, one in enumerate((numbers.real, numbers.imag)):
            assert (codes(parts[:, at].copy()) == codes(cast(np.ascontiguousarray(one), np.dtype(part)).values)).all()
        assert got.beyond == (2 if source is np.complex128 else 0)
    real_alone = cast(np.array([tie, 1e300]), dtype)
    parts = real_alone.values.view(part).reshape(-1, 2)
    assert (parts[:, 1] == 0).all()
    assert parts[0, 0] == cast(np.array([tie]), np.dtype(part)).values[0]
    assert real_alone.beyond == 1


LAYOUTS: dict[str, Callable[[Any], Any]] = {
    "plain": lambda a: a,
    "transposed": lambda a: a.T,
    "strided": lambda a: a[::3, ::2],
    "reversed": lambda a: a[::-1, ::-1],
    "big-endian": lambda a: a.astype(">f8"),
    "0-d": lambda a: a[3, 4],
    "empty": lambda a: a[:0],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory(layout: str) -> None:
    """More than one piece, in any order; also into memory of any kind."""
    array = np.asarray(LAYOUTS[layout](np.random.default_rng(1).standard_normal((300, 501)) * 300))
    dtype = DTYPES["float8_e4m3fn"].numpy
    got = cast(array, dtype)
    flat = cast(np.ascontiguousarray(array, np.float64), dtype)
    assert (got.values.shape, got.values.dtype, got.beyond) == (array.shape, dtype, flat.beyond)
    assert (codes(got.values) == codes(flat.values)).all()
    room = np.zeros((*array.shape, 2), dtype)[..., 1]
    assert cast(array, dtype, room) == CastArray(room, got.beyond) or array.ndim
    assert (room.astype(np.float32).tobytes()) == got.values.astype(np.float32).tobytes()
    swapped = np.zeros(array.shape, ">f4")
    cast(array, np.dtype(">f4"), swapped)
    assert (swapped == array.astype(np.float32)).all()


def test_what_the_table_says_nothing_of() -> None:
    days = np.array(["2020-01-01"], "datetime64[D]")
    assert cast(days, np.dtype("datetime64[s]")) == CastArray(days.astype("datetime64[s]"), 0)
    for row in DTYPES.values():
        if row.range is not None and row.range.least <= 0:
            numbers = cast(np.array([0, 1, 1]), row.numpy).values
            assert cast(numbers, np.dtype(bool)).values.tolist() == [False, True, True]


def test_functions_are_computed_in_binary64_and_rounded_once() -> None:
    dtype = DTYPES["bfloat16"].numpy
    factor = 1 + 2.0**-8 + 2.0**-40
    assert float(cast(np.ones(1, dtype), dtype, function=lambda x: x * factor).values[0]) == 1 + 2.0**-7
    huge = cast(np.array([1e200, 1.0, INF, NAN]), np.dtype(np.float64), function=lambda x: x * 1e200)
    assert huge.beyond == 1
    assert huge.values[0] == INF


@pytest.mark.parametrize("name", DTYPES)
def test_the_rule_in_words(name: str) -> None:
    assert rule_of(DTYPES[name].numpy)
