"""A folder of replicas: the newest checkpoints of a run once more, in the memory of this machine.

It is a run directory like that of the run, of steps that are not flushed, and has a mark that says whose it is, and
what each step follows. From that alone it is known whether a step counts:

- **Whose**: a random word, which also stands in the run's directory, and the path of that. So neither another run nor
  one that began anew at the same path, nor a copy of a run that lies elsewhere, takes the replicas of this one.
- **What it follows**: the newest step that the run had when the replica was written, and its commit record. A step that
  only a replica has counts as long as that is still the newest of the run: else the run went on without it, or went
  back, and the replica is stale.

A step that the run has, too, is the same checkpoint if the commit records are equal, as that of a checkpoint names the
digest of its manifest, and this those of all else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ..calls import checked_class, count_asked
from ..errors import CkptError, fault, os_fault
from ..maintenance.garbage import REPLICAS_MARK as MARK
from ..maintenance.garbage import gc
from ..storage import disk as disks
from ..storage import is_url, leases
from ..storage.attempt import make_directories
from ..storage.temporaries import take_away
from .options import one_of
from .run import DamagedStep, RunDirectory, place_of
from .run_on_disk import RunOnDisk
from .steps import FixedNames, Number, Step

ROOT = "/dev/shm"
IDENTITY = "replicated.json"  # in the run's directory
Whose = Literal["nobody's", "ours", "of a former run", "of another run"]


@checked_class
@dataclass(frozen=True, slots=True)
class Memory:
    """Replicas in the memory of this machine: the newest `keep` steps once more, in a `directory` on a file system in
    memory. They outlive the process, and not the machine.

    `directory`: None for one of this run below `/dev/shm`. It must belong to this user alone, and no other run may have
    replicas there; it may be on a disk, too. While a step is written, there are `keep` and one. `at_close`: what
    `close` does once all of them are in the run's directory, too: "remove" them or "keep" them; after an error or a
    preemption, and where the process just ends, they stay.

    Raises `InputError` (`bad-option`).
    """

    directory: str | os.PathLike[str] | None = None
    keep: int = 1
    at_close: Literal["remove", "keep"] = "remove"

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep", count_asked("keep=", self.keep))
        one_of("at_close", self.at_close, "remove", "keep")


class RunIdentity(NamedTuple):
    """What tells a run from all others."""

    word: str
    path: str

    def folder(self, kind: str) -> str:
        """The name of the folder of its replicas of a kind."""
        named = f"{self.word} {self.path}{kind}".encode(errors="surrogateescape")
        return f"replicas-{hashlib.sha256(named).hexdigest()[:16]}"


def identity_of(run: RunDirectory) -> RunIdentity | None:
    """That of a run; None if it has had no replicas."""
    try:
        word = json.loads(run.read_note(IDENTITY) or "")["word"]
    except (ValueError, TypeError, KeyError):
        return None
    return RunIdentity(str(word), run.path)


class PrecedingStep(NamedTuple):
    """What a step follows: the newest one that the run had, if it had one, and its commit record."""

    step: Number | None
    record: str

    @classmethod
    def of(cls, newest: Step | None) -> PrecedingStep:
        return cls(None, "") if newest is None else cls(newest.step, newest.record.decode("ascii", "replace"))


class _ReplicaMark(NamedTuple):
    """What stands in the mark of a folder."""

    identity: RunIdentity
    follows: list[tuple[Number, PrecedingStep]]

    def text(self) -> str:
        """In one line, with its digest before it."""
        follows = [[step, *followed] for step, followed in self.follows]
        line = json.dumps({**self.identity._asdict(), "follows": follows})
        return f"{_digest(line)} {line}"

    @classmethod
    def read(cls, text: str | None) -> _ReplicaMark | None:
        """None for one that is damaged."""
        digest, _, line = (text or "").partition(" ")
        if digest != _digest(line):
            return None
        found = json.loads(line)
        follows = [(step, PrecedingStep(after, record)) for step, after, record in found["follows"]]
        return cls(RunIdentity(found["word"], found["path"]), follows)


def _digest(line: str) -> str:
    return hashlib.sha256(line.encode()).hexdigest()


class ReplicaRun(RunOnDisk):
    """The steps of a folder of replicas. A lease on the folder lasts as long as a manager, so what a save left is
    judged by its own lease alone."""

    def sweep(self, leftovers: Sequence[str]) -> list[str]:
        removed = []
        for name in leftovers:
            path = os.path.join(self.path, name)
            with leases.claim(path, without_locks=False) as is_dead:
                if is_dead:
                    take_away(path)
                    removed.append(name)
        return removed


class ReplicaFolder:
    """The replicas of a run in one place."""

    def __init__(self, asked: Memory, run: RunDirectory, own: str = "", *, kind: str = "") -> None:
        """`own`: the name of the run below the directories that are given. `kind`: what else tells the default place
        from others of the run. Raises `bad-option` for a directory that is not for these replicas."""
        self.asked, self._of, self._kind = asked, run, kind
        self._given = None if asked.directory is None else place_of(asked.directory, own)
        self._identity: RunIdentity | None = None  # as last read
        self._steps: ReplicaRun | None = None
        self._lease: leases.Lease | None = None
        self._whole: set[tuple[Number, object]] = set()  # those that were read as a whole, or written here
        if self._given is None:
            if not os.path.isdir(ROOT):
                expected = f"Memory(directory=...), as there is no {ROOT}"
                raise fault("bad-option", "no place in memory for replicas", expected=expected)
        elif self._given == run.path:
            raise fault("bad-option", "replicas= is the directory of the run itself", path=run.path)
        self.check()

    # ---- whose it is

    @property
    def identity(self) -> RunIdentity | None:
        """That of the run; None if it has had no replicas."""
        if self._identity is None:
            self._identity = identity_of(self._of)
        return self._identity

    @property
    def path(self) -> str | None:
        """Where the replicas are; None as long as the run has no identity."""
        if self._given is not None:
            return self._given
        identity = self.identity
        return None if identity is None else os.path.join(_root(), identity.folder(self._kind))

    @property
    def given(self) -> str | None:
        """The directory that was asked for."""
        return self._given

    def check(self) -> None:
        """Raise `bad-option` if what is at its path is not for the replicas of this run."""
        path = self.path
        if path is None:
            return
        if self._given is None:
            check_owner(_root())
        check_owner(path)
        if self._whose(path) == "of another run":
            mark = _ReplicaMark.read(_run_at(path, self._of).read_note(MARK))
            found = "checkpoints without a mark" if mark is None else f"replicas of {mark.identity.path}"
            raise fault(
                "bad-option", "these are no replicas of this run", path=path, found=found,
                expected="a directory of its own for each run",
            )  # fmt: skip

    def _whose(self, path: str) -> Whose:
        run = _run_at(path, self._of)
        mark = _ReplicaMark.read(run.read_note(MARK))
        if mark is None:
            if os.path.lexists(os.path.join(path, MARK)):
                return "of a former run"  # it is damaged, and so nobody can use them any more
            return "of another run" if run.scan().steps else "nobody's"
        if mark.identity == self.identity:
            return "ours"
        return "of a former run" if mark.identity.path == self._of.path else "of another run"

    # ---- finding

    def steps(self) -> ReplicaRun | None:
        """The run directory of the replicas, if there are any of this run."""
        path = self.path
        if path is None or not os.path.isdir(path):
            return None
        check_owner(path)
        return self.opened(path) if self._whose(path) == "ours" else None

    def opened(self, path: str) -> ReplicaRun:
        """The run directory at the path of the replicas, which remembers what it has seen."""
        if self._steps is None or self._steps.path != path:
            self._steps = _run_at(path, self._of)
        return self._steps

    def holds(self, step: Step) -> bool:
        """Whether a step was found here."""
        return step.run is self._steps

    def copy_of(self, step: Step) -> Step | None:
        """The same checkpoint here."""
        run = self.steps()
        found = None if run is None or not step.record else run.find(step.step)
        return found if found is not None and found.saved == step.saved else None

    def newer(self, newest: Step | None, damaged: Sequence[DamagedStep]) -> list[Step]:
        """The steps that only this place has, which follow the newest of the run."""
        run = self.steps()
        if run is None:
            return []
        follows = self.follows()
        return [
            step
            for step in run.scan().steps
            if step.step in follows and counts(step.step, follows[step.step], newest, damaged, run.key)
        ]

    def fault_of(self, step: Step) -> CkptError | None:
        """What is wrong with a step of this place; every byte is read the first time."""
        if (step.step, step.identity) in self._whole:
            return None
        error = step.run.fault_of(step)
        if error is None:
            self._whole.add((step.step, step.identity))
        return error

    # ---- writing

    def begin(self, step: Number, *, goes_back: bool) -> ReplicaRun | None:
        """Be ready for the replica of a step that is not in the run yet: those of later steps go, as the run goes on
        from here. None for one that is not the newest, and does not become it as the run `goes_back`. Raises
        `StorageError` and `bad-option`."""
        newest = self._of.latest()
        if not goes_back and newest is not None and self._of.key(newest.step) > self._of.key(step):
            return None
        run = self.made(step)
        there = run.scan()
        run.sweep(there.leftovers)
        run.delete([found for found in there.steps[::-1] if run.key(found.step) > run.key(step)], even_if_read=True)
        self.note(step, PrecedingStep.of(newest))
        return run

    def note(self, step: Number, followed: PrecedingStep) -> None:
        """Note what a step follows that is to be written."""
        run = self._steps
        assert run is not None
        assert self.identity is not None
        kept = {found.step for found in run.scan().steps} - {step}
        follows = [entry for entry in self.follows().items() if entry[0] in kept]
        run.write_note(MARK, _ReplicaMark(self.identity, [*follows, (step, followed)]).text())

    def follows(self) -> dict[Number, PrecedingStep]:
        """What each step follows, as noted."""
        mark = None if self._steps is None else _ReplicaMark.read(self._steps.read_note(MARK))
        return {} if mark is None else dict(mark.follows)

    def made(self, step: Number) -> ReplicaRun:
        """The run directory of the replicas, made and leased."""
        self._identity = identity_of(self._of)
        if self._identity is None:
            with self._of.saving(step):
                self._of.write_note(IDENTITY, json.dumps({"word": os.urandom(8).hex()}))
        path = self.path
        assert path is not None
        self.check()
        if self._given is None:
            _make(_root())
            sweep_root(_root(), path)
        _make(path)
        run = self.opened(path)
        if self._whose(path) == "of a former run":
            run.delete(run.scan().steps)
            run.write_note(MARK, None)
        if self._lease is None or not self._lease.is_at(path):
            self._lease = leases.hold(path)
        return run

    def written(self, step: Number) -> None:
        """A replica was written: those go that are too many."""
        run = self._steps
        assert run is not None
        steps = run.scan().steps
        there = {(found.step, found.identity) for found in steps}
        self._whole = {entry for entry in there if entry in self._whole or entry[0] == step}
        run.delete(steps[: -self.asked.keep])

    def make_room(self) -> None:
        """Delete the replicas that the run's directory has, too."""
        run = self._steps
        if run is not None:
            run.sweep(run.scan().leftovers)
            run.delete([step for step in run.scan().steps if self._is_there(step)])

    def _is_there(self, step: Step) -> bool:
        found = self._of.find(step.step)
        return found is not None and found.saved == step.saved

    def leave(self, *, keeps: bool) -> None:
        """At the end of a manager: remove what the run's directory has, too, or keep it."""
        lease, self._lease = self._lease, None
        if lease is not None:
            lease.release()
        run = self.steps()
        if run is None or keeps or self.asked.at_close == "keep":
            return
        steps = run.scan().steps
        if not all(map(self._is_there, steps)):
            return
        run.delete(steps)
        run.sweep(run.scan().leftovers)
        if not run.scan().steps:
            run.write_note(MARK, None)
            with contextlib.suppress(OSError):  # there is something else in it, too
                disks.current().remove_directory(run.path)


def counts(
    step: Number,
    followed: PrecedingStep,
    newest: Step | None,
    damaged: Sequence[DamagedStep],
    key: Callable[[Number], Any],
) -> bool:
    """Whether a step that only a replica has is the newest of the run: what it follows is the newest that stands there,
    be it damaged by now."""
    if newest is not None and key(newest.step) >= key(step):
        return False
    standing = [(found.step, "") for found in damaged if found.step != step]
    standing += [] if newest is None else [(newest.step, newest.record.decode("ascii", "replace"))]
    if not standing:
        return followed.step is None
    last, record = max(standing, key=lambda entry: key(entry[0]))
    return followed.step == last and record in ("", followed.record)


# ---- places


def _root() -> str:
    return os.path.join(ROOT, f"ckptfmt-{os.geteuid()}")


def _run_at(path: str, of: RunDirectory) -> ReplicaRun:
    return ReplicaRun(path, of.names)


def _make(path: str) -> None:
    """Make a directory that belongs to this user alone; raises `StorageError` and `bad-option`."""
    try:
        make_directories(os.path.dirname(path))
        with contextlib.suppress(FileExistsError):
            disks.current().make_directory(path, 0o700)
    except OSError as error:
        raise os_fault(error, "cannot make the directory of replicas", path) from error
    check_owner(path)


def sweep_root(root: str, own: str) -> None:
    """Remove from the root what is of runs that are no more: whose directory is gone, or was begun anew; that nobody
    uses, and that has not changed for a day."""
    with contextlib.suppress(CkptError, OSError):
        for garbage in gc(root).found:
            mark = _ReplicaMark.read(RunOnDisk(garbage.path, FixedNames()).read_note(MARK))
            if mark is None or garbage.path == own or is_url(mark.identity.path):
                continue
            if mark.identity == identity_of(RunOnDisk(mark.identity.path, FixedNames())):
                continue
            with leases.claim(garbage.path, without_locks=False) as is_mine:
                if is_mine:
                    take_away(garbage.path)


def check_owner(path: str) -> None:
    """Raise `bad-option` for a directory into which others may put something; nothing need be there."""
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise os_fault(error, "cannot look at the directory of replicas", path) from error
    if not stat.S_ISDIR(status.st_mode):
        raise fault("bad-option", "no directory for replicas", path=path, found="a link" if stat.S_ISLNK(status.st_mode)
                    else "a file", expected="a directory")  # fmt: skip
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        found = f"owner {status.st_uid}, mode {stat.S_IMODE(status.st_mode):o}"
        expected = f"owner {os.geteuid()}, and nobody else may write"
        raise fault("bad-option", "others can put replicas into this directory", path=path, found=found,
                    expected=expected)  # fmt: skip


def this_memory() -> list[Any]:
    """What tells the memory of this machine from that of others."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return [file.read().strip(), os.stat(ROOT).st_dev]
    except OSError:
        return [os.uname().nodename, 0]
