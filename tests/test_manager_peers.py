"""Retention beside the real Orbax and the real flax.training.checkpoints: the same saves, and what each keeps.

Where a case says `why`, we differ on purpose.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import ckptfmt
from ckptfmt.manager import Best, CheckpointManager, Every, EveryTime, FlaxCheckpointManager, Last, Where
from ckptfmt.manager.flax_rules import FlaxNames

pytestmark = pytest.mark.filterwarnings("default")  # their warnings are theirs

NAN = math.nan


class Case(NamedTuple):
    """Losses by step (None: no metrics), the options of both, and what stays."""

    losses: dict[int, float | None]
    theirs: dict[str, Any]
    ours: Any
    kept: list[int]
    differs: list[int] | None = None
    why: str = ""


def loss_of(metrics: Any) -> float:
    return float(metrics["loss"])


STEPS = dict.fromkeys(range(8))
LOSSES = dict(enumerate([3.0, 1.0, 2.0, 5.0, 4.0]))
MIN = {"best_fn": loss_of, "best_mode": "min"}
ORBAX = {
    "last": Case(STEPS, {"max_to_keep": 3}, Last(3), [5, 6, 7]),
    "all": Case(STEPS, {}, None, list(range(8))),
    "last or period": Case(STEPS, {"max_to_keep": 2, "keep_period": 3}, [Last(2), Every(3)], [0, 3, 6, 7]),
    "period": Case(
        {0: None, 5: None, 9: None, 10: None, 11: None},
        {"max_to_keep": 1, "keep_period": 5},
        [Last(1), Every(5)],
        [0, 5, 10, 11],
    ),
    "least": Case(
        LOSSES,
        {"max_to_keep": 2, **MIN},
        Best("loss", 2),
        [1, 2],
        [1, 2, 4],
        "the newest is always kept: without it there is nothing to resume from",
    ),
    "greatest": Case(LOSSES, {"max_to_keep": 2, **MIN, "best_mode": "max"}, Best("loss", 2, "max"), [3, 4]),
    "least or period": Case(
        LOSSES, {"max_to_keep": 1, "keep_period": 4, **MIN}, [Best("loss", 1), Every(4)], [0, 1, 4]
    ),
    "equal": Case({0: 1.0, 1: 1.0, 2: 1.0}, {"max_to_keep": 1, **MIN}, Best("loss"), [2]),
    "NaN": Case(
        {0: 2.0, 1: NAN, 2: 1.0},
        {"max_to_keep": 1, **MIN, "best_mode": "max"},
        Best("loss", 1, "max"),
        [2],
        [0, 2],
        "NaN ranks worst; theirs pushed out the best",
    ),
    "NaN as least": Case(
        {0: 1.0, 1: NAN, 2: 2.0, 3: 0.5, 4: 3.0},
        {"max_to_keep": 1, **MIN},
        Best("loss"),
        [3],
        [3, 4],
        "the newest is always kept",
    ),
    "no metrics": Case(
        {0: None, 1: 2.0, 2: None, 3: 1.0, 4: 3.0},
        {"max_to_keep": 1, **MIN},
        Best("loss"),
        [0, 2, 3],
        [3, 4],
        "missing metrics rank worst; theirs are kept for ever",
    ),
    "no metrics, kept": Case(
        {0: None, 1: 2.0, 2: None, 3: 1.0},
        {"max_to_keep": 1, **MIN},
        [Best("loss"), Where(lambda step: "loss" not in step.metrics)],
        [0, 2, 3],
    ),
}


def ours(path: Path, losses: dict[int, float | None], **options: Any) -> list[Any]:
    manager = CheckpointManager(path, durable=False, **options)
    for step, loss in losses.items():
        manager.save(step, {"a": np.zeros(2)}, metrics=None if loss is None else {"loss": loss})
    return [step.step for step in manager.steps()]


@pytest.mark.parametrize("name", ORBAX)
def test_beside_orbax(tmp_path: Path, name: str) -> None:
    ocp = pytest.importorskip("orbax.checkpoint")
    case = ORBAX[name]
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False, **case.theirs)
    with ocp.CheckpointManager(tmp_path / "theirs", options=options) as manager:
        for step, loss in case.losses.items():
            metrics = None if loss is None else {"loss": loss}
            assert manager.save(step, args=ocp.args.StandardSave({"a": np.zeros(2)}), metrics=metrics)
        assert sorted(manager.all_steps()) == case.kept
    expected = case.kept if case.differs is None else case.differs
    assert ours(tmp_path / "ours", case.losses, keep=case.ours) == expected
    assert bool(case.why) == (case.kept != expected)


def test_time_beside_orbax() -> None:
    """The policy alone, as the clock of the real manager cannot be set."""
    policies = pytest.importorskip("orbax.checkpoint.checkpoint_managers")
    import datetime
    from types import SimpleNamespace

    times = [0, 4, 9, 11, 12, 30, 31, 39, 41]
    theirs = [SimpleNamespace(step=i, time=datetime.datetime.fromtimestamp(t)) for i, t in enumerate(times)]
    flags = policies.EveryNSeconds(10).should_preserve(theirs, context=None)
    steps: Any = [SimpleNamespace(step=i, time=float(t)) for i, t in enumerate(times)]
    assert EveryTime(10).keeps(steps) == [i for i, keeps in enumerate(flags) if keeps] == [0, 3, 5, 8]


# ---- flax


class Flax(NamedTuple):
    """Steps saved in order; a step with a star overwrites."""

    saves: list[Any]
    options: dict[str, Any]
    kept: list[Any]


FLAX = [
    Flax([0, 1, 2, 3], {}, [3]),
    Flax([0, 1, 2, 3], {"keep": 2}, [2, 3]),
    Flax([0, 1, 2, 3], {"keep": 0}, [0, 1, 2, 3]),
    Flax(list(range(13)), {"keep": 2, "keep_every_n_steps": 5}, [1, 6, 11, 12]),
    Flax([3, 5, 10, 12, 13, 20], {"keep": 1, "keep_every_n_steps": 5}, [3, 10, 20]),
    Flax([0.5, 1, 1.25, 10, 11.0], {"keep": 3}, [1.25, 10, 11.0]),
    Flax([1, 2, 3, "2*"], {"keep": 9}, [1, 2]),
    Flax([1, 2, 3, "2*", 5], {"keep": 2}, [2, 5]),
    Flax([1, 2, 3, "0*"], {"keep": 9}, [0]),
    Flax([9, 8, 7], {"keep": 2, "prefix": "ckpt-"}, [8, 7]),
    Flax(list(range(12, 0, -1)), {"keep": 1, "keep_every_n_steps": 4, "prefix": "ckpt-"}, [12, 8, 4, 1]),
    Flax([1, 2, 10, 20], {"keep": 3, "prefix": "v2_"}, [2, 10, 20]),
]


def parsed(save: Any) -> tuple[Any, bool]:
    return (int(save[:-1]), True) if isinstance(save, str) else (save, False)


def flax_checkpoints() -> Any:
    checkpoints = pytest.importorskip("flax.training.checkpoints")
    checkpoints.config.update("flax_use_orbax_checkpointing", False)
    return checkpoints


@pytest.mark.parametrize("case", FLAX, ids=lambda case: f"{case.saves}{case.options}")
def test_beside_flax(tmp_path: Path, case: Flax) -> None:
    checkpoints = flax_checkpoints()
    manager = FlaxCheckpointManager(tmp_path / "ours", durable=False, **case.options)
    for step, overwrites in map(parsed, case.saves):
        checkpoints.save_checkpoint(tmp_path / "theirs", {"a": np.zeros(2)}, step, overwrite=overwrites, **case.options)
        manager.save(step, {"a": np.zeros(2)}, overwrite=overwrites)
        theirs = sorted(os.listdir(tmp_path / "theirs"))
        assert sorted(set(os.listdir(tmp_path / "ours")) - {"kept.json"}) == theirs
        latest = checkpoints.latest_checkpoint(tmp_path / "theirs", case.options.get("prefix", "checkpoint_"))
        assert manager.latest() is not None
        assert os.path.basename(manager.latest().path) == os.path.basename(latest)
    assert [step.step for step in manager.steps()] == case.kept


@pytest.mark.parametrize(("saves", "refused"), [([1, 2], 2), ([1, 5], 3), ([1, 2.5], 2), ([0], 0)])
@pytest.mark.parametrize("prefix", ["checkpoint_", "p"])
def test_what_flax_refuses(tmp_path: Path, saves: list[Any], refused: Any, prefix: str) -> None:
    checkpoints = flax_checkpoints()
    from flax.errors import InvalidCheckpointError

    manager = FlaxCheckpointManager(tmp_path / "ours", keep=9, prefix=prefix)
    for step in saves:
        checkpoints.save_checkpoint(tmp_path / "theirs", {"a": 1}, step, keep=9, prefix=prefix)
        manager.save(step, {"a": 1})
    with pytest.raises(InvalidCheckpointError):
        checkpoints.save_checkpoint(tmp_path / "theirs", {"a": 1}, refused, keep=9, prefix=prefix)
    with pytest.raises(ckptfmt.ExistsError):
        manager.save(refused, {"a": 1})


def test_natural_sort_beside_flax() -> None:
    checkpoints = flax_checkpoints()
    steps = [3, 20, 100, 1, 2.5, -4, -0.5, 1e22, 0, 7.0]
    for prefix in ("checkpoint_", "ckpt-", "run2-", "a_b+", "x1e5_"):
        names = FlaxNames(prefix)
        theirs = checkpoints.natural_sort([names.name(step) for step in steps])
        assert [names.name(step) for step in sorted(steps, key=names.key)] == theirs, prefix
