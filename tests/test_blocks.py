"""Running the jobs of a read on several threads: all of them, the first failure in order, and nothing left behind."""

from __future__ import annotations

import heapq
import signal
import threading
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt.reading import blocks
from ckptfmt.reading import pace as pace_module
from ckptfmt.reading.blocks import run
from ckptfmt.reading.pace import Pace
from ckptfmt.storage.retry import Tries


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


class Answers:
    """A store by a clock of its own: what it was asked for ends after the seconds that a request of so many takes, in
    an order that is the same each time. `most` is how many were under way at most."""

    def __init__(self, seconds: Callable[[int], float]) -> None:
        self.seconds, self.now, self.most = seconds, 0.0, 0

    def serve(self, pace: Pace, requests: int, room: int = 64, again: int | None = None) -> None:
        ends: list[tuple[float, int, float]] = []
        for number in range(requests):
            while len(ends) >= min(room, pace.threads):
                self._end(ends, pace, room)
            begun = self.now = self.now + 1e-6
            self.most = max(self.most, len(ends) + 1)
            heapq.heappush(ends, (begun + self.seconds(min(room, pace.threads)), number, begun))
            if number == again:
                Tries.again += 1
        while ends:
            self._end(ends, pace, room)

    def _end(self, ends: list[tuple[float, int, float]], pace: Pace, room: int) -> None:
        end, _, begun = heapq.heappop(ends)
        self.now = max(self.now, end)
        pace.ended(begun, room)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[int], float]], Answers]:
    def made(seconds: Callable[[int], float]) -> Answers:
        answers = Answers(seconds)
        monkeypatch.setattr(pace_module, "monotonic", lambda: answers.now)
        return answers

    return made


Made = Callable[[Callable[[int], float]], Answers]


def test_requests_that_do_not_wait_for_each_other_become_more(answers: Made) -> None:
    store, pace = answers(lambda under_way: 0.5), Pace(16, 64)
    store.serve(pace, 16)
    assert store.most == 16
    store.serve(pace, 200)
    assert store.most == pace.threads == 64


def test_requests_that_share_a_bandwidth_do_not_become_more(answers: Made) -> None:
    """A few more are tried, once."""
    store, pace = answers(lambda under_way: 0.1 * under_way), Pace(16, 64)
    store.serve(pace, 2000)
    assert store.most == 24
    assert pace.threads == 16


def test_a_store_that_has_enough_in_the_middle(answers: Made) -> None:
    store, pace = answers(lambda under_way: max(1.0, under_way / 40)), Pace(16, 64)
    store.serve(pace, 2000)
    assert store.most == 54
    assert pace.threads == 36


def test_there_is_no_room_for_more(answers: Made) -> None:
    store, pace = answers(lambda under_way: 0.5), Pace(16, 64)
    store.serve(pace, 500, room=20)
    assert store.most == pace.threads == 20
    store.serve(pace, 500, room=40)  # for requests that take less
    assert store.most == pace.threads == 40


@pytest.mark.parametrize("again", [3, 100])
def test_a_request_that_was_made_again_ends_growth(answers: Made, again: int) -> None:
    store, pace = answers(lambda under_way: 0.5), Pace(16, 64)
    store.serve(pace, again)
    before = pace.threads
    store.serve(pace, 500, again=0)
    assert pace.threads <= before
    assert store.most <= max(16, before)


def test_as_many_threads_as_a_pace_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that stands still, no job takes longer for the others."""
    monkeypatch.setattr(pace_module, "monotonic", lambda: 0.0)
    monkeypatch.setattr(blocks, "monotonic", lambda: 0.0)
    now: set[int] = set()
    most = 0

    def job(number: int) -> None:
        nonlocal most
        now.add(number)
        most = max(most, len(now))
        if most < 12:
            time.sleep(0.01)
        now.discard(number)

    run([lambda n=n: job(n) for n in range(2000)], 12, Pace(2, 64))
    assert most == 12
    assert threading.active_count() == 1 or not [t for t in threading.enumerate() if t.name == "ckptfmt-read"]


def test_what_is_taken_back_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that is slower for more threads: those that were begun for a trial are gone."""
    pace = Pace(4, 64)
    begun: list[str] = []
    ended = pace.ended
    monkeypatch.setattr(pace_module, "monotonic", lambda: 100.0)
    monkeypatch.setattr(pace, "ended", lambda at, room: ended(100.0 - pace.threads, room))
    run([lambda: begun.append(threading.current_thread().name) or time.sleep(0.001) for _ in range(300)], 64, pace)
    assert pace.threads == 4
    assert len(begun) == 300
