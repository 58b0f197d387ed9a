"""What a gradient took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..brief import Brief
from .actions import DISK, MEMORY
from .driver import Driver
from .optimum import fewest_steps
from .schedules import Slots
from .snapshots import Snapshots


@dataclass(frozen=True, slots=True, repr=False)
class RecomputeReport(Brief):
    """What a gradient took.

    `forward_steps`: calls of the step, in this process; `planned_steps`, those that the schedule has for the whole run;
    `fewest_steps`, those of the best schedule with so many snapshots in one tier. Of each tier the most snapshots at a
    time, and their bytes of memory. `bytes_written` and `bytes_read`: files of snapshots and of the journal.
    `damaged`: numbers of snapshots that could not be used, and `again` the steps that lost ones have cost. `resumed`:
    the number of steps that earlier processes had gone forward, or "back" and the number that is left; None if there
    was no earlier one.
    """

    schedule: str
    steps: int
    forward_steps: int
    planned_steps: int
    fewest_steps: int
    adjoint_steps: int
    memory_snapshots: int = 0
    memory_bytes: int = 0
    disk_snapshots: int = 0
    disk_bytes: int = 0
    bytes_written: int = 0
    bytes_read: int = 0
    again: int = 0
    damaged: tuple[int, ...] = ()
    resumed: tuple[str, int] | None = None


@dataclass(frozen=True, slots=True, repr=False)
class Gradient(Brief):
    """The `adjoint` of the initial state, the final `state`, and the `report`."""

    adjoint: Any
    state: Any
    report: RecomputeReport


def report_of(
    schedule: str, slots: Slots, driver: Driver, snapshots: Snapshots, resumed: tuple[str, int] | None = None
) -> RecomputeReport:
    """What a driver has done."""
    steps, traffic = driver.table.steps, snapshots.traffic
    return RecomputeReport(
        schedule=schedule,
        steps=steps,
        forward_steps=driver.forward_steps,
        planned_steps=driver.table.forward_steps,
        fewest_steps=fewest_steps(steps, min(slots.memory + slots.disk, max(steps - 1, 1))),
        adjoint_steps=driver.adjoint_steps,
        memory_snapshots=traffic.peak[MEMORY],
        memory_bytes=traffic.peak_bytes[MEMORY],
        disk_snapshots=traffic.peak[DISK],
        disk_bytes=traffic.peak_bytes[DISK],
        bytes_written=traffic.written,
        bytes_read=traffic.read,
        again=driver.again,
        damaged=tuple(snapshots.damaged),
        resumed=resumed,
    )
