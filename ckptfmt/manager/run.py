"""A run directory: the listing of its committed steps, and the few changes that a manager makes to it.

A name is no proof. A checkpoint of ours takes its name whole (PUB-003, PUB-004, PUB-008), but a copy made by another
program may be torn. So the end of a file, or the `COMMIT` of a directory, is read once: 255 bytes, and only what holds
a valid commit record is listed. What was seen is remembered for as long as it stays the same file or object, so that
listing again opens nothing; finding the latest step opens one.

What is named like a step and is none, or cannot be read, is passed over, and is in `damaged`: it does not keep a run
from going on, counts for nothing, and nothing deletes it. So is what was found damaged when all of it was read.

What is being read has a lease and is not deleted. A step that is deleted first vanishes from the listing, at once, and
then its bytes go; what a crash leaves between the two is left over, and `sweep` removes it.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, Unpack

from ..checkpoint import Checkpoint
from ..errors import CODES, DAMAGED, CkptError, fault
from ..format import commit
from ..format.limits import DEFAULT as LIMITS
from ..format.manifest import FORMAT
from ..format.tree import Tree
from ..maintenance.verification import Damage, VerifyReport
from ..options import OpenOptions
from ..storage import is_url, path_of
from .flax_rules import FlaxNames
from .steps import Number, Step, StepNames

REASONS = "kept.json"  # why each step was kept when last something was deleted; for people, nothing depends on it


class Scan(NamedTuple):
    """What a run directory holds: committed steps in order, and the names of what saves and deletions left over."""

    steps: list[Step]
    leftovers: list[str]


class Listing(NamedTuple):
    """(step, entry) of what is named like a step, in order, and names of leftovers; an entry is what `_look` needs."""

    named: list[tuple[Number, Any]]
    leftovers: list[str]


class DamagedStep(NamedTuple):
    """What is named like a step, and why it is none, or cannot be read."""

    step: Number
    path: str
    error: CkptError


class RunDirectory(ABC):
    """A directory of checkpoints by step; one that does not exist is empty. All methods raise `StorageError`."""

    def __init__(self, path: str, names: StepNames, options: Mapping[str, Any] | None = None) -> None:
        """`options` go to the store."""
        self.path: str = path
        self.names: StepNames = names
        self.options: Mapping[str, Any] | None = options
        self.follows_links = False  # whether steps may have links in the place of objects
        self._known: dict[Number, tuple[Hashable, Step | CkptError]] = {}
        self._damaged: dict[Number, DamagedStep] = {}  # as of the last look at each
        self._wrote: tuple[bytes, Mapping[str, float]] | None = None  # what was written last, see `wrote`
        self._warned_of: set[tuple[str, str]] = set()  # paths and codes of what is damaged

    def path_of(self, step: Number) -> str:
        return os.path.join(self.path, self.names.name(step))

    def checked(self, step: Any) -> Number:
        """The step as a number that processes can tell each other; raises `bad-option`."""
        if isinstance(step, int) and not -(1 << 63) <= step < 1 << 64:
            found = f"a number of {step.bit_length()} bits"
            raise fault("bad-option", "a step is too large", path=self.path, found=found, expected="below 2^64")
        return self.names.checked(step)

    def key(self, step: Number) -> Any:
        """What steps are sorted by."""
        return self.names.key(step)

    # ---- finding

    def scan(self) -> Scan:
        """Everything there is."""
        found = self._list()
        steps = [step for step in self._look_all(found.named) if step is not None]
        self._known = {number: self._known[number] for number, _ in found.named if number in self._known}
        self._damaged = {number: self._damaged[number] for number, _ in found.named if number in self._damaged}
        return Scan(steps, found.leftovers)

    @property
    def damaged(self) -> list[DamagedStep]:
        """What was passed over when it was last looked at, in order."""
        return sorted(self._damaged.copy().values(), key=lambda found: self.names.key(found.step))

    def untold(self) -> Iterator[CkptError]:
        """What is wrong with what was passed over and was not given here before."""
        for _, path, error in self.damaged:
            if (path, error.code) not in self._warned_of:
                self._warned_of.add((path, error.code))
                yield error

    def _judged(self, number: Number, found: Step | CkptError | None) -> Step | None:
        """What a look at a step gives, None if it is not there; remembers what is damaged."""
        self._damaged.pop(number, None)
        if isinstance(found, CkptError):
            self._damaged[number] = DamagedStep(number, self.path_of(number), found)
            return None
        return found

    def _seen_as(
        self, number: Number, identity: Hashable, time: float, is_directory: bool, record: Callable[[], bytes | None]
    ) -> Step | CkptError:
        """A step, or what is wrong with it, as it was seen before if its identity is still the same; else by what
        `record` reads."""
        known, found = self._known.get(number, (None, None))
        if found is None or known != identity:
            read, path = record(), self.path_of(number)
            found = no_record(path, is_directory=is_directory)
            if read is not None:
                found = Step(number, path, time, identity, read, self)
                if self._wrote is not None and self._wrote[0] in read:
                    found.__dict__["_stored_metrics"] = self._wrote[1]
            self._known[number] = (identity, found)
        return found

    def pass_over(self, step: Step, error: CkptError) -> None:
        """Count a step as damaged for as long as it is the same file or object, as the whole of it was read; who calls
        tells it."""
        self._known[step.step] = (step.identity, error)
        self._judged(step.step, error)
        self._warned_of.add((self.path_of(step.step), error.code))

    def is_passed_over(self, step: Step) -> bool:
        """Whether a step that was listed before is counted as damaged by now."""
        identity, found = self._known.get(step.step, (None, None))
        return identity == step.identity and isinstance(found, CkptError)

    def wrote(self, manifest_sha256: str, metrics: Mapping[str, float]) -> None:
        """Know the metrics of a step that was just written, without reading its manifest."""
        self._wrote = f"sha256={manifest_sha256}".encode(), metrics  # as a commit record names it

    def latest(self) -> Step | None:
        """The last committed step; looks at names, and at no checkpoint but the last."""
        looks = (self._look(number, entry) for number, entry in reversed(self._list().named))
        return next((step for step in looks if step is not None), None)

    @abstractmethod
    def find(self, step: Number) -> Step | None:
        """A committed step by its number."""

    @abstractmethod
    def _list(self) -> Listing: ...

    @abstractmethod
    def _look(self, number: Number, entry: Any) -> Step | None:
        """The step of an entry if it is committed."""

    def _look_all(self, named: Sequence[tuple[Number, Any]]) -> Iterator[Step | None]:
        return (self._look(number, entry) for number, entry in named)

    # ---- one step

    @abstractmethod
    def size_of(self, step: Step) -> int:
        """Bytes of its file or of all its files."""

    @abstractmethod
    def objects_of(self, step: Step) -> list[str]:
        """The names of its objects (see `storage`), `COMMIT` last."""

    def opened(self, step: Step, **options: Unpack[OpenOptions]) -> AbstractContextManager[Checkpoint]:
        """An open checkpoint, through its base if it is a patch; raises what `open` raises."""
        return Checkpoint(step.path, **self._with_own(step, options))

    @contextmanager
    def lease(self, step: Step) -> Iterator[None]:
        """Keep a step, and what it is read through, from being deleted while the block runs; raises `not-found` if it
        is gone."""
        with self._lease(step):
            base = self.base_of(self._current(step))
            if base is None:
                yield
            else:
                with self.lease(base):
                    yield

    @abstractmethod
    def _lease(self, step: Step) -> AbstractContextManager[None]: ...

    def _current(self, step: Step) -> Step:
        """A step as it is now, which may have become a patch since it was listed."""
        return step

    def base_of(self, step: Step) -> Step | None:
        """What a step is read through, if it is a patch and that is here."""
        base = step.base
        return None if base is None else next((one for one in self.scan().steps if one.sha256 == base), None)

    def bases_of(self, step: Step) -> list[Step]:
        """What a step is read through, which may be patches, too: the nearest first. None where one is not here."""
        found: list[Step] = []
        while step.base is not None and len(found) < LIMITS.patches:
            base = self.base_of(step)
            if base is None:
                return []
            found.append(step := base)
        return found

    @abstractmethod
    def is_leased(self, step: Step) -> bool:
        """Whether anybody holds a lease on it, as of the last listing or later."""

    def load(self, step: Step, call: Callable[..., Tree], options: dict[str, Any]) -> Tree:
        """What `call`, such as `ckptfmt.load`, makes of the path of a step."""
        return call(step.path, **self._with_own(step, options))

    def _with_own(self, step: Step, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options of reading a step, with those of the run where they say nothing."""
        own: dict[str, Any] = {"storage_options": self.options} if self.options else {}
        bases = self.bases_of(self._current(step))
        own |= {"base": [base.path for base in bases]} if bases else {}
        return {**own, **({"follow_links": True} if self.follows_links else {}), **options}

    def fault_of(self, step: Step, **options: Unpack[OpenOptions]) -> CkptError | None:
        """What is wrong with a step, after reading every byte; None if all are as they were saved."""
        damage = self.damage_of(step, **options)
        return fault(damage[0].code, damage[0].message, path=step.path) if damage else None

    def damage_of(self, step: Step, **options: Unpack[OpenOptions]) -> tuple[Damage, ...]:
        """What is damaged in a step, after checking every byte; bytes of the frame are in no value. [FRM-004]"""
        try:
            with self.opened(step, **options) as checkpoint:
                found = _damage_in(checkpoint.verify())
        except DAMAGED as error:
            found = (Damage(error.code, CODES[error.code].phase, error.message),)
        return tuple(damage for damage in found if damage.where != "frame")

    # ---- changing

    @abstractmethod
    def saving(self, step: Number) -> AbstractContextManager[None]:
        """While the block runs, a step is saved: makes the directory, and keeps `sweep` from what is written."""

    @abstractmethod
    def set_aside(self, step: Number) -> bool:
        """If the place of a step is taken by something damaged, move that out of the way; it stays beside the steps,
        for those who can mend it. Gives whether it stands there still, and is to be replaced."""

    @abstractmethod
    def delete(self, steps: Sequence[Step], *, even_if_read: bool = False, for_good: bool = False) -> None:
        """Make steps vanish, in this order, and remove their bytes; those being read stay, or vanish with
        `even_if_read` and keep their bytes until then. `for_good`: they do not come back after a power loss."""

    @abstractmethod
    def sweep(self, leftovers: Sequence[str]) -> list[str]:
        """Remove what saves and deletions that died left over; gives the names of what could be removed."""

    @abstractmethod
    def read_note(self, name: str) -> str | None:
        """A small text beside the steps; None if it is not there or cannot be read."""

    @abstractmethod
    def write_note(self, name: str, text: str | None) -> None:
        """Replace a small text at once, or remove it."""


def run_at(path: str | os.PathLike[str], names: StepNames, options: Mapping[str, Any] | None = None) -> RunDirectory:
    """The run directory at a path or a URL, for which `options` go to its engine; raises `bad-option`."""
    if is_url(path):
        from .run_on_store import RunOnStore

        return RunOnStore(os.fspath(path), names, options)
    from .flax_files import FlaxRunOnDisk
    from .run_on_disk import RunOnDisk

    return (FlaxRunOnDisk if isinstance(names, FlaxNames) else RunOnDisk)(path, names, options)


def place_of(directory: str | os.PathLike[str], name: str) -> str:
    """Where a run lies, wherever the program goes later: `name` below `directory`, or that itself."""
    asked = path_of(directory)
    if not is_url(asked):
        asked = asked.removeprefix("file://")
        if not asked:
            raise fault("bad-option", "the directory of a run has no name", found=asked)
        asked = os.path.abspath(asked)
    return os.path.join(asked, name) if name else asked


def _damage_in(report: VerifyReport) -> tuple[Damage, ...]:
    """What is damaged in a checkpoint, or in what it is read through, which has to be there."""
    if report.base is None:
        return report.damage
    if report.base_report is None:
        return (*report.damage, Damage("missing-base", "select", f"its base {report.base} is not in the run"))
    return (*report.damage, *_damage_in(report.base_report))


def no_record(path: str, *, is_directory: bool) -> CkptError:
    """What is wrong where `record_in` finds nothing."""
    if is_directory:
        return fault("bad-record", "there is no COMMIT with a commit record in this directory [COM-002]", path=path)
    return fault("bad-record", "there is no commit record at the end of the file [COM-002]", path=path)


def record_in(tail: bytes, size: int, *, is_directory: bool) -> bytes | None:
    """The commit record at the end of a file of `size` bytes, or in a directory's `COMMIT`. [COM-002] [COM-004]"""
    line = tail if is_directory else commit.find(tail)
    if line is None:
        return None
    try:
        record = commit.decode(line, FORMAT[0])
    except CkptError as error:
        return line if error.code == "newer-format" else None  # a checkpoint, though not for this reader [VER-002]
    if is_directory:
        return line if record.layout != "file" else None
    return line if record.layout == "file" and record.offset + record.length <= size else None
