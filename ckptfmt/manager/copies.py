"""Local first, remote later: a second directory, to which the checkpoints of a run are copied in the background.

What is to be copied is no list that could be lost, but follows from what lies in both directories: of the steps of
both, those that the second one's own policies keep are to be there, and to hold the same. So a copy that failed
is tried again, also by the next process, and a step that is waiting is not deleted. Nothing here makes a save wait.

A copy is checked before it is made, and takes its place whole, as a save does; a file is the same bytes.

A run that went back (`overwrite="later"`) goes back in the second directory, too: a note in the first one says so until
that is done.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..calls import checked_class
from ..errors import DAMAGED, CkptError, MissingError, fault
from ..signing import beside as signatures
from ..storage import Attempt, Storage, attempt_for, storage_for
from ..threads import Helper
from . import asynchronous, retention
from .options import AtExit, one_of
from .policies import Policy, policies_asked, reasons_to_keep
from .run import RunDirectory
from .steps import Number, Step

PIECE = 8 << 20  # bytes read and written at a time
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds before a failed copy is tried again
TRIES_AT_END = 3  # of a copy that fails, once the run is over
REWIND = "rewind.json"  # the note of a run that went back


class CopyWarning(UserWarning):
    """A checkpoint could not be copied to the second directory, and will be tried again."""


@checked_class
@dataclass(frozen=True, slots=True)
class CopyTo:
    """A second directory for the checkpoints of a run, on another disk or a store.

    `directory`: a path or URL; `storage_options` are those of `ckptfmt.save`. `keep`: what is kept there, as `keep=` of
    the manager; None keeps all. `at_exit`: what `close`, and the end of the process, do with copies that are still to
    be made: "wait" for them, "abort" them; the next manager makes them. `on_copy(step)` and `on_error(step, error)` are
    called from the thread that copies.
    """

    directory: str | os.PathLike[str]
    keep: int | Policy | Iterable[Policy] | None = None
    storage_options: Mapping[str, Any] | None = None
    at_exit: AtExit = "wait"
    on_copy: Callable[[Number], Any] | None = None
    on_error: Callable[[Number | None, BaseException], Any] | None = None

    def __post_init__(self) -> None:
        one_of("at_exit", self.at_exit, "wait", "abort")


def steps_there(first: RunDirectory, second: RunDirectory) -> list[Step]:
    """The steps of the second directory now, in order, without those that are about to be deleted."""
    steps, goal = second.scan().steps, rewound_to(first)
    return steps if goal is None else [step for step in steps if first.key(step.step) <= first.key(goal)]


def rewound_to(first: RunDirectory) -> Number | None:
    """The step to which the first directory went back, and the second not yet."""
    text = first.read_note(REWIND)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        return float(text)


class Abandoned(Exception):
    """The process ends, and a copy with it."""


class Copier:
    """Keeps `second` as its policies want it. One thread, which lives while there is work."""

    rank = 1  # at the end of the process after the saves

    def __init__(
        self, first: RunDirectory, second: RunDirectory, asked: CopyTo, *, durable: bool, tidy: Callable[[], Any]
    ) -> None:
        """`tidy` is called when nothing is waiting any more, so that what only waited can be deleted."""
        self.first, self.second, self.asked = first, second, asked
        self.policies = policies_asked(asked.keep)
        self._durable, self._tidy = durable, tidy
        self.finishes_at_exit = asked.at_exit == "wait"
        self._known: list[Step] | None = None  # what the second directory held when it was last listed
        self._settled: set[tuple[Number, Hashable]] = set()  # steps that are copied, not wanted there, or damaged
        self.forget()
        asynchronous.keep_in_mind(self)

    def forget(self) -> None:
        """Have nothing to do, and nothing to tell."""
        self._helper = Helper("ckptfmt-copy", lambda: self._is_asked and not self._is_stopped, self._work)
        self._noting = threading.Lock()  # only taken by threads that no signal handler interrupts
        self._is_asked = self._ends = self._is_stopped = False
        self._is_put_off = False  # what failed is tried again at the end
        self._failures = 0  # in a row
        self._failure: tuple[Number | None, BaseException] | None = None
        self._unsaid: deque[str] = deque()

    # ---- what waits

    def is_waiting(self, step: Step) -> bool:
        """Whether a step of the first directory is still to be copied, as far as is known. Asks no store."""
        return bool(step.record) and (step.step, step.saved) not in self._settled

    def there(self) -> list[Step]:
        """The steps of the second directory now, in order, without those that are about to be deleted."""
        self._known = steps = steps_there(self.first, self.second)
        return steps

    def known(self) -> list[Step]:
        """The same as it was when last listed, but for what was found damaged since."""
        steps = self.there() if self._known is None else self._known
        return [step for step in steps if not self.second.is_passed_over(step)]

    # ---- asking for work

    def wake(self) -> None:
        """Something changed in the first directory, or may have."""
        self._is_asked = True
        self._helper.see_to_it()

    def rewind(self, step: Number) -> None:
        """The first directory is about to lose all steps after `step`."""
        key = self.first.key
        with self._noting:
            earlier = rewound_to(self.first)
            goal = step if earlier is None or key(step) < key(earlier) else earlier
            self.first.write_note(REWIND, str(goal))
            self._known = None if self._known is None else [s for s in self._known if key(s.step) <= key(goal)]

    def has_all(self) -> bool:
        """Whether all is there, as both directories are now, whoever copies."""
        here = [step for step in self.first.scan().steps if step.record]
        there = self.there()
        wanted = self._wanted(here, there)
        copied = {(step.step, step.saved) for step in there}
        return all((step.step, step.saved) in copied for step in here if step.step in wanted)

    def take_report(self) -> list[str]:
        """What went wrong of which nobody was told."""
        return [self._unsaid.popleft() for _ in range(len(self._unsaid))]

    def wait(self, timeout: float | None = None) -> bool:
        """Until nothing is waiting, or was given up; gives whether all is copied. What has changed is not looked for:
        see `wake`."""
        is_idle = self._helper.wait_for(lambda: not self._helper.is_busy, timeout)
        return is_idle and not (self._is_asked or self._failures)

    def close(self) -> BaseException | None:
        """Finish or abort, as chosen; gives what keeps a copy from being made, if that was waited for."""
        aborts = self._is_stopped = self.asked.at_exit == "abort"
        try:
            self._ends, self._failures = True, 0
            self._is_asked, self._is_put_off = self._is_asked or self._is_put_off, False
            self._helper.bell.ring()  # a pause is over now
            self.wait()
        finally:
            self._ends = self._is_stopped = False
        failure, self._failure = self._failure, None
        if failure is None or aborts:
            return None
        step, error = failure
        error.add_note(f"raised while step {step} was copied to {self.second.path}; the next manager tries again")
        return error

    def end(self) -> None:
        """At the end of the process."""
        failure = self.close()
        if failure is not None:
            asynchronous.show(failure)

    # ---- the work

    def _work(self) -> None:
        self._is_asked = False
        number: Number | None = None
        try:
            steps = self._steps_to_copy()
            for step in steps:
                number = step.step
                self._copy_one(step)
            number = None
            if steps:
                retention.prune(self.second, self.policies)
                self._tidy()
            self._failures, self._failure = 0, None
        except Abandoned:
            self._is_asked = True
        except BaseException as error:
            self._failed(number, error)

    def _failed(self, step: Number | None, error: BaseException) -> None:
        """Report, pause, and try again; at the end of the run only a few times."""
        self._failures += 1
        self._failure = step, error
        what = f"{self.second.path} is not up to date" if step is None else f"step {step} could not be copied"
        self._report(step, error, f"{what}, and will be tried again: {error}" if self._failures == 1 else None)
        before = self._ends
        if before and self._failures >= TRIES_AT_END:
            return
        if self._helper.is_without_thread and not before:  # who would end the pause waits for this very call
            self._is_put_off = True
            return
        pause = min(FIRST_PAUSE * 2 ** (self._failures - 1), LONGEST_PAUSE)
        self._helper.bell.wait_for(lambda: self._ends != before or self._is_stopped, pause)
        self._is_asked = True

    def _report(self, step: Number | None, error: BaseException, text: str | None) -> None:
        """Tell `on_error`, and, with the next call of the manager, the program; once for all failures in a row."""
        if text is not None:
            self._unsaid.append(text)
        if self.asked.on_error is not None:
            try:
                self.asked.on_error(step, error)
            except BaseException as other:
                error.add_note(f"on_error failed, too: {other!r}")

    def _steps_to_copy(self) -> list[Step]:
        """What is wanted and not there, oldest first; takes the second directory back first, if the run went back."""
        goal = rewound_to(self.first)
        if goal is not None:
            retention.rewind(self.second, goal)
            with self._noting:
                if rewound_to(self.first) == goal:  # and not further back meanwhile
                    self.first.write_note(REWIND, None)
        here = [step for step in self.first.scan().steps if step.record]
        try:
            there = self.there()
        except CkptError:
            with contextlib.suppress(CkptError):  # what the policies do not want need not wait for the store
                self._settle(here, self._wanted(here, self._known or []), [])
            raise
        wanted = self._wanted(here, there)
        self._settle(here, wanted, there)
        waiting = [step for step in here if self.is_waiting(step)]
        return sorted(waiting, key=lambda step: len(self.first.bases_of(step)))  # what others are read through first

    def _wanted(self, here: Sequence[Step], there: Sequence[Step]) -> Collection[Number]:
        union = {step.step: step for step in (*there, *here)}
        wanted = {*reasons_to_keep(sorted(union.values(), key=lambda step: self.first.key(step.step)), self.policies)}
        copied = {(step.step, step.saved) for step in there}
        for step in (*there, *here):  # also what those are read through
            if step.step in wanted and (step.run is self.second or (step.step, step.saved) not in copied):
                wanted |= {base.step for base in step.run.bases_of(step)}
        return wanted

    def _settle(self, here: Sequence[Step], wanted: Collection[Number], there: Sequence[Step]) -> None:
        copied = {(step.step, step.saved) for step in there}
        identities = [(step.step, step.saved) for step in here]
        self._settled = {each for each in identities if each in copied or each[0] not in wanted}

    def _copy_one(self, step: Step) -> None:
        identity = (step.step, step.saved)
        try:
            with self.first.lease(step):
                damage = self.first.damage_of(step)
                if damage:
                    raise fault(damage[0].code, "the checkpoint is damaged, and is not copied", path=step.path)
                with self.second.saving(step.step):
                    if any(there.base is not None for there in self._known or ()):
                        retention.make_independent(self.second, [step.step])
                    self._copy(step)
        except MissingError:  # deleted meanwhile
            return
        except DAMAGED as error:
            self._report(step.step, error, f"step {step.step} is not copied: {error}")
            self._settled = self._settled | {identity}
            return
        self._settled = self._settled | {identity}
        if self.asked.on_copy is not None:
            self.asked.on_copy(step.step)

    def _copy(self, step: Step) -> None:
        storage = storage_for(step.path, self.first.options)
        target, options = self.second.path_of(step.step), self.second.options
        try:
            attempt = attempt_for(
                target, directory=storage.is_directory, overwrite=True, durable=self._durable, options=options
            )
            try:
                for name in self.first.objects_of(step):
                    self._copy_object(storage, name, attempt)
                self._copy_signature(step.path, target)
                attempt.publish()
            except BaseException:
                attempt.abort()
                raise
        finally:
            storage.close()

    def _copy_signature(self, source: str, target: str) -> None:
        """Before the copy takes its name, so that it is never there without the signature of the step."""
        data = signatures.read(signatures.beside(source), self.first.options)
        if data is not None:
            where, options = signatures.beside(target), self.second.options
            signatures.write(where, data, overwrite=True, durable=self._durable, options=options)

    def _copy_object(self, storage: Storage, name: str, attempt: Attempt) -> None:
        size = storage.size(name)
        out, buffer = attempt.create(name), memoryview(bytearray(min(size, PIECE)))
        out.reserve(size)
        for start in range(0, size, PIECE):
            if self._is_stopped:
                raise Abandoned
            piece = buffer[: min(PIECE, size - start)]
            storage.read_into(name, start, piece)
            out.write(start, piece)
        out.finish(size)


@dataclass(frozen=True, slots=True)
class Waiting:
    """The policy of the first directory that what is still to be copied is not deleted."""

    copier: Copier

    def keeps(self, steps: Sequence[Step]) -> list[Number]:
        return [step.step for step in steps if self.copier.is_waiting(step)]

    def __str__(self) -> str:
        return "waiting to be copied"
