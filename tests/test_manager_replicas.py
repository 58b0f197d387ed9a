"""Replicas in memory: written first, restored from first, and never wrong: of another run, stale, damaged, full, of
others, or beside a run that goes on."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ranks
from click.testing import CliRunner
from damage import LAYOUTS, exit_code, flipped, leftovers, use_disk, zones
from runs import numbers, tree

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.maintenance import garbage
from ckptfmt.manager import (
    CheckpointManager,
    FallbackWarning,
    FlaxCheckpointManager,
    Memory,
    ReplicaWarning,
    open_run,
)
from ckptfmt.manager import replica_folder as folders
from ckptfmt.storage import leases
from ckptfmt.testing import equal_trees, using_disk
from ckptfmt.testing.crash_states import crash_states
from ckptfmt.testing.recording import RecordingDisk
from stress import replicas as kills

KILLED = 9


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where replicas go that are given no directory."""
    place = tmp_path / "shm"
    place.mkdir()
    monkeypatch.setattr(folders, "ROOT", str(place))
    return place / f"ckptfmt-{os.geteuid()}"


def manager(path: Path, directory: Any = "memory", *, keep_there: int = 1, **options: Any) -> CheckpointManager:
    there = Memory(None if directory is None else path / directory, keep=keep_there, at_close="keep")
    return CheckpointManager(path / "run", replicas=there, durable=False, **options)


def replica(path: Path, step: int) -> Path:
    return path / "memory" / f"step-{step:010d}.ckpt"


def on_disk(path: Path, step: int) -> Path:
    return path / "run" / f"step-{step:010d}.ckpt"


def restored(path: Path, **options: Any) -> tuple[int, bool]:
    """Which step a new manager restores, whole, and whether from memory."""
    again = manager(path)
    found = again.restore(**options)
    assert equal_trees(found, tree(found["step"]))
    return found["step"], str(again.restored_from).startswith(str(path / "memory"))


class EndedError(Exception):
    """Instead of the end of the process."""


def end(_: Any) -> None:
    raise EndedError


def only_in_memory(path: Path, step: int, **options: Any) -> None:
    """Have a step in memory alone: its replica is written, and the step itself is not committed."""
    with pytest.raises(EndedError):
        manager(path, check=end, **options).save(step, tree(step))
    assert not on_disk(path, step).exists()


def die_before_commit(path: Path) -> None:
    """In a child, which ends with neither."""
    manager(path, check=lambda _: os._exit(KILLED)).save(1, tree(1))


# ---- written, and read


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("how", ["block", "thread", "process"])
def test_the_newest_steps_are_there_twice(tmp_path: Path, layout: str, how: str) -> None:
    """The same bytes; the newest `keep` of them, however they were saved."""
    background = "process" if how == "process" else None
    with manager(tmp_path, keep_there=2, layout=layout, background=background) as run:
        for step in range(4):
            run.save(step, tree(step), metrics={"loss": step}, block=how == "block")
        run.wait()
        names = [f"step-{step:010d}.ckpt" for step in (2, 3)]
        assert sorted(entry.name for entry in (tmp_path / "memory").iterdir()) == [folders.MARK, *names]
        for step in (2, 3):
            report = ckptfmt.diff(replica(tmp_path, step), on_disk(tmp_path, step))
            assert report.equal
            here = sorted(file.relative_to(tmp_path / "memory") for file in replica(tmp_path, step).rglob("*"))
            assert here == sorted(file.relative_to(tmp_path / "run") for file in on_disk(tmp_path, step).rglob("*"))
    assert numbers(run) == [0, 1, 2, 3]
    assert restored(tmp_path) == (3, True)
    assert restored(tmp_path, which=2) == (2, True)
    assert restored(tmp_path, which=1) == (1, False)
    assert restored(tmp_path, fallback=True) == (3, True)


def test_where_they_are_by_default(tmp_path: Path, root: Path) -> None:
    """Below the memory of this machine, for this user alone; and gone at the end, as all is in the run."""
    with CheckpointManager(tmp_path / "run", replicas=Memory(), durable=False) as run:
        assert not root.exists(), "before the first save"
        run.save(1, tree(1))
        (folder,) = root.iterdir()
        assert [place.stat().st_mode & 0o777 for place in (root, folder)] == [0o700, 0o700]
        assert len(list(folder.iterdir())) == 2
        assert open_run(tmp_path / "run", replicas=Memory()).restore()["step"] == 1
    assert list(root.iterdir()) == []
    assert run.restore()["step"] == 1
    assert run.restored_from == str(on_disk(tmp_path, 1))


def test_in_the_real_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    if not os.path.isdir(folders.ROOT):
        pytest.skip("no /dev/shm")
    with CheckpointManager(tmp_path / "run", replicas=Memory(), durable=False) as run:
        run.save(1, tree(1), block=False)
        run.wait()
        assert run.restore()["step"] == 1
        assert str(run.restored_from).startswith("/dev/shm/ckptfmt-")
    assert not Path(str(run.restored_from)).parent.exists()


def test_what_a_save_says_counts_for_the_step_alone(tmp_path: Path) -> None:
    """Progress, check and `on_commit` are of the step, and not of its replica."""
    done, said, checked = [], [], []
    options = {"progress": lambda now, total: done.append((now, total)), "check": checked.append}
    with manager(tmp_path, on_commit=lambda step, report: said.append((step, report.path)), **options) as run:
        run.save(1, tree(1))
    assert said == [(1, str(on_disk(tmp_path, 1)))]
    assert len(checked) == 1
    assert [now for now, _ in done] == sorted({now for now, _ in done})


def test_several_places(tmp_path: Path) -> None:
    """The first that is whole is taken."""
    places = [Memory(tmp_path / "memory", at_close="keep"), Memory(tmp_path / "second", at_close="keep")]
    with CheckpointManager(tmp_path / "run", replicas=places, durable=False) as run:
        run.save(1, tree(1))
    assert run.restore()["step"] == 1
    assert run.restored_from == str(replica(tmp_path, 1))
    damage_values(replica(tmp_path, 1), 1)
    again = CheckpointManager(tmp_path / "run", replicas=places)
    with pytest.warns(ReplicaWarning, match="the next place is taken"):
        assert equal_trees(again.restore(), tree(1))
    assert again.restored_from == str(tmp_path / "second" / on_disk(tmp_path, 1).name)


def test_names_of_flax(tmp_path: Path) -> None:
    with FlaxCheckpointManager(tmp_path / "run", replicas=Memory(tmp_path / "memory", at_close="keep")) as run:
        run.save(0.5, tree(1))
        run.save(2.5, tree(2))
    assert equal_trees(run.restore(), tree(2))
    assert run.restored_from == str(tmp_path / "memory" / "checkpoint_2.5")


def test_a_slice_a_selection_and_a_target(tmp_path: Path) -> None:
    """The options of loading hold for replicas, too; what does not fit is refused, and not looked for elsewhere."""
    with manager(tmp_path) as run:
        run.save(1, tree(1))
    into = {"step": 0, "w": np.zeros(50, np.float32)}
    assert run.restore(into=into)["step"] == 1
    assert into["w"][3] == 1
    assert str(run.restored_from) == str(replica(tmp_path, 1))
    assert list(run.restore(select="w")) == ["w"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ckptfmt.MismatchError):
            run.restore(into={"other": np.zeros(3)})


# ---- a process that dies


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_step_that_only_memory_has(tmp_path: Path, steps: int) -> None:
    """It is the newest, and the run goes on from it; with its next step all is in the run."""
    with manager(tmp_path) as run:
        for step in range(steps):
            run.save(step, tree(step))
    only_in_memory(tmp_path, steps)
    again = manager(tmp_path)
    assert numbers(again) == [*range(steps + 1)]
    latest = again.latest()
    assert latest is not None
    assert (latest.step, latest.path) == (steps, str(replica(tmp_path, steps)))
    assert restored(tmp_path) == restored(tmp_path, fallback=True) == restored(tmp_path, which=steps) == (steps, True)
    with again.open() as checkpoint:
        assert checkpoint["w"][0] == steps
    again.save(steps + 1, tree(steps + 1))
    assert numbers(again) == [*range(steps), steps + 1]
    assert leftovers(tmp_path / "run") == leftovers(tmp_path / "memory") == []


def test_a_process_that_ends_in_between(tmp_path: Path) -> None:
    assert exit_code(die_before_commit, tmp_path) == KILLED
    assert restored(tmp_path) == (1, True)
    manager(tmp_path).save(2, tree(2))
    assert leftovers(tmp_path / "run") == []
    assert restored(tmp_path) == (2, True)


def test_a_run_that_goes_on_from_an_older_step(tmp_path: Path) -> None:
    """Steps that only memory has stand in no save's way, and are gone once the run went on without them."""
    with manager(tmp_path) as run:
        run.save(1, tree(1))
    only_in_memory(tmp_path, 5)
    again = manager(tmp_path, keep_there=3)
    assert again.restore(1)["step"] == 1
    again.save(2, tree(2))
    assert numbers(again) == [1, 2]
    assert not replica(tmp_path, 5).exists()


def test_what_memory_alone_has_stays(tmp_path: Path) -> None:
    """Whatever `at_close` says."""
    with manager(tmp_path) as run:
        run.save(1, tree(1))
    only_in_memory(tmp_path, 2)
    CheckpointManager(tmp_path / "run", replicas=Memory(tmp_path / "memory")).close()
    assert restored(tmp_path) == (2, True)


@pytest.mark.parametrize("ends", ["close", "error", "preemption"])
def test_what_stays_at_the_end(tmp_path: Path, ends: str) -> None:
    def work() -> None:
        with CheckpointManager(tmp_path / "run", replicas=Memory(tmp_path / "memory"), durable=False) as run:
            if ends == "preemption":
                run.on_preemption().received = True
            run.save(1, tree(1))
            if ends == "error":
                raise KeyError("of the program")

    if ends == "error":
        with pytest.raises(KeyError):
            work()
    else:
        work()
    assert (tmp_path / "memory").exists() == (ends != "close")


def test_kills_and_flips(tmp_path: Path) -> None:
    assert kills.run(tmp_path, seed=1, count=4).bad == []


# ---- damage


def damage_values(path: Path, step: int) -> None:
    """Flip a bit of the tensor."""
    values = np.full(50, step, np.float32).tobytes()
    for file in [path] if path.is_file() else path.rglob("*"):
        data = bytearray(file.read_bytes()) if file.is_file() else bytearray()
        if values in data:
            data[data.index(values)] ^= 1
            file.write_bytes(data)
            return
    raise AssertionError("no such values")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_kind_of_byte_flipped(tmp_path: Path, layout: str) -> None:
    """What is restored is what was saved, from the replica or from the next place, and damage is told."""
    with manager(tmp_path, layout=layout) as run:
        run.save(1, tree(1))
    for zone in zones(replica(tmp_path, 1)):
        for offset in {zone.start, (zone.start + zone.stop) // 2, zone.stop - 1} if zone.stop > zone.start else ():
            with flipped(zone.file, offset, 3), warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                assert restored(tmp_path)[0] == 1
                if zone.where == "block":
                    assert any(issubclass(one.category, ReplicaWarning) for one in caught)
    assert restored(tmp_path) == (1, True)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_damaged_replica_that_stands_alone(tmp_path: Path, layout: str) -> None:
    """The run goes on from the step before, or from this one, whole."""
    with manager(tmp_path, layout=layout) as run:
        run.save(1, tree(1))
    only_in_memory(tmp_path, 2, layout=layout)
    assert restored(tmp_path) == (2, True)
    for zone in zones(replica(tmp_path, 2)):
        if zone.stop > zone.start:
            with flipped(zone.file, (zone.start + zone.stop) // 2, 3), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert restored(tmp_path)[0] in ((1,) if zone.where == "block" else (1, 2))
    damage_values(replica(tmp_path, 2), 2)
    with pytest.warns(ReplicaWarning, match=r"it is passed over.*\[block-digest\]"):
        assert restored(tmp_path) == (1, False)


def test_flips_in_the_mark(tmp_path: Path) -> None:
    """It is believed in nothing that could be wrong: what it says is compared with the run."""
    with manager(tmp_path) as run:
        run.save(1, tree(1))
    only_in_memory(tmp_path, 2)
    mark = tmp_path / "memory" / folders.MARK
    for offset in range(len(mark.read_bytes())):
        with flipped(mark, offset, 0):
            try:
                assert restored(tmp_path)[0] in (1, 2)
            except ckptfmt.InputError as error:
                assert error.code == "bad-option"
                assert "no replicas of this run" in str(error)
    assert restored(tmp_path) == (2, True)


@pytest.mark.parametrize(
    "options", [{"mmap": True}, {"verify": False}, {"load": lambda path: ckptfmt.load(path, verify=False)}]
)
def test_what_is_not_checked_as_it_is_read_is_checked_before(tmp_path: Path, options: dict[str, Any]) -> None:
    with manager(tmp_path) as run:
        run.save(1, tree(1))
    assert restored(tmp_path, **options) == (1, True)
    damage_values(replica(tmp_path, 1), 1)
    with pytest.warns(ReplicaWarning, match="is damaged, and the next place is taken"):
        assert restored(tmp_path, **options) == (1, False)


def test_a_whole_replica_of_a_damaged_step(tmp_path: Path) -> None:
    """The run loses nothing; where both are damaged, the step before is taken."""
    with manager(tmp_path) as run:
        run.save(1, tree(1))
        run.save(2, tree(2))
    damage_values(on_disk(tmp_path, 2), 2)
    assert restored(tmp_path) == restored(tmp_path, fallback=True) == (2, True)
    on_disk(tmp_path, 2).write_bytes(b"torn")
    with pytest.warns(FallbackWarning, match="passed over"):
        assert restored(tmp_path) == (2, True)


def test_both_damaged(tmp_path: Path) -> None:
    with manager(tmp_path) as run:
        run.save(1, tree(1))
        run.save(2, tree(2))
    damage_values(on_disk(tmp_path, 2), 2)
    damage_values(replica(tmp_path, 2), 2)
    with pytest.warns(ReplicaWarning), pytest.raises(ckptfmt.CorruptError):
        restored(tmp_path)
    with pytest.warns((ReplicaWarning, FallbackWarning)):
        assert restored(tmp_path, fallback=True) == (1, False)


# ---- of another run, or of another time


def test_a_place_of_another_run(tmp_path: Path) -> None:
    """It is refused at once, whichever run it is; nothing in it is touched."""
    with manager(tmp_path) as run:
        run.save(1, tree(1))
    before = replica(tmp_path, 1).read_bytes()
    with pytest.raises(ckptfmt.InputError, match="no replicas of this run") as caught:
        CheckpointManager(tmp_path / "other", replicas=Memory(tmp_path / "memory"))
    assert caught.value.code == "bad-option"
    assert str(tmp_path / "run") in str(caught.value)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    with pytest.raises(ckptfmt.InputError, match="no replicas of this run"):
        CheckpointManager(tmp_path / "copy", replicas=Memory(tmp_path / "memory"))
    with pytest.raises(ckptfmt.InputError, match="checkpoints without a mark"):
        CheckpointManager(tmp_path / "other", replicas=Memory(tmp_path / "run"))
    with pytest.raises(ckptfmt.InputError, match="the directory of the run itself"):
        CheckpointManager(tmp_path / "run", replicas=Memory(tmp_path / "run"))
    with pytest.raises(ckptfmt.InputError, match="names a place twice"):
        CheckpointManager(tmp_path / "run", replicas=[Memory(tmp_path / "memory")] * 2)
    assert replica(tmp_path, 1).read_bytes() == before


def test_a_step_of_another_run_put_there(tmp_path: Path) -> None:
    """A checkpoint that somebody has copied into the place counts for nothing: neither as the same step nor as a newer
    one."""
    with manager(tmp_path) as run:
        run.save(1, tree(1))
    ckptfmt.save(tmp_path / "memory" / "step-0000000009.ckpt", tree(9))
    ckptfmt.save(replica(tmp_path, 1), {"step": 1, "w": np.zeros(50)}, overwrite=True)
    assert numbers(manager(tmp_path)) == [1]
    assert restored(tmp_path) == (1, False)


def test_a_run_begun_anew_at_the_same_path(tmp_path: Path) -> None:
    with manager(tmp_path) as run:
        run.save(5, tree(5))
    shutil.rmtree(tmp_path / "run")
    again = manager(tmp_path)
    assert again.latest() is None
    again.save(1, tree(1))
    assert numbers(again) == [1]
    assert not replica(tmp_path, 5).exists()
    assert restored(tmp_path) == (1, True)


def test_a_stale_replica(tmp_path: Path) -> None:
    """The run went on elsewhere, or went back, and does not take up again what it left."""
    with manager(tmp_path) as run:
        run.save(1, tree(1))
    only_in_memory(tmp_path, 5)
    elsewhere = CheckpointManager(tmp_path / "run", durable=False)
    elsewhere.save(2, tree(2))
    assert restored(tmp_path) == (2, False)
    elsewhere.save(1, {**tree(1), "w": np.zeros(50, np.float32)}, overwrite="later")
    assert numbers(manager(tmp_path)) == [1]
    shutil.rmtree(on_disk(tmp_path, 1), ignore_errors=True)
    on_disk(tmp_path, 1).unlink(missing_ok=True)
    assert numbers(manager(tmp_path)) == []


def test_a_step_replaced_elsewhere(tmp_path: Path) -> None:
    """Its number is the same, and it is another."""
    with manager(tmp_path) as run:
        run.save(1, tree(1))
    other = {"step": 1, "w": np.zeros(50, np.float32)}
    CheckpointManager(tmp_path / "run", durable=False).save(1, other, overwrite=True)
    again = manager(tmp_path)
    assert equal_trees(again.restore(), other)
    assert again.restored_from == str(on_disk(tmp_path, 1))


def test_going_back(tmp_path: Path) -> None:
    with manager(tmp_path, keep_there=5) as run:
        for step in range(5):
            run.save(step, tree(step))
        run.save(2, {**tree(2), "again": True}, overwrite="later")
        assert numbers(run) == [0, 1, 2]
        assert run.restore()["again"]
        assert run.restored_from == str(replica(tmp_path, 2))
        run.save(1, {**tree(1), "again": True}, overwrite=True)  # not the newest: it has no replica
        assert run.restore(1)["again"]
        assert run.restored_from == str(on_disk(tmp_path, 1))


# ---- no room, and others


def test_a_full_memory(tmp_path: Path) -> None:
    """The step is saved all the same, and it is told once; then what the run has makes room."""
    full = {"at": 0}

    def refuse(call: str, arguments: Any) -> None:
        if call == "allocate" and "/memory/" in os.readlink(f"/proc/self/fd/{arguments[0]}") and full["at"]:
            there = [name for name in os.listdir(tmp_path / "memory") if name.startswith("step")]
            if full["at"] > 1 or there:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    run = manager(tmp_path)
    run.save(1, tree(1))
    patch = use_disk(refuse)
    try:
        full["at"] = 1  # as long as another replica is there
        run.save(2, tree(2))
        assert restored(tmp_path) == (2, True)
        full["at"] = 2
        run.save(3, tree(3))
        with pytest.warns(ReplicaWarning, match=r"step 3 has no replica in .*memory.*\[disk-full\]"):
            run.save(4, tree(4))
    finally:
        patch.undo()
    assert restored(tmp_path) == (4, False)
    run.save(5, tree(5))
    run.close()
    assert restored(tmp_path) == (5, True)
    assert leftovers(tmp_path / "memory") == []


def test_every_call_that_fails_in_memory(tmp_path: Path) -> None:
    """The step is committed all the same, told if it has no replica, and nothing half is left to be restored."""
    run = manager(tmp_path)
    run.save(0, tree(0))
    step = failed_at = 0
    is_over = False
    while not is_over:
        step, calls = step + 1, 0

        def fail(call: str, arguments: Any) -> None:
            nonlocal calls
            where = [str(one) if isinstance(one, str) else "" for one in arguments]
            if arguments and type(arguments[0]) is int:
                where.append(os.readlink(f"/proc/self/fd/{arguments[0]}"))
            if any("/memory" in place for place in where) and call != "close":
                calls += 1
                if calls == failed_at:
                    raise OSError(errno.EIO, os.strerror(errno.EIO))

        failed_at += 1
        patch = use_disk(fail)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run.save(step, tree(step))
            patch.undo()
            is_over = calls < failed_at
            run.wait()
            assert restored(tmp_path)[0] == step
        told = [str(one.message) for one in caught]
        assert len(told) <= 1
        assert all(f"step {step} has no replica" in text or "is damaged" in text for text in told)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run.save(step := step + 1, tree(step))  # which also ends what could not be deleted
            assert restored(tmp_path) == (step, True)
            assert leftovers(tmp_path / "memory") == []
    assert failed_at > 10


@pytest.mark.parametrize("layout", LAYOUTS)
def test_power_losses(tmp_path: Path, layout: str) -> None:
    """Where memory is a disk: replicas are not flushed, so any part of them may be lost. Nothing wrong is restored, and
    nothing that was committed is lost."""
    work = tmp_path / "work"
    work.mkdir()
    with using_disk(RecordingDisk(work)):
        manager(work, layout=layout).save(1, tree(1))
    disk = RecordingDisk(work)
    with using_disk(disk):
        run = CheckpointManager(work / "run", layout=layout, replicas=Memory(work / "memory", at_close="keep"))
        run.save(2, tree(2))
        run.close()
    states = list(crash_states(disk.record, most=4))
    random.Random(1).shuffle(states)
    for state in states[:40]:
        shutil.rmtree(work)
        state.write(work)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            step, _ = restored(work)
        assert step in (1, 2)
        assert step == 2 or state.calls < len(disk.record.calls)


@pytest.mark.parametrize("what", ["link", "file", "others may write", "another owner"])
def test_a_place_of_others(tmp_path: Path, root: Path, what: str) -> None:
    """What others could put there is not read."""
    memory = tmp_path / "memory"
    if what == "link":
        (tmp_path / "theirs").mkdir()
        memory.symlink_to(tmp_path / "theirs")
    elif what == "file":
        memory.write_bytes(b"")
    else:
        memory.mkdir()
        memory.chmod(0o777 if what == "others may write" else 0o755)
        if what == "another owner":
            if os.geteuid():
                pytest.skip("only root gives directories away")
            os.chown(memory, 12345, -1)
    with pytest.raises(ckptfmt.InputError) as caught:
        manager(tmp_path)
    assert caught.value.code == "bad-option"
    assert caught.value.path == str(memory)


def test_a_root_of_others(tmp_path: Path, root: Path) -> None:
    """Somebody was there before: `/dev/shm` is open to all."""
    with CheckpointManager(tmp_path / "run", replicas=Memory(at_close="keep"), durable=False) as run:
        run.save(1, tree(1))
    root.chmod(0o777)
    with pytest.raises(ckptfmt.InputError, match="others can put replicas"):
        CheckpointManager(tmp_path / "run", replicas=Memory())


def test_a_place_that_became_one_of_others(tmp_path: Path) -> None:
    """While a manager lives: it goes on without."""
    run = manager(tmp_path)
    run.save(1, tree(1))
    (tmp_path / "memory").chmod(0o777)
    with pytest.warns(ReplicaWarning, match="cannot be looked at"):
        assert run.restore()["step"] == 1
    assert run.restored_from == str(on_disk(tmp_path, 1))
    run.save(2, tree(2))
    with pytest.warns(ReplicaWarning, match="step 2 has no replica"):
        run.wait()


def test_no_memory_on_this_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "ROOT", str(tmp_path / "nowhere"))
    with pytest.raises(ckptfmt.InputError, match="no place in memory for replicas"):
        CheckpointManager(tmp_path / "run", replicas=Memory())


@pytest.mark.parametrize("asked", ["memory", 3, [None], ["memory"], [Memory(), "memory"]])
def test_other_values(tmp_path: Path, asked: Any) -> None:
    with pytest.raises(ckptfmt.InputError, match="replicas="):
        CheckpointManager(tmp_path / "run", replicas=asked)


def test_nans_are_refused_or_told_once(tmp_path: Path) -> None:
    """There is no replica of what is not to be there."""
    bad = {"step": 2, "w": np.full(50, np.nan, np.float32)}
    with manager(tmp_path, on_nan="refuse", statistics=True) as run:
        run.save(1, tree(1))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(ckptfmt.CkptError) as caught:
                run.save(2, bad)
        assert caught.value.code == "has-nan"
    assert restored(tmp_path) == (1, True)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with manager(tmp_path, on_nan="warn") as run:
            run.save(3, bad)
    assert [one.category for one in told] == [ckptfmt.NanWarning]


def test_not_of_steps_that_share(tmp_path: Path) -> None:
    with pytest.raises(ckptfmt.InputError, match="steps that share have no replicas"):
        manager(tmp_path, share=True)
    assert manager(tmp_path, share=False).latest() is None


@pytest.mark.parametrize("options", [{"keep": 0}, {"keep": True}, {"keep": 1.0}, {"at_close": "leave"}])
def test_other_options(options: dict[str, Any]) -> None:
    with pytest.raises(ckptfmt.InputError) as caught:
        Memory(**options)
    assert caught.value.code == "bad-option"


# ---- beside others


def test_readers_beside_a_run(tmp_path: Path) -> None:
    """Whatever is written, replaced and deleted meanwhile, each restore gives a whole step."""
    bad: list[Any] = []
    run = manager(tmp_path, keep=2)
    run.save(0, tree(0))
    is_over = threading.Event()

    def read() -> None:
        reader = open_run(tmp_path / "run", replicas=Memory(tmp_path / "memory"))
        while not is_over.is_set():
            try:
                found = reader.restore()
                if not equal_trees(found, tree(found["step"])):
                    bad.append(found)
            except Exception as error:
                bad.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for step in range(1, 40):
        run.save(step, tree(step), block=False)
    run.wait()
    is_over.set()
    for thread in threads:
        thread.join()
    assert bad == []


def test_what_dead_runs_left_goes(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next manager removes replicas of runs that are no more, a day later; not those of living and resting ones."""
    runs = {}
    for name in ("dead", "resting", "living"):
        runs[name] = CheckpointManager(tmp_path / name, replicas=Memory(at_close="keep"), durable=False)
        runs[name].save(1, tree(1))
    places = {name: Path(str(run._replicas._folders[0].path)) for name, run in runs.items()}
    for name in ("dead", "resting"):
        runs[name].close()
    for name in ("dead", "living"):
        shutil.rmtree(tmp_path / name)
    manager(tmp_path, None).save(1, tree(1))
    assert all(place.exists() for place in places.values()), "on the same day"
    now = time.time()
    monkeypatch.setattr(garbage.time, "time", lambda: now + 2 * 86400)
    manager(tmp_path, None).save(2, tree(2))
    assert {name for name, place in places.items() if place.exists()} == {"resting", "living"}
    report = ckptfmt.gc(root, delete=True)
    assert str(places["resting"]) in [found.path for found in report.found]
    assert {Path(kept.path): kept.why for kept in report.kept}[places["living"]] == "in use"
    assert places["living"].exists()
    runs["living"].close()
    result = CliRunner().invoke(cli, ["gc", str(root)])
    assert f"{places['living'].name}: replicas of a run" in result.output.replace("\n", "")


def test_a_folder_that_is_named_alike(tmp_path: Path) -> None:
    """`gc` takes no folder for replicas by its name alone."""
    folder = tmp_path / "replicas-0123456789abcdef"
    with CheckpointManager(folder, durable=False) as run:
        run.save(1, tree(1))
    assert ckptfmt.gc(tmp_path, delete=True, grace=0).found == ()


def test_it_is_held_while_a_manager_lives(tmp_path: Path) -> None:
    run = manager(tmp_path)
    run.save(1, tree(1))
    assert leases.is_leased(str(tmp_path / "memory"))
    run.close()
    assert not leases.is_leased(str(tmp_path / "memory"))


# ---- many processes of one machine


def save_together(path: Path, coordinator: Any) -> Any:
    with manager(path, coordinator=coordinator) as run:
        for step in (1, 2):
            run.save(step, shared(step, coordinator), block=step == 1)
        run.wait()
        found = run.restore()
        return equal_trees(found, tree(2)), run.restored_from


def shared(step: int, coordinator: Any) -> Any:
    whole = tree(step)
    return {**whole, "w": ranks.shard(whole["w"], coordinator.rank, coordinator.size)}


def restore_together(path: Path, coordinator: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with manager(path, coordinator=coordinator) as run:
            found = run.restore()
            return found["step"], equal_trees(found, tree(found["step"])), run.restored_from


def die_together(path: Path, coordinator: Any) -> None:
    """Rank 1 ends right after the replica of step 3 was written."""
    run = manager(path, coordinator=coordinator)
    real = run._replicas.write

    def write(*arguments: Any, **options: Any) -> None:
        real(*arguments, **options)
        if coordinator.rank == 1:
            os._exit(KILLED)

    run._replicas.write = write  # type: ignore[method-assign]
    run.save(3, shared(3, coordinator))


def test_ranks_of_one_machine(tmp_path: Path) -> None:
    """They share one replica; after one of them was killed, right after it was written, all go on from it."""
    where = str(replica(tmp_path, 2))
    assert ranks.run(save_together, tmp_path, 2) == [(True, where)] * 2
    ranks.run(die_together, tmp_path, 2)
    assert not on_disk(tmp_path, 3).exists()
    assert ranks.run(restore_together, tmp_path, 2) == [(3, True, str(replica(tmp_path, 3)))] * 2
    (pack,) = [path for path in replica(tmp_path, 3).rglob("*.zip") if b"@@" in path.read_bytes()][:1]
    pack.write_bytes(pack.read_bytes().replace(b"@@", b"@A"))
    assert ranks.run(restore_together, tmp_path, 2) == [(2, True, str(on_disk(tmp_path, 2)))] * 2


def alone(path: Path, coordinator: Any) -> Any:
    with manager(path, coordinator=coordinator, per_process=True) as run:
        run.save(1, tree(coordinator.rank))
    again = manager(path, coordinator=coordinator, per_process=True)
    return again.restore()["step"], again.restored_from


def test_each_process_alone(tmp_path: Path) -> None:
    found = ranks.run(alone, tmp_path, 2)
    assert found == [
        (rank, str(tmp_path / "memory" / f"process-{rank:05d}" / "step-0000000001.ckpt")) for rank in range(2)
    ]


# ---- what is noted


def test_the_note_in_the_run(tmp_path: Path) -> None:
    """One word for the life of a run; without it no replica counts, and none is refused."""
    with manager(tmp_path) as run:
        run.save(1, tree(1))
    note = tmp_path / "run" / folders.IDENTITY
    word = json.loads(note.read_text())["word"]
    with manager(tmp_path) as run:
        run.save(2, tree(2))
    assert json.loads(note.read_text())["word"] == word
    for text in ("", "{", "[]", '{"word": 7}'):
        note.write_text(text)
        assert restored(tmp_path) == (2, False)
