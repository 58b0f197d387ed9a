"""What a schedule asks for, as a table of few kinds of actions: what a driver carries out, and what a plan counts.

A state "at" a number is the one before the step of that number: the initial one is at 0. `ADVANCE` takes the state in
hand from one number to another, `STORE` puts a copy of it into a tier and `RESTORE` fetches one back, `TURN` is the end
of the forward sweep, and `ADJOINT` takes the adjoint back over the step before which the state in hand is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

ADVANCE, STORE, RESTORE, TURN, ADJOINT = range(5)
MEMORY, DISK = range(2)  # tiers


class Action(NamedTuple):
    """`first` is the number of the state that it is about. Of ADVANCE, `last` is that of the state it ends with; of
    RESTORE, 1 if the snapshot is not needed any more."""

    kind: int
    first: int
    last: int = 0
    tier: int = MEMORY


TierSlot = tuple[int, int]  # a tier, and the number of the state that it holds


class TierCounts(NamedTuple):
    """What a schedule does with a tier: the most snapshots at a time, and how many are written and read."""

    peak: int
    writes: int
    reads: int


class ActionTable:
    """The actions of a whole schedule over so many steps, in order. Raises RuntimeError where they do not fit each
    other: no wrong schedule is carried out."""

    def __init__(self, steps: int, actions: Iterable[Action]) -> None:
        self.steps = steps
        rows = np.array(_without_useless(list(actions)), np.int32).reshape(-1, len(Action._fields))
        rows.setflags(write=False)
        self._rows = rows  # 16 bytes for each, as there are about four times as many as steps
        self.turn, self.forward_steps, self.tiers = self._followed()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Action:
        return Action(*self._rows[index].tolist())

    def __iter__(self) -> Iterator[Action]:
        for start in range(0, len(self._rows), 1024):
            for row in self._rows[start : start + 1024].tolist():
                yield Action(*row)

    def _followed(self) -> tuple[int, int, tuple[TierCounts, TierCounts]]:
        """Follow the actions: where the forward sweep ends, the calls of the step, and what becomes of each tier."""
        at: int | None = 0  # where the state in hand is
        turn, forward, left = -1, 0, self.steps
        held: set[TierSlot] = set()
        peaks, writes, reads, sizes = [0, 0], [0, 0], [0, 0], [0, 0]
        for index, (kind, first, last, tier) in enumerate(self):
            fits = at == first
            if kind == ADVANCE:
                fits, at = fits and last > first, last
                forward += last - first
            elif kind == STORE:
                fits = fits and (tier, first) not in held
                held.add((tier, first))
                writes[tier] += 1
                sizes[tier] += 1
                peaks[tier] = max(peaks[tier], sizes[tier])
            elif kind == RESTORE:
                fits, at = (tier, first) in held, first
                reads[tier] += 1
                if last:
                    held.discard((tier, first))
                    sizes[tier] -= 1
            elif kind == TURN:
                fits, turn = fits and turn < 0 and first >= self.steps - 1, index
                forward += self.steps - first
            else:
                fits, at, left = fits and turn >= 0 and first == left - 1, None, left - 1
            if not fits:
                raise RuntimeError(f"the schedule does not fit itself at {Action(kind, first, last, tier)}")
        if left or held or turn < 0:
            raise RuntimeError("the schedule does not end")
        memory, disk = (TierCounts(*counts) for counts in zip(peaks, writes, reads, strict=True))
        return turn, forward, (memory, disk)

    def after(self, reversed_steps: int) -> int:
        """The index of the action that follows once the adjoint has gone back over so many steps."""
        adjoints = np.flatnonzero(self._rows[:, 0] == ADJOINT)
        return int(adjoints[reversed_steps - 1]) + 1 if reversed_steps else self.turn + 1

    def live(self, index: int) -> set[TierSlot]:
        """The snapshots that are needed before the action at an index."""
        held: set[TierSlot] = set()
        for kind, first, last, tier in self._rows[:index].tolist():
            if kind == STORE:
                held.add((tier, first))
            elif kind == RESTORE and last:
                held.discard((tier, first))
        return held

    def stored_on_the_way(self, tier: int) -> dict[int, int]:
        """What the forward sweep stores in a tier: the number of the state, and the index of the action after."""
        rows = enumerate(self._rows[: self.turn].tolist())
        return {first: index + 1 for index, (kind, first, _, where) in rows if kind == STORE and where == tier}

    def restores(self, tier: int) -> np.ndarray[Any, Any]:
        """The indices of the actions that fetch something from a tier."""
        return np.flatnonzero((self._rows[:, 0] == RESTORE) & (self._rows[:, 3] == tier))


def _without_useless(actions: list[Action]) -> list[Action]:
    """The actions without what is stored and never fetched; with the last fetch of each snapshot marked as such."""
    needed: Counter[TierSlot] = Counter()
    kept: list[Action] = []
    for action in reversed(actions):
        slot = (action.tier, action.first)
        if action.kind == STORE:
            if not needed.pop(slot, 0):
                continue
        elif action.kind == RESTORE:
            action = action._replace(last=int(not needed[slot]))
            needed[slot] += 1
        kept.append(action)
    kept.reverse()
    return kept
