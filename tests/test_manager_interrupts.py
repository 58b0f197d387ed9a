"""Interrupts, signal handlers, forks and the end of the process, while a manager saves: nothing hangs, and nothing that
may have changed is committed."""

from __future__ import annotations

import _thread
import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import leftovers, use_disk

import ckptfmt
from ckptfmt.manager import CheckpointManager, asynchronous, manager, saving
from stress import interrupts
from stress.interrupts import CASES, KINDS, interrupted

ROOT = Path(__file__).parents[1]
FILES = (asynchronous.__file__, manager.__file__, saving.__file__)


@contextlib.contextmanager
def gate() -> Iterator[threading.Event]:
    """Saves pass only once the event is set."""
    opened = threading.Event()
    disk = use_disk(lambda name, _: name != "create" or opened.wait(60))
    try:
        yield opened
    finally:
        opened.set()
        disk.undo()


@contextlib.contextmanager
def signalled(handler: Any, seconds: float = 0.05) -> Iterator[None]:
    """A signal comes once, so many seconds after the block began."""
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def raises(*_: Any) -> None:
    raise KeyboardInterrupt


def numbers(one: CheckpointManager) -> list[Any]:
    return [step.step for step in one.steps()]


# ---- at every line; all files, cases and operations: python -m stress interrupts


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["first save, block=False", "second save, block=True", "close"])
def test_at_every_line(tmp_path: Path, name: str, kind: str) -> None:
    lines = 0
    for number in itertools.count(1):
        where, bad = interrupted(tmp_path, CASES[name], kind, number, files=FILES)
        assert not bad, (where, bad)
        if where is None:
            break
        lines += 1
    assert lines > 10


def test_the_tester_finds_what_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue with a lock that an interrupt leaves locked."""
    real = asynchronous.Worker.submit

    def submit(self: asynchronous.Worker, job: asynchronous.Job) -> None:
        with lock:
            real(self, job)

    monkeypatch.setattr(asynchronous.Worker, "submit", submit)
    monkeypatch.setattr(interrupts, "PATIENCE", 0.5)
    found = []
    for number in range(1, 4):
        lock = threading.Lock()
        found += interrupted(tmp_path, CASES["first save, block=False"], "interrupt", number, files=(__file__,))[1]
        with contextlib.suppress(RuntimeError):
            lock.release()
    assert found == ["it hangs"]


# ---- interrupts


def test_what_is_interrupted_is_not_committed(tmp_path: Path) -> None:
    """The arrays are the caller's again, and may change."""
    one = CheckpointManager(tmp_path, durable=False)
    array = np.zeros(1000)
    with gate() as opened:
        with pytest.raises(KeyboardInterrupt), signalled(raises):
            one.save(1, {"w": array})
        array += 1
        opened.set()
        one.wait()
    assert numbers(one) == []
    assert leftovers(tmp_path) == []
    assert one.should_save(1)
    one.save(1, {"w": array})
    assert (one.restore()["w"] == 1).all()


def test_an_interrupted_wait_loses_nothing(tmp_path: Path) -> None:
    with gate() as opened, CheckpointManager(tmp_path, durable=False) as one:
        one.save(1, {"w": np.zeros(1000)}, block=False)
        with pytest.raises(KeyboardInterrupt), signalled(raises):
            one.wait()
        opened.set()
    assert numbers(one) == [1]


# ---- signal handlers


@pytest.mark.parametrize("blocks", list(itertools.product([True, False], repeat=2)))
def test_a_handler_saves_while_the_loop_saves(tmp_path: Path, blocks: tuple[bool, bool]) -> None:
    """What was begun before is committed before."""
    commits: list[int] = []
    one = CheckpointManager(tmp_path, durable=False, on_commit=lambda step, _: commits.append(step))
    with gate() as opened:

        def handler(*_: Any) -> None:
            threading.Timer(0.05, opened.set).start()
            one.save(100, {"w": np.ones(1000)}, block=blocks[1], force=True)
            one.close()

        with signalled(handler):
            one.save(1, {"w": np.ones(1000)}, block=blocks[0])
            while not opened.is_set():
                time.sleep(0.001)
    one.wait()
    assert commits == numbers(one) == [1, 100]
    with pytest.raises(ckptfmt.ExistsError):
        one.save(2, {})


def test_a_callback_may_save(tmp_path: Path) -> None:
    def commit(step: int, _: Any) -> None:
        if step == 1:
            one.wait()  # for all but the save that calls
            one.save(2, {})
            one.save(3, {}, block=False)

    one = CheckpointManager(tmp_path, durable=False, on_commit=commit)
    one.save(1, {})
    one.wait()
    assert numbers(one) == [1, 2, 3]


# ---- without threads


@pytest.mark.parametrize("block", [True, False])
@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
def test_without_threads_the_calling_one_saves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, block: bool
) -> None:
    def start_new_thread(*_: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_thread, "start_new_thread", start_new_thread)
    tree = {"w": np.arange(3 << 20), "z": np.zeros(9)}
    one = CheckpointManager(tmp_path, durable=False, layout=layout, compression={"z": "zstd"}, copy_to=tmp_path / "2")
    assert one.save(1, tree, block=block)
    one.close()
    assert (one.restore()["w"] == tree["w"]).all()
    assert numbers(CheckpointManager(tmp_path / "2")) == [1]


# ---- processes


def script(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    text = f"import atexit, os, signal, sys, time, numpy as np, ckptfmt\nfrom ckptfmt import CheckpointManager\n{code}"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", text, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


@pytest.mark.parametrize("before", ["", "ckptfmt.save(sys.argv[1] + '/before.ckpt', tree)"])
def test_a_save_at_the_very_end_of_a_process(tmp_path: Path, before: str) -> None:
    """`atexit` comes after the pools of `concurrent.futures` have ended."""
    code = f"""
tree = dict(a=np.zeros(3_000_000), z=np.zeros(9))
atexit.register(lambda: ckptfmt.save(sys.argv[1] + "/last.ckpt", tree, compression=dict(z="zstd")))
for number, block in enumerate((True, False)):
    one = CheckpointManager(f"{{sys.argv[1]}}/{{number}}", durable=False)
    atexit.register(one.save, 1, tree, block=block)
{before}
"""
    done = script(code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for path in ("last.ckpt", "0/step-0000000001.ckpt", "1/step-0000000001.ckpt"):
        assert ckptfmt.verify(tmp_path / path).ok


@pytest.mark.parametrize("block", [True, False])
def test_a_fork_while_a_save_is_in_flight(tmp_path: Path, block: bool) -> None:
    """What is in flight is the parent's; the child has a manager that works."""
    code = f"""
two = ckptfmt.manager.Background(max_in_flight=2)
one = CheckpointManager(sys.argv[1], durable=False, background=two, copy_to=sys.argv[1] + "-2")
for step in (1, 2):
    one.save(step, dict(w=np.ones(4_000_000)), block=False)
child = os.fork()
if child == 0:
    signal.alarm(60)
    one.wait()
    one.save(10, dict(w=np.ones(4)), block={block})
    one.wait()
    assert one.restore(10)["w"].tolist() == [1, 1, 1, 1]
    one.close()
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
one.close()
"""
    done = script(code, tmp_path / "run")
    assert (done.returncode, done.stderr) == (0, "")
    assert numbers(CheckpointManager(tmp_path / "run")) == [1, 2, 10]


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_handler_forks_while_the_loop_waits(tmp_path: Path, goes_on: bool) -> None:
    """The child is told that what it waited for is not its work, and can save by itself."""
    code = f"""
parent, children = os.getpid(), []
def handler(*_):
    child = os.fork()
    if child:
        children.append(child)
    else:
        signal.alarm(60)
        if not {goes_on}:
            one.save(10, dict(w=np.ones(4)))
            one.wait()
            os._exit(7)
signal.signal(signal.SIGUSR1, handler)
def commit(step, _):
    if step == 1:
        os.kill(parent, signal.SIGUSR1)
        time.sleep(0.3)
one = CheckpointManager(sys.argv[1], durable=False, on_commit=commit)
try:
    one.save(1, dict(w=np.ones(4)))
except RuntimeError as error:
    assert os.getpid() != parent and "fork" in str(error), error
    one.save(10, dict(w=np.ones(4)))
    os._exit(7)
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [7]
"""
    done = script(code, tmp_path / "run")
    assert (done.returncode, done.stderr) == (0, "")
    assert numbers(CheckpointManager(tmp_path / "run")) == [1, 10]


def test_a_fork_in_the_middle_of_a_save_changes_nothing_of_it(tmp_path: Path) -> None:
    code = """
def progress(done, total):
    global child
    if child is None:
        child = os.fork()
        if child == 0:
            signal.alarm(60)
child, parent = None, os.getpid()  # a fork in another thread ends with what that thread does
tree = dict((f"w{i}", np.ones(100_000)) for i in range(9))
for layout in ("file", "packed", "loose"):
    child = None
    try:
        ckptfmt.save(f"{sys.argv[1]}/{layout}", tree, layout=layout, progress=progress, durable=False)
    except (RuntimeError, ckptfmt.CkptError) as error:
        assert os.getpid() != parent and "fork" in str(error), error
        os._exit(7)
    assert os.getpid() == parent
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (0, 7)
    assert ckptfmt.verify(f"{sys.argv[1]}/{layout}").ok
"""
    done = script(code, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(os.listdir(tmp_path)) == ["file", "loose", "packed"]


@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
def test_a_save_imports_nothing(tmp_path: Path, layout: str) -> None:
    """Else a handler or a fork that comes while it does so may wait for that import for ever."""
    code = f"""
one = CheckpointManager(sys.argv[1], durable=False, layout="{layout}", compression=dict(z="zstd"))
tree, before = dict(a=np.zeros((30, 40)), z=np.zeros(9), n=[1]), set(sys.modules)
one.save(1, tree)
one.save(2, tree, block=False)
one.wait()
assert set(sys.modules) == before, set(sys.modules) - before
"""
    done = script(code, tmp_path / "run")
    assert (done.returncode, done.stderr) == (0, "")


def test_preemption_as_people_write_it(tmp_path: Path) -> None:
    """A handler that saves and ends the process."""
    code = """
one, tree = CheckpointManager(sys.argv[1], durable=False), dict(w=np.ones(1_000_000))
def handler(*_):
    one.save(1000, tree, force=True)
    os._exit(7)
signal.signal(signal.SIGALRM, handler)
signal.setitimer(signal.ITIMER_REAL, float(sys.argv[2]))
for step in range(1000):
    one.save(step, tree, block=sys.argv[3] == "True")
"""
    for number, block in enumerate((True, False) * 2):
        assert script(code, tmp_path / str(number), 0.1 + number * 0.017, block).returncode == 7
        one = CheckpointManager(tmp_path / str(number))
        assert numbers(one)[-1] == 1000
        assert all(ckptfmt.verify(step.path).ok for step in one.steps()[-2:])
