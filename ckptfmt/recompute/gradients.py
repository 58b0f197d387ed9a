"""`gradient`: the gradient of a long computation with plain functions, in bounded memory, and resumable."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import astuple
from typing import Any, NamedTuple

from ..calls import count_asked, takes
from ..errors import fault
from ..format.tree import Tree
from ..packages import package
from .actions import DISK, MEMORY, ActionTable
from .budget import SnapshotBudget, snapshots_in
from .computation import AdjointFunction, PlainSteps, StepFunction
from .costs import Costs
from .driver import Driver, StepProgress
from .journal import Journal, RunFolder
from .measuring import measured
from .plans import best_schedule
from .report import Gradient, report_of
from .schedules import SCHEDULES, Slots, check_slots, kind_named, period_of, slots_for, table_of, usual
from .snapshots import DiskTier, Snapshots, Traffic, closing, local_folder, scratch
from .states import copied

Steps = int | Callable[[Any, int], object]


class Asked(NamedTuple):
    """What a gradient is asked for, once it is checked. `steps` is None where a predicate tells."""

    steps: int | None
    slots: Slots
    schedule: str
    costs: Costs


@takes()
def gradient(
    step: StepFunction,
    adjoint: AdjointFunction,
    state: Tree,
    steps: Steps,
    seed: Any,
    *,
    memory: SnapshotBudget = None,
    disk: SnapshotBudget = None,
    folder: str | os.PathLike[str] | None = None,
    schedule: str | None = None,
    period: int | None = None,
    costs: Costs | None = None,
    resume: bool = False,
    journal_every: float = 10.0,
    durable: bool | None = None,
    check: bool = False,
    progress: StepProgress | None = None,
) -> Gradient:
    """Return the gradient of a computation of many steps, with few of its states kept, and as few steps done again as
    that allows.

        result = gradient(step, adjoint, state, 10_000, seed=lambda final: final - data, memory=20)

    - `step(state, n)` gives the state after step n, of `state` before it; `adjoint(state, n, after)` the adjoint before
      step n, of the state before it and the adjoint after it. Both may change what they are given. `state`: the initial
      one, a tree of NumPy arrays and plain values, generators of random numbers among them; all states have the same
      containers, shapes and dtypes.
    - `steps`: how many, or `goes_on(state, n)`, which is asked before each step; then the schedule is "two-level",
      "memory" or "disk". `seed`: the adjoint of the final state, or a function of the final state that gives it.
    - `memory`, `disk`: how many snapshots, the initial state among them, or bytes ("512MiB"), or "unlimited". Those on
      the disk are checkpoints of this format in `folder`, written in the background and read ahead; a folder without
      `disk` is one without limit.
    - `schedule`: a name, of which `plan` has all, or "auto": the one that takes the least time by `costs`, which are
      measured where they are not given. By default "revolve", for one tier, or "multistage", for two: the fewest steps.
      `period`: of "two-level", how far apart its snapshots on the disk lie.
    - `resume`: the snapshots are durable, and a journal goes with them, in a `folder` that no other run has. The same
      call goes on where an earlier one ended, however that was, and gives the same gradient to the bit, provided that
      the same values give the same bits. `journal_every`: seconds between two notes of the adjoint.
    - `durable`: whether snapshots outlast a power loss; by default with `resume` alone.
    - `check`: compare each state that is computed again with what it was, and raise `not-deterministic` where it
      differs. `progress(done, total)`: called with steps and adjoint steps; total is None while it is not known.

    A snapshot on the disk that is damaged is computed again from the next older one, with a `SnapshotWarning`. All
    files are removed at the end; what a crash leaves, `gc` removes, but for a run that can be resumed, whose folder is
    kept. After an error, too: so a full disk can be mended.

    Raises `InputError` (`bad-option`, `not-deterministic`, `state-changed`, `unsupported-…`), `ExistsError` (`exists`,
    where another process is at work in the folder), `StorageError`, and `UnsupportedError` (`missing-package`).
    """
    package("checkpoint_schedules", "recomputing")  # before anything is made
    computation = PlainSteps(step, adjoint, state)
    asked, goes_on = _asked(computation, state, steps, memory, disk, folder, schedule, period, resume)
    run = _Run(computation, state, seed, goes_on, check, progress)
    if resume:
        return run.resumable(asked, local_folder(folder), costs, journal_every, durable is not False)
    with scratch(folder) if asked.slots.disk else contextlib.nullcontext() as place:
        return run.once(_with_schedule(asked, computation, state, costs, place), place, bool(durable))


def _asked(
    computation: PlainSteps,
    state: Tree,
    steps: Steps,
    memory: SnapshotBudget,
    disk: SnapshotBudget,
    folder: str | os.PathLike[str] | None,
    schedule: str | None,
    period: int | None,
    resume: bool,
) -> tuple[Asked, Callable[[Any, int], object] | None]:
    """What is asked for, and whether it goes on, where that is asked before each step. Raises `bad-option`."""
    is_online = callable(steps)
    if not callable(steps):
        steps = count_asked("steps=, which is no function of state and number,", steps, 0)
    period = None if period is None else count_asked("period=", period)
    size = computation.size(state)
    if disk is None and folder is not None and not resume:
        disk = "unlimited"
    slots = Slots(snapshots_in("memory", memory, size), snapshots_in("disk", disk, size), period)
    if not slots.memory and not slots.disk and steps not in (0, 1):
        advice = "Say how many are held at a time, in memory= or disk="
        raise fault("bad-option", "no snapshots can be held", found=0, expected="1 or more", advice=advice)
    if (slots.disk or resume) and folder is None:
        raise fault("bad-option", "folder=", expected="where snapshots on the disk go")
    if not is_online and not slots.memory and not slots.disk:
        slots = slots._replace(memory=1)
    name = usual(slots, is_online=is_online) if schedule is None else schedule
    if name == "auto" and is_online:
        name = usual(slots, is_online=True)
    if name != "auto":
        kind_named(name)
        check_slots(name, slots, is_online=is_online)
    if callable(steps):
        return Asked(None, slots, name, Costs()), steps
    return Asked(steps, slots, name, Costs()), None


def _with_schedule(asked: Asked, computation: PlainSteps, state: Tree, costs: Costs | None, place: str | None) -> Asked:
    """With costs, and with the best schedule where that is asked for."""
    if asked.schedule != "auto":
        return asked._replace(costs=costs or Costs())
    if costs is None:
        costs = measured(computation, state, place)
    assert asked.steps is not None
    name = best_schedule(max(asked.steps, 1), asked.slots, costs)
    return asked._replace(schedule=name, slots=slots_for(name, asked.slots), costs=costs)


class _Run:
    """One call of `gradient`."""

    def __init__(
        self,
        computation: PlainSteps,
        state: Tree,
        seed: Any,
        goes_on: Callable[[Any, int], object] | None,
        check: bool,
        progress: StepProgress | None,
    ) -> None:
        self._computation, self._state, self._seed, self._goes_on = computation, state, seed, goes_on
        self._check, self._progress = check, progress
        self._traffic = Traffic()
        self._resumed: tuple[str, int] | None = None

    # ---- a run that nobody resumes

    def once(self, asked: Asked, place: str | None, durable: bool) -> Gradient:
        disk = None
        if place is not None:
            disk = DiskTier(place, self._computation, os.path.basename(place), self._traffic, durable=durable)
        with closing(disk):
            driver, snapshots = self._driver(asked, disk, None)
            driver.begin(self._state, None if disk is None else self._computation.fingerprint(self._state))
            final = self._forward(driver, asked)
            adjoint = driver.backward(self._seed_of(final))
            return self._result(driver, snapshots, asked, final, adjoint)

    def _driver(self, asked: Asked, disk: DiskTier | None, journal: Journal | None) -> tuple[Driver, Snapshots]:
        table = None if asked.steps is None else self._table(asked, asked.steps)
        snapshots = Snapshots(self._computation, disk, self._traffic)
        return (
            Driver(self._computation, snapshots, table, check=self._check, journal=journal, progress=self._progress),
            snapshots,
        )

    def _table(self, asked: Asked, steps: int) -> ActionTable:
        return table_of(asked.schedule, steps, asked.slots, asked.costs)

    def _forward(self, driver: Driver, asked: Asked) -> Any:
        if self._goes_on is None:
            return driver.forward()
        period, tier = _even(asked)
        most = asked.slots.disk if tier == DISK else asked.slots.memory
        steps = driver.online(self._goes_on, period, tier, most)
        return driver.turned(self._table(asked, steps))

    def _seed_of(self, final: Any) -> Any:
        """The adjoint of the final state, which the adjoint step may change."""
        return self._seed(copied(final)) if callable(self._seed) else copied(self._seed)

    def _result(self, driver: Driver, snapshots: Snapshots, asked: Asked, final: Any, adjoint: Any) -> Gradient:
        report = report_of(asked.schedule, asked.slots, driver, snapshots, self._resumed)
        return Gradient(adjoint, final, report)

    # ---- a run that can be resumed

    def resumable(self, asked: Asked, path: str, costs: Costs | None, every: float, durable: bool) -> Gradient:
        folder = RunFolder(path, durable=durable)
        with folder.claimed():
            print_ = self._computation.fingerprint(self._state)
            noted = folder.begin(self._identity(asked, costs, print_), lambda: self._chosen(asked, costs, path))
            name = noted["schedule"]
            slots = slots_for(name, asked.slots)
            asked = asked._replace(schedule=name, slots=slots, costs=Costs(*noted["costs"]))
            disk = DiskTier(path, self._computation, folder.run, self._traffic, durable=durable)
            with closing(disk):
                journal = Journal(folder, disk, every)
                driver, snapshots = self._driver(asked, disk, journal)
                final, adjoint, done = self._went(folder, journal, driver, disk, asked, print_)
                adjoint = driver.backward(adjoint, done)
            folder.remove(disk)
            return self._result(driver, snapshots, asked, final, adjoint)

    def _identity(self, asked: Asked, costs: Costs | None, print_: bytes) -> dict[str, Any]:
        """What a run that goes on must have been asked for, too."""
        slots = asked.slots
        return {
            "steps": asked.steps,
            "memory_budget": slots.memory,
            "disk_budget": slots.disk,
            "period": slots.period,
            "schedule_asked_for": asked.schedule,
            "costs_asked_for": None if costs is None else list(astuple(costs)),
            "initial_state": print_,
        }

    def _chosen(self, asked: Asked, costs: Costs | None, path: str) -> dict[str, Any]:
        chosen = _with_schedule(asked, self._computation, self._state, costs, path)
        return {"schedule": chosen.schedule, "costs": list(astuple(chosen.costs))}

    def _went(
        self, folder: RunFolder, journal: Journal, driver: Driver, disk: DiskTier, asked: Asked, print_: bytes
    ) -> tuple[Any, Any, int]:
        """Go as far as the end of the forward sweep, or on from where an earlier process came to; gives the final
        state, the adjoint, and the steps that it went back over."""
        computation = self._computation
        turned = folder.turned(computation)
        if turned is not None:
            table = self._table(asked, turned.steps)
            seed = self._seed_of(turned.final)
            noted = folder.adjoint(seed)
            done, adjoint = (0, seed) if noted is None else noted
            driver.begin(self._state, print_)
            driver.turned(table)
            index = table.after(done)
            driver.resume(index, None)
            disk.adopt({number for tier, number in table.live(index) if tier == DISK})
            self._resumed = ("back", turned.steps - done)
            return turned.final, adjoint, done
        driver.begin(self._state, print_)
        self._resume_forward(driver, disk, asked)
        final = self._forward(driver, asked)
        journal.note_turn(driver.table.steps, computation.pack(computation.hold(final)))
        return final, self._seed_of(final), 0

    def _resume_forward(self, driver: Driver, disk: DiskTier, asked: Asked) -> None:
        """Go on with the latest snapshot of the forward sweep that is there and whole."""
        if asked.steps is None:
            period, tier = _even(asked)
            there = disk.adopt({number for number in disk.numbers() if tier == DISK and number % period == 0})
            for number in sorted(there, reverse=True):
                if driver.resume_online(number, tier, period):
                    self._resumed = ("forward", number)
                    return
            return
        stored = driver.table.stored_on_the_way(DISK)
        there = disk.adopt(set(stored))
        for number in sorted(there, reverse=True):
            if driver.resume(stored[number], number):
                self._resumed = ("forward", number)
                return


def _even(asked: Asked) -> tuple[int, int]:
    """How far apart the snapshots of a schedule lie whose run may end at any step, and the tier that they are in."""
    kind = SCHEDULES[asked.schedule]
    return (1 if kind.keeps_all else period_of(asked.slots)), MEMORY if asked.schedule == "memory" else DISK
