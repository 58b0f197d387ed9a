"""What casts meet beyond the range of a dtype: foretold from dtypes alone, and counted as elements are read (SPEC.md
section 3, DTYPE-009)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..errors import CastWarning
from ..format.casts import cast, rule_of
from ..format.dtypes import Array, dtype_of
from ..warning import warn
from .sources import Region

MOST = 8  # tensors that one message names


@dataclass(frozen=True, slots=True)
class Overflow:
    """A tensor that is cast to a dtype which may not hold all that it is `found` as (in words: a dtype, or a number
    that fills it). `beyond`: how many of its `elements` lie beyond the range of `dtype`, None before they are read;
    `rule` says what becomes of them."""

    path: str
    found: str
    dtype: str
    rule: str
    elements: int
    beyond: int | None = None

    def __str__(self) -> str:
        name = f"{self.path or 'the root'} ({self.found} to {self.dtype})"
        if self.beyond is None:
            return f"{name}: elements may be beyond the range; {self.rule}"
        return f"{name}: {self.beyond:,} of {self.elements:,} elements are beyond the range; {self.rule}"


class TensorCast(NamedTuple):
    """A tensor and a cast of its `elements` to `dtype`; `found`: of what, in words."""

    path: str
    found: str
    dtype: np.dtype[Any]
    elements: int

    def overflow(self, beyond: int | None = None) -> Overflow:
        return Overflow(self.path, self.found, name_of(self.dtype), rule_of(self.dtype), self.elements, beyond)


class Tally:
    """Counts what is met in one load or migration. What is read again counts once."""

    def __init__(self) -> None:
        self._counts: dict[TensorCast, dict[Hashable, int]] = {}

    def add(self, kind: TensorCast, region: Hashable, beyond: int) -> None:
        """So many elements of a tensor lie beyond the range of its dtype; `region` says where."""
        if beyond:
            self._counts.setdefault(kind, {})[region] = beyond

    def count(self, kind: TensorCast) -> int:
        return sum(self._counts.get(kind, {}).values())

    def warn(self) -> None:
        """Say what was met as one `CastWarning`, if there is anything."""
        found = tuple(kind.overflow(self.count(kind)) for kind in self._counts)
        if found:
            text = f"a cast met what its dtype cannot hold: {listed(found)} [DTYPE-009]"
            warn(CastWarning(text, found))


def cast_aloud(path: str, array: Array, dtype: np.dtype[Any]) -> Array:
    """A cast that warns of what lies beyond the range."""
    values, beyond = cast(array, dtype)
    tally = Tally()
    tally.add(TensorCast(path, name_of(array.dtype), dtype, array.size), None, beyond)
    tally.warn()
    return values


def listed(overflows: Iterable[Overflow]) -> str:
    """The first of them, in words."""
    texts = [str(one) for one in overflows]
    more = f". And {len(texts) - MOST} more" if len(texts) > MOST else ""
    return ". ".join(texts[:MOST]) + more


def place_of(region: Region) -> tuple[tuple[int, int, int], ...]:
    """A region as what can be hashed."""
    return tuple((side.start, side.stop, side.step or 1) for side in region)


def name_of(dtype: np.dtype[Any]) -> str:
    """The logical name of a dtype, or NumPy's own for one that the format lacks."""
    row = dtype_of(dtype)
    return str(dtype) if row is None else row.name
