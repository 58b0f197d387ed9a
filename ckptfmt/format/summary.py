"""What is known of some elements of a tensor, and of two such parts together (docs/reference/statistics.md). Pure."""

from __future__ import annotations

import math
import sys
from fractions import Fraction
from typing import NamedTuple

GREATEST = sys.float_info.max
CLOSE = 1e-9  # of the greatest magnitude, by which sums in another order may differ


class Summary(NamedTuple):
    """How many `elements` there are, and how many of them are NaN, infinite, zero, subnormal and `saturated`; the
    `least` and `greatest` finite one (None if there is none), the `mean` of the finite ones (exact for integers) and
    their standard deviation `std`; and `bits`, how many of a significand or an integer are in use."""

    elements: int = 0
    nan: int = 0
    positive_inf: int = 0
    negative_inf: int = 0
    zeros: int = 0
    subnormals: int = 0
    saturated: int = 0
    bits: int = 0
    least: float | int | None = None
    greatest: float | int | None = None
    mean: float | Fraction = 0.0
    std: float = 0.0

    @property
    def finite(self) -> int:
        """How many are neither NaN nor infinite."""
        return self.elements - self.nan - self.positive_inf - self.negative_inf

    @property
    def norm(self) -> float:
        """The l2 norm of the finite ones; inf where no float64 is so large."""
        return norm_of(self.finite, float(self.mean), self.std)

    def joined(self, other: Summary) -> Summary:
        """That of both, which loses no digits (Chan, Golub and LeVeque 1979) and never overflows."""
        counts = [here + there for here, there in zip(self[:7], other[:7], strict=True)]
        bits = max(self.bits, other.bits)
        if not self.finite or not other.finite:
            return Summary._make((*counts, bits, *(self if self.finite else other)[8:]))
        least = min(one.least for one in (self, other) if one.least is not None)
        greatest = max(one.greatest for one in (self, other) if one.greatest is not None)
        return Summary._make((*counts, bits, least, greatest, self._mean_with(other), self._std_with(other)))

    def _mean_with(self, other: Summary) -> float | Fraction:
        count = self.finite + other.finite
        if isinstance(self.mean, Fraction) and isinstance(other.mean, Fraction):
            return (self.mean * self.finite + other.mean * other.finite) / count
        mine, theirs = float(self.mean), float(other.mean)
        if math.isinf(theirs - mine):
            return mine * (self.finite / count) + theirs * (other.finite / count)
        return mine + (theirs - mine) * (other.finite / count)

    def _std_with(self, other: Summary) -> float:
        count = self.finite + other.finite
        weight = math.sqrt(self.finite) * math.sqrt(other.finite) / count  # at most a half, so nothing overflows
        step = float(other.mean / 2 - self.mean / 2) * weight * 2
        parts = (self.std * math.sqrt(self.finite / count), other.std * math.sqrt(other.finite / count), step)
        return math.hypot(*parts)


def first_difference(claimed: Summary, found: Summary) -> str | None:
    """The name of the first figure in which two summaries of the same elements differ, but for how sums were rounded;
    None if they do not."""
    for name in Summary._fields[:10]:
        if getattr(claimed, name) != getattr(found, name):
            return name
    scale = max(abs(found.least or 0), abs(found.greatest or 0))
    for name in ("mean", "std"):
        if abs(float(getattr(claimed, name)) - float(getattr(found, name))) > scale * CLOSE:
            return name
    return None


def norm_of(finite: int, mean: float, std: float) -> float:
    """The l2 norm of so many numbers with that mean and standard deviation."""
    return math.sqrt(finite) * math.hypot(mean, std)


def significand(fraction: int, mantissa: int) -> int:
    """How many bits of a significand are in use, from its first one, where these bits of fractions are set at all."""
    return 1 + mantissa - ((fraction & -fraction).bit_length() - 1) if fraction else 1


def integer_bits(least: int, greatest: int) -> int:
    """How many bits an integer dtype needs that holds both: of two's complement, if one is negative."""
    if least >= 0:
        return int(greatest).bit_length()
    return 1 + max((~int(least)).bit_length(), max(0, int(greatest)).bit_length())
