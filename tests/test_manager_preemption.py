"""Preemption by real signals, and what many processes agree on; in real processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import child, queue, semaphore

import ckptfmt
from ckptfmt import FileCoordinator
from ckptfmt.manager import CheckpointManager, Schedule
from ckptfmt.parallel.coordinator import all_gather


def train(path: Path, started: Any, number: int, block: bool) -> None:
    """A loop as in the documents: it ends after the save that the signal asked for."""
    weights = np.zeros(1000)
    with CheckpointManager(path, durable=False, schedule=Schedule(last=10_000)) as manager:
        manager.on_preemption(number)
        for step in range(10_001):
            weights += 1
            manager.save(step, {"w": weights}, block=block)
            if manager.preempted:
                sys.exit(7)
            started.release()
            time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("block", [True, False])
def test_a_signal_saves_once_more(tmp_path: Path, number: int, block: bool) -> None:
    started = semaphore()
    process = child(train, tmp_path, started, number, block)
    for _ in range(5):
        assert started.acquire(timeout=60)
    os.kill(process.pid, number)
    process.join(60)
    assert process.exitcode == 7
    (step,) = (manager := CheckpointManager(tmp_path, durable=False)).steps()
    assert 4 < step.step < 1000
    assert (manager.restore()["w"] == step.step + 1).all(), "the state of the step at which it was polled"


def test_the_flag_and_the_former_handler(tmp_path: Path) -> None:
    received: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: received.append(number))
    try:
        with CheckpointManager(tmp_path, durable=False, schedule=Schedule()) as manager:
            manager.on_preemption(signal.SIGUSR2)
            assert not manager.should_save(1)
            signal.raise_signal(signal.SIGUSR2)
            assert not manager.preempted, "else a loop could end before it was asked to save"
            assert manager.should_save(1)
            assert manager.preempted
            assert manager.should_save(1), "until it is saved"
            assert manager.save(1, {})
            assert not manager.should_save(2), "once"
            assert manager.preempted
            assert received == []
        signal.raise_signal(signal.SIGUSR2)
        assert received == [signal.SIGUSR2]
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_only_the_main_thread_can_watch(tmp_path: Path) -> None:
    caught: list[Any] = []

    def watch() -> None:
        try:
            CheckpointManager(tmp_path, durable=False).on_preemption()
        except ckptfmt.InputError as error:
            caught.append(error.code)

    thread = threading.Thread(target=watch)
    thread.start()
    thread.join()
    assert caught == ["bad-option"]


# ---- many processes


def group(target: Any, path: Path, *arguments: Any, size: int = 3) -> list[Any]:
    """What `target(coordinator, path, ...)` gives in each of several processes, by rank."""
    results = queue()
    mail = path.with_name("mail")
    mail.mkdir()
    processes = [child(_run, target, rank, size, mail, results, path, *arguments) for rank in range(size)]
    found = dict(results.get() for _ in range(size))
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    return [found[rank] for rank in range(size)]


def _run(target: Any, rank: int, size: int, mail: Path, results: Any, path: Path, *arguments: Any) -> None:
    try:
        result = target(FileCoordinator(mail, rank, size, timeout=60), path, *arguments)
    except ckptfmt.CkptError as error:
        result = f"{error.code}: {error.message}"
    results.put((rank, result))


def one_is_preempted(coordinator: FileCoordinator, path: Path, block: bool) -> Any:
    """A signal to rank 1 alone; all save at the same step and stop there."""
    with CheckpointManager(path, durable=False, schedule=Schedule(), coordinator=coordinator) as manager:
        manager.on_preemption()
        for step in range(100):
            if coordinator.rank == 1 and step == 5:
                signal.raise_signal(signal.SIGTERM)
            manager.save(step, {"step": step}, block=block)
            if manager.preempted:
                manager.wait()
                return step, manager.restore("latest")
    return None


@pytest.mark.parametrize("block", [True, False])
def test_all_processes_save_at_the_same_step(tmp_path: Path, block: bool) -> None:
    assert group(one_is_preempted, tmp_path / "run", block) == [(5, {"step": 5})] * 3
    assert [step.step for step in CheckpointManager(tmp_path / "run", durable=False).steps()] == [5]


def one_fails(coordinator: FileCoordinator, path: Path, block: bool) -> Any:
    manager = CheckpointManager(path, durable=False, coordinator=coordinator)
    if coordinator.rank == 0:
        path.write_text("no directory")
    all_gather(coordinator, None)
    manager.save(1, {}, block=block)
    manager.wait()


@pytest.mark.parametrize("block", [True, False])
def test_a_failure_of_one_is_raised_in_all(tmp_path: Path, block: bool) -> None:
    first, *others = group(one_fails, tmp_path / "run", block)
    assert first.startswith("exists: there is a file where the run directory should be")
    assert all(other.startswith("rank-failed: rank 0 failed: ") for other in others)


def at_other_steps(coordinator: FileCoordinator, path: Path) -> Any:
    CheckpointManager(path, durable=False, coordinator=coordinator).save(coordinator.rank, {})


def test_processes_at_different_steps(tmp_path: Path) -> None:
    assert set(group(at_other_steps, tmp_path / "run")) == {"ranks-differ: ranks 0 and 1 differ in step"}


def each_its_own(coordinator: FileCoordinator, path: Path) -> Any:
    with CheckpointManager(path, durable=False, keep=2, coordinator=coordinator, per_process=True) as manager:
        for step in range(3):
            manager.save(step, {"rank": coordinator.rank, "step": step}, block=step % 2 == 0)
        manager.wait()
        if coordinator.rank == 1:
            os.unlink(manager.latest().path)  # as if it had died before its last save
        all_gather(coordinator, None)
        return manager.restore("latest")


def test_a_directory_for_each_process(tmp_path: Path) -> None:
    """The latest step is the latest that all have."""
    assert group(each_its_own, tmp_path / "run") == [{"rank": rank, "step": 1} for rank in range(3)]
    assert sorted(os.listdir(tmp_path / "run")) == ["process-00000", "process-00001", "process-00002"]
