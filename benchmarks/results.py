"""What a run found: raw figures, and the ratios drawn from them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from benchmarks.contenders import BY_NAME
from benchmarks.operations import BASELINE


@dataclass(frozen=True, slots=True)
class Sample:
    """One operation of one contender in one round."""

    operation: str
    contender: str
    round: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Footprint:
    """Memory that one operation added, in bytes."""

    operation: str
    contender: str
    resident: int
    anonymous: int


@dataclass(frozen=True, slots=True)
class Absence:
    """A contender that was left out or failed, and why."""

    contender: str
    reason: str


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, least and greatest."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.least:.2f}-{self.greatest:.2f})"


@dataclass(slots=True)
class Results:
    """Everything measured in one run, with the settings it was measured under."""

    setting: dict[str, str]
    tree_bytes: dict[str, int]
    slice_bytes: int
    samples: list[Sample] = field(default_factory=list)
    footprints: list[Footprint] = field(default_factory=list)
    stored_bytes: dict[str, dict[str, int]] = field(default_factory=dict)
    absences: list[Absence] = field(default_factory=list)

    def seconds(self, operation: str, contender: str) -> dict[int, float]:
        """Seconds by round."""
        return {
            sample.round: sample.seconds
            for sample in self.samples
            if (sample.operation, sample.contender) == (operation, contender)
        }

    def contenders(self, operation: str) -> list[str]:
        """Who has figures for an operation, the fastest first."""
        names = {sample.contender for sample in self.samples if sample.operation == operation}
        return sorted(names, key=lambda name: statistics.median(self.seconds(operation, name).values()))

    def fastest(self, operation: str, library: str) -> str | None:
        """The face of a library that is fastest at an operation, by its median."""
        return next((name for name in self.contenders(operation) if BY_NAME[name].library == library), None)

    def beside(self, operation: str, contender: str, other: str | None) -> Spread | None:
        """Speed beside another's, paired within each round: above 1 is faster than the other."""
        others, own = self.seconds(operation, other or ""), self.seconds(operation, contender)
        pairs = [others[number] / seconds for number, seconds in own.items() if number in others]
        return Spread.of(pairs) if pairs else None

    def ratio(self, operation: str, contender: str) -> Spread | None:
        """Speed beside the baseline, in its fastest face."""
        return self.beside(operation, contender, self.fastest(operation, BASELINE))

    def footprint(self, operation: str, contender: str) -> Footprint | None:
        """The memory of one operation, if it was measured."""
        for footprint in self.footprints:
            if (footprint.operation, footprint.contender) == (operation, contender):
                return footprint
        return None
