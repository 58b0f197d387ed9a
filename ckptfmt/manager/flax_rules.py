"""The rules of `flax.training.checkpoints`, for those who come from there; `FlaxCheckpointManager` goes by them.

- StepNames are `{prefix}{step}`, steps int or float. The order is that of flax's natural sort: every number in a name
  counts as a signed float, so that behind the prefix `ckpt-` step 5 is -5, and sorts before step 4.
- A step is refused if it exists, or if any sorts after it; `overwrite` then also deletes all that sort after it.
- `keep` counts the last checkpoints, 0 keeps all. `keep_every_n_steps` is a distance: of the older ones, oldest first,
  one is kept if it is so far from the one kept before it; it is read from the last number in the name, and a step 0 is
  never kept.

Differences: overwriting and deleting are atomic here, only committed checkpoints count, and no more than `prefix` and
a number is taken for a checkpoint's name.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..calls import count_asked
from ..errors import fault
from .steps import Number, Step

PREFIX = "checkpoint_"

_NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?"
_NUMBERS = re.compile(f"({_NUMBER})")
_INTEGER = re.compile(r"[-+]?\d+").fullmatch


class FlaxNames:
    """`{prefix}{step}` in flax's natural order."""

    def __init__(self, prefix: str = PREFIX) -> None:
        if not prefix or "/" in prefix or prefix.startswith("."):
            raise fault("bad-option", "prefix=", found=prefix, expected="the beginning of a visible file name")
        self.prefix = prefix
        self._name = re.compile(f"{re.escape(prefix)}({_NUMBER})").fullmatch

    def checked(self, step: Any) -> Number:
        number = step.item() if isinstance(step, np.generic) else step
        if type(number) not in (int, float) or self.step(self.name(number)) != number:
            raise fault("bad-option", f"step {step!r}", found=type(step).__name__, expected="a finite int or float")
        return number

    def name(self, step: Number) -> str:
        return f"{self.prefix}{step}"

    def step(self, name: str) -> Number | None:
        found = self._name(name)
        if found is None:
            return None
        number = int(found[1]) if _INTEGER(found[1]) else float(found[1])
        return number if self.name(number) == name else None

    def key(self, step: Number) -> list[str | float]:
        """Text and numbers by turns, so that names with the same prefix compare part by part."""
        return [float(part) if i % 2 else part for i, part in enumerate(_NUMBERS.split(self.name(step)))]


@dataclass(frozen=True)
class FlaxKeep:
    """`keep` and `keep_every_n_steps`, as flax applies them after each save."""

    names: FlaxNames
    keep: int = 1
    every: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", count_asked("keep= of a FlaxCheckpointManager", self.keep, 0))

    def keeps(self, steps: Sequence[Step]) -> list[Number]:
        if not self.keep or len(steps) <= self.keep:
            return [step.step for step in steps]
        kept = [step.step for step in steps[-self.keep :]]
        last = -float("inf")
        for step in steps[: -self.keep] if self.every else ():
            number = [part for part in self.names.key(step.step) if isinstance(part, float)][-1]
            if number and number - last >= (self.every or 0):
                last = number
                kept.append(step.step)
        return kept

    def __str__(self) -> str:
        distance = "" if self.every is None else f", and {self.every} apart"
        return f"flax: last {self.keep}{distance}" if self.keep else "flax: all"
