"""What one fresh process does: some operations of one contender on one state.

Every visit is a process of its own, so that no contender inherits another's allocator, threads or
imports. Before anything is timed, a few megabytes are saved and loaded: the first call's lazy
imports are not what is measured. `python -m benchmarks.job JOB RESULT` is called by the course.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import disk
from benchmarks.contenders import BY_NAME
from benchmarks.contenders.contender import Contender
from benchmarks.memory import Meter, Spell, touch
from benchmarks.operations import OPERATIONS, SAVES, Operation
from benchmarks.states import STATES, Array, State

# Enough pages for the checkpoint in the page cache, or the loaded tree, and some buffers.
TOUCHED_TREES = 1.25

Timed = tuple[float, Spell | None]


@dataclass(frozen=True, slots=True)
class Job:
    """One process's work, in an order that leaves a checkpoint for the loads."""

    contender: str
    state: str
    operations: tuple[str, ...]
    path: str
    quick: bool
    cold: bool


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds and memory of each operation, and the size of what was saved."""

    seconds: dict[str, float] = field(default_factory=dict)
    spells: dict[str, Spell] = field(default_factory=dict)


def _bytes(array: Array) -> Array:
    flat: Array = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return flat


def check(contender: Contender, state: State, loaded: Mapping[str, Any]) -> None:
    """Nobody measures nothing: the number of tensors, and the bytes of a few of them."""
    if len(loaded) != len(state.shapes):
        raise AssertionError(f"{len(loaded)} tensors loaded of {len(state.shapes)}")
    for name in state.probes():
        if not np.array_equal(_bytes(contender.as_numpy(loaded[name])), _bytes(state.array(name))):
            raise AssertionError(f"{name} came back with other bytes")


def warm_up(contender: Contender, excerpt: State, path: Path) -> None:
    """Imports, thread pools and first calls, on a few megabytes."""
    contender.save(path, contender.adopt(excerpt.arrays()))
    check(contender, excerpt, contender.load(path))
    for face in sorted(contender.faces):
        getattr(contender, face)(path)
    disk.remove(path)


def _timed(call: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = call()
    return time.perf_counter() - began, result


class Worker:
    """Runs a job's operations one after the other."""

    def __init__(self, job: Job) -> None:
        self._job, self._path = job, Path(job.path)
        self._contender, self._state = BY_NAME[job.contender], STATES[job.state](quick=job.quick)
        self._operations = [operation for operation in OPERATIONS if operation.name in job.operations]

    def run(self) -> Outcome:
        warm_up(self._contender, self._state.excerpt(), self._path.with_name("warm-up"))
        saves = any(operation.action in SAVES for operation in self._operations)
        tree = self._contender.adopt(self._state.arrays()) if saves else None
        outcome = Outcome()
        for operation in self._operations:
            if operation.action in SAVES:
                seconds, spell = self._save(operation, tree)
            else:
                runs = [self._load(operation) for _ in range(operation.repeats)]
                seconds, spell = statistics.median(run[0] for run in runs), runs[0][1]
            outcome.seconds[operation.name] = seconds
            if spell:
                outcome.spells[operation.name] = spell
        return outcome

    def _settle(self, operation: Operation) -> None:
        """Leave nothing pending that would fall on the next operation's time."""
        gc.collect()
        os.sync()
        if operation.repeats == 1:
            touch(int(TOUCHED_TREES * self._state.nbytes))

    def _save(self, operation: Operation, tree: Any) -> Timed:
        disk.remove(self._path)
        self._settle(operation)
        save = getattr(self._contender, operation.action)
        with Meter() as meter:
            seconds = _timed(lambda: save(self._path, tree))[0]
        return seconds, meter.spell

    def _load(self, operation: Operation) -> Timed:
        self._settle(operation)
        if self._job.cold:
            disk.forget(self._path)
        action = getattr(self._contender, operation.action)
        with Meter() as meter:
            seconds, loaded = _timed(lambda: action(self._path))
        self._check(operation, loaded)
        return seconds, meter.spell

    def _check(self, operation: Operation, loaded: Any) -> None:
        if operation.action == "open":
            if len(loaded) != len(self._state.shapes):
                raise AssertionError(f"{len(loaded)} tensors listed of {len(self._state.shapes)}")
        else:
            check(self._contender, self._state, loaded)


def main(job: str, result: str) -> None:
    """Entry point of the fresh process."""
    fields = json.loads(job)
    fields["operations"] = tuple(fields["operations"])
    Path(result).write_text(json.dumps(asdict(Worker(Job(**fields)).run())))


if __name__ == "__main__":
    main(*sys.argv[1:])
