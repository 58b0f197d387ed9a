"""A second directory: copied to in the background, found in, gone back in, and never a reason to wait or to lose."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from damage import LAYOUTS, leftovers
from runs import damage, numbers, store, tree
from stores import endpoint

import ckptfmt
from ckptfmt.manager import Best, CheckpointManager, CopyTo, CopyWarning, Every, FallbackWarning, Last, copies
from ckptfmt.storage.engine import engine_for
from ckptfmt.testing import equal_trees

__all__ = ["endpoint", "store"]  # fixtures

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(copies, "LONGEST_PAUSE", 0.02)


def manager(path: Path, copy_to: Any = None, **options: Any) -> CheckpointManager:
    return CheckpointManager(path / "run", copy_to=copy_to or path / "second", durable=False, **options)


def second(run: CheckpointManager) -> list[Any]:
    """The steps in the second directory, seen by a manager of its own."""
    asked = run._copier.asked  # type: ignore[union-attr]
    return numbers(CheckpointManager(asked.directory, storage_options=asked.storage_options))


@contextmanager
def broken(run: CheckpointManager, error: BaseException | None = None) -> Iterator[threading.Event]:
    """While the block runs, or until the event is set, copies fail."""
    mended, copier = threading.Event(), run._copier
    real = copier._copy  # type: ignore[union-attr]

    def copy(step: Any) -> None:
        if not mended.is_set():
            raise error or ConnectionError("the network is down")
        real(step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copier, "_copy", copy)
        yield mended
        mended.set()


# ---- copying


@pytest.mark.parametrize("block", [True, False])
def test_copies_on_a_store(store: dict[str, Any], tmp_path: Path, block: bool) -> None:
    """The same bytes, kept by policies of their own."""
    copied: list[int] = []
    there = CopyTo(
        store["directory"], [Every(4), Last(1)], storage_options=store.get("storage_options"), on_copy=copied.append
    )
    with manager(tmp_path, there, keep=2) as run:
        for step in range(10):
            run.save(step, tree(step), metrics={"loss": step}, block=block)
            assert run.wait_for_copies(30) or not block
    assert run.uncopied() == []
    assert second(run) == [0, 4, 8, 9]
    assert numbers(run) == [0, 4, 8, 9]
    assert numbers(CheckpointManager(tmp_path / "run")) == [8, 9]
    assert copied == sorted(copied)
    assert {0, 4, 8, 9} <= set(copied)
    engine, key = engine_for(f"{store['directory']}/step-0000000009.ckpt", store.get("storage_options") or {})
    assert engine.tail(key, 1 << 20)[1] == (tmp_path / "run" / "step-0000000009.ckpt").read_bytes()
    for step in (0, 4, 9):
        assert equal_trees(run.restore(step), tree(step))
    assert [step.metrics["loss"] for step in run.steps()] == [0, 4, 8, 9]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_copies_on_another_disk(tmp_path: Path, layout: str) -> None:
    with manager(tmp_path, layout=layout, keep=1) as run:
        for step in range(3):
            run.save(step, tree(step), block=False)
    assert second(run) == [0, 1, 2]
    assert numbers(CheckpointManager(tmp_path / "run")) == [2]
    one, other = (tmp_path / name / "step-0000000002.ckpt" for name in ("run", "second"))
    files = [path.relative_to(one) for path in (one, *one.rglob("*")) if path.is_file()]
    assert files
    assert all((one / file).read_bytes() == (other / file).read_bytes() for file in files)
    assert ckptfmt.verify(other).ok
    assert leftovers(tmp_path / "second") == []


def test_a_step_that_is_replaced_is_copied_again(tmp_path: Path) -> None:
    with manager(tmp_path) as run:
        run.save(1, tree(1))
        assert run.wait_for_copies(30)
        run.save(1, tree(10), overwrite=True)
    assert equal_trees(ckptfmt.load(tmp_path / "second" / "step-0000000001.ckpt"), tree(10))


def test_a_run_that_goes_back_does_so_in_both(tmp_path: Path) -> None:
    run = manager(tmp_path)
    for step in range(4):
        run.save(step, tree(step))
    assert run.wait_for_copies(30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CopyWarning)
        with broken(run):
            run.save(1, tree(10), overwrite="later")
            assert numbers(run) == [0, 1]
            assert run.latest().step == 1  # type: ignore[union-attr]
            assert run.save(2, tree(20))
        run.close()
    assert second(run) == numbers(run) == [0, 1, 2]
    other = CheckpointManager(tmp_path / "second")
    assert [other.restore(step)["step"] for step in range(3)] == [0, 10, 20]


def test_going_back_survives_the_process(tmp_path: Path) -> None:
    """A store that cannot be reached, and a process that dies: the next one finds no step that was given up."""
    run = manager(tmp_path)
    for step in range(4):
        run.save(step, tree(step))
    assert run.wait_for_copies(30)
    run._copier.wake = lambda: None  # type: ignore[union-attr, method-assign]  # nothing is done any more
    run.save(1, tree(10), overwrite="later")
    assert second(run) == [0, 1, 2, 3]
    again = manager(tmp_path)
    assert numbers(again) == [0, 1]
    assert equal_trees(again.restore(), tree(10))
    again.save(5, tree(5))
    again.close()
    assert second(again) == numbers(again) == [0, 1, 5]
    assert not (tmp_path / "run" / copies.REWIND).exists()


# ---- finding


def test_a_new_machine_goes_on_from_the_second_directory(store: dict[str, Any], tmp_path: Path) -> None:
    there = CopyTo(store["directory"], storage_options=store.get("storage_options"))
    with CheckpointManager(tmp_path / "a", keep=Best("loss"), copy_to=there) as run:
        for step in range(3):
            run.save(step, tree(step), metrics={"loss": 1 / (1 + step % 2)})
    with CheckpointManager(tmp_path / "b", keep=Best("loss"), copy_to=there) as run:
        assert numbers(run) == [0, 1, 2]
        assert (run.latest().step, run.best().step) == (2, 1)  # type: ignore[union-attr]
        assert equal_trees(run.restore(fallback=True), tree(2))
        assert equal_trees(run.restore("best"), tree(1))
        with pytest.raises(ckptfmt.ExistsError):
            run.save(2, tree(2))
        assert not run.should_save(1)
        run.save(3, tree(3))
    assert second(run) == [0, 1, 2, 3]
    assert numbers(CheckpointManager(tmp_path / "b")) == [3]


def test_what_is_damaged_here_may_be_whole_there(tmp_path: Path) -> None:
    with manager(tmp_path) as run:
        for step in range(3):
            run.save(step, tree(step))
    damage(CheckpointManager(f"local://{tmp_path}/run"), 2)
    with pytest.warns(FallbackWarning, match="going to its copy"):
        assert equal_trees(run.restore(fallback=True), tree(2))
    damage(CheckpointManager(f"local://{tmp_path}/second"), 2)
    with pytest.warns(FallbackWarning) as said:
        assert equal_trees(run.restore(fallback=True), tree(1))
    assert [str(warning.message) for warning in said] == [
        f"{tmp_path}/second/step-0000000002.ckpt is damaged; going back to step 1"
    ], "that in the first is known"
    assert run.save(2, tree(20)), "neither stands in the way"
    assert run.wait_for_copies(60)
    assert equal_trees(run.restore(fallback=True), tree(20))
    run.close()


# ---- failing


def test_a_copy_that_fails_is_tried_again_and_reported(tmp_path: Path) -> None:
    errors: list[Any] = []
    run = manager(tmp_path, CopyTo(tmp_path / "second", on_error=lambda *what: errors.append(what)), keep=1)
    with warnings.catch_warnings(record=True) as said, broken(run) as mended:
        warnings.simplefilter("always")
        for step in range(4):
            run.save(step, tree(step), block=False)
        run._worker.wait()
        while len(errors) < 3:
            time.sleep(0.001)
        assert numbers(run) == [0, 1, 2, 3], "what waits is not deleted"
        assert run.plan().kept[1] == ("waiting to be copied",)
        assert run.uncopied() == [0, 1, 2, 3]
        assert run.should_save(4)
        assert not run.wait_for_copies(0.01)
        mended.set()
        assert run.wait_for_copies(30)
    run.close()
    (warning,) = said
    text = "step 0 could not be copied, and will be tried again: the network is down"
    assert (str(warning.message), warning.filename) == (text, __file__)
    assert second(run) == [0, 1, 2, 3]
    assert numbers(CheckpointManager(tmp_path / "run")) == [3]
    assert {(step, str(error)) for step, error in errors} == {(0, "the network is down")}


def test_what_the_second_directory_would_not_keep_does_not_wait_for_it(tmp_path: Path) -> None:
    """While a store is away, the disk does not fill with what it would delete."""
    run = manager(tmp_path, CopyTo(tmp_path / "second", keep=2), keep=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CopyWarning)
        with broken(run):
            for step in range(8):
                run.save(step, tree(step))
                while len(run.uncopied()) > 2:
                    time.sleep(0.001)
            run.prune()
            assert numbers(run) == [6, 7]
        run.close()
    assert second(run) == [6, 7]


def test_closing_gives_up_at_last_and_the_next_manager_copies(tmp_path: Path) -> None:
    run = manager(tmp_path)
    with broken(run):
        run.save(1, tree(1))
        with pytest.warns(CopyWarning), pytest.raises(ConnectionError) as caught:
            run.close()
        note = f"raised while step 1 was copied to {tmp_path}/second; the next manager tries again"
        assert note in caught.value.__notes__
    assert run.uncopied() == [1]
    again = manager(tmp_path)
    again.should_save(2)
    again.close()
    assert second(again) == [1]


def test_aborting_leaves_copies_to_the_next_manager(tmp_path: Path) -> None:
    run = manager(tmp_path, CopyTo(tmp_path / "second", at_exit="abort"))
    inside, go = threading.Event(), threading.Event()
    real = run._copier._copy_object  # type: ignore[union-attr]

    def slow(*arguments: Any) -> None:
        inside.set()
        go.wait(30)
        real(*arguments)

    run._copier._copy_object = slow  # type: ignore[union-attr, method-assign]
    run.save(1, tree(1))
    assert inside.wait(30)
    threading.Timer(0.05, go.set).start()
    run.close()
    assert second(run) == []
    assert leftovers(tmp_path / "second") == []
    run._copier._copy_object = real  # type: ignore[union-attr, method-assign]
    run.save(2, tree(2))
    assert run.wait_for_copies(30)
    assert second(run) == [1, 2], "the manager can still be used"


def test_what_is_damaged_is_not_copied_and_holds_nothing_up(tmp_path: Path) -> None:
    errors: list[Any] = []
    CheckpointManager(tmp_path / "run").save(1, tree(1))
    damage(CheckpointManager(f"local://{tmp_path}/run"), 1)
    run = manager(tmp_path, CopyTo(tmp_path / "second", on_error=lambda *what: errors.append(what)))
    run.save(2, tree(2))
    assert run.wait_for_copies(30)
    assert second(run) == [2]
    assert isinstance(errors[-1][1], ckptfmt.CorruptError)
    with pytest.warns(CopyWarning, match=r"step 1 is not copied: .* is damaged"):
        run.close()


def test_callbacks_that_fail(tmp_path: Path) -> None:
    def fail(*_: Any) -> None:
        raise ZeroDivisionError

    run = manager(tmp_path, CopyTo(tmp_path / "second", on_copy=fail, on_error=fail))
    run.save(1, tree(1))
    assert run.wait_for_copies(30)
    with pytest.warns(CopyWarning):
        run.close()
    assert second(run) == [1]


# ---- runs that others have saved


@pytest.mark.parametrize("end", ["wait", "close"])
def test_a_finished_run_is_copied(tmp_path: Path, end: str) -> None:
    """Without a save or a look at it: by waiting for copies, or by closing."""
    with CheckpointManager(tmp_path / "run", durable=False) as before:
        for step in range(3):
            before.save(step, tree(step))
    run = manager(tmp_path)
    if end == "wait":
        assert run.wait_for_copies(30)
        assert second(run) == [0, 1, 2]
        Path(tmp_path / "second" / "step-0000000001.ckpt").unlink()
        assert run.wait_for_copies(30)
    else:
        run.close()
    assert second(run) == [0, 1, 2]
    with CheckpointManager(tmp_path / "run", durable=False) as before:
        before.save(3, tree(3))
    assert run.wait_for_copies(), "what another process saved meanwhile, too"
    assert second(run) == [0, 1, 2, 3]


def test_waiting_for_a_target_that_fails(tmp_path: Path) -> None:
    CheckpointManager(tmp_path / "run", durable=False).save(1, tree(1))
    (tmp_path / "second").write_text("a file")
    run = manager(tmp_path, CopyTo(tmp_path / "second", at_exit="abort"))
    assert not run.wait_for_copies(0.1), "and not for as long as it fails, which is for ever"
    (tmp_path / "second").unlink()
    assert run.wait_for_copies(30)
    assert second(run) == [1]
    with pytest.warns(CopyWarning):
        run.close()


# ---- processes


def script(path: Path, at_exit: str, after: str = "", steps: Any = (1, 2, 3)) -> subprocess.CompletedProcess[str]:
    code = f"""
import os
import numpy as np
from ckptfmt import CheckpointManager
from ckptfmt.manager import CopyTo
there = CopyTo({str(path / "second")!r}, at_exit={at_exit!r})
manager = CheckpointManager({str(path / "run")!r}, durable=False, copy_to=there)
for step in {steps}:
    manager.save(step, {{"step": step, "w": np.full(3_000_000, step)}}, block=False)
{after}
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def test_the_end_of_a_process_waits_for_copies(tmp_path: Path) -> None:
    for steps in ([1], [2, 3, 4]):  # what is saved only then is copied, too
        done = script(tmp_path, "wait", steps=steps)
        assert (done.returncode, done.stderr) == (0, "")
        assert numbers(CheckpointManager(tmp_path / "second"))[-len(steps) :] == steps


@pytest.mark.parametrize("after", ["", "os._exit(0)"])
def test_what_the_end_of_a_process_left_is_copied_by_the_next(tmp_path: Path, after: str) -> None:
    done = script(tmp_path, "abort", after and f"manager.wait(); {after}")
    assert (done.returncode, done.stderr) == (0, "")
    for step in CheckpointManager(tmp_path / "second").steps():
        assert ckptfmt.verify(step.path).ok
    with manager(tmp_path) as run:
        run.save(4, tree(4))
    assert second(run) == [1, 2, 3, 4]
    assert leftovers(tmp_path / "second") == []


def test_a_failure_at_the_end_of_a_process_is_shown(tmp_path: Path) -> None:
    (tmp_path / "second").write_text("a file")
    done = script(tmp_path, "wait", steps=[1])
    assert done.returncode == 0
    assert "the next manager tries again" in done.stderr
    assert numbers(CheckpointManager(tmp_path / "run")) == [1]


def test_a_failure_where_no_thread_can_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the end of a process from Python 3.12 on: nothing waits for another thread, and the end tries again."""
    monkeypatch.setattr("ckptfmt.threads.start_thread", lambda name, work: False)
    (tmp_path / "second").write_text("a file")
    manager = CheckpointManager(tmp_path / "run", durable=False, copy_to=CopyTo(tmp_path / "second", at_exit="wait"))
    manager.save(1, {"step": 1}, block=False)
    with pytest.warns(CopyWarning):
        manager.save(2, {"step": 2})
    assert not manager.wait_for_copies(0)
    (tmp_path / "second").unlink()
    manager.close()
    assert numbers(CheckpointManager(tmp_path / "second")) == [1, 2]


@pytest.mark.parametrize("copy_to", ["run", CopyTo("run/.")])
def test_the_second_directory_is_another(tmp_path: Path, copy_to: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ckptfmt.InputError):
        CheckpointManager("run", copy_to=copy_to)
    with pytest.raises(ckptfmt.InputError):
        CopyTo("other", at_exit="later")  # type: ignore[arg-type]
