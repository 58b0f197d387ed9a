"""Deletion: what is read stays, and a crash at any moment leaves whole steps and what the next sweep removes."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import LAYOUTS, child, exit_code, leftovers, semaphore, use_disk

import ckptfmt
from ckptfmt.manager import Last, retention
from ckptfmt.manager.run_on_disk import RunOnDisk
from ckptfmt.manager.steps import FixedNames
from ckptfmt.storage.leases import claim, is_leased, lease

both_layouts = pytest.mark.parametrize("layout", LAYOUTS)
TREE = {"a": np.arange(100), "b": [np.zeros(3), np.ones((2, 2))]}


def new_run(path: Path, layout: str, steps: int = 3) -> RunOnDisk:
    run = RunOnDisk(path, FixedNames())
    path.mkdir(exist_ok=True)
    for step in range(steps):
        ckptfmt.save(run.path_of(step), TREE, layout=layout, durable=False)
    return run


def listed(run: RunOnDisk) -> list[int]:
    return [step.step for step in run.scan().steps]


@both_layouts
def test_pruning_deletes_and_says_why(tmp_path: Path, layout: str) -> None:
    run = new_run(tmp_path, layout)
    planned = retention.plan(run.scan().steps, [Last(1)])
    assert planned == retention.RetentionPlan(
        {2: ("newest", "last 1")}, {0: "kept by none of: last 1", 1: "kept by none of: last 1"}
    )
    assert listed(run) == [0, 1, 2], "a plan changes nothing"
    assert retention.prune(run, [Last(1)]) == planned
    assert sorted(os.listdir(tmp_path)) == ["kept.json", "step-0000000002.ckpt"]
    assert retention.read_reasons(run) == {"step-0000000002.ckpt": ("newest", "last 1")}


@both_layouts
def test_what_is_no_committed_step_is_not_touched(tmp_path: Path, layout: str) -> None:
    run = new_run(tmp_path, layout)
    torn = Path(run.path_of(1))
    (torn / "COMMIT" if torn.is_dir() else torn).write_bytes(b"")
    others = ["notes.txt", ".hidden.ckptfmt-tmp", "step-1.ckpt", torn.name]
    for name in others[:-1]:
        (tmp_path / name).write_text("mine")
    retention.prune(run, [Last(1)])
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "kept.json", "step-0000000002.ckpt"])


# ---- leases


@both_layouts
def test_a_lease_keeps_a_step(tmp_path: Path, layout: str) -> None:
    run = new_run(tmp_path, layout)
    with lease(run.path_of(0)), lease(run.path_of(0)):
        assert retention.prune(run, [Last(1)]).kept == {0: ("being read",), 2: ("newest", "last 1")}
        assert listed(run) == [0, 2]
    assert not is_leased(run.path_of(0))
    retention.prune(run, [Last(1)])
    assert listed(run) == [2]


def hold(path: str, held: Any) -> None:
    with lease(path):
        held.release()
        time.sleep(600)


@both_layouts
def test_a_lease_of_another_process_ends_with_it(tmp_path: Path, layout: str) -> None:
    run = new_run(tmp_path, layout)
    held = semaphore()
    reader = child(hold, run.path_of(0), held)
    assert held.acquire(timeout=60)
    retention.prune(run, [Last(1)])
    assert listed(run) == [0, 2]
    reader.kill()
    reader.join()
    retention.prune(run, [Last(1)])
    assert listed(run) == [2]


def test_a_lease_on_nothing(tmp_path: Path) -> None:
    with pytest.raises(ckptfmt.MissingError), lease(str(tmp_path / "none")):
        pass
    with claim(str(tmp_path / "none")) as is_mine:
        assert not is_mine
    assert not is_leased(str(tmp_path / "none"))


def test_a_lease_is_on_what_has_the_name(tmp_path: Path) -> None:
    """Who waited for a deletion, or a replacement, gets what is there afterwards."""
    path = tmp_path / "model.ckpt"
    path.write_text("old")
    with lease(str(path)):
        (tmp_path / "new").write_text("new")
        os.replace(tmp_path / "new", path)
        assert not is_leased(str(path))
        with claim(str(path)) as is_mine:
            assert is_mine
            path.unlink()
            assert not is_leased(str(path))


@both_layouts
def test_a_save_that_runs_keeps_temporaries(tmp_path: Path, layout: str) -> None:
    run = new_run(tmp_path, layout)
    os.rename(run.path_of(0), run.temporary_of("step-0000000000.ckpt"))
    with lease(run.path):
        assert run.sweep(run.scan().leftovers) == []
    (name,) = (path.name for path in leftovers(tmp_path))
    with lease(str(tmp_path / name)):
        assert run.sweep(run.scan().leftovers) == []
    assert run.sweep(run.scan().leftovers) == [name]
    assert leftovers(tmp_path) == []


@both_layouts
def test_rewinding(tmp_path: Path, layout: str) -> None:
    """Later steps vanish, also one that is being read; its reader goes on, and its bytes go afterwards."""
    run = new_run(tmp_path, layout, 5)
    with lease(run.path_of(3)), ckptfmt.open(run.path_of(3)) as reader:
        retention.rewind(run, 2)
        assert listed(run) == [0, 1, 2]
        assert np.array_equal(reader["a"].read(), TREE["a"])
        assert len(leftovers(tmp_path)) == 1
    retention.prune(run, [Last(9)])
    assert leftovers(tmp_path) == []
    assert listed(run) == [0, 1, 2]


# ---- crashes


def prune_until_killed(path: Path, number: int) -> None:
    def kill(*_: Any) -> None:
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    count = itertools.count()
    use_disk(kill)
    retention.prune(RunOnDisk(path, FixedNames()), [Last(1)])


@both_layouts
def test_killed_before_any_call_to_the_disk(tmp_path: Path, layout: str) -> None:
    for number in itertools.count():
        run = new_run(tmp_path / str(number), layout)
        code = exit_code(prune_until_killed, tmp_path / str(number), number)
        assert code in (0, -signal.SIGKILL)
        steps = listed(run)
        assert 2 in steps
        for step in steps:
            assert ckptfmt.verify(run.path_of(step)).ok
        retention.prune(run, [Last(1)])
        assert sorted(os.listdir(run.path)) == ["kept.json", "step-0000000002.ckpt"], "the next one finishes it"
        if code == 0:
            break
    assert number >= 8


@both_layouts
def test_a_deletion_that_fails(tmp_path: Path, layout: str) -> None:
    for number in range(4):
        run = new_run(tmp_path / str(number), layout)
        count = itertools.count()

        def fail(*_: Any, number: int = number, count: Any = count) -> None:
            if next(count) == number:
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        disk = use_disk(fail)
        with pytest.raises(ckptfmt.StorageError) as caught:
            retention.prune(run, [Last(1)])
        disk.undo()
        assert caught.value.code == "io"
        assert all(ckptfmt.verify(step.path).ok for step in run.scan().steps)
        retention.prune(run, [Last(1)])
        assert sorted(os.listdir(run.path)) == ["kept.json", "step-0000000002.ckpt"]


def test_bytes_go_only_after_the_name_is_flushed_away(tmp_path: Path) -> None:
    run = new_run(tmp_path, "loose", 2)
    calls: list[str] = []
    disk = use_disk(lambda name, _: calls.append(name))
    retention.prune(run, [Last(1)])
    disk.undo()
    assert calls[:3] == ["replace", "flush_directory", "remove_tree"]
    assert calls.count("replace") == 2, "of the step, and of the file that says why"


def save_until_killed(path: Path, layout: str, number: int) -> None:
    def kill(*_: Any) -> None:
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    count = itertools.count()
    use_disk(kill)
    ckptfmt.CheckpointManager(path, layout=layout).save(1, TREE)
    sys.exit(3)


@both_layouts
def test_what_a_killed_save_left_is_swept(tmp_path: Path, layout: str) -> None:
    for number in (1, 4):
        assert exit_code(save_until_killed, tmp_path, layout, number) == -signal.SIGKILL
    assert len(leftovers(tmp_path)) == 2
    manager = ckptfmt.CheckpointManager(tmp_path, layout=layout)
    assert manager.steps() == []
    manager.save(1, TREE)
    assert leftovers(tmp_path) == []


def test_reasons_are_only_for_people(tmp_path: Path) -> None:
    run = new_run(tmp_path, "file")
    for content in ("", "[]", '{"a": 1}', "\x00"):
        (tmp_path / "kept.json").write_text(content)
        assert retention.read_reasons(run) == {}
    (tmp_path / "kept.json").unlink()
    (tmp_path / "kept.json").mkdir()
    retention.prune(run, [Last(1)])
    assert listed(run) == [2]
