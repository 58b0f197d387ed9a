"""Saves in the background: consistent, in order, bounded, never silently lost; and processes that end meanwhile."""

from __future__ import annotations

import errno
import os
import random
import re
import subprocess
import sys
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from damage import child, leftovers, semaphore, use_disk
from hypothesis import example, given

import ckptfmt
from ckptfmt.manager import Background, CheckpointManager, snapshot
from ckptfmt.testing import equal_trees
from ckptfmt.testing.strategies import trees

ROOT = Path(__file__).parents[1]


class Gate:
    """Lets saves pass only when it is open; their calls to the disk wait meanwhile, or fail."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self.failing: set[int] = set()
        self._saves = 0

    def __call__(self, name: str, _: Any) -> None:
        if name == "create":
            self._saves += 1
            assert self._open.wait(60)
            if self._saves in self.failing:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def open(self) -> None:
        self._open.set()


@contextmanager
def gate() -> Iterator[Gate]:
    one = Gate()
    disk = use_disk(one)
    try:
        yield one
    finally:
        one.open()
        disk.undo()


def numbers(manager: CheckpointManager) -> list[Any]:
    return [step.step for step in manager.steps()]


# ---- the snapshot


@given(trees())
@example(np.array([7], ">m8[Y]"))
def test_a_snapshot_is_equal_and_apart(tree: Any) -> None:
    buffers = snapshot.SnapshotBuffers()
    taken = buffers.take(tree).tree
    assert equal_trees(taken, tree)
    again = buffers.take(tree).tree
    assert equal_trees(again, tree)


def test_a_snapshot_is_not_changed_with_its_origin() -> None:
    base = np.arange(12.0).reshape(3, 4)
    tree = {
        "tied": [base, base],
        "view": base[1:],
        "t": base.T,
        "odict": OrderedDict(a=[1]),
        "bf": base.astype("bfloat16"),
    }
    copy = {name: np.array(value) for name, value in tree.items() if name in ("view", "t", "bf")}
    taken = snapshot.SnapshotBuffers().take(tree)
    base += 1
    tree["bf"][:] = 0
    tree["odict"]["a"].append(2)
    for name, value in copy.items():
        assert np.array_equal(taken.tree[name], value), name
    assert taken.tree["odict"] == OrderedDict(a=[1])
    assert taken.tree["tied"][0] is taken.tree["tied"][1]
    assert taken.copied_views == (("tied/0", "t", "view"),)


def test_a_snapshot_of_the_same_arrays_is_as_good_as_the_first() -> None:
    """Values change between snapshots, and so may everything else: nothing that was seen before is believed."""
    buffers = snapshot.SnapshotBuffers()
    w, tied = np.arange(6.0).reshape(2, 3), np.zeros(3, ml_dtypes.bfloat16)
    tree: dict[str, Any] = {"layers": [{"w": w, "tied": tied}, (tied, 1.5)], "step": 1, "name": "a", "none": None}
    walked = 0
    encode = snapshot.encode

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal walked
        walked += options.get("allow_tensors", True)  # else it is a plain value of the tree
        return encode(*arguments, **options)

    def change(act: Any, walks: int) -> None:
        act()
        before = walked
        taken = buffers.take(tree).tree
        assert equal_trees(taken, tree)
        assert taken["layers"][0]["tied"] is taken["layers"][1][0]
        assert walked - before == walks, act
        assert equal_trees(buffers.take(tree).tree, tree)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "encode", counted)
        change(lambda: None, 1)
        change(lambda: w.__iadd__(1), 0)
        change(lambda: tree.update(step=2, name="b", none=True), 0)
        change(lambda: tree["layers"].append(3), 0)
        change(lambda: tree["layers"][0].update(w=w.copy()), 1)
        change(lambda: tree.update(extra=np.zeros(2)), 1)
        change(lambda: tree.pop("extra"), 1)
        change(lambda: tree.update(name="\u00fc"), 1)
        tree["name"] = "a"
        buffers.take(tree)
        w = tree["layers"][0]["w"]
        change(lambda: w.resize((3, 2), refcheck=False), 1)
        change(lambda: tree.update(view=w[:1]), 1)  # overlaps: found anew each time
        assert buffers.take(tree).copied_views == (("view", "layers/0/w"),)
        tree["bad"] = object()
        with pytest.raises(ckptfmt.InputError):
            buffers.take(tree)


def test_a_snapshot_keeps_no_array_alive() -> None:
    buffers, array = snapshot.SnapshotBuffers(), np.zeros(10)
    buffers.take({"a": array})
    alive = weakref.ref(array)
    del array
    assert alive() is None
    assert equal_trees(buffers.take({"a": np.ones(10)}).tree, {"a": np.ones(10)})


def test_buffers_are_used_again_where_they_fit() -> None:
    buffers = snapshot.SnapshotBuffers()
    tree = {"a": np.zeros(9), "b": np.ones((2, 3), ml_dtypes.bfloat16), "c": np.zeros(4)}
    buffers.take(tree)
    before = list(buffers._targets)
    tree |= {"a": np.ones(9), "c": np.zeros(5)}
    taken = buffers.take(tree).tree
    assert equal_trees(taken, tree)
    assert [new is old for new, old in zip(buffers._targets, before, strict=True)] == [True, True, False]
    del tree["a"]
    assert equal_trees(buffers.take(tree).tree, tree)
    assert len(buffers._targets) == 2


def test_what_changes_during_a_save_is_not_in_it(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, durable=False)
    weights = np.zeros(1000)
    with gate() as disk:
        for step in range(3):
            weights[:] = step
            metadata = {"list": [step]}
            if step == 1:
                disk.open()
            manager.save(step, {"w": weights}, metadata=metadata, block=False)
            metadata["list"].append("changed")
            weights[:] = -1
    manager.wait()
    for step in range(3):
        assert (manager.restore(step)["w"] == step).all()
    assert [step.metadata for step in manager.steps()] == [{"list": [step]} for step in range(3)]
    assert len(manager._saver._buffers) == 1, "one set of buffers served all"


def test_the_report_names_views_that_were_separated(tmp_path: Path) -> None:
    base = np.arange(10)
    seen: list[Any] = []
    manager = CheckpointManager(
        tmp_path, durable=False, on_commit=lambda step, report: seen.append((step, report.copied_views))
    )
    for step in (1, 2):
        manager.save(step, {"a": base, "b": base[2:]}, block=step == 1)
    manager.wait()
    assert seen == [(1, (("a", "b"),)), (2, (("a", "b"),))]


# ---- order and backpressure


def test_commits_are_in_order_and_listed_only_then(tmp_path: Path) -> None:
    commits: list[Any] = []
    manager = CheckpointManager(
        tmp_path,
        durable=False,
        background=Background(max_in_flight=3),
        on_commit=lambda step, report: commits.append(step),
    )
    with gate() as disk:
        for step in (1, 2, 3):
            assert manager.save(step, {"step": step}, block=False)
        assert numbers(manager) == commits == []
        assert not manager.should_save(3), "a step in flight is not due again"
        with pytest.raises(ckptfmt.ExistsError):
            manager.save(2, {}, block=False)
        disk.open()
        manager.save(4, {"step": 4})
        assert commits == [1, 2, 3, 4], "a save that blocks comes after those in flight"
    assert numbers(manager) == [1, 2, 3, 4]


def test_skipping_when_full(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, durable=False, background=Background(max_in_flight=2, when_full="skip"))
    with gate():
        assert [manager.save(step, {}, block=False) for step in range(4)] == [True, True, False, False]
    manager.wait()
    with gate() as disk:
        for step in (5, 6):
            assert manager.save(step, {}, block=False)
        threading.Timer(0.05, disk.open).start()
        assert manager.save(7, {}, block=False, force=True), "who insists waits"
    manager.wait()
    assert numbers(manager) == [0, 1, 5, 6, 7]


def test_waiting_when_full(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, durable=False, background=Background(max_in_flight=2))
    with gate() as disk:
        saved: list[int] = []

        def save() -> None:
            for step in range(4):
                manager.save(step, {}, block=False)
                saved.append(step)

        thread = threading.Thread(target=save)
        thread.start()
        while len(saved) < 2:
            time.sleep(0.001)
        time.sleep(0.05)
        assert saved == [0, 1]
        disk.open()
        thread.join()
    manager.wait()
    assert numbers(manager) == [0, 1, 2, 3]


# ---- failures


@pytest.mark.parametrize("call", ["save", "should_save", "wait", "close"])
def test_a_failure_is_raised_at_the_next_call_and_once(tmp_path: Path, call: str) -> None:
    errors: list[Any] = []
    manager = CheckpointManager(
        tmp_path,
        background=Background(max_in_flight=2),
        on_error=lambda step, error: errors.append((step, error.code)),
    )
    with gate() as disk:
        disk.failing = {1}
        manager.save(1, {}, block=False)
        manager.save(2, {}, block=False)
        disk.open()
        while manager._worker.steps:
            time.sleep(0.001)
    calls = {
        "save": lambda: manager.save(3, {}, block=False),
        "should_save": lambda: manager.should_save(3),
        "wait": manager.wait,
        "close": manager.close,
    }
    with pytest.raises(ckptfmt.StorageError) as caught:
        calls[call]()
    assert caught.value.code == "disk-full"
    assert caught.value.__notes__ == ["raised while step 1 was saved in the background"]
    assert errors == [(1, "disk-full")]
    assert numbers(manager) == [2], "saves after it are not held up"
    assert leftovers(tmp_path) == []
    manager.wait()
    assert manager.save(3, {})


def test_of_several_failures_none_is_lost(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, durable=False, background=Background(max_in_flight=3))
    with gate() as disk:
        disk.failing = {1, 2, 3}
        for step in (1, 2, 3):
            manager.save(step, {}, block=False)
        disk.open()
        with pytest.raises(ckptfmt.StorageError) as caught:
            manager.wait()
    notes = caught.value.__notes__
    assert [note.partition(":")[0] for note in notes[1:]] == [f"the save of step {step} failed, too" for step in (2, 3)]
    assert manager.save(1, {}), "a step that failed can be tried again"


def test_a_failure_does_not_hide_the_error_of_the_loop(tmp_path: Path) -> None:
    def train() -> None:
        with gate() as disk, CheckpointManager(tmp_path, durable=False) as manager:
            disk.failing = {1}
            manager.save(1, {}, block=False)
            disk.open()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as caught:
        train()
    assert caught.value.__notes__[0].startswith("a save in the background failed, too: ")


def test_callbacks_that_fail(tmp_path: Path) -> None:
    manager = CheckpointManager(tmp_path, durable=False, on_commit=lambda step, report: 1 // 0)
    manager.save(1, {}, block=False)
    with pytest.raises(ZeroDivisionError):
        manager.wait()
    with pytest.raises(ZeroDivisionError):
        manager.save(2, {})
    assert numbers(manager) == [1, 2]


def test_aborting_drops_what_has_not_begun(tmp_path: Path) -> None:
    with gate() as disk:
        background = Background(max_in_flight=3, at_exit="abort")
        with CheckpointManager(tmp_path, durable=False, background=background) as manager:
            for step in (1, 2, 3):
                manager.save(step, {}, block=False)
            while disk._saves == 0:
                time.sleep(0.001)
        assert manager._worker.steps == [1]
        disk.open()
        manager.wait()
    assert numbers(manager) == [1]
    assert manager.save(2, {})


# ---- processes that end


def script(path: Path, options: str, after: str) -> subprocess.CompletedProcess[str]:
    code = f"""
import sys, time
import numpy as np
from ckptfmt.manager import Background, CheckpointManager
options = dict(background=Background(max_in_flight=3)) | dict({options})
manager = CheckpointManager({str(path)!r}, durable=False, **options)
for step in (1, 2, 3, 4):
    manager.save(step, {{"w": np.full(3_000_000, step)}}, block=False)
{after}
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


@pytest.mark.parametrize("after", ["", "sys.exit(3)", "raise RuntimeError", "del manager"])
def test_the_end_of_a_process_waits(tmp_path: Path, after: str) -> None:
    done = script(tmp_path, 'background=Background(max_in_flight=3, at_exit="wait")', after)
    assert done.returncode == {"": 0, "del manager": 0, "sys.exit(3)": 3}.get(after, 1)
    errors = re.findall(r"^\w*Error", done.stderr, re.MULTILINE)  # from Python 3.13 on the line of the program, too
    assert errors == (["RuntimeError"] if after == "raise RuntimeError" else [])
    assert numbers(CheckpointManager(tmp_path, durable=False)) == [1, 2, 3, 4]
    assert leftovers(tmp_path) == []


def test_the_end_of_a_process_aborts(tmp_path: Path) -> None:
    done = script(tmp_path, 'background=Background(max_in_flight=3, at_exit="abort")', "")
    assert done.returncode == 0
    manager = CheckpointManager(tmp_path, durable=False)
    assert numbers(manager) in ([], [1], [1, 2], [1, 2, 3])
    assert all(ckptfmt.verify(step.path).ok for step in manager.steps())
    manager.gc()
    assert leftovers(tmp_path) == []


def test_a_failure_at_the_end_of_a_process_is_shown(tmp_path: Path) -> None:
    done = script(tmp_path, "on_commit=lambda step, report: 1 // (4 - step)", "")
    assert "ZeroDivisionError" in done.stderr
    assert "raised while step 4 was saved in the background" in done.stderr
    assert numbers(CheckpointManager(tmp_path, durable=False)) == [1, 2, 3, 4]


def save_for_ever(path: Path, started: Any) -> None:
    weights = np.zeros(2_000_000, np.int32)
    with CheckpointManager(path, durable=False, keep=2) as manager:
        latest = manager.latest()
        step = 0 if latest is None else latest.step + 1
        while True:
            weights[:] = step
            manager.save(step, {"w": weights, "step": step}, block=False)
            weights[:] = -1
            started.release()
            step += 1


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """The checkpoint before is there, whole; what is half written is nowhere to be seen."""
    moments = random.Random(5)
    last = -1
    for _ in range(8):
        started = semaphore()
        process = child(save_for_ever, tmp_path, started)
        for _ in range(3):
            assert started.acquire(timeout=60)
        time.sleep(moments.uniform(0, 0.1))
        process.kill()
        process.join()
        manager = CheckpointManager(tmp_path, durable=False)
        steps = manager.steps()
        assert 1 <= len(steps) <= 3
        for step in steps:
            tree = manager.restore(step.step)
            assert tree["step"] == step.step
            assert (tree["w"] == step.step).all()
        assert steps[-1].step > last
        last = steps[-1].step
    manager.gc()
    assert leftovers(tmp_path) == []


def test_arrays_of_jax_are_not_copied_and_survive_donation() -> None:
    """A function under jit may take over the memory of its arguments; not of those that are being saved."""
    jax = pytest.importorskip("jax")
    pytest.importorskip("ckptfmt_jax")
    state = {"w": jax.numpy.arange(1000.0), "b": jax.numpy.ones(3, "bfloat16")}
    wanted = {name: np.array(value) for name, value in state.items()}
    taken = snapshot.SnapshotBuffers().take(state).tree
    assert taken["w"].__array_interface__["data"][0] == state["w"].unsafe_buffer_pointer()
    advance = jax.jit(lambda state: jax.tree.map(lambda x: x * 2 + 1, state), donate_argnums=0)
    for _ in range(5):
        state = jax.block_until_ready(advance(state))
    assert equal_trees(taken, wanted)


def test_a_snapshot_of_the_same_tensors_is_as_good_as_the_first() -> None:
    """Torch makes new tensors of the same memory for each `state_dict()`; they are known by that, and by nothing that
    may have changed."""
    torch = pytest.importorskip("torch")
    adapter = pytest.importorskip("ckptfmt_torch")
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(model.parameters())
    free = {"bf": torch.ones(4, 4, dtype=torch.bfloat16), "c": torch.zeros(2, dtype=torch.complex64)}
    tree = {"model": model, "state": model.state_dict(), "optimizer": optimizer, "free": free, "n": [torch.zeros(())]}
    buffers, walked = snapshot.SnapshotBuffers(), 0
    encode = snapshot.encode

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal walked
        walked += options.get("allow_tensors", True)  # else it is a plain value of the tree
        return encode(*arguments, **options)

    def train() -> None:
        optimizer.zero_grad()
        model(torch.rand(8, 4)).square().sum().backward()
        optimizer.step()
        free["bf"].add_(1)

    def change(act: Any, walks: int) -> None:
        act()
        before = walked
        taken = buffers.take(tree)
        assert walked - before == walks, act
        wanted = snapshot.SnapshotBuffers().take(tree)
        assert equal_trees(taken.tree, wanted.tree)
        assert taken.copied_views == wanted.copied_views
        assert taken.tree["model"].child["0.weight"] is taken.tree["state"].child["0.weight"]
        train()
        assert equal_trees(taken.tree, wanted.tree)  # apart from what goes on

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot, "encode", counted)
        change(lambda: None, 1)
        change(lambda: None, 1)  # by now the optimizer has a state; complex numbers are looked at anew each time
        free.pop("c")
        change(lambda: None, 1)
        change(lambda: None, 0)
        change(lambda: tree.update(state=model.state_dict(), step=1), 1)
        change(lambda: tree.update(state=model.state_dict(), step=2), 0)
        change(lambda: free["bf"].t_(), 1)
        change(lambda: free.update(bf=torch.ones(16)), 1)
        change(lambda: None, 0)
        change(lambda: free.update(bf=free["bf"].view(4, 4)), 1)
        change(lambda: free.update(two=free["bf"][1:]), 1)
        change(lambda: None, 1)  # views that overlap are found anew each time
        free["two"].data = free["bf"].data
        change(lambda: None, 1)
        change(lambda: None, 0)
    assert adapter.ADAPTER.seen([torch.zeros(2), torch.zeros(2, device="meta")]) is None
    assert adapter.ADAPTER.seen([torch.zeros(2).to_sparse()]) is None
    assert adapter.ADAPTER.seen([torch.zeros(0)]) is None
    assert adapter.ADAPTER.seen([torch.ones(1, dtype=torch.complex64).conj().imag]) is None
    assert adapter.ADAPTER.seen([torch.zeros(2), np.zeros(2)]) is None
