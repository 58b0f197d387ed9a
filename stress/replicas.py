"""A process that saves a run with replicas in memory, killed at a random moment, and then a random bit of what is left
in memory flipped: what is restored is never wrong, and never older than the last step whose save had returned."""

from __future__ import annotations

import itertools
import random
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import ckptfmt
from ckptfmt.manager import CheckpointManager, Memory, ReplicaWarning
from ckptfmt.testing import equal_trees

from .processes import CONTEXT, child
from .result import Result
from .sigkill import LAYOUTS, tree

COUNT = 300
MEMORY, RUN = "memory", "run"


def run(folder: Path, *, seed: int, count: int = COUNT) -> Result:
    """`count` kills, in turn of saves in each layout; after every second one a bit is flipped."""
    moments = random.Random(seed)
    bad: list[str] = []
    only = damaged = 0
    for number in range(count):
        layout = LAYOUTS[number % len(LAYOUTS)]
        work = folder / str(number)
        work.mkdir()
        ended = killed(work, layout, moments.uniform(0, 0.06))
        where = flip(work / MEMORY, moments) if number % 2 else ""
        from_memory, is_damaged, texts = problems(work, ended)
        only, damaged = only + from_memory, damaged + is_damaged
        bad += [f"kill {number}, {layout}, {where}: {text}" for text in texts]
        shutil.rmtree(work)
    return Result(f"{count:,} kills, {only:,} restored from memory, {damaged:,} replicas found damaged", bad)


def manager(folder: Path, layout: str = "file") -> CheckpointManager:
    return CheckpointManager(folder / RUN, layout=layout, keep=2, replicas=Memory(folder / MEMORY, keep=2))


def killed(folder: Path, layout: str, seconds: float) -> int:
    """Let a child save until it is killed, so many seconds after its first save; gives the last save that has ended."""
    ended = CONTEXT.Value("q", 0, lock=False)
    process = child(save_for_ever, folder, layout, ended)
    try:
        while not ended.value:
            assert process.is_alive(), "the child does not save"
            time.sleep(0.001)
        time.sleep(seconds)
    finally:
        process.kill()
        process.join()
    return int(ended.value)


def save_for_ever(folder: Path, layout: str, ended: Any) -> None:
    run = manager(folder, layout)
    for number in itertools.count(1):
        run.save(number, tree(number))
        ended.value = number


def flip(folder: Path, moments: random.Random) -> str:
    """Flip a bit of a file, and say which."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    path = moments.choice(files)
    data = bytearray(path.read_bytes())
    place = moments.randrange(len(data))
    data[place] ^= 1 << moments.randrange(8)
    path.write_bytes(data)
    return f"byte {place} of {path.relative_to(folder)}"


def problems(folder: Path, ended: int) -> tuple[bool, bool, list[str]]:
    """Whether the run goes on from a replica, and whether one was found damaged; and what is wrong."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        again = manager(folder)
        try:
            loaded = again.restore()
        except ckptfmt.CkptError as error:
            return False, False, [f"nothing was restored: {error}"]
    number, texts = int(loaded["number"]), []
    if not equal_trees(loaded, tree(number)):
        texts.append(f"step {number} is wrong")
    if number < ended:
        texts.append(f"step {ended} was saved, and {number} restored")
    again.save(number + 1, tree(number + 1))  # the run goes on
    if [step.step for step in again.steps()][-1] != number + 1:
        texts.append(f"after step {number + 1} was saved, the steps are {[step.step for step in again.steps()]}")
    from_memory = str(again.restored_from).startswith(str(folder / MEMORY))
    return from_memory, any(issubclass(one.category, ReplicaWarning) for one in caught), texts
