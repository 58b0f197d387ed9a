"""`CheckpointManager` as a training loop uses it."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import LAYOUTS, zones
from inside import inside

import ckptfmt
from ckptfmt.manager import (
    Background,
    Best,
    CheckpointManager,
    Every,
    FallbackWarning,
    FlaxCheckpointManager,
    Last,
    Schedule,
)
from ckptfmt.testing import equal_trees

both_layouts = pytest.mark.parametrize("layout", LAYOUTS)


def tree(step: int) -> dict[str, Any]:
    tied = np.full(50, step, np.float32)
    return {"step": step, "w": tied, "head": tied, "layers": [(np.arange(step + 1), None)]}


def manager(path: Path, **options: Any) -> CheckpointManager:
    return CheckpointManager(path / "run", durable=False, **options)


def flax_manager(path: Path, **options: Any) -> FlaxCheckpointManager:
    return FlaxCheckpointManager(path / "run", durable=False, **options)


def numbers(manager: CheckpointManager) -> list[Any]:
    return [step.step for step in manager.steps()]


def damage(path: str | Path) -> None:
    """Flip a bit of a tensor."""
    zone = next(zone for zone in zones(Path(path)) if zone.where == "block")
    data = bytearray(zone.file.read_bytes())
    data[zone.start] ^= 1
    zone.file.write_bytes(data)


# ---- saving and finding


@both_layouts
@pytest.mark.parametrize("block", [True, False])
def test_a_run(tmp_path: Path, layout: str, block: bool) -> None:
    keep = [Last(2), Every(4), Best("loss")]
    with manager(tmp_path, keep=keep, layout=layout) as run:
        assert (run.latest(), run.best(), run.steps()) == (None, None, [])
        for step in range(8):
            assert run.save(step, tree(step), metrics={"loss": abs(step - 2.5)}, metadata={"n": step}, block=block)
        run.wait()
        assert numbers(run) == [0, 3, 4, 6, 7]
        assert run.best().step == 3
        assert run.latest().metadata == {"n": 7}
        assert equal_trees(run.restore(), tree(7))
        assert equal_trees(run.restore("best"), tree(3))
        assert equal_trees(run.restore(4), tree(4))
        assert run.restore(4)["w"] is not run.restore(4)["w"]
        assert run.restore(4, select="step") == {"step": 4}
        into = tree(0) | {"layers": [(np.zeros(5, int), None)]}
        assert run.restore(4, into=into)["w"] is into["w"]
        assert equal_trees(into | {"step": 4}, tree(4))
    assert repr(run) == f"<CheckpointManager '{tmp_path}/run': keeps last 2, every 4, best 1 by loss (min)>"
    names = {f"step-{step:010d}.ckpt" for step in (0, 3, 4, 6, 7)}
    assert set(os.listdir(run.directory)) == names | {"kept.json"}


def test_a_manager_that_only_reads_changes_nothing(tmp_path: Path) -> None:
    with manager(tmp_path, keep=1) as run:
        assert run.plan().kept == {}
        assert run.gc() == []
    assert list(tmp_path.iterdir()) == []


def test_best_by_any_metric(tmp_path: Path) -> None:
    run = manager(tmp_path)
    for step, values in enumerate([{"a": 1.0, "b": 3}, {"a": float("nan")}, {"a": 2, "b": 2}, {}]):
        run.save(step, {}, metrics=values)
    assert run.best("a").step == 0
    assert run.best("a", "max").step == 2
    assert run.best("b").step == 2
    assert run.best("c") is None
    for call in (run.best, lambda: run.restore("best")):
        with pytest.raises(ckptfmt.InputError, match="no policy says what is best"):
            call()


def test_the_mode_of_best_is_that_of_its_policy(tmp_path: Path) -> None:
    run = manager(tmp_path, keep=[Best("acc", 2, "max"), Best("loss")])
    for step in range(3):
        run.save(step, {}, metrics={"acc": step, "loss": step})
    assert (run.best().step, run.best("loss").step, run.best("acc", "min").step) == (2, 0, 0)


def test_the_best_can_be_older_than_the_newest_and_nan_evicts_nothing(tmp_path: Path) -> None:
    run = manager(tmp_path, keep=Best("loss", 1, "max"))
    for step, loss in enumerate([1.0, 9.0, float("nan"), 2.0, float("nan")]):
        run.save(step, tree(step), metrics={"loss": loss})
        assert numbers(run)[-1] == step
    assert numbers(run) == [1, 4]


@pytest.mark.parametrize("which", [3, "latest", "best"])
def test_what_is_not_there(tmp_path: Path, which: Any) -> None:
    run = manager(tmp_path, keep=Best("loss"))
    with pytest.raises(ckptfmt.MissingError, match=r"no committed checkpoint .*found no steps"):
        run.restore(which)
    for step in range(4, 12):
        run.save(step, tree(step))
    with pytest.raises(ckptfmt.MissingError, match="found steps 4, 5, …, 10, 11"):  # as none has the metric
        run.restore(3)
    assert "record=" not in str(run.latest())  # nor anything else that no person reads


def test_an_open_step_is_kept(tmp_path: Path) -> None:
    run = manager(tmp_path, keep=1)
    run.save(1, tree(1))
    with run.open() as checkpoint:
        run.save(2, tree(2))
        assert run.plan().kept[1] == ("being read",)
        assert equal_trees(checkpoint.load(), tree(1))
    run.prune()
    assert numbers(run) == [2]


def test_what_is_pruned_while_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between finding the latest and holding it, another process replaces it by a newer one."""
    run, other = manager(tmp_path), manager(tmp_path, keep=1)
    run.save(1, tree(1))
    found = run._reader._found

    def slowly(*asked: Any) -> Any:
        step = found(*asked)
        if step.step == 1:
            other.save(2, tree(2))
        return step

    monkeypatch.setattr(run._reader, "_found", slowly)
    assert equal_trees(run.restore(), tree(2))


# ---- order and overwriting


@pytest.mark.parametrize("block", [True, False])
@pytest.mark.parametrize("step", [4, 5])
def test_existing_and_older_steps_are_refused(tmp_path: Path, block: bool, step: int) -> None:
    run = manager(tmp_path)
    run.save(5, tree(5), block=block)
    with pytest.raises(ckptfmt.ExistsError, match=f"step {step} is not later than the last step 5") as caught:
        run.save(step, tree(0), block=block)
    assert caught.value.code == "exists"
    run.wait()
    assert equal_trees(run.restore(5), tree(5))
    assert numbers(run) == [5]


@both_layouts
@pytest.mark.parametrize("block", [True, False])
def test_overwriting(tmp_path: Path, layout: str, block: bool) -> None:
    run = manager(tmp_path, layout=layout)
    for step in (2, 4, 6):
        run.save(step, tree(step))
    run.save(4, tree(40), overwrite=True, block=block)
    run.save(3, tree(3), overwrite=True, block=block)
    run.wait()
    assert numbers(run) == [2, 3, 4, 6]
    assert equal_trees(run.restore(4), tree(40))
    run.save(3, tree(30), overwrite="later", block=block)
    run.wait()
    assert numbers(run) == [2, 3]
    assert equal_trees(run.restore(), tree(30))
    assert run.save(4, tree(4)), "the run goes on from there"


def test_the_rules_of_flax(tmp_path: Path) -> None:
    run = flax_manager(tmp_path, keep=2, keep_every_n_steps=3, prefix="ckpt_")
    for step in [*range(8), 7.5]:
        run.save(step, {"step": step})
    assert numbers(run) == [1, 4, 7, 7.5]
    run.save(4, {"step": 40}, overwrite=True)
    assert numbers(run) == [1, 4]
    assert sorted(os.listdir(run.directory)) == ["ckpt_1", "ckpt_4", "kept.json"]
    assert run.restore() == {"step": 40}
    with pytest.raises(ckptfmt.ExistsError):
        run.save(3, {})


# ---- when


def test_the_schedule_decides_unless_forced(tmp_path: Path) -> None:
    run = manager(tmp_path, schedule=Schedule(steps=3, at=[4], last=8))
    saved = [step for step in range(9) if run.save(step, {"step": step})]
    assert saved == numbers(run) == [0, 3, 4, 6, 8]
    assert not run.save(10, {})
    assert run.save(10, {}, force=True)


def test_what_is_due_is_what_would_be_saved(tmp_path: Path) -> None:
    run = manager(tmp_path, schedule=3)
    assert [run.should_save(step) for step in (0, 1, 3)] == [True, False, True]
    run.save(3, {})
    assert [run.should_save(step) for step in (0, 3, 6)] == [False, False, True]
    again = manager(tmp_path, schedule=3)
    assert [again.should_save(step) for step in (0, 3, 6)] == [False, False, True]
    again.save(9, {})
    again.save(6, {}, overwrite=True)
    assert [again.should_save(step) for step in (9, 12)] == [False, True]
    again.save(6, {}, overwrite="later")
    assert again.should_save(9)


def test_the_first_save_and_time(tmp_path: Path) -> None:
    run = manager(tmp_path, schedule=Schedule(first=True, seconds=1000))
    assert run.should_save(17)
    run.save(17, {})
    assert not run.should_save(18)
    run._saved_at -= 1000
    assert run.should_save(18)
    assert not manager(tmp_path, schedule=Schedule(first=True)).should_save(18)


# ---- falling back


@both_layouts
def test_walking_back_to_what_is_whole(tmp_path: Path, layout: str) -> None:
    run = manager(tmp_path, layout=layout)
    for step in range(4):
        run.save(step, tree(step))
    damage(run.steps()[3].path)
    damage(run.steps()[2].path)
    with pytest.raises(ckptfmt.CorruptError):
        run.restore()
    with pytest.warns(FallbackWarning) as said:
        assert equal_trees(run.restore(fallback=True), tree(1))
    assert [str(warning.message).rpartition("; ")[2] for warning in said] == [
        "going back to step 2",
        "going back to step 1",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert equal_trees(run.restore(1, fallback=True), tree(1))
    for step in run.steps()[:2]:
        damage(step.path)
    with pytest.warns(FallbackWarning), pytest.raises(ckptfmt.MissingError, match="no whole checkpoint"):
        run.restore(fallback=True)


def test_damage_outside_of_values_is_no_reason_to_go_back(tmp_path: Path) -> None:
    run = manager(tmp_path)
    run.save(1, tree(1))
    run.save(2, tree(2))
    zone = next(zone for zone in zones(Path(run.latest().path)) if zone.where == "frame")
    data = bytearray(zone.file.read_bytes())
    data[zone.start + 10] ^= 1
    zone.file.write_bytes(data)
    assert equal_trees(run.restore(fallback=True), tree(2))


# ---- calls


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "orbax"},
        {"background": 2},
        {"keep": []},
        {"schedule": 0},
        {"layuot": "file"},
        {"metadata": {}},
    ],
    ids=str,
)
def test_options_are_checked(tmp_path: Path, options: Any) -> None:
    with pytest.raises(ckptfmt.InputError) as caught:
        CheckpointManager(tmp_path, **options)
    assert caught.value.code == "bad-option"


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Background, {"when_full": "drop"}),
        (Background, {"at_exit": True}),
        (Background, {"max_in_flight": 0}),
        (Background, {"max_in_flight": True}),
        (FlaxCheckpointManager, {"directory": "run", "keep": -1}),
        (FlaxCheckpointManager, {"directory": "run", "keep": Last(1)}),
        (FlaxCheckpointManager, {"directory": "run", "prefix": ""}),
        (FlaxCheckpointManager, {"directory": "run", "prefix": "a/b"}),
    ],
    ids=lambda value: str(value),
)
def test_options_of_others_are_checked(kind: Any, options: Any) -> None:
    with pytest.raises(ckptfmt.InputError) as caught:
        kind(**options)
    assert caught.value.code == "bad-option"


def test_arguments_are_checked(tmp_path: Path) -> None:
    run = manager(tmp_path)
    for call in (
        lambda: run.save(-1, {}),
        lambda: run.save(1, {}, overwrite="all"),  # type: ignore[arg-type]
        lambda: run.save(1, {}, overwrite=1),
        lambda: run.save(1, {}, metrics={"loss": "low"}),
        lambda: run.save(1, {}, metadata={"a": np.zeros(2)}),
        lambda: run.save(1, {"a": object()}),
        lambda: run.save(1, {"a": object()}, block=False),
        lambda: run.restore("newest"),
        lambda: run.restore(True),
    ):
        with pytest.raises(ckptfmt.InputError):
            call()
    run.wait()
    assert not os.path.exists(run.directory) or os.listdir(run.directory) == []


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(ckptfmt.CkptError) as caught:
        manager(tmp_path).save(1, {})
    assert caught.value.code == "exists"


def test_options_of_save_are_passed_on(tmp_path: Path) -> None:
    run = manager(tmp_path, compression="zstd", schema=("m", "1"), digest="sha256")
    run.save(1, tree(1), block=False)
    run.wait()
    with run.open() as checkpoint:
        assert checkpoint["w"].codec == "zstd"
        assert inside(checkpoint).manifest.digest == "sha256"
        assert checkpoint.schema.id == "m"


def test_the_same_steps_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run = CheckpointManager(tmp_path / name)
        run.save(1, tree(1), metrics={"loss": 1}, metadata={"x": 1}, block=name == "a")
        run.wait()
    files = [(tmp_path / name / "step-0000000001.ckpt").read_bytes() for name in ("a", "b")]
    assert files[0] == files[1]


# ---- where a run lies


def test_a_relative_directory_stays_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra, say, goes to another directory after the manager was made."""
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with CheckpointManager("run", durable=False, keep=2, copy_to="second") as run:
        for step in range(2):
            run.save(step, tree(step), block=False)
        monkeypatch.chdir(tmp_path / "there")
        for step in range(2, 4):
            run.save(step, tree(step), block=False)
        run.wait()
        assert run.wait_for_copies(30)
        assert equal_trees(run.restore(), tree(3))
    assert list((tmp_path / "there").iterdir()) == []
    assert numbers(CheckpointManager(tmp_path / "here" / "run")) == [2, 3]
    assert numbers(CheckpointManager(tmp_path / "here" / "second")) == [0, 1, 2, 3]
    assert run.directory == str(tmp_path / "here" / "run")


def test_a_large_step(tmp_path: Path) -> None:
    run, step = manager(tmp_path), (1 << 64) - 1
    assert run.save(step, tree(1))
    assert equal_trees(run.restore(step), tree(1))
    assert run.latest().step == step


@pytest.mark.parametrize("step", [1 << 64, 10**40, 10**5000, -(10**5000)], ids=["2^64", "40", "5000", "-5000"])
@pytest.mark.parametrize("call", ["save", "should_save", "restore"])
@pytest.mark.parametrize("make", [manager, flax_manager])
def test_a_step_that_is_too_large(tmp_path: Path, step: int, call: str, make: Any) -> None:
    run = make(tmp_path)
    arguments = {"save": (step, {}), "should_save": (step,), "restore": (step,)}
    with pytest.raises(ckptfmt.InputError) as caught:
        getattr(run, call)(*arguments[call])
    assert caught.value.code == "bad-option"
