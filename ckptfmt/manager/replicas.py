"""Replicas: the newest steps of a run once more, where they are faster to read and outlive what may be lost.

A replica is written before the step itself, so that a process that is killed in between has lost nothing, and is an
ordinary checkpoint. It is never believed: it counts by the digests of all its bytes, and if it is of this very run and
step (`replica_folder`). What is damaged, full or away is told by a warning, and the next place is taken. No save fails
for want of a replica.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from ..api import load as load_checkpoint
from ..errors import CkptError, InputError, MissingError, SelectionError, fault
from ..format.tree import Tree
from ..parallel.coordinator import Coordinator, Rounds, all_gather
from ..warning import warn
from .asynchronous import DroppedError
from .peer_replicas import PeerPlace, Peers
from .replica_folder import Memory, ReplicaFolder, this_memory
from .run import DamagedStep, RunDirectory
from .steps import Number, Step

Found = TypeVar("Found")
_NO_ROOM = {"disk-full", "no-memory", "rank-failed"}


class ReplicaWarning(UserWarning):
    """A replica was damaged, and the next place was taken; or none could be written."""


class ReplicaOrder(NamedTuple):
    """What is to be written once more: a step's tree, and the options of `ckptfmt.save` that say what is saved of it.
    `write` saves it into a run directory, replacing. `goes_back`: later steps are about to be deleted."""

    step: Number
    tree: Tree
    asked: Mapping[str, Any]
    write: Callable[[RunDirectory], Any]
    goes_back: bool


class FromReplica(NamedTuple):
    """What was loaded of a step, and the path of the replica."""

    tree: Tree
    path: str


class Replicas:
    """The replicas of a run, in the order in which they are read."""

    def __init__(self, run: RunDirectory, asked: Sequence[Memory | Peers], own: str, group: Coordinator) -> None:
        """`group`: who save together, and so share the replicas. Raises `bad-option`."""
        self._run = run
        self._places = [
            PeerPlace(one, run, group) if isinstance(one, Peers) else ReplicaFolder(one, run, own) for one in asked
        ]
        self._folders = [place.whole if isinstance(place, PeerPlace) else place for place in self._places]
        self._failing: set[int] = set()  # places in which the last replica could not be written
        self._unsaid: deque[str] = deque()
        paths = [folder.path for folder in self._folders if folder.path is not None]
        if len(set(paths)) < len(paths):
            raise fault("bad-option", "replicas= names a place twice", path=run.path, found=sorted(paths))
        if group.size > 1 and any(isinstance(one, Memory) for one in asked):
            self._check_machines(group)
        for place in self._places:
            if isinstance(place, PeerPlace):
                self._bring_together(place)

    def _bring_together(self, place: PeerPlace) -> None:
        try:
            place.bring_together()
        except Exception as error:
            if isinstance(error, CkptError) and error.code in ("rank-lost", "ranks-differ"):
                raise
            warn(f"what the group has in memory is not taken: {error}", ReplicaWarning)

    def _check_machines(self, group: Coordinator) -> None:
        there = all_gather(group, this_memory(), "replicas of a manager")
        other = next((rank for rank, found in enumerate(there) if found != there[0]), None)
        if other is not None:
            message = "Memory() is that of one machine, and these processes save one checkpoint from several"
            raise fault("bad-option", message, path=self._run.path, found=f"rank {other} on another than rank 0",
                        expected="Peers(), or per_process=True", ranks=[other])  # fmt: skip

    # ---- finding

    def newer(self, newest: Step | None, damaged: Sequence[DamagedStep]) -> list[Step]:
        """The steps that only replicas have, in order, each of them whole: who lists them may begin from them."""
        found: dict[Number, Step] = {}
        for folder in self._folders:
            for step in self._looked(folder, partial(folder.newer, newest, damaged)) or ():
                if step.step not in found:
                    error = folder.fault_of(step)
                    if error is None:
                        found[step.step] = step
                    else:
                        self._passed(step, error, "it is passed over")
        return sorted(found.values(), key=lambda step: self._run.key(step.step))

    @property
    def are_asked(self) -> bool:
        return bool(self._folders)

    def is_one(self, step: Step) -> bool:
        """Whether a step is a replica."""
        return any(folder.holds(step) for folder in self._folders)

    def load(self, step: Step, load: Callable[..., Tree], options: dict[str, Any]) -> FromReplica | None:
        """A step from the first replica that is the same and whole; None if there is none."""
        own = {name: value for name, value in options.items() if name not in ("storage_options", "follow_links")}
        for folder in self._folders:
            found = self._looked(folder, partial(folder.copy_of, step))
            if found is None:
                continue
            try:
                with found.run.lease(found):
                    return FromReplica(_verified(found, load, own), found.path)
            except (InputError, SelectionError):  # of the call, and so wherever it is read
                raise
            except MissingError:  # deleted meanwhile, as a newer one was written
                continue
            except CkptError as error:
                self._passed(found, error, "the next place is taken")
        return None

    def _looked(self, folder: ReplicaFolder, look: Callable[[], Found]) -> Found | None:
        """What a look at a place gives; None where it cannot be looked at."""
        try:
            return look()
        except CkptError as error:
            warn(f"replicas cannot be looked at: {error}", ReplicaWarning)
            return None

    def _passed(self, step: Step, error: CkptError, what: str) -> None:
        step.run.pass_over(step, error)
        warn(f"the replica {step.path} is damaged, and {what}: {error}", ReplicaWarning)

    # ---- writing

    def write(self, savers: Coordinator, order: ReplicaOrder) -> None:
        """Write the replicas of a step, which is not in the run yet. What fails is told later, by `take_report`."""
        step = order.step
        for number, (place, folder) in enumerate(zip(self._places, self._folders, strict=True)):
            try:
                if isinstance(place, PeerPlace):
                    place.write(savers, step, order.tree, order.asked, goes_back=order.goes_back)
                else:
                    self._write_one(savers, folder, order)
                self._failing.discard(number)
            except DroppedError:
                raise
            except Exception as error:
                if isinstance(error, CkptError) and error.code == "has-nan":
                    return  # the step itself is refused
                if number not in self._failing:  # else it was told
                    self._unsaid.append(f"step {step} has no replica in {folder.path}: {error}")
                self._failing.add(number)

    def _write_one(self, savers: Coordinator, folder: ReplicaFolder, order: ReplicaOrder) -> None:
        step = order.step

        def begin() -> bool:
            return folder.begin(step, goes_back=order.goes_back) is not None

        if not self._on_first(savers, begin, f"begin of the replica of step {step}"):
            return
        run = folder.opened(self._on_first(savers, lambda: folder.path, f"place of the replica of step {step}"))
        try:
            order.write(run)
        except CkptError as error:
            if error.code not in _NO_ROOM:
                raise
            self._on_first(savers, folder.make_room, f"room for the replica of step {step}")
            order.write(run)
        self._on_first(savers, lambda: folder.written(step), f"end of the replica of step {step}")

    def _on_first(self, savers: Coordinator, work: Callable[[], Any], call: str) -> Any:
        """What `work` gives on rank 0, for all."""
        return Rounds(savers).round(
            call, lambda: work() if savers.rank == 0 else None, lambda said: [said[0]] * len(said)
        )

    def take_report(self) -> list[str]:
        """What went wrong of which nobody was told."""
        return [self._unsaid.popleft() for _ in range(len(self._unsaid))]

    def leave(self, *, keeps: bool, acts: bool) -> None:
        """At the end of a manager. `acts`: whether this is the process that deletes."""
        for place, folder in zip(self._places, self._folders, strict=True):
            try:
                if acts or isinstance(place, PeerPlace):
                    place.leave(keeps=keeps)
            except CkptError as error:
                self._unsaid.append(f"replicas in {folder.path} could not be removed: {error}")


def replicas_asked(
    asked: Memory | Peers | Sequence[Memory | Peers] | None, options: Mapping[str, Any]
) -> tuple[Memory | Peers, ...]:
    """What `replicas=` means, beside the other options of a manager; raises `bad-option`."""
    if asked is None:
        return ()
    several = tuple(asked) if isinstance(asked, list | tuple) else (asked,)
    for one in several:
        if not isinstance(one, Memory | Peers):
            found, expected = type(one).__name__, "Memory(...) or Peers(...), or a list of them"
            raise fault("bad-option", "replicas=", found=found, expected=expected)
    if several and options.get("share"):  # it is known by its commit record, which depends on what is shared with
        raise fault("bad-option", "steps that share have no replicas", found="share=True", expected="one of the two")
    return several


def _verified(step: Step, load: Callable[..., Tree], options: dict[str, Any]) -> Tree:
    """What a call loads, after or while every byte of it is checked. A call of others may look at bytes later, or not
    check them, and so do the options that say so."""
    room = str(getattr(load, "__module__", "")).partition(".")[0]
    checks = load is load_checkpoint or room.startswith("ckptfmt")
    if not checks or options.get("mmap") or options.get("verify") is False:
        error = step.run.fault_of(step)
        if error is not None:
            raise error
    return step.run.load(step, load, options)
