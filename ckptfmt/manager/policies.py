"""What to keep: policies, joined as a union. Pure: from a list of steps to the reasons for which each is kept.

Whatever the policies say, the newest step is kept. Steps come in order, oldest first, and `keeps` names those that a
policy wants; what no policy wants may be deleted.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ..calls import checked_class, count_asked, integer_of
from ..errors import fault
from .steps import Given, Number, Step

Mode = Literal["min", "max"]


class Policy(Protocol):
    """One rule of retention. `str()` of it is the reason that people are given."""

    def keeps(self, steps: Sequence[Step]) -> Collection[Number]:
        """Return the numbers of those `steps`, which are in order, that this policy wants kept."""


@checked_class
@dataclass(frozen=True, slots=True)
class Last(Policy):
    """The last `n` steps."""

    n: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", count_asked("Last(n)", self.n))

    def keeps(self, steps: Sequence[Step]) -> list[Number]:
        return [step.step for step in steps[-self.n :]]

    def __str__(self) -> str:
        return f"last {self.n}"


@checked_class
@dataclass(frozen=True, slots=True)
class Every(Policy):
    """Multiples of `k`, 0 among them."""

    k: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", count_asked("Every(k)", self.k))

    def keeps(self, steps: Sequence[Step]) -> list[Number]:
        return [step.step for step in steps if step.step % self.k == 0]

    def __str__(self) -> str:
        return f"every {self.k}"


@checked_class
@dataclass(frozen=True, slots=True)
class EveryTime(Policy):
    """The first step, and each that was written at least `interval` (seconds or timedelta) after the one kept before.

    What it keeps stays kept: the choice is the same whether or not the others were deleted meanwhile.
    """

    interval: float | datetime.timedelta

    def __post_init__(self) -> None:
        _check(self.seconds > 0, "EveryTime(interval)", self.interval, "more than 0")

    @property
    def seconds(self) -> float:
        """The interval in seconds."""
        return self.interval.total_seconds() if isinstance(self.interval, datetime.timedelta) else self.interval

    def keeps(self, steps: Sequence[Step]) -> list[Number]:
        kept: list[Step] = []
        for step in steps:
            if not kept or step.time - kept[-1].time >= self.seconds:
                kept.append(step)
        return [step.step for step in kept]

    def __str__(self) -> str:
        return f"every {self.seconds:g} s"


@checked_class
@dataclass(frozen=True, slots=True)
class Best(Policy):
    """The `n` best steps by a metric, `mode` "min", which is the default, or "max". NaN and missing metrics rank worst;
    of equals the newer is better. All steps where none has the metric, as then nothing says which are worse."""

    metric: str
    n: int = 1
    mode: Mode = "min"

    def __post_init__(self) -> None:
        object.__setattr__(self, "n", count_asked("Best(n)", self.n))
        _check(self.mode in ("min", "max"), "Best(mode)", self.mode, "'min' or 'max'")

    def keeps(self, steps: Sequence[Step]) -> list[Number]:
        is_known = any(self.metric in step.metrics for step in steps)
        return [step.step for step in (self.ranked(steps)[: self.n] if is_known else steps)]

    def ranked(self, steps: Sequence[Step]) -> list[Step]:
        """Sort `steps`, the best first."""
        places = {id(step): place for place, step in enumerate(steps)}
        return sorted(steps, key=lambda step: (self.value(step), places[id(step)]), reverse=True)

    def value(self, step: Step) -> tuple[bool, float]:
        """Return what a `step` is ranked by: greater is better."""
        value = step.metrics.get(self.metric, math.nan)
        return (False, 0.0) if math.isnan(value) else (True, -value if self.mode == "min" else value)

    def __str__(self) -> str:
        return f"best {self.n} by {self.metric} ({self.mode})"


@checked_class
@dataclass(frozen=True)
class Pinned(Policy):
    """These steps, for as long as they are there."""

    steps: Collection[Given]

    def keeps(self, steps: Sequence[Step]) -> list[Number]:
        return [step.step for step in steps if step.step in self.steps]

    def __str__(self) -> str:
        return "pinned"


@checked_class
@dataclass(frozen=True, slots=True)
class Where(Policy):
    """Steps for which a `predicate` of `Step` holds; `reason` is what a `RetentionPlan` says of them."""

    predicate: Callable[[Step], bool]
    reason: str = "where"

    def keeps(self, steps: Sequence[Step]) -> list[Number]:
        return [step.step for step in steps if self.predicate(step)]

    def __str__(self) -> str:
        return self.reason


@checked_class
@dataclass(frozen=True, slots=True)
class All(Policy):
    """Every step: nothing is deleted."""

    def keeps(self, steps: Sequence[Step]) -> list[Number]:
        return [step.step for step in steps]

    def __str__(self) -> str:
        return "all"


def policies_asked(keep: Any) -> tuple[Policy, ...]:
    """What `keep=` means: None keeps all, an int the last so many, else a policy or several; raises `bad-option`."""
    if keep is None:
        return (All(),)
    if isinstance(keep, bool) or integer_of(keep) is not None:
        return (Last(keep),)
    policies = tuple(keep) if isinstance(keep, Iterable) else (keep,)
    for policy in policies:
        if not callable(getattr(policy, "keeps", None)):
            raise fault("bad-option", f"keep= has {policy!r}", found=type(policy).__name__, expected="a policy")
    if not policies:
        raise fault(
            "bad-option", "keep= is empty: say Last(1) to keep the newest step alone", expected="Last(1)", found=keep
        )
    return policies


def reasons_to_keep(steps: Sequence[Step], policies: Sequence[Policy]) -> dict[Number, tuple[str, ...]]:
    """For each step that is kept, why. The newest always is."""
    reasons: dict[Number, list[str]] = {}
    if steps:
        reasons[steps[-1].step] = ["newest"]
    for policy in policies:
        for step in policy.keeps(steps):
            reasons.setdefault(step, []).append(str(policy))
    return {step.step: tuple(reasons[step.step]) for step in steps if step.step in reasons}


def _check(holds: bool, what: str, found: object, expected: str) -> None:
    if not holds:
        raise fault("bad-option", what, found=found, expected=expected)
