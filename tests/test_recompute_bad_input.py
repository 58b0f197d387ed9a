"""What a gradient refuses: each with its code, in words that help, before a wrong number comes out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adjoints import Chain, Counter, bits

import ckptfmt
from ckptfmt.recompute import Costs, gradient, plan
from ckptfmt.recompute.actions import ADJOINT, ADVANCE, RESTORE, STORE, TURN, Action, ActionTable


def counted(**options: Any) -> Any:
    counter = Counter()
    steps = options.pop("steps", 9)
    return gradient(counter.step, counter.adjoint, 0, steps, lambda final: final, **options)


OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "no snapshots": ({}, "no snapshots can be held"),
    "zero snapshots": ({"memory": 0, "disk": 0, "folder": "x"}, "no snapshots can be held"),
    "fewer than none": ({"memory": -1}, "memory="),
    "half a snapshot": ({"memory": 1.5}, "memory="),
    "a truth": ({"memory": True}, "memory="),
    "no unit": ({"memory": "512"}, "memory="),
    "no such unit": ({"memory": "5 miB"}, "memory="),
    "no folder": ({"disk": 3}, "folder="),
    "no folder to resume": ({"memory": 3, "resume": True}, "folder="),
    "a URL": ({"disk": 3, "folder": "s3://bucket/x"}, "a folder of this machine"),
    "no such schedule": ({"memory": 3, "schedule": "revolv"}, "did you mean 'revolve'"),
    "a tier too many": ({"memory": 3, "disk": 3, "folder": "x", "schedule": "revolve"}, "one of the two"),
    "a tier too few": ({"memory": 3, "schedule": "h-revolve"}, "memory= and disk="),
    "all in too little": ({"memory": 3, "schedule": "memory"}, "memory= holds too few snapshots"),
    "a disk too small": (
        {"memory": 1, "disk": 1, "folder": "x", "schedule": "periodic-disk-revolve", "costs": Costs(write=0, read=0)},
        "disk= holds too few snapshots",
    ),
    "a table without end": (
        {"memory": 3, "disk": 9, "folder": "x", "schedule": "periodic-disk-revolve", "costs": Costs(write=1e6)},
        "takes very long to compute",
    ),
    "fewer steps than none": ({"memory": 3, "steps": -1}, "steps="),
    "half a step": ({"memory": 3, "steps": 2.0}, "steps="),
    "no period": ({"disk": 3, "folder": "x", "schedule": "two-level", "period": 0}, "period="),
    "an end unknown": ({"memory": 3, "steps": lambda *_: False, "schedule": "revolve"}, "needs the number of steps"),
    "a longer run": ({"memory": 3, "steps": lambda _, n: n < 9}, "not over after 3 steps"),
    "a longer run on disk": (
        {"disk": 3, "folder": "x", "steps": lambda _, n: n < 99, "period": 4},
        "not over after 12 steps",
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options, said = OPTIONS[name]
    with pytest.raises(ckptfmt.InputError, match="(?i)" + said.replace("(", r"\(")) as caught:
        counted(**options)
    assert caught.value.code == "bad-option"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_bytes_that_hold_no_snapshot() -> None:
    with pytest.raises(ckptfmt.InputError, match="at least 800 bytes") as caught:
        gradient(lambda s, n: s, lambda s, n, a: a, np.zeros(100), 5, 1, memory="799 B")
    assert caught.value.code == "bad-option"


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf"), "1"])
def test_costs(value: Any) -> None:
    with pytest.raises(ckptfmt.InputError, match="write=") as caught:
        Costs(write=value)
    assert caught.value.code == "bad-option"
    with pytest.raises(ckptfmt.InputError, match="more than 0"):
        Costs(forward=0)


def test_plans() -> None:
    for options in ({}, {"memory": "5MiB"}, {"memory": 3, "schedule": "revolv"}):
        with pytest.raises(ckptfmt.InputError) as caught:
            plan(9, **options)
        assert caught.value.code == "bad-option"
    with pytest.raises(ckptfmt.InputError, match="steps="):
        plan(0, memory=3)


# ---- steps


class Forgetful(Chain):
    """Draws from a generator that is no part of the state."""

    hidden = np.random.default_rng(1)

    def step(self, state: dict[str, Any], number: int) -> dict[str, Any]:
        found = super().step(state, number)
        if number == 4:
            found["x"] = found["x"] + self.hidden.random()
        return found


@pytest.mark.parametrize("way", [{"memory": 2}, {"disk": 2}, {"memory": 1, "disk": 2}])
@pytest.mark.parametrize("resume", [False, True])
def test_a_step_that_is_not_deterministic(tmp_path: Path, way: dict[str, Any], resume: bool) -> None:
    """It is found where it is called again, and named."""
    chain = Forgetful()
    more: dict[str, Any] = {"folder": tmp_path} if "disk" in way or resume else {}
    with pytest.raises(ckptfmt.InputError, match="step 4 gives another state") as caught:
        gradient(chain.step, chain.adjoint, chain.initial(), 12, chain.seed, check=True, resume=resume, **way, **more)
    assert caught.value.code == "not-deterministic"


def test_the_check_changes_nothing() -> None:
    chain = Chain()
    found = gradient(chain.step, chain.adjoint, chain.initial(), 12, chain.seed, check=True, memory=2)
    assert bits(found.adjoint) == bits(chain.full(12)[0])
    assert found.report.forward_steps == found.report.fewest_steps


CHANGES: dict[str, tuple[Any, str]] = {
    "a shape": (lambda s: {**s, "x": np.zeros(3)}, "expected <f8 [2]"),
    "a dtype": (lambda s: {**s, "x": s["x"].astype("f4")}, "found <f4 [2]"),
    "a tensor less": (lambda s: {"x": s["x"]}, "other keys or tensors"),
    "a tensor more": (lambda s: {**s, "z": np.zeros(2)}, "other keys or tensors"),
    "a container": (lambda s: {**s, "l": tuple(s["l"])}, "other containers"),
    "a number for a tensor": (lambda s: {**s, "x": 0.0}, "other containers, or other keys or tensors"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_tree_that_changes(name: str) -> None:
    change, said = CHANGES[name]
    state = {"x": np.zeros(2), "l": [np.zeros(1), 3]}
    with pytest.raises(ckptfmt.InputError) as caught:
        gradient(lambda s, n: change(s) if n == 5 else s, lambda s, n, a: a, state, 9, 1, memory=8, schedule=None)
    assert caught.value.code == "state-changed"
    assert said in str(caught.value)
    assert "at 6" in str(caught.value)


def test_plain_values_may_change() -> None:
    found = gradient(lambda s, n: {"n": s["n"] or 0.5}, lambda s, n, a: a + 1, {"n": None}, 5, 0, memory=1)
    assert found.adjoint == 5


@pytest.mark.parametrize("where", [0, 3])
def test_a_state_that_cannot_be_saved(where: int) -> None:
    class Own:
        pass

    def step(state: Any, number: int) -> Any:
        return {"a": Own() if number + 1 == where else 1}

    with pytest.raises(ckptfmt.InputError) as caught:
        gradient(step, lambda s, n, a: a, {"a": Own() if where == 0 else 1}, 6, 0, memory=1)
    assert caught.value.code == "unsupported-leaf"
    assert caught.value.__notes__ == [f"in the state at {where}"]


def test_an_error_of_a_step_is_the_caller_s(tmp_path: Path) -> None:
    def step(state: Any, number: int) -> Any:
        if number == 5:
            raise ZeroDivisionError
        return state

    with pytest.raises(ZeroDivisionError):
        gradient(step, lambda s, n, a: a, np.ones(3), 9, 0, memory=1, disk=2, folder=tmp_path)
    assert os.listdir(tmp_path) == []


# ---- schedules


@pytest.mark.parametrize(
    "actions",
    [
        [Action(TURN, 2)],
        [Action(ADVANCE, 1, 2), Action(TURN, 2)],
        [Action(ADVANCE, 0, 2), Action(TURN, 2), Action(ADJOINT, 1)],
        [Action(RESTORE, 0), Action(ADVANCE, 0, 2), Action(TURN, 2)],
        [Action(STORE, 0), Action(ADVANCE, 0, 1), Action(TURN, 1), Action(ADJOINT, 1)],
        [Action(STORE, 0), Action(ADVANCE, 0, 1), Action(TURN, 1), Action(ADJOINT, 1), Action(ADJOINT, 0)],
    ],
)
def test_a_schedule_that_does_not_fit_itself(actions: list[Action]) -> None:
    with pytest.raises(RuntimeError, match="the schedule does not"):
        ActionTable(2, actions)


def test_a_schedule_that_fits() -> None:
    actions = [Action(STORE, 0), Action(ADVANCE, 0, 1), Action(TURN, 1), Action(ADJOINT, 1)]
    table = ActionTable(2, [*actions, Action(RESTORE, 0), Action(ADJOINT, 0)])
    assert table.forward_steps == 2
    assert list(table)[4] == Action(RESTORE, 0, 1)
    assert table[-1] == Action(ADJOINT, 0)
