"""The schedules by name, all of them of the library `checkpoint_schedules`, and what each of them takes."""

from __future__ import annotations

import contextlib
import io
import sys
import warnings
from collections.abc import Callable, Iterator
from math import comb
from typing import Any, NamedTuple

from ..errors import fault
from ..near import did_you_mean
from ..packages import package
from .actions import ADJOINT, ADVANCE, DISK, MEMORY, RESTORE, STORE, TURN, Action, ActionTable
from .costs import Costs

UNLIMITED = sys.maxsize  # snapshots that a tier takes
NEVER_SLOW = 5_000_000  # numbers of a table, each a sum that Python makes: some seconds
STILL_DONE = 500_000_000  # some minutes


class Slots(NamedTuple):
    """How many snapshots each tier takes; `period` is that of a schedule that has one."""

    memory: int = 0
    disk: int = 0
    period: int | None = None


class Kind(NamedTuple):
    """A schedule. `make` gives that of the library. `needs` says whether it can do with such tiers. `work` is about how
    many numbers a table has that the library computes first. `is_online`: whether the number of steps may be unknown
    until they are done."""

    does: str
    make: Callable[[Any, int, Slots, Costs], Any]
    needs: Callable[[Slots], bool]
    wants: str
    work: Callable[[int, Slots, Costs], int] = lambda *_: 0
    is_online: bool = False
    keeps_all: bool = False


def period_of(slots: Slots) -> int:
    """How far apart snapshots lie that are stored at even distances: so that, between two of them, no step is done more
    than twice again."""
    return slots.period or comb(min(slots.memory, 1000) + 3, 2)


def _clipped(steps: int, count: int) -> int:
    return min(count, max(steps - 1, 1))


def _multistage(library: Any, steps: int, slots: Slots, _: Costs) -> Any:
    return library.MultistageCheckpointSchedule(steps, min(slots.memory, steps), min(slots.disk, steps))


def _hierarchical(library: Any, steps: int, slots: Slots, costs: Costs) -> Any:
    memory, disk = _clipped(steps, slots.memory), _clipped(steps, slots.disk)
    return library.HRevolve(steps, memory, disk, costs.forward, costs.adjoint, costs.write, costs.read)


def _disk(library: Any, steps: int, slots: Slots, costs: Costs) -> Any:
    memory = _clipped(steps, slots.memory)
    return library.DiskRevolve(steps, memory, costs.forward, costs.adjoint, costs.write, costs.read)


def _periodic(library: Any, steps: int, slots: Slots, costs: Costs) -> Any:
    memory = _clipped(steps, slots.memory)
    return library.PeriodicDiskRevolve(steps, memory, costs.forward, costs.adjoint, costs.write, costs.read)


def _periodic_work(steps: int, slots: Slots, costs: Costs) -> int:
    """Its table is for the longest distance that the costs allow, however few steps there are."""
    memory, rounds = _clipped(steps, slots.memory), 0
    while comb(memory + rounds, memory) <= (costs.write + costs.read) / costs.forward:
        rounds += 1
    return (2 * comb(memory + rounds + 1, memory)) ** 2 * (memory + 1) // 8


def _mixed(library: Any, steps: int, slots: Slots, _: Costs) -> Any:
    storage = library.StorageType.RAM if slots.memory else library.StorageType.DISK
    return library.MixedCheckpointSchedule(steps, slots.memory or slots.disk, storage=storage)


def _two_level(library: Any, steps: int, slots: Slots, _: Costs) -> Any:
    ram = library.StorageType.RAM
    return library.TwoLevelCheckpointSchedule(period_of(slots), slots.memory, binomial_storage=ram)


def _one(slots: Slots) -> bool:
    return bool(slots.memory) != bool(slots.disk)


def _both(slots: Slots) -> bool:
    return bool(slots.memory and slots.disk)


_ONE, _BOTH = "memory= or disk=, one of the two", "memory= and disk="
SCHEDULES: dict[str, Kind] = {
    "revolve": Kind("one tier, the fewest steps", _multistage, _one, _ONE),
    "multistage": Kind("two tiers, the fewest steps", _multistage, _both, _BOTH),
    "h-revolve": Kind(
        "two tiers, the least time by the costs",
        _hierarchical,
        _both,
        _BOTH,
        lambda steps, slots, _: steps * steps * (min(slots.memory, steps) + min(slots.disk, steps)) // 2,
    ),
    "disk-revolve": Kind(
        "two tiers, the disk without limit, the least time by the costs, each snapshot on it read once",
        _disk,
        _both,
        _BOTH,
        lambda steps, slots, _: steps * steps * (min(slots.memory, steps) + 1) // 2,
    ),
    "periodic-disk-revolve": Kind(
        "the same with snapshots on the disk at even distances", _periodic, _both, _BOTH, _periodic_work
    ),
    "mixed": Kind(
        "one tier, which holds what adjoint steps need, too",
        _mixed,
        _one,
        _ONE,
        lambda steps, slots, _: steps * steps * min(slots.memory or slots.disk, steps) // 2,
    ),
    "two-level": Kind(
        "snapshots on the disk at even distances, those between in memory; the number of steps may be unknown",
        _two_level,
        lambda slots: bool(slots.disk),
        "disk=",
        is_online=True,
    ),
    "memory": Kind(
        "every state in memory",
        lambda library, *_: library.SingleMemoryStorageSchedule(),
        lambda slots: bool(slots.memory),
        "memory=",
        is_online=True,
        keeps_all=True,
    ),
    "disk": Kind(
        "every state on the disk",
        lambda library, *_: library.SingleDiskStorageSchedule(move_data=True),
        lambda slots: bool(slots.disk),
        "disk=",
        is_online=True,
        keeps_all=True,
    ),
}


def kind_named(name: str) -> Kind:
    """The schedule of a name; raises `bad-option`."""
    if name not in SCHEDULES:
        expected = f"auto, {', '.join(SCHEDULES)}"
        raise fault("bad-option", f"schedule={did_you_mean(name, SCHEDULES)}", found=name, expected=expected)
    return SCHEDULES[name]


def usual(slots: Slots, *, is_online: bool) -> str:
    """The schedule where none is asked for."""
    if is_online:
        return "two-level" if slots.disk else "memory"
    return "multistage" if slots.memory and slots.disk else "revolve"


def check_slots(name: str, slots: Slots, *, is_online: bool = False) -> None:
    """Refuse a schedule that cannot do with these tiers; raises `bad-option`."""
    kind = kind_named(name)
    if not kind.needs(slots):
        found = f"memory={shown(slots.memory)} and disk={shown(slots.disk)}, in snapshots"
        raise fault("bad-option", f"schedule={name!r}", found=found, expected=kind.wants)
    if is_online and not kind.is_online:
        expected = ", ".join(other for other, about in SCHEDULES.items() if about.is_online)
        raise fault(
            "bad-option", f"schedule={name!r} needs the number of steps", expected=f"an int, or one of {expected}"
        )


def slots_for(name: str, slots: Slots) -> Slots:
    """What of the tiers a schedule uses that is chosen among all: one for one tier, of two, the memory."""
    return slots._replace(disk=0) if SCHEDULES[name].needs is _one and _both(slots) else slots


def shown(count: int) -> str:
    return "unlimited" if count >= UNLIMITED else f"{count:,}"


def table_of(name: str, steps: int, slots: Slots, costs: Costs) -> ActionTable:
    """The actions of a schedule; raises `bad-option` where it needs more than it has, and `missing-package`."""
    check_slots(name, slots)
    if not steps:
        return ActionTable(0, [Action(TURN, 0)])
    if SCHEDULES[name].work(steps, slots, costs) > STILL_DONE:
        message = f"schedule={name!r} has a table that takes very long to compute for so many steps or such costs"
        raise fault("bad-option", message, found=f"{steps:,} steps", expected="another schedule")
    library = package("checkpoint_schedules", "recomputing")
    if steps == 1 and not SCHEDULES[name].is_online:  # HRevolve has no schedule of one step
        name = "revolve"
    try:
        with _quietly():
            schedule = SCHEDULES[name].make(library, steps, slots, costs)
            table = ActionTable(steps, _translated(library, schedule, steps))
    except RecursionError as error:  # of the library, which is recursive over steps or snapshots
        expected = "another schedule, or fewer"
        raise fault("bad-option", f"schedule={name!r} goes too deep", found=steps, expected=expected) from error
    for tier, most in ((MEMORY, slots.memory), (DISK, slots.disk)):
        if table.tiers[tier].peak > most:
            option = ("memory=", "disk=")[tier]
            expected = f"{table.tiers[tier].peak:,} for schedule={name!r}"
            raise fault("bad-option", f"{option} holds too few snapshots", found=most, expected=expected)
    return table


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without what the library prints, and without its advice to install numba."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore", RuntimeWarning)
        yield


def _translated(library: Any, schedule: Any, steps: int) -> Iterator[Action]:
    """The library's actions as ours. Its data for an adjoint step are, here, the state before that step."""
    at = 0  # the state in hand
    tiers = {library.StorageType.RAM: MEMORY, library.StorageType.DISK: DISK}
    everything = False  # is in the hand of the library, which here is memory
    for action in schedule:
        if isinstance(action, library.Forward):
            first, last = action.n0, min(action.n1, steps)
            if schedule.max_n is None and action.n1 >= steps:
                schedule.finalize(steps)
            everything = action.write_adj_deps and not action.write_ics and action.n1 - action.n0 > 1
            if everything:
                for number in range(first, last):
                    yield Action(STORE, number)
                    yield Action(ADVANCE, number, number + 1)
                at = last
                continue
            if action.storage in tiers and (action.write_ics or action.write_adj_deps):
                yield Action(STORE, first, tier=tiers[action.storage])
            elif action.write_adj_deps:  # the adjoint step comes next, and needs the state before
                at = first
                continue
            yield Action(ADVANCE, first, last)
            at = last
        elif isinstance(action, library.EndForward):
            yield Action(TURN, at)
        elif isinstance(action, library.Reverse):
            for number in range(action.n1 - 1, action.n0 - 1, -1):
                if everything:
                    yield Action(RESTORE, number)
                yield Action(ADJOINT, number)
        elif isinstance(action, library.Copy | library.Move):
            at = action.n
            yield Action(RESTORE, at, tier=tiers[action.from_storage])
        elif isinstance(action, library.EndReverse):
            return
