"""Calls of a manager that are interrupted at every line, and at operations, that the main thread executes in the
manager and in what Python's own modules do for it: by `KeyboardInterrupt`, and by a signal handler that saves.
Whatever was under way, the manager then works: nothing hangs, what is there are steps that were asked for, commits keep
their order, and no thread and no temporary stays.

The interrupts come from a trace function, which sees more moments than a signal can meet.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, NamedTuple

import numpy as np

import ckptfmt
from ckptfmt.manager import Background, CheckpointManager

from .result import Result

COUNT = 3_000
PATIENCE = 20.0  # seconds after which something hangs
OURS = f"{Path(ckptfmt.__file__).parent}{os.sep}"
MANAGER = (f"{OURS}manager{os.sep}", f"{OURS}threads.py")
LIBRARY = tuple(
    f"{os.path.dirname(threading.__file__)}{os.sep}{name}" for name in ("threading.py", "queue.py", "_weakref")
)
TREE = {"w": np.arange(1000), "n": 1}


class Case(NamedTuple):
    """What is interrupted: `begin` makes a manager ready, `act` is swept over, and saves step 5 at most."""

    begin: Callable[[CheckpointManager], Any]
    act: Callable[[CheckpointManager], Any]
    options: Mapping[str, Any] = MappingProxyType({})


def _save(step: int, *, block: bool) -> Callable[[CheckpointManager], Any]:
    return lambda manager: manager.save(step, TREE, block=block)


def _two(manager: CheckpointManager) -> None:
    manager.save(1, TREE, block=False)
    manager.save(2, TREE, block=False)


def _nothing(_: CheckpointManager) -> None:
    """A new manager."""


CASES = {
    "first save, block=False": Case(_nothing, _save(5, block=False)),
    "first save, block=True": Case(_nothing, _save(5, block=True)),
    "second save, block=False": Case(_save(1, block=True), _save(5, block=False)),
    "second save, block=True": Case(_save(1, block=False), _save(5, block=True)),
    "a save when full": Case(_two, _save(5, block=False)),
    "a save of another layout": Case(_nothing, _save(5, block=True), {"layout": "packed"}),
    "wait": Case(_two, lambda manager: manager.wait()),
    "close": Case(_two, lambda manager: manager.close()),
    "close, abort": Case(_two, lambda manager: manager.close(), {"background": Background(2, at_exit="abort")}),
    "exit": Case(_two, lambda manager: manager._worker.end()),
    "prune": Case(_two, lambda manager: manager.prune()),
    "gc": Case(_two, lambda manager: manager.gc()),
    "should_save": Case(_two, lambda manager: manager.should_save(5)),
    "wait for copies": Case(_two, lambda manager: manager.wait_for_copies(), {"copy_to": "second"}),
    "close with copies": Case(_two, lambda manager: manager.close(), {"copy_to": "second"}),
}
KINDS = ("interrupt", "save")


def run(folder: Path, *, seed: int, count: int = COUNT) -> Result:
    """Every line of the manager and of Python's own modules below it, then `count` operations at random."""
    bad: list[str] = []
    lines = operations = 0
    files = MANAGER + LIBRARY
    for (name, case), kind in itertools.product(CASES.items(), KINDS):
        for number in itertools.count(1):
            where, found = interrupted(folder, case, kind, number, files=files)
            if where is None:
                break
            lines += 1
            bad += [f"{name}, {kind} at {where}: {text}" for text in found]
    moments = random.Random(seed)
    lengths = {name: operations_of(folder, case) for name, case in CASES.items()}
    turns = itertools.cycle(itertools.product(CASES.items(), KINDS))
    for (name, case), kind in itertools.islice(turns, count):
        moment = moments.randint(1, lengths[name])
        where, found = interrupted(folder, case, kind, moment, files=files, operations=True)
        operations += where is not None
        bad += [f"{name}, {kind} at {where}: {text}" for text in found]
    return Result(f"interrupts at {lines:,} lines and {operations:,} operations", bad)


def operations_of(folder: Path, case: Case) -> int:
    """How many operations a case has, about."""
    seen = 0

    def count(manager: CheckpointManager, frame: FrameType) -> None:
        nonlocal seen
        seen += 1

    _run(folder, case, MANAGER + LIBRARY, count, operations=True)
    return seen


def interrupted(
    folder: Path, case: Case, kind: str, number: int, *, files: tuple[str, ...], operations: bool = False
) -> tuple[str | None, list[str]]:
    """Interrupt a case at a line by its number, or at an operation; gives where that was, None if there are not so
    many, and what is wrong after."""
    seen, where = 0, None

    def interrupt(manager: CheckpointManager, frame: FrameType) -> None:
        nonlocal seen, where
        seen += 1
        if seen == number:
            where = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_lineno} {frame.f_code.co_name}"
            if kind == "interrupt":
                raise KeyboardInterrupt
            manager.save(7, TREE, block=number % 2 == 0, force=True)

    bad = _run(folder, case, files, interrupt, operations=operations)
    return where, bad if where else []


def _run(
    folder: Path,
    case: Case,
    files: tuple[str, ...],
    at: Callable[[CheckpointManager, FrameType], None],
    *,
    operations: bool,
) -> list[str]:
    """What is wrong after a case in which `at` was called at every moment."""
    for name in ("run", "second"):
        shutil.rmtree(folder / name, ignore_errors=True)
    commits: list[int] = []
    options = {"background": Background(2), **case.options}
    if "copy_to" in options:
        options["copy_to"] = folder / options["copy_to"]
    manager = CheckpointManager(
        folder / "run", durable=False, on_commit=lambda step, _: commits.append(step), **options
    )
    case.begin(manager)
    later = ckptfmt.ExistsError  # where the handler saved a later step
    with contextlib.suppress(KeyboardInterrupt, later), _Traced(files, partial(at, manager), operations):
        case.act(manager)
    bad: list[str] = []
    done = threading.Event()

    def after() -> None:
        try:
            with contextlib.suppress(ckptfmt.ExistsError):
                manager.wait()
            manager.save(10, TREE, block=False)
            manager.save(11, TREE)
            manager.wait()
            manager.close()
        except BaseException as error:
            bad.append(f"it raises {error!r}")
        done.set()

    threading.Thread(target=after, daemon=True).start()
    if not done.wait(PATIENCE):
        return ["it hangs"]
    steps = [step.step for step in manager.steps()]
    if not set(steps) <= {1, 2, 5, 7, 10, 11} or steps[-2:] != [10, 11]:
        bad.append(f"the steps are {steps}")
    if commits != sorted(commits) or not set(commits) <= set(steps):
        bad.append(f"the commits are {commits}, the steps {steps}")
    bad += [f"step {step.step} is damaged" for step in manager.steps() if not ckptfmt.verify(step.path).ok]
    end = time.monotonic() + PATIENCE
    while _threads() and time.monotonic() < end:
        time.sleep(0.001)
    bad += [f"the thread {name} stays" for name in _threads()]
    bad += [f"{path.name} is left" for path in folder.glob("*/.*tmp")]
    return bad


def _threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ckptfmt")]


class _Traced:
    """Calls `at` with the frame at every moment in some files, while the block runs."""

    def __init__(self, files: tuple[str, ...], at: Callable[[FrameType], None], operations: bool) -> None:
        self._files, self._at, self._event = files, at, "opcode" if operations else "line"

    def __enter__(self) -> None:
        sys.settrace(self._begin)

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _begin(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(self._files):
            return None
        frame.f_trace_opcodes = self._event == "opcode"
        return self._within

    def _within(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == self._event:
            self._at(frame)
        return self._within
