"""`history="patches"`: the older steps of a run, kept as what is different between them and one that is whole.

The newest steps, as many as the first `Last` of the policies keeps, stay whole. Of those before them, oldest first,
each becomes a patch of the nearest whole one before it; where there is none, or that has as many patches as it may, or
a patch would hardly be smaller, it stays whole, and those after it become patches of it. So what a step is read through
is always an older one that is whole, and stays so: nothing is made anew as the run goes on.

Steps are looked at as they lie in the directory, and are rewritten one at a time, on the thread that saves and deletes:
a process that is killed has a step in one form or the other. `retention` deletes nothing that others are read through.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Hashable, Sequence
from typing import Literal

from ..errors import StorageError, fault
from ..signing.beside import beside as signature_of
from ..storage import is_url
from .asynchronous import DroppedError, Job, Worker
from .options import StepOptions, one_of
from .policies import Last, Policy, reasons_to_keep
from .run import RunDirectory
from .steps import Number, Step

StepState = Literal["free", "whole", "later"]  # may become a patch, is to stay whole, is not to be touched now
StepIdentity = tuple[Number, Hashable]
MOST = 16  # patches of one step: damage of it is damage of all


class HistoryWarning(UserWarning):
    """A step that was to become a patch stays whole. The message says why; a manager gives it once for each step."""


def patches_asked(options: StepOptions, directory: str) -> bool:
    """Take `history=` from the options of a manager: whether patches are asked for. Raises `bad-option` for what it
    may not be, and what it cannot be beside."""
    history = options.pop("history", None)
    one_of("history", history, None, "patches")
    if history is None:
        return False
    if options.get("share"):
        message, expected = 'history="patches" of steps that share: a patch shares nothing', "one of the two"
        raise fault("bad-option", message, found="share=True", expected=expected)
    if is_url(directory):
        message = 'history="patches" of a run on a store, where no step can be rewritten without its being uploaded'
        expected = "a directory of this machine; copy_to= has the steps whole"
        raise fault("bad-option", message, path=directory, found="a URL", expected=expected)
    return True


def whole_ones(steps: Sequence[Step], policies: Sequence[Policy]) -> set[Number]:
    """The steps that stay whole, whatever is kept: the newest, and those of the first `Last`."""
    last = next((policy for policy in policies if isinstance(policy, Last)), Last(1))
    return set(last.keeps(steps))


def next_to_patch(
    steps: Sequence[Step], policies: Sequence[Policy], state: Callable[[Step], StepState]
) -> tuple[Step, Step] | None:
    """The oldest step that is to become a patch, and the one of which. `steps` are in order."""
    kept, whole = reasons_to_keep(steps, policies), whole_ones(steps, policies)
    patches = Counter(step.base for step in steps)
    base: Step | None = None
    for step in steps:
        if step.step in whole or step.step not in kept or step.sha256 is None or step.base is not None:
            continue
        found = "whole" if patches[step.sha256] else state(step)
        if found == "free" and base is not None and patches[base.sha256] < MOST:
            return step, base
        if found != "later":
            base = step
    return None


class History:
    """Makes patches of the older steps of a run, as jobs of the `worker`, after what it has to do."""

    def __init__(
        self,
        run: RunDirectory,
        worker: Worker,
        policies: Callable[[], Sequence[Policy]],
        is_waiting: Callable[[Step], bool],
        *,
        durable: bool,
    ) -> None:
        """`is_waiting`: whether a step is not to be touched yet."""
        self._run, self._worker, self._policies, self._durable = run, worker, policies, durable
        self._is_waiting = is_waiting
        self._whole: dict[StepIdentity, str] = {}  # why steps stay whole of which no patch is tried again
        self._read: set[StepIdentity] = set()  # that somebody read when they were to become patches
        self._is_asked = False
        self._unsaid: deque[str] = deque()
        self._told: set[Hashable] = set()

    def wake(self) -> None:
        """Something changed in the run, or may have."""
        self._read = set()
        self._submit()

    def _submit(self) -> None:
        if not self._is_asked:
            self._is_asked = True
            self._worker.submit(Job(None, self._work))

    @property
    def remarks(self) -> dict[Number, str]:
        """Why steps stay whole that were to become patches, for those who look at the run."""
        return {step: why for (step, _), why in self._whole.copy().items()}

    def take_report(self) -> list[str]:
        """What went wrong of which nobody was told."""
        return [self._unsaid.popleft() for _ in range(len(self._unsaid))]

    def _work(self, job: Job) -> None:
        """Make one patch; what else is to be made comes after what the worker has to do by then."""
        self._is_asked = False
        try:
            steps = self._run.scan().steps
            there = set(map(_identity, steps))
            self._whole = {identity: why for identity, why in self._whole.items() if identity in there}
            found = next_to_patch(steps, self._policies(), self._state)
            if found is not None and self._is_settled(*found, job):
                self._submit()
        except StorageError as error:  # the next save asks again
            self._tell("the run", f"steps stay whole: {error}")

    def _is_settled(self, step: Step, base: Step, job: Job) -> bool:
        """Make a patch, if that can be; gives whether it is known what becomes of the step."""
        from .rewriting import BeingReadError, NotSmallerError, make_patch  # here, as most managers make none

        identity = _identity(step)
        try:
            make_patch(self._run, step, base, durable=self._durable, check=job.check)
        except BeingReadError:
            self._read.add(identity)
        except NotSmallerError as found:
            self._whole[identity] = f"whole, as a patch would take {found.share:.0%} of it"
        except DroppedError:
            raise
        except Exception as error:
            self._tell(identity, f"step {step.step} stays whole: {error}")
            if isinstance(error, StorageError):  # as others would, if there is no room
                return False
            self._whole[identity] = f"whole, as no patch could be made: {getattr(error, 'code', error)}"
        return True

    def _tell(self, what: Hashable, text: str) -> None:
        if what not in self._told:
            self._told.add(what)
            self._unsaid.append(text)

    def _state(self, step: Step) -> StepState:
        if _identity(step) in self._read or self._is_waiting(step):
            return "later"
        is_signed = os.path.lexists(signature_of(step.path))  # as it is, and as nothing else
        return "whole" if is_signed or _identity(step) in self._whole else "free"


def _identity(step: Step) -> StepIdentity:
    return step.step, step.identity
