"""Running the jobs of a read on several threads: all of them, the first failure in order, and nothing left behind."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt.reading.blocks import run


def test_every_job_runs_once() -> None:
    done: list[int] = []
    run([lambda n=n: done.append(n) for n in range(200)], 4)
    assert sorted(done) == list(range(200))
    run([], 4)


def test_a_single_job_runs_here() -> None:
    threads: list[threading.Thread] = []
    run([lambda: threads.append(threading.current_thread())], 8)
    assert threads == [threading.current_thread()]


def test_jobs_run_side_by_side() -> None:
    meeting = threading.Barrier(3, timeout=30)
    run([lambda: meeting.wait() and None for _ in range(3)], 3)
    assert meeting.broken is False


def test_a_system_without_more_threads() -> None:
    """This thread then does all of it."""
    before = threading.stack_size(1 << 46)  # more than there is of address space
    try:
        with pytest.raises(RuntimeError):
            threading.Thread(target=print).start()
        done: list[int] = []
        run([lambda n=n: done.append(n) for n in range(20)], 4)
    finally:
        threading.stack_size(before)
    assert done == list(range(20))


@given(failing=st.sets(st.integers(0, 39), min_size=1), threads=st.integers(1, 5))
def test_the_first_failure_in_order_is_raised(failing: set[int], threads: int) -> None:
    begun: list[int] = []

    def job(number: int) -> Callable[[], None]:
        def do() -> None:
            begun.append(number)
            if number in failing:
                raise ValueError(number)

        return do

    with pytest.raises(ValueError) as caught:  # noqa: PT011  the number is what counts
        run([job(number) for number in range(40)], threads)
    assert caught.value.args == (min(failing),)
    assert len(begun) <= min(failing) + threads


def test_an_interrupt_ends_all_threads() -> None:
    """Ctrl-C while this thread waits for another: raised here, and jobs that had not begun never do."""
    begun: list[int] = []

    def slow(number: int) -> None:
        begun.append(number)
        if number == 0:
            signal.raise_signal(signal.SIGINT)
        time.sleep(0.05)

    before = set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        run([lambda n=n: slow(n) for n in range(100)], 2)
    assert set(threading.enumerate()) == before
    assert len(begun) < 100
