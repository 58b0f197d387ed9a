"""Where an action takes place: which state, and which process of how many."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.states import State

Call = Callable[[], Any]


@dataclass(slots=True)
class Place:
    """`kept`: what both sides save, or fill, is made once."""

    state: State
    ranks: int
    rank: int
    kept: dict[str, Any] = field(default_factory=dict)

    def keep(self, key: str, make: Callable[[], Any]) -> Any:
        if key not in self.kept:
            self.kept[key] = make()
        return self.kept[key]


Action = Callable[[str, Place], Call]
"""Prepares for a path, and gives the call that is timed."""
