"""Retention and schedules: pure, from steps to what is kept and why."""

from __future__ import annotations

import datetime
import itertools
import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.manager import All, Best, Every, EveryTime, Last, Pinned, Schedule, Where
from ckptfmt.manager.policies import policies_asked, reasons_to_keep
from ckptfmt.manager.schedule import schedule_asked

NAN = math.nan


def run(*steps: int, times: Any = None, **metrics: Any) -> list[Any]:
    """Steps as policies see them; the value None is a metric that is missing."""
    rows = []
    for place, step in enumerate(steps):
        found = {name: values[place] for name, values in metrics.items() if values[place] is not None}
        rows.append(SimpleNamespace(step=step, time=float((times or steps)[place]), metrics=found))
    return rows


def kept(policy: Any, steps: list[Any]) -> list[int]:
    return sorted(policy.keeps(steps))


@pytest.mark.parametrize(
    ("policy", "steps", "expected"),
    [
        (Last(2), run(1, 5, 9), [5, 9]),
        (Last(9), run(1, 5), [1, 5]),
        (Every(4), run(0, 2, 4, 7, 8), [0, 4, 8]),
        (EveryTime(10), run(1, 2, 3, 4, times=[0, 9, 10, 25]), [1, 3, 4]),
        (EveryTime(datetime.timedelta(minutes=1)), run(1, 2, 3, times=[0, 59.9, 60]), [1, 3]),
        (EveryTime(10), run(1, 2, 3, times=[100, 5, 110]), [1, 3]),  # a clock that was turned back
        (Best("loss"), run(1, 2, 3, loss=[2, 1, 3]), [2]),
        (Best("loss", 2), run(1, 2, 3, loss=[2, 1, 3]), [1, 2]),
        (Best("acc", 1, "max"), run(1, 2, 3, acc=[2, 1, 3]), [3]),
        (Best("loss"), run(1, 2, 3, loss=[NAN, 5, None]), [2]),
        (Best("acc", 1, "max"), run(1, 2, 3, acc=[NAN, -5, None]), [2]),
        (Best("loss", 2), run(1, 2, 3, loss=[1, NAN, None]), [1, 3]),  # among the worst, the newer
        (Best("loss"), run(1, 2, loss=[1, 1]), [2]),
        (Best("los"), run(1, 2, 3, loss=[1, 2, 3]), [1, 2, 3]),  # nothing says which are worse
        (Best("loss", 1), run(1, 2, loss=[math.inf, NAN]), [1]),
        (Best("loss", 1), run(1, 2, loss=[-math.inf, 0]), [1]),
        (Pinned({2, 99}), run(1, 2, 3), [2]),
        (Where(lambda step: step.step > 1), run(1, 2, 3), [2, 3]),
        (All(), run(1, 2), [1, 2]),
    ],
    ids=str,
)
def test_what_a_policy_keeps(policy: Any, steps: list[Any], expected: list[int]) -> None:
    assert kept(policy, steps) == expected
    assert policy.keeps([]) == []


def test_reasons_are_a_union_and_the_newest_stays() -> None:
    steps = run(0, 1, 2, 3, 4, 5, loss=[0.1, 0.5, 0.4, NAN, 0.6, 0.9])
    reasons = reasons_to_keep(steps, [Every(4), Best("loss", 1), Best("loss", 1, "max"), Pinned([3])])
    assert reasons == {
        0: ("every 4", "best 1 by loss (min)"),
        3: ("pinned",),
        4: ("every 4",),
        5: ("newest", "best 1 by loss (max)"),
    }
    assert reasons_to_keep([], [Last(1)]) == {}


@given(
    st.lists(st.tuples(st.floats(0, 100), st.one_of(st.none(), st.floats(allow_nan=True))), max_size=12),
    st.integers(1, 4),
    st.integers(1, 4),
    st.sampled_from(["min", "max"]),
)
def test_policies_hold_whatever_was_deleted_before(rows: list[Any], n: int, k: int, mode: Any) -> None:
    """Deleting as one goes keeps the same as deleting at the end, and never the newest or the best."""
    policies = [Last(n), Every(k), EveryTime(10), Best("loss", n, mode)]
    times = list(itertools.accumulate(time for time, _ in rows))
    steps = run(*range(len(rows)), times=times, loss=[loss for _, loss in rows])
    at_once = set(reasons_to_keep(steps, policies))
    there: list[Any] = []
    for step in steps:
        there.append(step)
        wanted = reasons_to_keep(there, policies)
        there = [step for step in there if step.step in wanted]
        assert there[-1] is step
    assert {step.step for step in there} == at_once
    numbers = [loss for _, loss in rows if loss is not None and not math.isnan(loss)]
    if numbers:
        best = min(numbers) if mode == "min" else max(numbers)
        assert best in [step.metrics.get("loss") for step in there]


@pytest.mark.parametrize(
    "make",
    [
        lambda: Last(0),
        lambda: Every(0),
        lambda: EveryTime(0),
        lambda: Best("loss", 0),
        lambda: Best("loss", 1, "least"),  # type: ignore[arg-type]
        lambda: policies_asked([]),
        lambda: policies_asked("last"),
        lambda: policies_asked(3.5),
        lambda: policies_asked(0),
        lambda: Schedule(steps=0),
        lambda: Schedule(seconds=-1),
        lambda: schedule_asked("often"),
        lambda: schedule_asked(True),
    ],
)
def test_what_makes_no_sense_is_refused(make: Any) -> None:
    with pytest.raises(ckptfmt.InputError) as caught:
        make()
    assert caught.value.code == "bad-option"


def test_keep_in_short() -> None:
    assert policies_asked(None) == (All(),)
    assert policies_asked(3) == (Last(3),)
    assert policies_asked(Every(2)) == (Every(2),)
    assert policies_asked([Every(2), Last(1)]) == (Every(2), Last(1))


@pytest.mark.parametrize(
    ("schedule", "step", "elapsed", "is_first", "expected"),
    [
        (Schedule(steps=10), 0, 0, False, True),
        (Schedule(steps=10), 20, 0, False, True),
        (Schedule(steps=10), 21, 0, False, False),
        (Schedule(seconds=60), 21, 60, False, True),
        (Schedule(seconds=60), 21, 59, False, False),
        (Schedule(at={3, 5}), 5, 0, False, True),
        (Schedule(at={3, 5}), 4, 0, False, False),
        (Schedule(when=lambda step: step == 7), 7, 0, False, True),
        (Schedule(when=lambda step: step == 7), 8, 0, False, False),
        (Schedule(first=True), 8, 0, True, True),
        (Schedule(first=True), 8, 0, False, False),
        (Schedule(steps=10, last=99), 99, 0, False, True),
        (Schedule(), 0, 1e9, True, False),
        (schedule_asked(None), 0.5, 0, False, True),
        (schedule_asked(2), 3, 0, False, False),
    ],
)
def test_when_a_step_is_due(schedule: Schedule, step: Any, elapsed: float, is_first: bool, expected: bool) -> None:
    assert schedule.due(step, elapsed=elapsed, is_first=is_first) is expected
