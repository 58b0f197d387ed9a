"""Replicas that the processes of a group hold together, each its part, and some also the parts of others.

Each rank writes what it would write of the step into the memory of its own machine, and sends it to ranks of other
machines, which keep it, too. So whichever process or machine is lost, all parts are somewhere. When a group begins,
what its machines hold is told in one round, and the newest step of which all is there is brought together on each
machine, verified: from then on it is a replica like any other.

    replicas-…/rank-00003/step-0000001000.ckpt      manifest, record, and the packs of rank 3 and of those it keeps
    replicas-…/step-0000001000.ckpt                 a step that was brought together; packs of this machine are links
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ..calls import checked_class, count_asked, keys_of
from ..errors import CkptError, fault
from ..format.pages import OBJECT as PAGES
from ..maintenance.verification import verify_stored
from ..parallel.coordinator import Coordinator, Rounds, all_gather
from ..parallel.courier import Parcel, courier_of
from ..parallel.scattered import ScatteredSave
from ..reading.checkpoint import StoredCheckpoint
from ..storage import COMMIT, MANIFEST, leases
from ..storage import disk as disks
from ..storage.attempt import LocalAttempt
from ..storage.local import LocalStorage
from ..storage.temporaries import take_away
from ..writing.options import WatchOptions
from .agreement import together
from .options import one_of
from .replica_folder import Memory, PrecedingStep, ReplicaFolder, counts, this_memory
from .run import RunDirectory
from .steps import Number

PART = "rank-"


@checked_class
@dataclass(frozen=True, slots=True)
class Peers:
    """Replicas in the memory of all machines whose processes save together (`coordinator=`): each process keeps its
    part of the newest `keep` steps, and `copies` processes on other machines keep it, too. The loss of any one machine
    loses nothing.

    `directory` and `at_close` are those of `Memory`. What goes from machine to machine goes over the engine of the
    coordinator: gloo, MPI, or files. A step is restored from memory on any number of machines; each then has all of it
    in memory. Raises `InputError` (`bad-option`).
    """

    directory: str | os.PathLike[str] | None = None
    copies: int = 1
    keep: int = 1
    at_close: Literal["remove", "keep"] = "remove"

    def __post_init__(self) -> None:
        for name in ("copies", "keep"):
            object.__setattr__(self, name, count_asked(f"{name}=", getattr(self, name)))
        one_of("at_close", self.at_close, "remove", "keep")


class Pieces(NamedTuple):
    """Objects of a step that are whole in one place, and where; and which the step has in all."""

    places: dict[str, str]
    needed: set[str]


class StepInMemory(NamedTuple):
    """What a machine has of a step, as it is told: objects with their sizes."""

    step: Number
    record: bytes
    followed: list[Any]
    objects: dict[str, int]
    needed: list[str]


class Transfer(NamedTuple):
    """An object that a rank has and another is to get."""

    source: int
    target: int
    name: str
    size: int


class PeerPlace:
    """The replicas that a group holds together, as one of its processes sees them; `whole`: the steps of which this
    machine has all."""

    def __init__(self, asked: Peers, run: RunDirectory, group: Coordinator) -> None:
        """All ranks make it together. Raises `bad-option`, and what rounds raise."""
        if group.size == 1:
            expected = "Memory(), or a coordinator"
            raise fault("bad-option", "Peers() is for processes that save together", path=run.path, expected=expected)
        self._asked, self._run, self._group = asked, run, group
        self.whole = ReplicaFolder(Memory(asked.directory, asked.keep, asked.at_close), run, kind=" peers")
        self._own_part: ReplicaFolder | None = None
        self._courier = courier_of(group)
        self._machines = all_gather(group, [*this_memory(), self.whole.given or ""], "machines of a manager")
        self._leads = self._machines.index(self._machines[group.rank]) == group.rank  # of this machine
        self._held: dict[tuple[Number, bytes], Pieces] = {}  # by step and commit record

    # ---- writing

    def write(self, savers: Coordinator, step: Number, tree: Any, asked: Mapping[str, Any], *, goes_back: bool) -> None:
        """Write this rank's part of a step, and keep those of others."""

        def first() -> bool:
            return self.whole.begin(step, goes_back=goes_back) is not None

        rounds = Rounds(savers)
        call = f"begin of the replica of step {step}"
        if not rounds.round(call, lambda: savers.rank != 0 or first(), lambda said: [said[0]] * len(said)):
            return
        together(savers, True, lambda: self._begin(step, goes_back), f"place of the replica of step {step}")
        try:
            self._write_parts(savers, step, tree, asked)
        except CkptError as error:
            if error.code not in ("disk-full", "no-memory", "rank-failed"):
                raise
            together(savers, True, self._make_room, f"room for the replica of step {step}")
            self._write_parts(savers, step, tree, asked)
        together(savers, True, lambda: self._end(step), f"end of the replica of step {step}")

    def _part(self) -> ReplicaFolder:
        """The folder of this rank's parts."""
        path = os.path.join(self.whole.path or "", f"{PART}{self._group.rank:05d}")
        if self._own_part is None or self._own_part.path != path:
            self._own_part = ReplicaFolder(Memory(path, self._asked.keep, self._asked.at_close), self._run)
        return self._own_part

    def _begin(self, step: Number, goes_back: bool) -> None:
        if self._leads and self._group.rank != 0:
            self.whole.begin(step, goes_back=goes_back)
        self._part().begin(step, goes_back=goes_back)

    def _make_room(self) -> None:
        self._part().make_room()
        if self._leads:
            self.whole.make_room()

    def _write_parts(self, savers: Coordinator, step: Number, tree: Any, asked: Mapping[str, Any]) -> None:
        run = self._part().opened(self._part().path or "")
        form = {name: asked[name] for name in (keys_of(WatchOptions) | {"paged"}) & asked.keys()}
        stored = {name: value for name, value in asked.items() if name not in form}
        attempt = ScatteredSave(run.path_of(step), savers, f"replica of step {step}", **form).write(tree, stored)
        try:
            self._share(savers, attempt)
            together(savers, True, attempt.publish, f"replica of step {step}")
        except BaseException:
            attempt.abort()
            raise
        together(savers, True, lambda: _refuse_damaged(run.path_of(step)), f"check of the replica of step {step}")

    def _share(self, savers: Coordinator, attempt: LocalAttempt) -> None:
        """Send what this rank has written to those that keep it, and get what it keeps of others."""
        mine = [each for each in _objects(attempt.temporary).items() if each[0] not in (MANIFEST, PAGES, COMMIT)]
        all_objects = all_gather(savers, [[*each] for each in mine], "objects of a replica")
        keepers = keepers_of(self._machines, self._asked.copies)
        transfers = [
            Transfer(source, target, name, size)
            for source, objects in enumerate(all_objects)
            for target in keepers[source]
            for name, size in objects
        ]
        self._carry(savers, transfers, attempt, dict.fromkeys((name for name, _ in mine), attempt.temporary))

    def _end(self, step: Number) -> None:
        self._part().written(step)
        if not self._leads:
            return
        run = self.whole.opened(self.whole.path or "")
        run.delete(run.scan().steps)  # what was brought together is of former saves, be it of this step
        for name in os.listdir(run.path):  # of ranks that are no more
            path = os.path.join(run.path, name)
            if name.startswith(PART):
                with leases.claim(path, without_locks=False) as is_dead:
                    if is_dead:
                        take_away(path)

    def _carry(
        self, group: Coordinator, transfers: Sequence[Transfer], attempt: LocalAttempt | None, held: Mapping[str, str]
    ) -> None:
        """Do those transfers that this rank takes part in: from the folders that hold objects, into an attempt."""
        own = group.rank
        with contextlib.ExitStack() as maps:

            def prepare() -> tuple[list[Parcel], list[Parcel]]:  # what fails here fails before anybody waits
                sent = [
                    Parcel(one.target, maps.enter_context(_mapped(os.path.join(held[one.name], one.name), one.size)))
                    for one in transfers
                    if one.source == own
                ]
                received = [
                    Parcel(one.source, maps.enter_context(_made(attempt, one.name, one.size)))
                    for one in transfers
                    if one.target == own and attempt is not None
                ]
                return sent, received

            parcels = together(group, True, prepare, "parcels of a replica")
            assert parcels is not None
            self._courier.carry(*parcels)

    # ---- bringing together

    def bring_together(self) -> None:
        """Have the newest step of which all is in some memory as a whole on each machine, if it counts. All ranks call
        it together. Raises what rounds raise."""
        call = "what is in memory of a run"
        told = Rounds(self._group).round(call, lambda: [list(one) for one in self._inventory()], self._planned)
        if told is None:
            return
        step, record, followed, transfers = told
        mine = [Transfer(*one) for one in transfers]
        attempt = together(self._group, True, lambda: self._attempt(step, followed), f"place of step {step}")
        held = self._held[step, record].places if (step, record) in self._held else {}
        try:
            self._carry(self._group, mine, attempt, held)
            together(self._group, True, lambda: self._publish(attempt, held), f"step {step} in memory")
        except BaseException:
            if attempt is not None:
                attempt.abort()
            raise
        together(self._group, True, lambda: self._check(step, record), f"check of step {step} in memory")

    def _inventory(self) -> Iterator[StepInMemory]:
        """What this machine holds, told by the one rank that speaks for it."""
        run = self.whole.steps() if self._leads else None
        if run is None:
            return
        found: dict[tuple[Number, bytes], tuple[Pieces, PrecedingStep]] = {}
        names = sorted(name for name in os.listdir(run.path) if name.startswith(PART))
        for path in (run.path, *(os.path.join(run.path, name) for name in names)):
            folder = ReplicaFolder(Memory(path), self._run)
            follows, steps = {}, folder.steps()
            if steps is not None:
                follows = folder.follows()
            for step in () if steps is None else steps.scan().steps:
                if step.step in follows:
                    pieces, _ = found.setdefault((step.step, step.record), (Pieces({}, set()), follows[step.step]))
                    looked = pieces_of(step.path)
                    pieces.places.update({name: step.path for name in looked.places if name not in pieces.places})
                    pieces.needed.update(looked.needed)
        for (number, record), (pieces, followed) in found.items():
            if not pieces.needed:  # nothing of it can be told from what is here
                continue
            self._held[number, record] = pieces
            sizes = {name: os.stat(os.path.join(path, name)).st_size for name, path in pieces.places.items()}
            yield StepInMemory(number, record, list(followed), sizes, sorted(pieces.needed))

    def _planned(self, told: list[list[Any]]) -> list[Any]:
        """For all ranks: the newest step that counts and of which all is there, and how each machine gets what it
        lacks; None if there is none."""
        held = [[StepInMemory(*one) for one in each] for each in told]
        newest = self._run.latest()
        known = {(one.step, one.record): one for each in held for one in each}
        for step, record in sorted(known, key=lambda key: self._run.key(key[0]), reverse=True):
            one = known[step, record]
            is_newest = newest is not None and newest.step == step and newest.record == record
            if not is_newest and not counts(
                step, PrecedingStep(*one.followed), newest, self._run.damaged, self._run.key
            ):
                continue
            objects = [
                next((mine.objects for mine in each if (mine.step, mine.record) == (step, record)), {}) for each in held
            ]
            transfers = self._transfers(objects, set(one.needed))
            if transfers is not None:
                return [[step, record, one.followed, [list(each) for each in transfers]]] * len(told)
        return [None] * len(told)

    def _transfers(self, objects: Sequence[Mapping[str, int]], needed: set[str]) -> list[Transfer] | None:
        """What goes where, so that each machine has all; None if something is nowhere."""
        found = []
        for target in (rank for rank, machine in enumerate(self._machines) if self._machines.index(machine) == rank):
            for name in sorted(needed - objects[target].keys()):
                source = next((rank for rank, held in enumerate(objects) if name in held), None)
                if source is None:
                    return None
                found.append(Transfer(source, target, name, objects[source][name]))
        return found

    def _attempt(self, step: Number, followed: Sequence[Any]) -> LocalAttempt | None:
        if not self._leads:
            return None
        run = self.whole.made(step)
        self.whole.note(step, PrecedingStep(*followed))
        attempt = LocalAttempt(run.path_of(step), directory=True, overwrite=True, durable=False)
        attempt.make_folder()
        return attempt

    def _publish(self, attempt: LocalAttempt | None, held: Mapping[str, str]) -> None:
        """Add what this machine had before, as links."""
        if attempt is None:
            return
        for name, path in held.items():
            storage = LocalStorage(path)
            try:
                why = attempt.link(name, storage, name, storage.size(name))
                if why:
                    raise fault("io", f"{name} cannot be linked: {why}", path=path)
            finally:
                storage.close()
        attempt.publish()

    def _check(self, step: Number, record: bytes) -> None:
        if self._leads:
            found = self.whole.opened(self.whole.path or "").find(step)
            if found is None or found.record != record:
                raise fault("bad-record", "what was brought together is another step", path=self.whole.path)
            error = self.whole.fault_of(found)
            if error is not None:
                found.run.pass_over(found, error)
                raise error

    def leave(self, *, keeps: bool) -> None:
        """At the end of a manager."""
        path = self.whole.path
        if path is None or not os.path.isdir(path):
            return
        self._part().leave(keeps=keeps)
        if self._leads:
            self.whole.leave(keeps=keeps)
        with contextlib.suppress(OSError):  # others, or steps, are still in it
            disks.current().remove_directory(path)


def keepers_of(machines: Sequence[Any], copies: int) -> list[list[int]]:
    """For each rank, those that keep its part, too: on so many other machines, and spread over the ranks there."""
    ranks: dict[str, list[int]] = {}
    for rank, machine in enumerate(machines):
        ranks.setdefault(repr(machine), []).append(rank)
    groups = list(ranks.values())
    found: list[list[int]] = [[] for _ in machines]
    for number, group in enumerate(groups):
        for place, rank in enumerate(group):
            others = [groups[(number + step) % len(groups)] for step in range(1, min(copies, len(groups) - 1) + 1)]
            found[rank] = [other[place % len(other)] for other in others]
    return found


def pieces_of(path: str) -> Pieces:
    """Which objects of a step stand whole in its directory; every byte is read."""
    try:
        with StoredCheckpoint(path) as stored:
            needed = {MANIFEST, COMMIT, *stored.manifest.objects}
            damaged = {damage.object for damage in verify_stored(stored).damage}
    except CkptError:
        return Pieces({}, set())
    there = _objects(path)
    return Pieces({name: path for name in needed - damaged if name in there}, needed)


def _refuse_damaged(path: str) -> None:
    """Raise `block-digest` if something that was sent has not come whole."""
    there, pieces = _objects(path), pieces_of(path)
    damaged = sorted(name for name in there if name not in pieces.places)
    if damaged:
        raise fault("block-digest", "a replica has not come whole", path=path, object=damaged[0])


def _objects(path: str) -> dict[str, int]:
    """The objects in a directory, and their sizes."""
    found = {}
    for folder, _, names in os.walk(path):
        for name in names:
            file = os.path.join(folder, name)
            found[os.path.relpath(file, path)] = os.stat(file).st_size
    return found


@contextlib.contextmanager
def _mapped(path: str, size: int) -> Iterator[memoryview]:
    """The bytes of a file, to be sent."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), size, mmap.MAP_PRIVATE) as data, memoryview(data) as view:
        yield view


@contextlib.contextmanager
def _made(attempt: LocalAttempt, name: str, size: int) -> Iterator[memoryview]:
    """The bytes of a new object, to be received."""
    out = attempt.create(name)
    out.reserve(size)
    with (
        open(os.path.join(attempt.temporary, name), "r+b") as file,
        mmap.mmap(file.fileno(), size) as data,
        memoryview(data) as view,
    ):
        yield view
    out.finish(size)
