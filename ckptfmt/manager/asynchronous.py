"""Saves in the background: a queue that one thread works off, in order.

A failure is kept until somebody is told: it comes with the next `take_failure`, those after it as its notes. The thread
lives while there is work. At the end of the process, work is waited for or given up, as chosen.
"""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401  registers its hook for the end of the process, before ours
import contextlib
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from .steps import Number


class Job(NamedTuple):
    """The save of one step: everything that is left to do for it."""

    step: Number
    run: Callable[[], Any]


class Worker:
    """Works off jobs, at most `limit` in flight: waiting or being run. Methods may be called from any thread, except
    those that wait, from a job."""

    rank = 0  # at the end of the process before what follows from saves

    def __init__(self, limit: int, *, finishes_at_exit: bool) -> None:
        self.limit, self._finishes_at_exit = limit, finishes_at_exit
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._queue: deque[Job] = deque()
        self._running: Job | None = None
        self._has_thread = False
        self._failures: list[tuple[Number, BaseException]] = []

    @property
    def steps(self) -> list[Number]:
        """The steps in flight, in order."""
        with self._changed:
            return [job.step for job in self._in_flight()]

    @property
    def is_full(self) -> bool:
        return len(self.steps) >= self.limit

    def submit(self, job: Job) -> None:
        with self._changed:
            self._queue.append(job)
            if not self._has_thread:
                if self._finishes_at_exit:
                    finish_at_exit(self)
                threading.Thread(target=self._work, name="ckptfmt-save", daemon=True).start()
                self._has_thread = True

    def wait_for_room(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._in_flight()) < self.limit)

    def wait(self) -> None:
        """Until nothing is in flight."""
        with self._changed:
            self._changed.wait_for(lambda: not self._in_flight())

    def give_up(self) -> None:
        """Drop what has not begun."""
        with self._changed:
            self._queue.clear()
            self._changed.notify_all()

    def take_failure(self) -> BaseException | None:
        """The first failure of which nobody was told; the others are notes of it."""
        with self._changed:
            failures, self._failures = self._failures, []
        if not failures:
            return None
        (step, first), *others = failures
        _note(first, f"raised while step {step} was saved in the background")
        for other, error in others:
            _note(first, f"the save of step {other} failed, too: {error}")
        return first

    def _in_flight(self) -> list[Job]:
        return [job for job in (self._running, *self._queue) if job is not None]

    def _work(self) -> None:
        while True:
            with self._changed:
                self._running = self._queue.popleft() if self._queue else None
                self._changed.notify_all()
                if self._running is None:
                    self._has_thread = False
                    return
                job = self._running
            try:
                job.run()
            except BaseException as error:  # it is raised where somebody waits for it
                with self._changed:
                    self._failures.append((job.step, error))
            del job

    def _end(self) -> None:
        """At the end of the process: finish, and show what nobody was told."""
        if os.getpid() != self._process:  # a fork has no thread that would work
            return
        self.wait()
        failure = self.take_failure()
        if failure is not None:
            show(failure)


def _note(error: BaseException, text: str) -> None:
    if text not in getattr(error, "__notes__", ()):
        error.add_note(text)


class Background(Protocol):
    """Work that goes on beside the program. At the end of the process `_end` finishes it, least `rank` first."""

    rank: int

    def _end(self) -> None: ...


_FINISHED_AT_EXIT: weakref.WeakSet[Background] = weakref.WeakSet()


def finish_at_exit(work: Background) -> None:
    if not _FINISHED_AT_EXIT:
        # atexit comes too late: concurrent.futures, which a save works with, takes no more work by then. It uses this
        # same hook, and those registered last are called first.
        with contextlib.suppress(RuntimeError):  # the process ends already
            threading._register_atexit(_end_all)  # type: ignore[attr-defined]
    _FINISHED_AT_EXIT.add(work)


def _end_all() -> None:
    while _FINISHED_AT_EXIT:  # a save that is finished now may ask for a copy
        work = min(_FINISHED_AT_EXIT, key=lambda work: work.rank)
        _FINISHED_AT_EXIT.discard(work)
        work._end()


def show(failure: BaseException) -> None:
    """Tell of a failure that nobody can be told of any more but by a traceback."""
    sys.excepthook(type(failure), failure, failure.__traceback__)
