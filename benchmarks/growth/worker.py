"""What one fresh process times: an action of one contender at one point. `python -m benchmarks.growth.worker JOB`
prints seconds of the clock and of the processor.

The course starts it with PYTHONPATH, so that `ckptfmt` may be that of another tree.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import disk
from benchmarks.contenders import BY_NAME
from benchmarks.contenders.contender import Contender
from benchmarks.growth.lines import Point
from benchmarks.job import TOUCHED_TREES, check, warm_up
from benchmarks.memory import touch
from benchmarks.states import State


@dataclass(frozen=True, slots=True)
class Job:
    """`action` is a method of the contender, or "first": open, find one tensor, and read half of it."""

    contender: str
    action: str
    count: int
    nbytes: int
    path: str
    cold: bool


class First:
    """Opens a checkpoint and reads a slice of the tensor in its middle, as a program of the user's would."""

    def __init__(self, contender: Contender) -> None:
        code = contender.slice
        assert code is not None
        self._names: dict[str, Any] = {}
        exec(code.imports, self._names)
        self._read, self._data = compile(code.read, "slice", "exec"), code.data

    def at(self, path: Path, state: State) -> Callable[[], object]:
        name = list(state.shapes)[len(state.shapes) // 2]
        self._names |= {"path": str(path), "name": name, "start": 0, "stop": state.shapes[name][0] // 2}
        return lambda: exec(self._read, self._names)

    def check(self, state: State) -> None:
        part = np.frombuffer(eval(self._data, self._names), np.uint8)
        whole = state.array(self._names["name"])
        if not np.array_equal(part, whole[: self._names["stop"]].view(np.uint8)):
            raise AssertionError("the slice came back with other bytes")


def _timed(action: Callable[[], Any]) -> tuple[list[float], Any]:
    processor, began = time.process_time(), time.perf_counter()
    result = action()
    return [time.perf_counter() - began, time.process_time() - processor], result


def _run_values(job: Job) -> list[float]:
    contender, path = BY_NAME[job.contender], Path(job.path)
    tree, small = Point(job.count, 0).records(), path.with_name("warm-up")
    contender.save(small, Point(10, 0).records())
    contender.load(small)
    disk.remove(small)
    gc.collect()
    if job.action == "save":
        disk.remove(path)
        return _timed(lambda: contender.save(path, tree))[0]
    if job.cold:
        os.sync()
        disk.forget(path)
    seconds, loaded = _timed(lambda: contender.load(path))
    if loaded != tree:
        raise AssertionError("other values came back")
    return seconds


def run(job: Job) -> list[float]:
    if not job.nbytes:
        return _run_values(job)
    contender, state, path = BY_NAME[job.contender], Point(job.count, job.nbytes).state(), Path(job.path)
    excerpt, small = state.excerpt(), path.with_name("warm-up")
    tree = contender.adopt(state.arrays()) if job.action == "save" else None
    if job.action == "first":
        contender.save(small, contender.adopt(excerpt.arrays()))
        first = First(contender)
        first.at(small, excerpt)()
        first.check(excerpt)
        disk.remove(small)
        action = first.at(path, state)
    else:
        warm_up(contender, excerpt, small)
        action = (lambda: contender.save(path, tree)) if job.action == "save" else (lambda: contender.load(path))
    if job.action == "save":
        disk.remove(path)
    gc.collect()
    os.sync()
    if job.action != "first":
        touch(int(TOUCHED_TREES * state.nbytes))
    if job.cold and job.action != "save":
        disk.forget(path)
    seconds, result = _timed(action)
    if job.action == "load":
        check(contender, state, result)
    if job.action == "first":
        first.check(state)
    return seconds


if __name__ == "__main__":
    print(json.dumps(run(Job(**json.loads(sys.argv[1])))))
