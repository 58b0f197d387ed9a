"""A manager's process that writes, killed at a random moment of a save or of its own start: the step is there as a
whole or not at all, no other step is harmed, the manager says so and goes on, and leaves no temporary."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np

import ckptfmt
from ckptfmt.manager import CheckpointManager

from .result import Result

COUNT = 300
LAYOUTS = ("file", "packed", "loose")
TREE = {"arrays": [np.full(size, size, np.int32) for size in (1, 300_000, 3, 50_000)]}


def run(folder: Path, *, seed: int, count: int = COUNT) -> Result:
    """`count` kills, in turn of saves in each layout."""
    moments = random.Random(seed)
    bad: list[str] = []
    lost = there = 0
    for number, layout in enumerate(LAYOUTS):
        with CheckpointManager(folder / layout, layout=layout, keep=3, background="process") as manager:
            for kill in range(number, count, len(LAYOUTS)):
                is_lost, is_there, texts = killed(manager, 2 * kill, moments.uniform(0, 0.03))
                lost, there = lost + is_lost, there + (is_lost and is_there)
                bad += [f"kill {kill}, {layout}: {text}" for text in texts]
    return Result(f"{count:,} kills, {lost:,} of them in the middle of a save, {there:,} after it was committed", bad)


def killed(manager: CheckpointManager, step: int, seconds: float) -> tuple[bool, bool, list[str]]:
    """Save a step, kill who writes it after so many seconds, and save another; gives whether the save failed, whether
    its step is there, and what is wrong."""
    before = [found.step for found in manager.steps()]
    process: Any = manager._saver._process
    number = process._process.pid
    timer = threading.Timer(seconds, os.kill, (number, signal.SIGKILL))
    timer.start()
    is_lost, texts = False, []
    try:
        manager.save(step, TREE, block=False)
        manager.wait()
    except ckptfmt.StorageError as error:
        is_lost = error.code == "writer-lost"
        texts += [] if is_lost else [f"the error was {error}"]
    timer.join()
    found = [one.step for one in manager.steps()]
    if is_lost:
        texts += [] if found in (before, [*before, step]) else [f"steps {before} became {found}"]
    elif step not in found:
        texts.append("a step whose save succeeded is not there")
    texts += [f"step {one.step} is damaged" for one in manager.steps() if not ckptfmt.verify(one.path).ok]
    with contextlib.suppress(ChildProcessError):  # somebody has asked already
        os.waitid(os.P_PID, number, os.WEXITED | os.WNOWAIT)
    manager.save(step + 1, TREE, block=False)
    manager.wait()
    left = list(Path(manager.directory).glob(".*"))
    return is_lost, step in found, texts + [f"{path.name} is left" for path in left]
