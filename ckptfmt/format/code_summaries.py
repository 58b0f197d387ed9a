"""Dtypes of at most 8 bits to summaries, by how often each byte stands there (docs/reference/statistics.md). Pure."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np

from .dtypes import Array, DType
from .segments import PIECE
from .summary import Summary, integer_bits, significand


class CodeTable:
    """What each code of a narrow dtype stands for. `of_octets` (256, codes): how often each is in a byte."""

    def __init__(self, dtype: DType) -> None:
        codes = np.arange(1 << dtype.used, dtype=np.uint8)
        self.values = codes.view(dtype.numpy).astype(np.float64)
        self.is_finite = np.isfinite(self.values)
        self.finite = np.where(self.is_finite, self.values, 0.0)
        magnitude = np.abs(self.finite)
        self.is_float = dtype.range is not None and dtype.range.exponent > 0
        self.is_subnormal = self.is_saturated = np.zeros(len(codes), bool)
        self.bits = np.zeros(len(codes), np.int64)
        if self.is_float:
            import ml_dtypes

            assert dtype.range is not None
            normal = float(ml_dtypes.finfo(dtype.numpy).smallest_normal)  # type: ignore[no-untyped-call]
            self.is_subnormal = (magnitude > 0) & (magnitude < normal)
            self.is_saturated = self.is_finite & (magnitude == magnitude.max())
            fraction = (codes & ((1 << dtype.range.mantissa) - 1)).tolist()
            bits = np.array([significand(one, dtype.range.mantissa) for one in fraction])
            self.bits = np.where(self.is_finite & (self.values != 0), bits, 0)
        octets, mask = np.arange(256), (1 << dtype.used) - 1
        self.of_octets = np.zeros((256, len(codes)), np.int64)
        for place in range(dtype.per):
            np.add.at(self.of_octets, (octets, octets >> (place * dtype.bits) & mask), 1)


@lru_cache
def code_table(dtype: DType) -> CodeTable:
    return CodeTable(dtype)


def octets_in(data: Array) -> Array:
    """How often each byte stands in `data`: two at a time, as that takes half as long."""
    if data.size < PIECE or data.size % 2 or not data.flags.c_contiguous:
        return np.bincount(data, minlength=256)
    pairs = np.bincount(data.view(np.uint16), minlength=1 << 16).reshape(256, 256)
    both: Array = pairs.sum(axis=0) + pairs.sum(axis=1)
    return both


def of_octets(dtype: DType, data: Array, sizes: Array, padding: int) -> list[Summary]:
    if len(sizes) == 1:
        return of_counts(dtype, octets_in(data)[None], padding)
    found = []
    for start in range(0, len(sizes), 256):  # of which the counts stay in the cache
        few = sizes[start : start + 256]
        here, data = data[: few.sum()], data[few.sum() :]
        rows = np.repeat(np.arange(len(few), dtype=np.uint16) << 8, few)
        found.append(np.bincount(here | rows, minlength=256 * len(few)).reshape(-1, 256))
    return of_counts(dtype, np.concatenate(found), padding)


def of_counts(dtype: DType, octets: Array, padding: int) -> list[Summary]:
    """Of runs in each of which each byte stands so often."""
    codes = code_table(dtype)
    if dtype.name == "bool" and octets[:, 2:].any():
        raise ValueError("a bool byte is neither 0 nor 1")
    counts = octets if codes.of_octets.shape == (256, 256) else octets @ codes.of_octets
    if padding:
        counts[:, 0] -= padding
    finite = np.where(codes.is_finite, counts, 0)
    held = finite.sum(axis=1)
    total = finite @ codes.finite
    mean = total / np.maximum(held, 1)
    away = np.square(codes.finite - mean[:, None]) * finite
    std = np.sqrt(away.sum(axis=1) / np.maximum(held, 1))
    least = np.where(finite > 0, codes.finite, np.inf).min(axis=1)
    greatest = np.where(finite > 0, codes.finite, -np.inf).max(axis=1)
    columns = (
        counts.sum(axis=1),
        *(counts[:, mask].sum(axis=1) for mask in _odd(codes)),
        np.where(finite > 0, codes.bits, 0).max(axis=1),
    )
    rows = zip(*(column.tolist() for column in (*columns, held, least, greatest, total, mean, std)), strict=True)
    return [_of_row(codes.is_float, *row) for row in rows]


def _odd(codes: CodeTable) -> tuple[Array, ...]:
    """Which codes are NaN, positive and negative infinity, zero, subnormal and saturated."""
    values = codes.values
    return np.isnan(values), values == np.inf, values == -np.inf, values == 0, codes.is_subnormal, codes.is_saturated


def _of_row(is_float: bool, *row: Any) -> Summary:
    *counts, bits, held, least, greatest, total, mean, std = row
    if not held:
        return Summary._make((*counts, *Summary()[7:]))
    if is_float:
        return Summary._make((*counts, bits, least + 0.0, greatest + 0.0, mean, std))
    low, high = int(least), int(greatest)
    return Summary._make((*counts, integer_bits(low, high), low, high, Fraction(int(total), held), std))


def nan_octets(dtype: DType, data: Array) -> Array:
    """Which elements of a dtype with one in a byte are NaN: its NaNs are one code, or all from one on of each sign."""
    codes = np.flatnonzero(np.isnan(code_table(dtype).values))
    if len(codes) <= 1:
        return np.equal(data, codes[0]) if len(codes) else np.zeros(data.size, bool)
    found: Array = np.greater_equal(data & 0x7F, codes[0])
    return found
