"""The driver: carries out the actions of a schedule on any computation.

    driver = Driver(computation, snapshots, table)
    final = driver.forward(state)
    adjoint = driver.backward(seed)

The two sweeps may be far apart, as forward and backward of a framework are. A snapshot that is asked for and lost
(damaged, or in the memory of a process that was killed) is computed again from the nearest older one; so is all of a
run that is resumed.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from ..errors import fault
from .actions import ADJOINT, ADVANCE, DISK, RESTORE, STORE, Action, ActionTable, TierSlot
from .computation import Computation
from .journal import Journal
from .snapshots import Snapshots
from .states import copied

StepProgress = Callable[[int, int | None], Any]


class Driver:
    """One run over the steps of a computation, forward and back. `forward_steps` and `adjoint_steps` are what was
    called so far, `again` those that a lost snapshot has cost."""

    def __init__(
        self,
        computation: Computation,
        snapshots: Snapshots,
        table: ActionTable | None,
        *,
        check: bool = False,
        journal: Journal | None = None,
        progress: StepProgress | None = None,
    ) -> None:
        """`table` is None while the number of steps is unknown, see `online`. `check`: compare each state that is
        computed again with what it was before. `progress(done, total)` counts steps and adjoint steps."""
        self._computation, self._snapshots = computation, snapshots
        self._journal, self._progress = journal, progress
        self._table: ActionTable | None = None
        if table is not None:
            self._follow(table)
        self._prints: dict[int, bytes] | None = {} if check else None
        self._index = 0  # of the action that is next
        self._state: Any = None  # the state in hand
        self._number_in_hand = 0  # while the number of steps is unknown
        self._live: set[TierSlot] = set()  # what the schedule counts on
        self._initial: Any = None
        self._initial_print: bytes | None = None
        self.forward_steps = self.adjoint_steps = self.again = 0

    def _follow(self, table: ActionTable) -> None:
        self._table = table
        self._reads: list[int] = table.restores(DISK).tolist()

    @property
    def table(self) -> ActionTable:
        assert self._table is not None, "the number of steps is not known yet"
        return self._table

    # ---- where a run begins, and where it goes on

    def begin(self, state: Any, fingerprint: bytes | None = None) -> None:
        """Take the initial state in hand. With its fingerprint, which lost snapshots ask for, it is kept, too."""
        self._initial, self._initial_print = (None, None) if fingerprint is None else (state, fingerprint)
        self._state = self._computation.give(self._computation.hold(state), last=True)

    def resume(self, index: int, number: int | None) -> bool:
        """Go on at an action, with the snapshot on the disk at a number in hand, if one is needed; gives whether that
        could be had. What else the schedule counts on is computed again when it is asked for."""
        live = self.table.live(index)
        if number is not None:
            state = self._snapshots.take(number, DISK, last=False)
            if state is None:
                return False
            self._state = state
        self._index, self._live = index, live
        return True

    # ---- the sweeps

    def forward(self) -> Any:
        """Go forward from where the run stands; gives the final state, which is the caller's."""
        while self._index < self.table.turn:
            self._carry_out(self.table[self._index])
            self._index += 1
        number, state = self.table[self.table.turn].first, self._state
        if number < self.table.steps:  # the adjoint of the last step needs the state before it
            final = self._computation.give(self._computation.hold(state), last=True)
            final = self._advance(final, number, self.table.steps)
        else:
            final, self._state = state, None
        self._index += 1
        return final

    def online(self, goes_on: Callable[[Any, int], object], period: int, tier: int, most: int) -> int:
        """Go forward as long as `goes_on(state, number)`, with a snapshot each `period` steps; gives the number of
        steps. `most`: snapshots that the tier takes; raises `bad-option` where they are not enough."""
        number = self._number_in_hand
        while goes_on(self._state, number):
            if number % period == 0 and (tier, number) not in self._live:
                if number // period >= most:
                    option = ("memory=", "disk=")[tier]
                    message = f"{option} holds too few snapshots for a run that is not over after {number:,} steps"
                    raise fault("bad-option", message, found=most, expected="more, or a longer period=")
                self._store(number, tier)
            self._state = self._advance(self._state, number, number + 1)
            number += 1
        return number

    def resume_online(self, number: int, tier: int, period: int) -> bool:
        """The same where the number of steps is unknown: go on with the snapshot on the disk at a number."""
        state = self._snapshots.take(number, DISK, last=False)
        if state is None:
            return False
        self._state, self._number_in_hand = state, number
        self._live = {(tier, there) for there in range(0, number + 1, period)}
        return True

    def turned(self, table: ActionTable) -> Any:
        """Follow a table whose forward sweep is done, online or by an earlier process; gives the state in hand, which
        is the final one."""
        self._follow(table)
        self._index = table.turn + 1
        self._live = table.live(self._index)
        final, self._state = self._state, None
        return final

    def backward(self, adjoint: Any, reversed_steps: int = 0) -> Any:
        """Go back to the initial state; gives the adjoint there. `adjoint` is that of the final state, or, of a run
        that is resumed, the one that was noted after so many steps."""
        for index in range(self._index, len(self.table)):
            self._index = index
            action = self.table[index]
            if action.kind != ADJOINT:
                self._carry_out(action)
                continue
            state, self._state = self._state, None
            if state is None:  # of a run that is resumed before its first adjoint step
                state = self._computed_again(action.first)
            adjoint = self._computation.reverse(state, action.first, adjoint)
            del state
            self.adjoint_steps += 1
            reversed_steps += 1
            self._tell()
            self._read_ahead(index + 1)
            if self._journal is not None and reversed_steps < self.table.steps and self._journal.is_due():
                self._journal.note_adjoint(reversed_steps, copied(adjoint))
        return adjoint

    # ---- one action

    def _carry_out(self, action: Action) -> None:
        kind, first, last, tier = action
        if kind == ADVANCE:
            self._state = self._advance(self._state, first, last)
        elif kind == STORE:
            self._store(first, tier)
        elif kind == RESTORE:
            self._state = None
            self._state = self._restored(first, tier, bool(last))
            if tier == DISK:
                self._read_ahead(self._index + 1)

    def _advance(self, state: Any, first: int, last: int) -> Any:
        if self._prints is None:
            state = self._computation.advance(state, first, last)
            self.forward_steps += last - first
            self._tell()
            return state
        for number in range(first, last):
            state = self._computation.advance(state, number, number + 1)
            self.forward_steps += 1
            found = self._computation.fingerprint(state)
            if self._prints.setdefault(number + 1, found) != found:
                message = f"step {number} gives another state each time that it is called with the same one"
                raise fault("not-deterministic", message)
            self._tell()
        return state

    def _store(self, number: int, tier: int) -> None:
        self._snapshots.store(number, tier, self._state)
        self._live.add((tier, number))

    def _restored(self, number: int, tier: int, last: bool) -> Any:
        state = self._snapshots.take(number, tier, last=last)
        if last:
            self._live.discard((tier, number))
        return self._computed_again(number) if state is None else state

    def _tell(self) -> None:
        if self._progress is not None:
            total = None if self._table is None else self._table.forward_steps + self._table.steps
            self._progress(self.forward_steps + self.adjoint_steps, total)

    def _read_ahead(self, index: int) -> None:
        """Have the next snapshot read that is fetched from the disk, if it is there by now."""
        place = bisect_left(self._reads, index)
        if place < len(self._reads):
            number = self.table[self._reads[place]].first
            if (DISK, number) in self._live:
                self._snapshots.read_ahead(number)

    # ---- what was lost

    def _computed_again(self, number: int) -> Any:
        """A state that is lost, from the nearest older one. On the way there what else is lost, and will be asked for,
        is stored again."""
        begins, state = self._older(number)
        lost = {slot for slot in self._live if begins <= slot[1] <= number} - self._snapshots.held()
        stops = sorted({at for _, at in lost} | {number})
        for stop in stops:
            if begins < stop:
                self.again += stop - begins
                state = self._advance(state, begins, stop)
            begins = stop
            for where, at in sorted(lost):
                if at == stop:
                    self._snapshots.store(at, where, state)
        return state

    def _older(self, number: int) -> tuple[int, Any]:
        """The nearest state before a number that can be had, or at it; the initial one in the end."""
        for at, tier in sorted(((at, tier) for tier, at in self._snapshots.held() if at <= number), reverse=True):
            state = self._snapshots.take(at, tier, last=False)
            if state is not None:
                return at, state
        initial = self._initial
        if initial is None or self._computation.fingerprint(initial) != self._initial_print:
            message = f"the state at {number} is lost: there is no older snapshot that can be read"
            advice = "Call it again with the initial state, which was changed in place since"
            raise fault("missing-object", message, advice=advice)
        return 0, self._computation.give(self._computation.hold(initial), last=True)
