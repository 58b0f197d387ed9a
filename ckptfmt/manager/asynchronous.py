"""The saves of a manager: a queue that one thread works off, in order.

All that changes a run happens on that thread. Who asks for it appends to the queue, which is one step, and waits in a
way that leaves nothing locked (`threads`): so an interrupt at any moment leaves a job that is there or is not, and a
signal handler may ask for more while the program waits.

A failure for which nobody waits is kept until somebody is told: it comes with the next `take_failure`, those after it
as its notes. The thread lives while there is work. At the end of the process, work is waited for or given up, as
chosen. A process that was forked has none of it: it is the work of the one that forked.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401  registers its hook for the end of the process, before ours
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from ..threads import ForkedError, Helper
from .steps import Number


class DroppedError(Exception):
    """Nobody wants the outcome of a job any more."""


class Job:
    """What is to be done: `run(job)`. `step` is that which it saves, if it saves one."""

    def __init__(self, step: Number | None, run: Callable[[Job], Any]) -> None:
        self.step = step
        self._run: Callable[[Job], Any] | None = run
        self.result: Any = None
        self.failure: BaseException | None = None
        self.has_begun = self.is_over = self.is_awaited = self.is_dropped = False

    def check(self) -> None:
        """For the job itself, before what cannot be undone; raises `DroppedError`."""
        if self.is_dropped:
            raise DroppedError

    def do(self) -> None:
        self.has_begun = True
        run, self._run = self._run, None  # and so what is saved is let go
        try:
            self.check()
            if run is not None:  # else an interrupt came right before it was over
                self.result = run(self)
        except BaseException as error:  # it is raised where somebody waits for it
            self.failure = error
        del run
        self.is_over = True

    def take(self) -> Any:
        """What it gave, or raise what it raised; once, as an error must not be held by what its frames hold."""
        failure, self.failure = self.failure, None
        try:
            if failure is not None:
                raise failure
            return self.result
        finally:
            del failure


class Worker:
    """Works off jobs, of which at most `limit` save a step. Methods may be called from any thread."""

    rank = 0  # at the end of the process before what follows from saves

    def __init__(self, limit: int, *, finishes_at_exit: bool) -> None:
        self.limit, self.finishes_at_exit = limit, finishes_at_exit
        self._jobs: deque[Job] = deque()  # the first is being done
        self.forget()
        keep_in_mind(self)

    def forget(self) -> None:
        """Have nothing to do, and nothing to tell; in a fork, which may be in the middle of waiting."""
        for job in self._jobs:
            job.failure, job.is_over = ForkedError(), True
        self._jobs = deque()
        self._failures: deque[tuple[Number | None, BaseException]] = deque()
        self._helper = Helper("ckptfmt-save", lambda: self._jobs, self._work)

    @property
    def steps(self) -> list[Number]:
        """The steps in flight, in order."""
        return [job.step for job in self._jobs.copy() if job.step is not None and not job.is_dropped]

    @property
    def is_idle(self) -> bool:
        return not self._jobs

    @property
    def is_full(self) -> bool:
        return len(self.steps) >= self.limit

    def submit(self, job: Job) -> None:
        """Have a job done, some time; at the end of the process at once, as there is no later."""
        self._jobs.append(job)
        self._helper.see_to_it()
        if _ends and self.finishes_at_exit:
            self.wait()

    def run(self, job: Job) -> Any:
        """Have a job done, after those before it, and give its result, or raise its failure. If that is interrupted,
        the job is dropped. One for which a job asks is a part of it, and is done at once."""
        job.is_awaited = True
        if self._helper.is_me:
            job.do()
            return job.take()
        try:
            self._jobs.append(job)
            self._helper.wait_for(lambda: job.is_over)
        except BaseException:
            job.is_dropped = True
            raise
        return job.take()

    def wait_for_room(self) -> None:
        if not self._helper.is_me:
            self._helper.wait_for(lambda: not self.is_full)

    def wait_for_saves(self) -> None:
        """Until no save is in flight; other work may be."""
        if not self._helper.is_me:
            self._helper.wait_for(lambda: not self.steps)

    def wait(self) -> None:
        """Until nothing is in flight, but for the job from which it is called."""
        if not self._helper.is_me:
            self._helper.wait_for(lambda: not self._jobs)

    def give_up(self) -> None:
        """Drop what has not begun, and nobody waits for."""
        for job in self._jobs.copy():
            job.is_dropped |= not (job.has_begun or job.is_awaited)
        self.put_off()

    def put_off(self) -> None:
        """Drop what saves no step and nobody waits for, be it in the middle of it: it can be done some other time."""
        for job in self._jobs.copy():
            job.is_dropped |= job.step is None and not job.is_awaited

    def take_failure(self) -> BaseException | None:
        """The first failure of which nobody was told; the others are notes of it."""
        failures = [self._failures.popleft() for _ in range(len(self._failures))]
        if not failures:
            return None
        (step, first), *others = failures
        _note(first, f"raised while step {step} was saved in the background")
        for other, error in others:
            _note(first, f"the save of step {other} failed, too: {error}")
        return first

    def _work(self) -> None:
        job = self._jobs[0]
        job.do()
        if not job.is_awaited:
            failure, job.failure = job.failure, None
            if failure is not None and not isinstance(failure, DroppedError):
                self._failures.append((job.step, failure))
        if self._jobs:  # none in a fork that the job made, and that returns here
            self._jobs.popleft()

    def end(self) -> None:
        """At the end of the process: finish, and show what nobody was told."""
        self.wait()
        failure = self.take_failure()
        if failure is not None:
            show(failure)


def _note(error: BaseException, text: str) -> None:
    if text not in getattr(error, "__notes__", ()):
        error.add_note(text)


class Finishable(Protocol):
    """Work that goes on beside the program. At the end of the process `end` finishes it, least `rank` first; in a
    process that was forked `forget` leaves it to the one that forked."""

    rank: int
    finishes_at_exit: bool

    def end(self) -> None: ...

    def forget(self) -> None: ...


_all: weakref.WeakSet[Finishable] = weakref.WeakSet()
_ends = False


def keep_in_mind(work: Finishable) -> None:
    """Finish it at the end of the process, if it says so; forget it in a fork."""
    _all.add(work)


def _end_all() -> None:
    global _ends
    _ends = True
    for work in sorted(_all, key=lambda work: work.rank):
        if work.finishes_at_exit:
            work.end()


def _forget_all() -> None:
    for work in list(_all):
        work.forget()


# atexit comes too late: concurrent.futures, which stores work with, takes no more work by then. It uses this same hook,
# and those registered last are called first.
try:
    threading._register_atexit(_end_all)  # type: ignore[attr-defined]
except RuntimeError:  # the process ends already
    _ends = True
os.register_at_fork(after_in_child=_forget_all)


def show(failure: BaseException) -> None:
    """Tell of a failure that nobody can be told of any more but by a traceback."""
    sys.excepthook(type(failure), failure, failure.__traceback__)
