"""What a run found: raw figures, and the ratios drawn from them."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

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

    def ratio(self, operation: str, contender: str) -> Spread | None:
        """Speed beside the baseline, paired within each round: above 1 is faster than the baseline."""
        baseline, own = self.seconds(operation, BASELINE), self.seconds(operation, contender)
        pairs = [baseline[number] / seconds for number, seconds in own.items() if number in baseline]
        return Spread.of(pairs) if pairs else None

    def footprint(self, operation: str, contender: str) -> Footprint | None:
        """The memory of one operation, if it was measured."""
        for footprint in self.footprints:
            if (footprint.operation, footprint.contender) == (operation, contender):
                return footprint
        return None
