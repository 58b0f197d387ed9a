"""Figures of stored elements, for every dtype, beside the same ones by their definition."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from figures import expected
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptfmt.format.dtypes import DTYPES, DType, pack
from ckptfmt.format.measure import Measure, summaries
from ckptfmt.format.segments import PIECE
from ckptfmt.format.summary import Summary, integer_bits

NAMES = list(DTYPES)


def stored(dtype: DType, values: Any) -> Any:
    """The bytes of elements as a checkpoint has them."""
    if dtype.per > 1:
        return pack(values, dtype).reshape(-1)
    return values.astype(values.dtype.newbyteorder("<")).view(np.uint8)


def padding(dtype: DType, count: int) -> int:
    return -count % dtype.per


def drawn(dtype: DType, rng: np.random.Generator, count: int) -> Any:
    """Any bits."""
    if dtype.bits <= 8:
        return rng.integers(0, 1 << dtype.used, count, dtype=np.uint8).view(dtype.numpy)
    return np.frombuffer(rng.bytes(count * dtype.bits // 8), dtype.numpy).copy()


def hold(found: Summary, wanted: Summary) -> None:
    assert found[:8] == wanted[:8]
    assert (found.least is None) == (wanted.least is None)
    if wanted.least is None:
        assert (found.mean, found.std) == (0.0, 0.0)
        return
    scale = max(abs(wanted.least), abs(wanted.greatest or 0))
    exact = isinstance(wanted.least, int)
    for mine, theirs in ((found.least, wanted.least), (found.greatest, wanted.greatest)):
        assert mine == theirs if exact else mine == pytest.approx(theirs, rel=1e-14, abs=0.0)
    if exact:
        assert found.mean == wanted.mean
    assert abs(found.mean - wanted.mean) <= scale * 1e-14
    assert found.std == pytest.approx(wanted.std, rel=1e-9, abs=max(scale * 1e-14, 1e-323))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10)
@given(seed=st.integers(0, 1 << 32), count=st.integers(0, 40))
def test_any_bits(name: str, seed: int, count: int) -> None:
    dtype = DTYPES[name]
    values = drawn(dtype, np.random.default_rng(seed), count)
    data = stored(dtype, values)
    (found,) = summaries(dtype, data, np.array([data.size]), padding(dtype, count))
    hold(found, expected(dtype, values))


@pytest.mark.parametrize("name", [name for name in NAMES if DTYPES[name].bits <= 16])
def test_every_value(name: str) -> None:
    dtype = DTYPES[name]
    values = np.arange(1 << dtype.used, dtype=np.uint8 if dtype.bits <= 8 else np.uint16).view(dtype.numpy)
    measure = Measure(dtype)
    measure.add(stored(dtype, values))
    hold(measure.summary(padding(dtype, values.size)), expected(dtype, values))


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=10)
@given(seed=st.integers(0, 1 << 32), counts=st.lists(st.integers(0, 9), max_size=6))
def test_many_at_once_are_each_alone(name: str, seed: int, counts: list[int]) -> None:
    """To the bit: what stands beside a tensor is nothing to it."""
    dtype, rng = DTYPES[name], np.random.default_rng(seed)
    counts = [count * dtype.per for count in counts]
    parts = [stored(dtype, drawn(dtype, rng, count)) for count in counts]
    sizes = np.array([part.size for part in parts], np.int64)
    together = summaries(dtype, np.concatenate([np.zeros(0, np.uint8), *parts]), sizes)
    assert list(map(repr, together)) == [repr(summaries(dtype, part, np.array([part.size]))[0]) for part in parts]


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float8_e5m2", "int64", "uint4", "bool"])
def test_pieces_give_the_same_bits_however_they_come(name: str) -> None:
    dtype, rng = DTYPES[name], np.random.default_rng(3)
    values = drawn(dtype, rng, 5 * PIECE + 2 * dtype.per)
    data, step = stored(dtype, values), PIECE * dtype.stored.itemsize // dtype.per
    whole = Measure(dtype)
    whole.add(data)
    cut = Measure(dtype)
    for start, stop in ((0, step), (step, 4 * step), (4 * step, None)):
        cut.add(data[start:stop])
    assert repr(cut.summary()) == repr(whole.summary())
    assert cut.summary().elements == values.size


@pytest.mark.parametrize("name", ["float32", "float64", "bfloat16", "float16", "int32", "uint64", "complex64", "int8"])
@pytest.mark.parametrize("middle", [0.0, 0.3, 30000.0])
def test_many_numbers_beside_numpy(name: str, middle: float) -> None:
    """Also far from 0, where a difference of sums of squares would have no digits left."""
    dtype = DTYPES[name]
    if name == "int8" and middle > 1:
        middle = 100.0
    drawn = np.random.default_rng(1).standard_normal(3 * PIECE + 17) * (9 if "int" in name else 0.01) + middle
    values = (np.abs(drawn) if name == "uint64" else np.clip(drawn, -128, 127) if name == "int8" else drawn).astype(
        dtype.numpy
    )
    measure = Measure(dtype)
    measure.add(stored(dtype, values))
    found = measure.summary()
    wide = np.abs(values.astype(np.complex128)) if dtype.part else values.astype(np.longdouble)
    assert float(found.mean) == pytest.approx(float(wide.mean()), rel=1e-13, abs=1e-15)
    assert found.std == pytest.approx(float(wide.std()), rel=1e-9)
    assert found.norm == pytest.approx(float(np.sqrt((wide**2).sum())), rel=1e-12)


def test_numbers_whose_squares_have_no_place() -> None:
    for values in ([1e300, -1e300, 1e-300], [5e-324, -5e-324, 0.0], [1.7e308, 1.7e308, -1.7e308], [1e-200, 3e-200]):
        data = np.array(values)
        (found,) = summaries(DTYPES["float64"], data.view(np.uint8), np.array([data.nbytes]))
        hold(found, expected(DTYPES["float64"], data))
        one, other = (
            summaries(DTYPES["float64"], part.view(np.uint8), np.array([part.nbytes]))[0]
            for part in (data[:1], data[1:])
        )
        hold(one.joined(other), expected(DTYPES["float64"], data))


def test_integers_beyond_floats_are_exact() -> None:
    values = np.array([2**63 - 1, 2**63 - 2, -(2**63), 2**62 + 1])
    (found,) = summaries(DTYPES["int64"], values.view(np.uint8), np.array([values.nbytes]))
    assert (found.least, found.greatest, found.mean * 4) == (-(2**63), 2**63 - 1, sum(map(int, values)))
    times = np.arange(1_700_000_000_000_000_000, 1_700_000_000_000_000_100)
    (found,) = summaries(DTYPES["int64"], times.view(np.uint8), np.array([times.nbytes]))
    assert found.std == pytest.approx(np.arange(100).std(), rel=1e-14)


def test_what_was_cast_up_shows() -> None:
    values = np.random.default_rng(0).standard_normal(1000)
    for narrow, bits in (("bfloat16", 8), ("float16", 11), ("float8_e4m3fn", 4), ("float32", 24)):
        for wide in ("float32", "float64"):
            cast = values.astype(DTYPES[narrow].numpy).astype(wide)
            assert summaries(DTYPES[wide], cast.view(np.uint8), np.array([cast.nbytes]))[0].bits == bits
    small = np.array([-3, 200], np.int64)
    assert summaries(DTYPES["int64"], small.view(np.uint8), np.array([16]))[0].bits == 9


def test_parts_without_numbers_join() -> None:
    nothing, bad = Summary(), Summary(elements=2, nan=2)
    some = Summary(elements=2, bits=1, least=1.0, greatest=2.0, mean=1.5, std=0.5)
    assert nothing.joined(some) == some == some.joined(nothing)
    joined = bad.joined(some)
    assert (joined.elements, joined.finite, joined.mean, joined.std) == (4, 2, 1.5, 0.5)
    assert joined.norm == pytest.approx(math.sqrt(5))


def test_a_bool_is_0_or_1() -> None:
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        summaries(DTYPES["bool"], np.array([0, 2], np.uint8), np.array([2]))


@pytest.mark.parametrize(
    ("least", "greatest", "bits"),
    [(0, 0, 0), (1, 1, 1), (0, 255, 8), (-1, -1, 1), (-1, 0, 1), (-1, 1, 2), (-2, -2, 2), (-8, -8, 4), (-128, 127, 8)],
)
def test_the_narrowest_integer_that_holds_all(least: int, greatest: int, bits: int) -> None:
    """Also where all are negative: -1 has one bit. [STAT-002]"""
    assert integer_bits(least, greatest) == bits
    data = np.array([least, greatest], "<i2").view(np.uint8)
    (found,) = summaries(DTYPES["int16"], data, np.array([data.size]), 0)
    assert found.bits == bits
