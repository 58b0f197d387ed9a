"""Gradients with few states kept equal those with all of them, to the bit, by every schedule."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adjoints import Chain, Counter, bits
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from peers import peer

import ckptfmt
from benchmarks.recompute import beside_the_optimum, in_a_process
from ckptfmt.recompute import Costs, gradient, plan
from ckptfmt.recompute.optimum import fewest_steps
from ckptfmt.recompute.schedules import SCHEDULES
from ckptfmt.testing import equal_trees

Scratch = Callable[[], AbstractContextManager[str]]

budgets = st.one_of(st.integers(1, 6), st.just("unlimited"))
costs = st.builds(Costs, *[st.sampled_from([0.5, 1, 3])] * 2, *[st.sampled_from([0, 0.1, 2, 20])] * 2)


@given(
    schedule=st.sampled_from([*SCHEDULES, "auto", None]),
    steps=st.integers(0, 24),
    memory=st.one_of(st.none(), budgets),
    disk=st.one_of(st.none(), budgets),
    costs=costs,
    period=st.one_of(st.none(), st.integers(1, 9)),
    dtype=st.sampled_from(["f4", "f8"]),
    resume=st.booleans(),
    check=st.booleans(),
)
def test_any_schedule_gives_the_gradient_of_full_storage(
    scratch: Scratch, dtype: str, steps: int, resume: bool, **options: Any
) -> None:
    """Or says why it cannot. Dropout is on; nothing is left on the disk."""
    chain = Chain(dtype)
    wanted, final = chain.full(steps)
    chain.calls = chain.adjoint_calls = 0
    with scratch() as place:
        if options["disk"] is not None or resume:
            options["folder"] = Path(place) / "run"
        try:
            found = gradient(
                chain.step, chain.adjoint, chain.initial(), steps, chain.seed, resume=resume, journal_every=0, **options
            )
        except ckptfmt.InputError as error:
            assert error.code == "bad-option"
            assert "memory" in str(error) or "disk" in str(error) or "snapshots" in str(error)
            return
        assert [name for _, _, names in os.walk(place) for name in names] == []
    assert bits(found.adjoint) == bits(wanted)
    assert equal_trees(found.state, final)
    report = found.report
    assert chain.calls == report.forward_steps + 3 * (options["schedule"] == "auto" and options["costs"] is None)
    assert report.forward_steps == report.planned_steps >= min(steps, report.fewest_steps)
    assert chain.adjoint_calls == report.adjoint_steps == steps
    assert report.damaged == ()
    assert report.resumed is None


@settings(max_examples=20)
@given(
    schedule=st.sampled_from([name for name, kind in SCHEDULES.items() if kind.is_online]),
    steps=st.integers(0, 30),
    period=st.one_of(st.none(), st.integers(1, 9)),
    memory=st.integers(0, 3),
)
def test_the_number_of_steps_may_be_unknown(
    scratch: Scratch, schedule: str, steps: int, period: int | None, memory: int
) -> None:
    chain = Chain()
    wanted, _ = chain.full(steps)
    with scratch() as place:
        found = gradient(
            chain.step,
            chain.adjoint,
            chain.initial(),
            lambda state, number: state["pair"].n < steps,
            chain.seed,
            memory="unlimited" if schedule == "memory" else memory,
            folder=place,
            schedule=schedule,
            period=period,
        )
        assert os.listdir(place) == []
    assert bits(found.adjoint) == bits(wanted)
    assert found.report.steps == steps


trees = st.recursive(
    arrays.arrays(st.sampled_from(["f8", "f4", "i4", "?", ">f8", "c8"]), arrays.array_shapes(min_dims=0, max_side=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner, inner), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


@settings(max_examples=25)
@given(tree=trees, plain=st.one_of(st.none(), st.integers(), st.floats(allow_nan=False), st.text(), st.binary()))
def test_any_tree_is_a_state(scratch: Scratch, tree: Any, plain: Any) -> None:
    """Each step sees the very state that it saw before, whether it was copied, or saved and loaded."""
    seen: dict[int, Any] = {}

    def step(state: Any, number: int) -> Any:
        assert equal_trees(seen.setdefault(number, state), state)
        return {**state, "number": state["number"] + 1}

    def adjoint(state: Any, number: int, after: int) -> int:
        assert equal_trees(seen[number], state)
        return after + 1

    with scratch() as place:
        state = {"tree": tree, "plain": plain, "number": 0}
        found = gradient(step, adjoint, state, 7, 0, memory=1, disk=1, folder=place)
    assert found.adjoint == 7
    assert equal_trees(found.state, {**state, "number": 7})


def test_it_is_the_gradient() -> None:
    """By central differences."""
    chain = Chain()
    found = gradient(chain.step, chain.adjoint, chain.initial(), 12, chain.seed, memory=3).adjoint["x"]
    for index in np.ndindex(*found.shape):
        values = []
        for change in (1e-6, -1e-6):
            state = chain.initial()
            state["x"][index] += change
            values.append(chain.objective(state, 12))
        assert math.isclose((values[0] - values[1]) / 2e-6, found[index], rel_tol=1e-6, abs_tol=1e-7)


def test_steps_may_change_what_they_are_given(tmp_path: Path) -> None:
    """The state, the adjoint; and the caller's own stay as they were."""

    def step(state: Any, number: int) -> Any:
        state *= 1.5
        return state

    def adjoint(state: Any, number: int, after: Any) -> Any:
        after *= state
        state[:] = -1
        return after

    def seed(final: Any) -> Any:
        final /= 2
        return final

    initial = np.array([1.0, 2.0])
    wanted = initial.copy()
    for _ in range(9):
        wanted *= 1.5
    final = wanted.copy()
    wanted /= 2
    for number in reversed(range(9)):
        wanted *= initial * 1.5**number
    for budget in ({"memory": 2}, {"disk": 2, "folder": tmp_path}, {"memory": 1, "disk": 1, "folder": tmp_path}):
        found = gradient(step, adjoint, initial, 9, seed, **budget)  # type: ignore[arg-type]
        assert np.allclose(found.adjoint, wanted, rtol=1e-14)
        assert found.state.tolist() == final.tolist()
        assert initial.tolist() == [1.0, 2.0]
    given_seed = np.ones(2)
    gradient(step, adjoint, initial, 9, given_seed, memory=2)
    assert given_seed.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("slots", [1, 2, 3, 7, 20])
def test_as_few_steps_as_can_be(slots: int) -> None:
    """The benchmark has all pairs of 1 to 200 steps and 1 to 20 snapshots."""
    for steps in (1, 2, 3, 5, 10, 36, 100, 199, 200):
        counter = Counter()
        found = gradient(counter.step, counter.adjoint, 0, steps, lambda final: final, memory=slots)
        assert counter.calls == found.report.forward_steps == fewest_steps(steps, slots)
        assert found.adjoint == 0
        assert found.report.memory_snapshots <= slots


def test_the_benchmark_s_pairs() -> None:
    """Of a computation that is no plain functions."""
    assert beside_the_optimum(30, 6) == {"pairs": 180, "difference in steps": 0}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no figures of memory here")
def test_peak_memory(tmp_path: Path) -> None:
    """Budget, a step's own memory, and 64 MiB; in a process of its own. The benchmark has 10,000 steps."""
    for options in ({"memory": 8}, {"memory": 4, "disk": 30, "folder": str(tmp_path), "schedule": "two-level"}):
        found = in_a_process(60, 4, options)
        assert found["rise MiB"] <= found["allowed MiB"]
        assert found["memory budget MiB"] <= 4 * options["memory"]


def test_a_long_run() -> None:
    counter = Counter()
    found = gradient(counter.step, counter.adjoint, 0, 5000, lambda final: final, memory=20)
    assert counter.calls == fewest_steps(5000, 20) == 4 * 5000 - 2024 + 1
    assert found.report.memory_snapshots == 20


def test_budgets_in_bytes(tmp_path: Path) -> None:
    def step(state: Any, number: int) -> Any:
        return state + 1

    options: dict[str, Any] = {"memory": "2KiB", "disk": "3.5 kB", "folder": tmp_path}
    found = gradient(step, lambda state, number, after: after, np.zeros(64), 40, 1.0, **options)
    assert (found.report.memory_snapshots, found.report.disk_snapshots) == (4, 6)
    assert (found.report.memory_bytes, found.report.disk_bytes) == (2048, 6 * 512)
    assert found.report.bytes_written > 6 * 512


def test_progress(tmp_path: Path) -> None:
    counter, told = Counter(), []
    found = gradient(
        *(counter.step, counter.adjoint, 0, 30, lambda final: final),
        memory=3,
        progress=lambda done, total: told.append((done, total)),
    )
    total = found.report.forward_steps + 30
    assert told == sorted(told)
    assert told[-1] == (total, total)


def test_the_best_schedule_is_taken(tmp_path: Path) -> None:
    """By costs that are given, and by those that are measured."""
    counter = Counter()

    def found(**options: Any) -> str:
        run = gradient(
            *(counter.step, counter.adjoint, 0, 60, lambda final: final), schedule="auto", folder=tmp_path, **options
        )
        return run.report.schedule

    dear, cheap = Costs(write=1000, read=1000), Costs(write=0, read=0)
    for costs in (dear, cheap):
        best = plan(60, memory=3, disk=9, costs=costs).best
        assert best is not None
        assert found(memory=3, disk=9, costs=costs) == best.schedule
    assert found(memory=3, disk=9) in SCHEDULES
    assert found(memory=60, disk=9, costs=dear) == "revolve"  # in memory alone


@pytest.mark.parametrize("name", ["torch", "jax.numpy"])
def test_states_of_other_frameworks(tmp_path: Path, name: str) -> None:
    """Each comes back as what it was, from memory, from the disk and from a journal."""
    xp = peer(name)
    start = xp.asarray(np.linspace(0, 1, 5, dtype="f4"))

    def step(state: Any, number: int) -> Any:
        assert type(state["x"]) is type(start)
        return {"x": xp.sin(state["x"]) * 1.01}

    def adjoint(state: Any, number: int, after: Any) -> Any:
        assert type(after) is type(state["x"]) is type(start)
        return 1.01 * xp.cos(state["x"]) * after

    ways: tuple[dict[str, Any], ...] = ({"schedule": "memory"}, {"memory": 3}, {"memory": 1, "disk": 2})
    found = []
    for way in ways:
        more: dict[str, Any] = {"folder": tmp_path / "x", "resume": True, "journal_every": 0} if "disk" in way else {}
        result = gradient(step, adjoint, {"x": start}, 20, xp.ones_like(start), **{"memory": 20, **way, **more})
        found.append(np.asarray(result.adjoint).tobytes())
    assert len(set(found)) == 1
