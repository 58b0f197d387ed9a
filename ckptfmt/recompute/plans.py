"""Plans: what each schedule takes, before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass

from ..brief import Brief
from ..calls import count_asked, takes
from ..errors import CkptError, fault
from .actions import DISK, MEMORY
from .budget import SnapshotBudget, snapshots_in
from .costs import Costs
from .optimum import fewest_steps
from .schedules import NEVER_SLOW, SCHEDULES, Slots, kind_named, slots_for, table_of


@dataclass(frozen=True, slots=True, repr=False)
class PlannedSchedule(Brief):
    """What a schedule takes. `forward_steps`: calls of the step; `factor`: how many of these for each step. Of each
    tier the most snapshots at a time; of the disk how many are written and read. `time`: by the costs, where nothing
    goes on at the same time. `why_not`: why it cannot be had; then all numbers are 0."""

    schedule: str
    does: str
    forward_steps: int = 0
    factor: float = 0.0
    memory_snapshots: int = 0
    disk_snapshots: int = 0
    disk_writes: int = 0
    disk_reads: int = 0
    time: float = 0.0
    why_not: str = ""


@dataclass(frozen=True, slots=True, repr=False)
class RecomputePlan(Brief):
    """What schedules take, the least time first. `snapshot_bytes`: of one snapshot, 0 where that is unknown; `curve`:
    snapshots in one tier, and the fewest steps with so many."""

    steps: int
    memory: int
    disk: int
    costs: Costs
    snapshot_bytes: int
    schedules: tuple[PlannedSchedule, ...]
    curve: tuple[tuple[int, int], ...]

    @property
    def best(self) -> PlannedSchedule | None:
        """That which takes the least time."""
        return next((one for one in self.schedules if not one.why_not), None)


@takes()
def plan(
    steps: int,
    *,
    memory: SnapshotBudget = None,
    disk: SnapshotBudget = None,
    costs: Costs | None = None,
    snapshot_bytes: int = 0,
    period: int | None = None,
    schedule: str | None = None,
) -> RecomputePlan:
    """Say what each schedule takes over so many steps, with so many snapshots in memory and on the disk.

    `memory`, `disk`: as in `gradient`; a budget in bytes is divided by `snapshot_bytes`. `costs`: one of each unless
    they are given, and two for a snapshot on the disk; `measure` gives those of a program. `period`: of "two-level".
    `schedule`: that one alone, however long its table takes to compute; else those are left out whose table takes more
    than a few seconds. Raises `InputError` (`bad-option`) and `UnsupportedError` (`missing-package`).
    """
    steps = count_asked("steps=", steps)
    for name, budget in (("memory", memory), ("disk", disk)):
        if isinstance(budget, str) and budget != "unlimited" and not snapshot_bytes:
            raise fault("bad-option", f"{name}= in bytes", found=budget, expected="snapshot_bytes=, too")
    slots = Slots(snapshots_in("memory", memory, snapshot_bytes), snapshots_in("disk", disk, snapshot_bytes), period)
    if not slots.memory and not slots.disk:
        raise fault("bad-option", "no snapshots can be held", found=0, expected="1 or more, in memory= or disk=")
    costs = costs or Costs()
    if schedule is not None:
        kind_named(schedule)
    names = SCHEDULES if schedule is None else (schedule,)
    found = [_planned(name, steps, slots, costs, is_asked=schedule is not None) for name in names]
    found.sort(key=lambda one: (bool(one.why_not), one.time))
    return RecomputePlan(steps, slots.memory, slots.disk, costs, snapshot_bytes, tuple(found), _curve(steps, slots))


def _planned(name: str, steps: int, slots: Slots, costs: Costs, *, is_asked: bool) -> PlannedSchedule:
    kind, slots = SCHEDULES[name], slots_for(name, slots)
    if not kind.needs(slots):
        return PlannedSchedule(name, kind.does, why_not=f"it takes {kind.wants}")
    if not is_asked and kind.work(steps, slots, costs) > NEVER_SLOW:
        return PlannedSchedule(name, kind.does, why_not="its table takes long to compute: ask for it by its name")
    try:
        table = table_of(name, steps, slots, costs)
    except CkptError as error:
        if error.code != "bad-option":
            raise
        return PlannedSchedule(name, kind.does, why_not=f"{error.message}: {error.expected}")
    memory, disk = table.tiers[MEMORY], table.tiers[DISK]
    time = table.forward_steps * costs.forward + steps * costs.adjoint
    return PlannedSchedule(
        name,
        kind.does,
        table.forward_steps,
        table.forward_steps / steps,
        memory.peak,
        disk.peak,
        disk.writes,
        disk.reads,
        time + disk.writes * costs.write + disk.reads * costs.read,
    )


def _curve(steps: int, slots: Slots) -> tuple[tuple[int, int], ...]:
    """The fewest steps with ever more snapshots, up to those of both tiers together."""
    most = min(slots.memory + slots.disk, max(steps - 1, 1))
    counts = sorted({round(1.12**power) for power in range(200) if 1.12**power <= most} | {most})
    return tuple((count, fewest_steps(steps, count)) for count in counts)


def best_schedule(steps: int, slots: Slots, costs: Costs) -> str:
    """The schedule that takes the least time, of those whose table is computed in a few seconds."""
    found = [_planned(name, steps, slots, costs, is_asked=False) for name in SCHEDULES]
    possible = [one for one in found if not one.why_not]
    if not possible:
        raise fault("bad-option", "no schedule can do with so few snapshots", found=f"{slots.memory} and {slots.disk}")
    return min(possible, key=lambda one: one.time).schedule
