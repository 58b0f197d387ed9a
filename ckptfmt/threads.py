"""Threads that no signal can break, and that do without when there are none to be had.

A signal handler runs in the main thread between any two of its operations, and may raise: `KeyboardInterrupt` does.
Then a `threading.Condition` may stay locked, a thread that was to begin may wait for ever in `Thread.start`, and the
lock that all executors of `concurrent.futures` share may be held; a handler that needs them again waits for the very
thread that it runs in. So here what the calling thread does is one call into C at a time: it appends to a deque, or
begins a thread, or waits for a lock that nobody else knows. Whatever comes between two of them, nothing is held.

`concurrent.futures` takes no work once the interpreter begins to end. Here the calling thread then does it. A process
that was forked has only the thread that forked: there, who waits for a call of another one is told (`ForkedError`).
"""

from __future__ import annotations

import _thread
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from queue import SimpleQueue
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")

LONGEST = 1.0  # seconds for which a ring is missed that was itself interrupted


class ForkedError(RuntimeError):
    """What was under way in threads is the work of the process that forked, and not of this one."""

    def __init__(self) -> None:
        super().__init__("this process is a fork of the one that began this, and has none of its threads")


class Bell:
    """Where threads wait for something to change. Whoever changes it rings, afterwards."""

    def __init__(self) -> None:
        self._waiting: deque[Any] = deque()  # a lock of its own for each who waits

    def ring(self) -> None:
        while self._waiting:
            try:
                self._waiting.popleft().release()
            except IndexError:  # another thread rings, too
                return

    def wait_for(self, holds: Callable[[], object], timeout: float | None = None) -> bool:
        """Until `holds()`, or for `timeout` seconds; gives whether it does."""
        end = None if timeout is None else time.monotonic() + timeout
        while not holds():
            wake = _thread.allocate_lock()
            wake.acquire()
            self._waiting.append(wake)
            if holds():
                return True
            left = LONGEST if end is None else min(LONGEST, end - time.monotonic())
            if left <= 0:
                return False
            wake.acquire(True, left)
        return True


def start_thread(name: str, work: Callable[[], Any]) -> bool:
    """Do `work` in a daemon thread; False if no thread can be had."""

    def begin() -> None:  # no handler runs in here
        try:
            threading.Thread(target=work, name=name, daemon=True).start()
        except RuntimeError:
            work()

    try:
        _thread.start_new_thread(begin, ())
    except RuntimeError:
        return False
    return True


class Helper:
    """A thread that lives while there is work: `has_work()` says so, and `work()` does a piece. Only one is at it at a
    time, so that the pieces come one after another."""

    def __init__(self, name: str, has_work: Callable[[], object], work: Callable[[], Any]) -> None:
        self._name, self._has_work, self._work = name, has_work, work
        self.bell = Bell()  # rings after each piece
        self.is_without_thread = False  # whether who sees to it does the work, and nobody else can go on meanwhile
        self._turn = _thread.allocate_lock()  # held by the thread that works
        self._ident: int | None = None

    @property
    def is_me(self) -> bool:
        """Whether this is called from `work`."""
        return self._ident == _thread.get_ident()

    @property
    def is_busy(self) -> bool:
        return self._turn.locked() or bool(self._has_work())

    def see_to_it(self) -> None:
        """Have it done, if there is work. Call it after there has come some, and before waiting for it: so nothing is
        lost if the former was interrupted. A second thread, if two are begun, finds the turn taken, and ends."""
        if self._has_work() and not self._turn.locked() and not start_thread(self._name, self._do):
            self.is_without_thread = True
            try:
                self._do()
            finally:
                self.is_without_thread = False

    def wait_for(self, holds: Callable[[], object], timeout: float | None = None) -> bool:
        """Until `holds()`, or for `timeout` seconds; gives whether it does."""

        def holds_now() -> object:
            self.see_to_it()
            return holds()

        return self.bell.wait_for(holds_now, timeout)

    def _do(self) -> None:
        while self._has_work() and self._turn.acquire(False):
            try:
                self._ident = _thread.get_ident()
                while self._has_work():
                    self._work()
                    self.bell.ring()
            finally:
                self._ident = None
                self._turn.release()
                self.bell.ring()


class CallEnd:
    """Whether a call is over, and where threads wait for that. It has nothing of what the call was given, or gave."""

    def __init__(self) -> None:
        self._bell = Bell()
        self._process = os.getpid()
        self.is_over = False

    def tell(self) -> None:
        self.is_over = True
        self._bell.ring()

    def wait(self) -> None:
        """Until it is over, however it ended; raises `ForkedError` where that will never be: in a forked child, and
        once the interpreter has ended its threads."""
        self._bell.wait_for(lambda: self.is_over or self._process != os.getpid() or sys.is_finalizing())
        if not self.is_over:
            raise ForkedError


class Call(Generic[T]):
    """A call that another thread makes, or has made. What it was given is let go before anybody is told that it is
    over; what it gave is held by this alone, for those who have this."""

    def __init__(self, call: Callable[..., T], *arguments: Any) -> None:
        self._call: Any = (call, arguments)
        self._value: Any = None
        self._error: BaseException | None = None
        self._is_wanted = True
        self.end = CallEnd()

    def cancel(self) -> None:
        """Nobody waits for it any more: if it has not begun it will not."""
        self._is_wanted = False

    def make(self) -> None:
        self.do().tell()

    def do(self) -> CallEnd:
        """Make it; whoever lets go of it tells the others then."""
        if self._call is not None:
            (call, arguments), self._call = self._call, None
            try:
                if self._is_wanted:
                    self._value = call(*arguments)
            except BaseException as error:
                self._error = error
            del call, arguments
        try:
            return self.end
        finally:
            del self  # the error holds this frame

    def wait(self) -> None:
        """Until it is over, see `CallEnd.wait`."""
        self.end.wait()

    def result(self) -> T:
        """What it gave, or raise what it raised."""
        self.wait()
        try:
            if self._error is not None:
                raise self._error
            return self._value  # type: ignore[no-any-return]
        finally:
            del self  # else the error would hold the frame that holds it


class CallQueue:
    """Calls that are made in order, in a thread that lives while there are some: nothing needs to be closed."""

    def __init__(self, name: str) -> None:
        calls: deque[Call[Any]] = deque()  # that are not over
        self._calls, self._helper = calls, Helper(name, calls.__len__, lambda: _make_first(calls))

    def submit(self, call: Callable[..., T], *arguments: Any) -> Call[T]:
        made = Call(call, *arguments)
        self._calls.append(made)
        self._helper.see_to_it()
        return made

    def wait(self) -> None:
        """Until all calls are over; raises `ForkedError` as they do."""
        for end in [made.end for made in self._calls.copy()]:
            self._helper.see_to_it()  # an interrupt may have come before
            end.wait()


def _make_first(calls: deque[Call[Any]]) -> None:
    end = calls[0].do()
    calls.popleft()
    end.tell()


class Pool:
    """A few threads that make calls, begun in order. A context manager, which ends when all of them are over."""

    def __init__(self, threads: int, name: str) -> None:
        self._threads, self._name = threads, name
        self._queue: SimpleQueue[Call[Any] | None] = SimpleQueue()
        self._ends: deque[CallEnd] = deque()  # of calls that may not be over
        self._begun = 0

    def submit(self, call: Callable[..., T], *arguments: Any) -> Call[T]:
        made = Call(call, *arguments)
        while self._ends and self._ends[0].is_over:
            self._ends.popleft()
        if self._begun < self._threads and start_thread(self._name, lambda queue=self._queue: _serve(queue)):  # type: ignore[misc]
            self._begun += 1
        if not self._begun:
            made.make()
            return made
        self._ends.append(made.end)
        self._queue.put(made)
        return made

    def map(self, call: Callable[..., T], *items: Iterable[Any]) -> Iterator[T]:
        """The results of a call of each item, in order."""
        yield from [made.result() for made in [self.submit(call, *each) for each in zip(*items, strict=True)]]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Wait until all calls are over, and end."""
        self._end()
        for end in self._ends.copy():
            end.wait()

    def _end(self) -> None:
        self._queue.put(None)

    __del__ = _end  # where an interrupt came before `__exit__`


def _serve(queue: SimpleQueue[Call[Any] | None]) -> None:
    process = os.getpid()
    while process == os.getpid() and (made := queue.get()) is not None:  # a call may fork, and its child return here
        end = made.do()
        del made
        end.tell()
    queue.put(None)  # for the others, however many have begun
