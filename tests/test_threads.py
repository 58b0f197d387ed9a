"""Calls that threads make: nothing of them is held once others know that they are over, and no thread is without
work."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

from ckptfmt import threads
from ckptfmt.threads import Call, CallQueue, Pool


class Something:
    """What a call is given, or gives."""


@pytest.fixture(autouse=True)
def _late_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has told others that a call is over does not go on for a while, as where other processes take the
    cores."""
    ring, main = threads.Bell.ring, threading.current_thread()

    def rung(bell: threads.Bell) -> None:
        ring(bell)
        if threading.current_thread() is not main:
            time.sleep(0.1)

    monkeypatch.setattr(threads.Bell, "ring", rung)


@contextlib.contextmanager
def line(kind: str) -> Iterator[Any]:
    if kind == "line":
        yield CallQueue("ckptfmt-test")
    else:
        with Pool(1, "ckptfmt-test") as pool:
            yield pool


@pytest.mark.parametrize("kind", ["line", "pool"])
def test_what_a_call_was_given_and_gave_is_let_go(kind: str) -> None:
    with line(kind) as calls:
        given = Something()
        there = weakref.ref(given)
        made = calls.submit(lambda _: Something(), given)
        del given
        made.wait()
        assert there() is None
        result = weakref.ref(made.result())
        assert result() is not None
        del made
        assert result() is None


@pytest.mark.parametrize("kind", ["line", "pool"])
def test_an_error_is_let_go(kind: str) -> None:
    """And so what its frames hold."""

    def fail() -> None:
        held = Something()
        there.append(weakref.ref(held))
        raise KeyError

    there: list[Any] = []
    with line(kind) as calls:
        with pytest.raises(KeyError):
            calls.submit(fail).result()
        assert there[0]() is None


def own() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "ckptfmt-test"]


def test_a_line_has_a_thread_while_there_is_work() -> None:
    calls, opened, done = CallQueue("ckptfmt-test"), threading.Event(), []
    for number in range(3):
        calls.submit(lambda number=number: opened.wait(60) and done.append(number))
    assert not done
    opened.set()
    calls.wait()
    assert done == [0, 1, 2]
    end = time.monotonic() + 30
    while own() and time.monotonic() < end:
        time.sleep(0.01)
    assert own() == []
    calls.submit(done.append, 3).wait()
    assert done == [0, 1, 2, 3]


def test_a_call_is_made_once() -> None:
    done: list[int] = []
    made = Call(done.append, 1)
    made.make()
    made.make()
    assert done == [1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no forks here")
@pytest.mark.filterwarnings("ignore:os.fork")  # of JAX, if another test has imported it
def test_a_fork_is_told() -> None:
    calls, opened = CallQueue("ckptfmt-test"), threading.Event()
    calls.submit(opened.wait, 60)
    child = os.fork()
    if not child:
        try:
            calls.wait()
        except threads.ForkedError:
            os._exit(7)
        finally:
            os._exit(1)
    opened.set()
    calls.wait()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
