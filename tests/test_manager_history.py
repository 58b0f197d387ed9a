"""Older steps of a run as patches (`history="patches"`): which become one, that each stays what it was, and that none
loses what it is read through."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from damage import use_disk
from signing import pair

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.manager import (
    Best,
    CheckpointManager,
    CopyTo,
    Every,
    EveryTime,
    FlaxCheckpointManager,
    HistoryWarning,
    Last,
    Memory,
    Pinned,
    history,
    open_flax_run,
    open_run,
    rewriting,
)
from ckptfmt.testing import assert_same_tree

RANDOM = np.random.default_rng(0)
WEIGHTS = RANDOM.standard_normal((100, 300), np.float32)
NOISE = [RANDOM.integers(0, 256, (100, 300), np.uint8) for _ in range(3)]


def tree(step: int) -> dict[str, Any]:
    """That of a step: a few of its weights change with each."""
    weights = WEIGHTS.copy()
    weights.reshape(-1)[: 20 * step] *= np.float32(1.001)
    return {"w": weights, "frozen": NOISE[0], "step": step, "names": ["a", None]}


def saved(manager: CheckpointManager, *steps: int, **options: Any) -> None:
    for step in steps:
        manager.save(step, tree(step), metrics={"loss": 1 / (1 + step)}, **options)
    manager.wait()


def manager_of(folder: Path, keep: Any = None, **options: Any) -> CheckpointManager:
    keep = [Last(2), Every(10)] if keep is None else keep
    return CheckpointManager(folder / "run", keep=keep, durable=False, **{"history": "patches", **options})


def bases(manager: Any) -> dict[int, int | None]:
    """Of each step the one that it is read through; None for one that is whole."""
    steps = manager.steps()
    numbers = {step.sha256: step.step for step in steps}
    return {step.step: None if step.base is None else numbers[step.base] for step in steps}


def check(manager: Any, expected: Any = tree) -> None:
    """Each step there is whole and what was saved, whoever reads it."""
    for step in manager.steps():
        assert_same_tree(manager.restore(step.step), expected(step.step))
        assert not step.run.damage_of(step)
        assert step.metrics == {"loss": 1 / (1 + step.step)}


# ---- which


@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
@pytest.mark.parametrize("block", [True, False])
def test_older_steps_become_patches_of_the_nearest_before(tmp_path: Path, layout: str, block: bool) -> None:
    with manager_of(tmp_path, layout=layout) as manager:
        saved(manager, *range(0, 33), block=block)
        assert bases(manager) == {0: None, 10: 0, 20: 0, 30: 0, 31: None, 32: None}
        check(manager)
        whole, *patched = [step.size for step in manager.steps() if step.step <= 30]
        assert all(size < 0.5 * whole for size in patched)
        assert manager.plan() == manager.prune()
    check(open_run(tmp_path / "run"))


def test_the_first_last_says_which_stay_whole(tmp_path: Path) -> None:
    with manager_of(tmp_path, keep=[Last(2), Last(5)]) as manager:
        saved(manager, *range(8))
        assert bases(manager) == {3: None, 4: 3, 5: 3, 6: None, 7: None}  # 0 was not to be kept when 3 came
        check(manager)


def test_without_a_last_the_newest_stays_whole(tmp_path: Path) -> None:
    with CheckpointManager(tmp_path / "run", history="patches", durable=False) as manager:
        saved(manager, *range(5))
        assert bases(manager) == {0: None, 1: 0, 2: 0, 3: 0, 4: None}
        check(manager)


def test_one_step_has_so_many_patches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST", 2)
    with manager_of(tmp_path, keep=[Last(1), Every(1)]) as manager:
        saved(manager, *range(9))
        assert bases(manager) == {0: None, 1: 0, 2: 0, 3: None, 4: 3, 5: 3, 6: None, 7: 6, 8: None}


def test_a_base_that_nothing_else_keeps_stays(tmp_path: Path) -> None:
    with manager_of(tmp_path, keep=[Last(1), Best("loss", 2)]) as manager:
        for step in range(6):
            saved(manager, step)
            check(manager)
        found = bases(manager)
        assert {4, 5} <= set(found)
        assert set(found.values()) - {None} <= set(found)
        plan = manager.plan()
        for base in set(found.values()) - {None}:
            if base not in (4, 5):
                assert plan.kept[base][0].startswith("base of step ")


def test_a_base_goes_with_its_last_patch(tmp_path: Path) -> None:
    with manager_of(tmp_path, keep=[Last(1), Last(3)]) as manager:
        saved(manager, *range(40))
        assert len(manager.steps()) <= 3 + 1
        check(manager)
    with CheckpointManager(tmp_path / "run", keep=1, durable=False) as manager:
        manager.prune()
        assert bases(manager) == {39: None}


def test_what_is_not_smaller_stays_whole(tmp_path: Path) -> None:
    """It is noted why, and what comes after it becomes a patch of it."""
    made = {0: NOISE[0], 1: NOISE[1], 2: np.roll(NOISE[1], 0) ^ (np.arange(300, dtype=np.uint8) == 5), 3: NOISE[2]}
    with manager_of(tmp_path, keep=[Last(1), Every(1)]) as manager:
        for step, array in made.items():
            manager.save(step, {"w": array})
            manager.wait()
        manager.prune()
        assert bases(manager) == {0: None, 1: None, 2: 1, 3: None}
        kept = json.loads((tmp_path / "run" / "kept.json").read_text())
        assert "whole, as a patch would take " in kept["step-0000000001.ckpt"][-1]
        calls = len(tried(manager))
    assert calls == 0


def tried(manager: CheckpointManager) -> list[Any]:
    """The patches that another look at a run tries to make."""
    calls: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rewriting, "make_patch", lambda *arguments, **_: calls.append(arguments))
        manager.prune()
        manager.wait()
    return calls


def test_the_time_of_a_step_stays(tmp_path: Path) -> None:
    with manager_of(tmp_path, keep=[Last(1), EveryTime(0.5)]) as manager:
        for step in range(4):
            saved(manager, step)
            path = manager.steps()[-1].path
            os.utime(path, (1e9 + step, 1e9 + step))
        manager.prune()
        manager.wait()
        assert [step.time for step in manager.steps()] == [1e9, 1e9 + 1, 1e9 + 2, 1e9 + 3]
        assert bases(manager) == {0: None, 1: 0, 2: 0, 3: None}


def test_a_step_that_is_read_waits(tmp_path: Path) -> None:
    with manager_of(tmp_path, keep=[Last(1), Every(1)], background="thread") as manager:
        saved(manager, 0, 1)
        with open_run(tmp_path / "run").open(1) as checkpoint:
            saved(manager, 2)
            assert bases(manager)[1] is None
            assert_same_tree(checkpoint.load(), tree(1))
        saved(manager, 3)
        assert bases(manager) == {0: None, 1: 0, 2: 0, 3: None}


def test_a_lease_of_a_patch_holds_its_base(tmp_path: Path) -> None:
    with manager_of(tmp_path, keep=[Last(1), Every(1)]) as manager:
        saved(manager, *range(4))
    reader = open_run(tmp_path / "run")
    with reader.open(2) as checkpoint:
        assert ckptfmt.prune(tmp_path / "run", keep=1, delete=True).found[0].step == 1
        with CheckpointManager(tmp_path / "run", keep=1) as other:
            assert set(other.prune().kept) == {0, 2, 3}
        assert_same_tree(checkpoint.load(), tree(2))


def test_a_step_that_became_a_patch_since_it_was_listed(tmp_path: Path) -> None:
    with manager_of(tmp_path, keep=[Last(2), Every(1)]) as manager:
        saved(manager, 0, 1, 2)
        step = next(step for step in manager.steps() if step.step == 1)
        assert step.base is None
        saved(manager, 3)
        with step.run.lease(step):
            assert_same_tree(step.run.load(step, ckptfmt.load, {}), tree(1))


# ---- replacing and going back


@pytest.mark.parametrize("overwrite", [True, "later"])
@pytest.mark.parametrize("step", [0, 2, 5])
def test_what_replaces_a_base_leaves_its_patches_whole(tmp_path: Path, overwrite: Any, step: int) -> None:
    with manager_of(tmp_path, keep=[Last(1), Every(1)]) as manager:
        saved(manager, *range(6))
        manager.save(step, {"new": 1}, metrics={"loss": 1 / (1 + step)}, overwrite=overwrite)
        manager.wait()
        expected = range(6) if overwrite is True else range(step + 1)
        assert [found.step for found in manager.steps()] == [*expected]
        check(manager, lambda number: {"new": 1} if number == step else tree(number))


def test_patches_of_later_steps_are_whole_before_those_go(tmp_path: Path) -> None:
    """Those that a person made: a manager makes none."""
    with manager_of(tmp_path, keep=[Last(9)]) as manager:
        saved(manager, *range(4))
        paths = [Path(step.path) for step in manager.steps()]
        for number, base in ((1, 3), (0, 1)):
            ckptfmt.patch(paths[base], paths[number], paths[number], bases=paths[3], overwrite=True)
        assert bases(manager) == {0: 1, 1: 3, 2: None, 3: None}
        check(manager)
        manager.save(2, tree(2), metrics={"loss": 1 / 3}, overwrite="later")
        assert bases(manager) == {0: None, 1: None, 2: None}
        check(manager)


def test_a_manager_without_history_keeps_bases(tmp_path: Path) -> None:
    with manager_of(tmp_path, keep=[Last(1), Every(1)]) as manager:
        saved(manager, *range(4))
    with CheckpointManager(tmp_path / "run", keep=[Pinned([2])], durable=False) as manager:
        saved(manager, 7)
        assert set(bases(manager)) == {0, 2, 7}
        manager.save(0, {}, metrics={"loss": 1.0}, overwrite=True)
        check(manager, lambda number: {} if number == 0 else tree(number))


# ---- what fails


def test_a_damaged_base_is_damage_of_its_patches(tmp_path: Path) -> None:
    with manager_of(tmp_path, keep=[Last(2), Every(1)]) as manager:
        saved(manager, *range(5))
        path = Path(manager.steps()[0].path)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        with pytest.warns(ckptfmt.manager.FallbackWarning), pytest.raises(ckptfmt.MissingError):
            manager.restore(2, fallback=True)
        assert_same_tree(manager.restore(fallback=True), tree(4))
        report = ckptfmt.verify_folder(tmp_path / "run")
        assert [one.ok for one in report.reports] == [False, False, False, True, True]
        result = CliRunner().invoke(cli, ["verify", str(tmp_path / "run")])
        assert result.exit_code == 1
        assert "its base" in result.output


def test_a_base_that_somebody_took_away(tmp_path: Path) -> None:
    with manager_of(tmp_path, keep=[Last(2), Every(1)]) as manager:
        saved(manager, *range(5))
        os.unlink(manager.steps()[0].path)
        with pytest.raises(ckptfmt.CkptError, match="sha256") as caught:
            manager.restore(1)
        assert caught.value.code == "missing-base"
        assert manager.steps()[0].metrics == {"loss": 0.5}
        assert manager.latest().step == 4
        with pytest.warns(ckptfmt.manager.FallbackWarning), pytest.raises(ckptfmt.MissingError):
            manager.restore(2, fallback=True)


def test_a_damaged_step_stays_whole_and_is_told(tmp_path: Path) -> None:
    with manager_of(tmp_path, keep=[Last(1), Every(1)]) as manager:
        saved(manager, 0, 1)
        path = Path(manager.latest().path)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        manager.save(2, tree(2))
        with pytest.warns(HistoryWarning, match="step 1 stays whole"):
            manager.wait()
        assert path.read_bytes() == data


def test_a_full_disk_leaves_steps_whole(tmp_path: Path) -> None:
    full = threading.Event()

    def before(call: str, *arguments: Any) -> None:
        if full.is_set() and call == "create" and "chunks" in str(arguments[0]):
            raise OSError(28, "No space left on device")

    patch = use_disk(before)
    try:
        with manager_of(tmp_path, keep=[Last(1), Every(1)]) as manager:
            saved(manager, 0, 1)
            full.set()
            with pytest.warns(HistoryWarning, match="No space"):
                saved(manager, 2)
            saved(manager, 3)  # which is told once
            assert set(bases(manager).values()) == {None}
            full.clear()
            saved(manager, 4)
            assert bases(manager) == {0: None, 1: 0, 2: 0, 3: 0, 4: None}
            check(manager)
    finally:
        patch.undo()


def test_an_urgent_save_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A patch that is being made is given up for the save that a preemption asks for."""
    begun, original = threading.Event(), rewriting.make_patch

    def slow(*arguments: Any, check: Any, **options: Any) -> Any:
        begun.set()
        while True:
            check()

    with manager_of(tmp_path, keep=[Last(1), Every(1)]) as manager:
        saved(manager, 0, 1)
        monkeypatch.setattr(rewriting, "make_patch", slow)
        manager.save(2, tree(2), metrics={"loss": 1 / 3})
        assert begun.wait(30)
        manager._is_preempted = True
        manager.save(3, tree(3), metrics={"loss": 1 / 4})
        monkeypatch.setattr(rewriting, "make_patch", original)
        manager._worker.put_off()
        manager.wait()
        saved(manager, 4)
        assert bases(manager) == {0: None, 1: 0, 2: 0, 3: 0, 4: None}


def test_a_save_does_not_wait_for_all_that_is_to_become_patches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a run that has many steps is opened."""
    made: list[int] = []
    original = rewriting.make_patch

    def counted(run: Any, step: Any, base: Any, **options: Any) -> Any:
        made.append(step.step)
        return original(run, step, base, **options)

    monkeypatch.setattr(rewriting, "make_patch", counted)
    with manager_of(tmp_path, keep=[Last(1), Every(1)], history=None) as manager:
        saved(manager, *range(16))
    with manager_of(tmp_path, keep=[Last(1), Every(1)]) as manager:
        manager.save(16, tree(16), metrics={"loss": 1 / 17})
        assert len(made) < 5
        manager.wait()
        assert len(made) == 15
        check(manager)


def test_a_run_goes_on_with_what_another_process_left(tmp_path: Path) -> None:
    with manager_of(tmp_path, history=None) as manager:
        saved(manager, *range(0, 25))
        assert set(bases(manager).values()) == {None}
    with manager_of(tmp_path) as manager:
        manager.should_save(25)
        manager.wait()
        assert bases(manager) == {0: None, 10: 0, 20: 0, 23: None, 24: None}
        check(manager)


# ---- beside other options


def test_with_sharing_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ckptfmt.InputError, match="one of the two"):
        manager_of(tmp_path, share=True)
    with pytest.raises(ckptfmt.InputError, match="on a store"):
        CheckpointManager("memory://model/run", history="patches")
    with pytest.raises(ckptfmt.InputError, match="history="):
        manager_of(tmp_path, history="patch")


def test_a_second_directory_has_steps_whole(tmp_path: Path) -> None:
    keep = [Last(1), Every(1)]
    with manager_of(tmp_path, keep=keep, copy_to=tmp_path / "second") as manager:
        saved(manager, *range(5))
        assert manager.wait_for_copies(60)
        manager.prune()
        manager.wait()
        assert bases(manager) == {0: None, 1: 0, 2: 0, 3: 0, 4: None}
        assert manager.wait_for_copies(60)
        check(manager)
    second = open_run(tmp_path / "second")
    assert set(bases(second).values()) == {None}
    check(second)


def test_a_second_directory_that_comes_later_gets_patches_and_their_bases(tmp_path: Path) -> None:
    with manager_of(tmp_path, keep=[Last(1), Every(1)]) as manager:
        saved(manager, *range(5))
    there = CopyTo(tmp_path / "second", keep=[Last(2)])
    with manager_of(tmp_path, keep=[Last(1), Every(1)], copy_to=there) as manager:
        assert manager.wait_for_copies(60)
        assert manager.uncopied() == []
        second = open_run(tmp_path / "second")
        assert bases(second) == {0: None, 3: 0, 4: None}
        check(second)
        manager.save(0, {}, metrics={"loss": 1.0}, overwrite=True)
        assert manager.wait_for_copies(60)
        for run in (manager, second):
            check(run, lambda number: {} if number == 0 else tree(number))


def test_replicas_are_those_of_what_was_saved(tmp_path: Path) -> None:
    replicas = Memory(tmp_path / "replicas", keep=3)
    with manager_of(tmp_path, keep=[Last(1), Every(1)], replicas=replicas) as manager:
        saved(manager, *range(4))
        assert bases(manager)[2] == 0
        for step in (3, 2, 0):
            assert_same_tree(manager.restore(step), tree(step))
            assert ("/replicas/" in str(manager.restored_from)) is (step > 0)
    assert not (tmp_path / "replicas").exists()


def test_signed_steps_stay_whole(tmp_path: Path) -> None:
    private, public = pair(tmp_path)

    def sign(step: int, report: ckptfmt.SaveReport) -> None:
        if step == 2:
            ckptfmt.sign(report.path, private)

    with manager_of(tmp_path, keep=[Last(1), Every(1)], digest="sha256", on_commit=sign) as manager:
        saved(manager, *range(6))
        assert bases(manager) == {0: None, 1: 0, 2: None, 3: 2, 4: 2, 5: None}
        assert_same_tree(manager.restore(2, trust=public), tree(2))


@pytest.mark.parametrize("options", [{"background": "process"}, {"statistics": True}, {"compression": "zstd"}])
def test_other_ways_to_save(tmp_path: Path, options: Any) -> None:
    with manager_of(tmp_path, keep=[Last(1), Every(1)], **options) as manager:
        saved(manager, *range(4), block=False)
        assert bases(manager) == {0: None, 1: 0, 2: 0, 3: None}
        check(manager)


def test_the_rules_of_flax(tmp_path: Path) -> None:
    with FlaxCheckpointManager(tmp_path / "run", keep=4, history="patches", durable=False) as manager:
        for step in range(6):
            manager.save(step, tree(step), metrics={"loss": 1 / (1 + step)})
        manager.wait()
        assert len([base for base in bases(manager).values() if base is not None]) >= 2
        check(manager)
    check(open_flax_run(tmp_path / "run"))


# ---- commands


def test_commands_know_patches(tmp_path: Path) -> None:
    with manager_of(tmp_path, keep=[Last(1), Every(1)]) as manager:
        saved(manager, *range(4))
        run, paths = manager.directory, [step.path for step in manager.steps()]
    invoke = CliRunner().invoke
    listed = invoke(cli, ["ls", run]).output
    assert "patch of" in listed
    assert listed.count("step-0000000000.ckpt") == 3
    assert "all whole" in invoke(cli, ["verify", run]).output
    assert ckptfmt.gc(run).found == ()
    assert invoke(cli, ["gc", "--delete", run]).exit_code == 0
    found = ckptfmt.prune(run, keep=[Pinned([2])])
    assert [one.step for one in found.found] == [1]
    assert [(one.step, one.why) for one in found.kept][:2] == [(0, f"base of {Path(paths[2]).name}"), (2, "pinned")]
    assert ckptfmt.prune(run, keep=[Pinned([2])], delete=True).found[0].removed
    assert ckptfmt.lineage(paths[2]).steps[-1].path == paths[0]
    page = invoke(cli, ["report", run, "-o", str(tmp_path / "page.html")])
    assert page.exit_code == 0, page.output
    assert invoke(cli, ["prune", "--keep", "last=1", "--delete", run]).exit_code == 0
    assert sorted(os.listdir(run)) == ["kept.json", "step-0000000003.ckpt"]


def test_a_run_elsewhere_is_read(tmp_path: Path) -> None:
    """One that was copied to a store, too."""
    fsspec = pytest.importorskip("fsspec")
    with manager_of(tmp_path, keep=[Last(1), Every(1)]) as manager:
        saved(manager, *range(4))
    shutil.copytree(tmp_path / "run", tmp_path / "moved")
    check(open_run(tmp_path / "moved"))
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.put(str(tmp_path / "moved"), "/model/patched", recursive=True)
    check(open_run("memory://model/patched"))
    with CheckpointManager("memory://model/patched", keep=[Last(1), Pinned([2])]) as other:
        assert set(other.prune().kept) == {0, 2, 3}
        other.save(0, {}, metrics={"loss": 1.0}, overwrite=True)
        check(other, lambda number: {} if number == 0 else tree(number))
