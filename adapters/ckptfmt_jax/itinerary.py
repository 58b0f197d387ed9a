"""A schedule as rows of numbers, which a compiled loop follows."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ckptfmt.recompute.actions import ADJOINT, ADVANCE, DISK, MEMORY, RESTORE, STORE, TURN, ActionTable
from ckptfmt.recompute.costs import Costs
from ckptfmt.recompute.schedules import Slots, table_of

NOWHERE = -1
FROM_MEMORY, FROM_DISK, IS_LAST, TO_MEMORY, TO_DISK, FIRST, LAST = range(7)
_EMPTY = (NOWHERE, NOWHERE, 0, NOWHERE, NOWHERE, 0, 0)


class Itinerary(NamedTuple):
    """Each of `rows` fetches a snapshot or none, then stores the state in hand or not, then advances it from one number
    to another, or not. A snapshot in memory is named by its slot, one on the disk by its number.

    The forward sweep is the rows up to `turn`, where the state in hand is the one at `in_hand`. Before the adjoint step
    `n` come the rows from `before[n + 1]` to `before[n]`. `slots`: of memory. `fetched`: numbers of what is fetched
    from the disk, in order."""

    rows: np.ndarray[Any, Any]
    turn: int
    in_hand: int
    before: np.ndarray[Any, Any]
    slots: int
    fetched: tuple[int, ...]
    forward_steps: int


@lru_cache(maxsize=32)
def itinerary(schedule: str, steps: int, slots: Slots, costs: Costs) -> Itinerary:
    """The rows of a schedule; raises `bad-option` where it needs more than it has, and `missing-package`."""
    return _rows_of(table_of(schedule, steps, slots, costs))


def _rows_of(table: ActionTable) -> Itinerary:
    rows: list[list[int]] = []
    before = [0] * (table.steps + 1)
    free = _FreeSlots(table.tiers[MEMORY].peak)
    begun = True  # whether a new row is to begin
    for kind, first, last, tier in table:
        if kind in (TURN, ADJOINT):
            before[first if kind == ADJOINT else table.steps] = len(rows)
            begun = True
            continue
        if begun or kind == RESTORE or rows[-1][LAST] or (kind == STORE and _stores(rows[-1])):
            rows.append(list(_EMPTY))
            begun = False
        if kind == ADVANCE:
            rows[-1][FIRST], rows[-1][LAST] = first, last
        elif kind == STORE:
            rows[-1][TO_DISK if tier == DISK else TO_MEMORY] = first if tier == DISK else free.take(first)
        else:
            rows[-1][FROM_DISK if tier == DISK else FROM_MEMORY] = first if tier == DISK else free.of(first, last)
            rows[-1][IS_LAST] = last
    numbers = np.array(rows or [list(_EMPTY)], np.int32)  # a loop that never runs is traced, too
    fetched = numbers[:, FROM_DISK]
    return Itinerary(
        numbers,
        before[table.steps],
        table[table.turn].first,
        np.array(before, np.int32),
        free.count,
        tuple(fetched[fetched != NOWHERE].tolist()),
        table.forward_steps,
    )


def _stores(row: Iterable[int]) -> bool:
    _, _, _, memory, disk, *_ = row
    return memory != NOWHERE or disk != NOWHERE


class _FreeSlots:
    """Which slot has which snapshot."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._free = list(range(count))
        self._of: dict[int, int] = {}

    def take(self, number: int) -> int:
        self._of[number] = heapq.heappop(self._free)
        return self._of[number]

    def of(self, number: int, last: int) -> int:
        slot = self._of[number]
        if last:
            heapq.heappush(self._free, self._of.pop(number))
        return slot
