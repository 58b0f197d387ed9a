"""When to save. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from ..calls import checked_class, count_asked, integer_of, takes
from ..errors import fault
from .steps import Number


@checked_class
@dataclass(frozen=True, slots=True)
class Schedule:
    """A step is due if any of these holds.

    `steps`: it is a multiple of this, 0 included. `seconds`: so many have passed since the last save, or since the
    manager was made. `at`: it is one of these. `when`: the predicate holds for it. `first`: the run has no checkpoint
    yet. `last`: it is this step.
    """

    steps: int | None = None
    seconds: float | None = None
    at: Collection[int] = ()
    when: Callable[[Number], bool] | None = None
    first: bool = False
    last: int | None = None

    def __post_init__(self) -> None:
        if self.steps is not None:
            object.__setattr__(self, "steps", count_asked("Schedule(steps=)", self.steps))
        if self.seconds is not None and self.seconds <= 0:
            raise fault("bad-option", "Schedule(seconds=)", found=self.seconds, expected="more than 0")

    @takes()
    def due(self, step: Number, *, elapsed: float, is_first: bool) -> bool:
        """Tell whether `step` is to be saved, `elapsed` seconds after the last save; `is_first`: there is none yet."""
        return (
            (self.steps is not None and step % self.steps == 0)
            or (self.seconds is not None and elapsed >= self.seconds)
            or step in self.at
            or (self.first and is_first)
            or step == self.last
            or (self.when is not None and bool(self.when(step)))
        )


def schedule_asked(schedule: Any) -> Schedule:
    """What `schedule=` means: None every step, an int its multiples; raises `bad-option`."""
    if schedule is None:
        return Schedule(when=lambda step: True)
    if isinstance(schedule, Schedule):
        return schedule
    if (steps := integer_of(schedule)) is not None:
        return Schedule(steps=steps)
    raise fault("bad-option", f"schedule= is {schedule!r}", found=type(schedule).__name__, expected="int or Schedule")
