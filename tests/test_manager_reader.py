"""Runs that are read without a manager: everything is found as a manager finds it, and nothing is changed."""

from __future__ import annotations

import errno
import inspect
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ranks
from damage import LAYOUTS, use_disk
from inside import inside
from runs import damage, numbers, objects, store, tree
from stores import endpoint

import ckptfmt
from ckptfmt.manager import (
    Best,
    CheckpointManager,
    CopyTo,
    FallbackWarning,
    FlaxCheckpointManager,
    RunReader,
    open_flax_run,
    open_run,
)
from ckptfmt.testing import equal_trees

__all__ = ["endpoint", "store"]  # fixtures


def made(directory: Any, **options: Any) -> CheckpointManager:
    """A run of four steps, the second the best."""
    run = CheckpointManager(directory, durable=False, keep=[Best("loss", 9)], **options)
    for step in range(4):
        run.save(step, tree(step), metrics={"loss": abs(step - 1)}, metadata={"n": step})
    run.close()
    return run


def state(folder: Path) -> dict[str, Any]:
    """Everything in a folder, and when it was written."""
    return {str(path): path.stat().st_mtime_ns for path in [folder, *folder.rglob("*")]}


def read_all(run: RunReader) -> None:
    """What a reader can be asked for."""
    assert [step.step for step in run.steps()] == [0, 1, 2, 3]
    assert run.damaged() == []
    latest, best = run.latest(), run.best()
    assert latest is not None
    assert best is not None
    assert (latest.step, latest.metadata, best.step, dict(best.metrics)) == (3, {"n": 3}, 1, {"loss": 0.0})
    assert equal_trees(run.restore(), tree(3))
    assert equal_trees(run.restore("best", fallback=True), tree(1))
    assert run.restore(2, select="step") == {"step": 2}
    with run.open("best") as checkpoint:
        assert checkpoint["w"].shape == (50,)
    with run.lease(2) as step:
        assert step.step == 2
    with pytest.raises(ckptfmt.MissingError, match="found steps 0, 1, 2, 3"):
        run.restore(7)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_run_is_read_and_not_changed(tmp_path: Path, layout: str) -> None:
    made(tmp_path / "run", layout=layout)
    (tmp_path / "run" / ".step-0000000009.ckpt.0123456789ab.ckptfmt-tmp").write_text("of a save that died")
    before = state(tmp_path)
    read_all(open_run(tmp_path / "run", best=Best("loss")))
    assert state(tmp_path) == before
    assert open_run(tmp_path / "run").directory == str(tmp_path / "run")


def test_a_run_on_a_store_is_read_and_not_changed(store: dict[str, Any]) -> None:
    run = made(**store)
    before = objects(run)
    read_all(open_run(store["directory"], best=Best("loss"), storage_options=store.get("storage_options")))
    assert objects(run) == before


def test_a_disk_that_may_not_be_written_to(tmp_path: Path) -> None:
    made(tmp_path / "run", copy_to=tmp_path / "second")

    def denied(*_: Any) -> None:
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS))

    disk = use_disk(denied)
    try:
        read_all(open_run(tmp_path / "run", best=Best("loss"), second=tmp_path / "second"))
    finally:
        disk.undo()


def test_a_run_that_is_not_there(tmp_path: Path) -> None:
    for run in (open_run(tmp_path / "a" / "run"), open_flax_run(tmp_path / "b" / "run")):
        assert (run.steps(), run.damaged(), run.latest(), run.best("loss")) == ([], [], None, None)
        with pytest.raises(ckptfmt.MissingError):
            run.restore()
    assert list(tmp_path.iterdir()) == []


def test_a_reader_has_nothing_that_changes_a_run() -> None:
    methods = {name for name, _ in inspect.getmembers(RunReader) if name[:1] != "_"}
    assert methods == {"best", "damaged", "directory", "latest", "lease", "open", "restore", "restored_from", "steps"}


def test_beside_a_training(tmp_path: Path) -> None:
    """What is read stays; what comes is found."""
    writer = CheckpointManager(tmp_path, durable=False, keep=1)
    run = open_run(tmp_path)
    writer.save(1, tree(1))
    with run.open() as checkpoint:
        writer.save(2, tree(2))
        assert numbers(writer) == [1, 2]
        assert equal_trees(checkpoint.load(), tree(1))
    assert equal_trees(run.restore(), tree(2))


def test_repr(tmp_path: Path) -> None:
    assert repr(open_run(tmp_path)) == f"<RunReader '{tmp_path}'>"
    assert repr(open_run(tmp_path, best=Best("loss"))) == f"<RunReader '{tmp_path}': best 1 by loss (min)>"


def test_what_is_best_must_be_said(tmp_path: Path) -> None:
    made(tmp_path)
    with pytest.raises(ckptfmt.InputError, match="no policy says what is best"):
        open_run(tmp_path).restore("best")
    assert open_run(tmp_path).best("loss").step == 1  # type: ignore[union-attr]
    with pytest.raises(ckptfmt.InputError, match=r"best= .*Best\(metric\)"):
        open_run(tmp_path, best="loss")  # type: ignore[arg-type]


# ---- a second directory, and damage


@pytest.mark.parametrize("second", [Path, CopyTo], ids=["path", "CopyTo"])
def test_a_second_directory(tmp_path: Path, second: Any) -> None:
    run = CheckpointManager(tmp_path / "run", durable=False, keep=2, copy_to=tmp_path / "second")
    for step in range(4):
        run.save(step, tree(step))
    run.close()
    assert numbers(CheckpointManager(tmp_path / "run")) == [2, 3]
    before = state(tmp_path)
    both = open_run(tmp_path / "run", second=second(tmp_path / "second"))
    assert [step.step for step in both.steps()] == [0, 1, 2, 3]
    assert equal_trees(both.restore(0), tree(0))
    assert state(tmp_path) == before
    damage(CheckpointManager(f"local://{tmp_path}/run"), 3)
    before = state(tmp_path)
    with pytest.warns(FallbackWarning, match="to its copy"):
        assert equal_trees(both.restore(fallback=True), tree(3))
    assert state(tmp_path) == before


def test_what_is_damaged_is_told_once(tmp_path: Path) -> None:
    run = made(tmp_path)
    Path(run._run.path_of(3)).write_bytes(b"torn")
    reader = open_run(tmp_path)
    with pytest.warns(FallbackWarning, match="passed over"):
        latest = reader.latest()
    assert latest is not None
    assert (latest.step, [step.step for step in reader.steps()]) == (2, [0, 1, 2])  # without a second warning
    assert [found.step for found in reader.damaged()] == [3]


# ---- links, flax, many processes


@pytest.mark.parametrize("fallback", [False, True])
def test_links_are_followed_on_request(tmp_path: Path, fallback: bool) -> None:
    """As a run of many files lies in a cache of Hugging Face; in `restore`, whole checks included, and in `open`."""
    run = made(tmp_path, layout="loose")
    for file in [file for file in Path(run._run.path_of(3)).rglob("*") if file.is_file()]:
        file.rename(file.with_name(f"{file.name}.kept"))
        file.symlink_to(f"{file.name}.kept")
    for reader in (run, open_run(tmp_path)):
        with pytest.raises(ckptfmt.LinkedError):
            reader.restore(3)
        assert equal_trees(reader.restore(3, follow_links=True, fallback=fallback), tree(3))
        with reader.open(3, follow_links=True) as checkpoint:
            assert equal_trees(checkpoint.load(), tree(3))
    follows = open_run(tmp_path, best=Best("loss", 1, "max"), follow_links=True)
    assert equal_trees(follows.restore(fallback=fallback), tree(3))
    assert follows.best().step == 3  # type: ignore[union-attr]  # its metrics are read, too
    with pytest.raises(ckptfmt.LinkedError):
        follows.restore(3, follow_links=False)


@pytest.mark.parametrize(
    ("options", "names"),
    [({"prefix": "lin"}, ["w"]), ({"add_prefix": "top/"}, None), ({"verify": False}, None)],
    ids=["prefix", "add_prefix", "verify"],
)
def test_options_of_open(tmp_path: Path, options: dict[str, Any], names: list[str] | None) -> None:
    run = CheckpointManager(tmp_path, durable=False)
    run.save(1, {"lin": {"w": np.arange(3.0)}, "b": 1})
    for reader in (run, open_run(tmp_path)):
        with reader.open(1, **options) as checkpoint, ckptfmt.open(run._run.path_of(1), **options) as wanted:
            assert list(checkpoint) == list(wanted)
            assert inside(checkpoint).verifies == inside(wanted).verifies


@pytest.mark.parametrize("prefix", ["checkpoint_", "v2_"])
def test_a_run_of_flax(tmp_path: Path, prefix: str) -> None:
    run = FlaxCheckpointManager(tmp_path, prefix=prefix, keep=0, durable=False)
    for step in (1, 2.5, 10):
        run.save(step, {"step": step}, metrics={"loss": step})
    before = state(tmp_path)
    reader = open_flax_run(tmp_path, prefix=prefix, best=Best("loss"))
    assert [step.step for step in reader.steps()] == [1, 2.5, 10]
    assert (reader.restore(), reader.restore("best"), reader.restore(2.5)) == ({"step": 10}, {"step": 1}, {"step": 2.5})
    assert state(tmp_path) == before
    assert open_run(tmp_path).steps() == []


def restore_together(folder: Path, coordinator: Any) -> Any:
    """Rank 1 does not see the last step."""
    if coordinator.rank == 1:
        os.rename(folder / "run", folder / "run-1")
    ranks_run = folder / ("run-1" if coordinator.rank == 1 else "run-0")
    run = open_run(ranks_run, best=Best("loss"), coordinator=coordinator)
    return run.restore()["step"], run.restore("best")["step"]


def test_many_processes_restore_what_all_have(tmp_path: Path) -> None:
    made(tmp_path / "run")
    made(tmp_path / "run-0")
    os.unlink(tmp_path / "run" / "step-0000000003.ckpt")
    assert ranks.run(restore_together, tmp_path, 2) == [(2, 1), (2, 1)]
