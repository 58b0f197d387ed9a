"""Everything that changes a disk, while other processes collect garbage there all the time, by clocks that are right or
far from it and with any grace, and are killed in the middle: nothing that lives is taken, and all that died goes.

The same where nobody can see a lease: what loses its temporary says so, and what was there is whole.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import time
from pathlib import Path
from typing import Any

import ckptfmt
from ckptfmt.storage import TEMPORARY_SUFFIX
from ckptfmt.storage.disk import Disk
from ckptfmt.testing import using_disk

from .crash_states import entries, recorded
from .operations import Operation, operations
from .processes import PATIENCE, child
from .result import Result

COUNT = 3000
COLLECTORS = 2
LIVES = 25  # operations after which a collector is killed, and another begins
DAY = 24 * 3600.0
LOST = ("temporary-lost", "rank-failed", "rank-lost")  # the latter of ranks that could not meet
CLOCKS = (0.0, 25 * 3600.0, -25 * 3600.0, 10 * 365 * DAY)  # seconds that a collector's clock is ahead


class LocklessDisk(Disk):
    """A file system without locks."""

    def lock(self, fd: int, *, alone: bool, wait: bool) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def run(folder: Path, *, seed: int, count: int = COUNT) -> Result:
    """`count` operations with leases, and a third as many where there are none, in an order that `seed` chooses."""
    bad: list[str] = []
    lost = 0
    for has_locks, times in ((True, count), (False, -(-count // 3))):
        texts, more = beside_collections(folder / ("leases" if has_locks else "no-locks"), seed, times, has_locks)
        bad, lost = bad + texts, lost + more
    return Result(f"{count:,} operations, and {-(-count // 3):,} without locks, of which {lost:,} were given up", bad)


def beside_collections(folder: Path, seed: int, count: int, has_locks: bool) -> tuple[list[str], int]:
    """What is wrong, and how many operations lost their temporary and said so."""
    folder.mkdir()
    chosen = random.Random(seed)
    shuffled = chosen.sample(list(operations()), k=len(list(operations())))
    looks = {op.name: recorded(op, folder.parent / "recorded")[1] for op in shuffled[:count]}
    collectors = [child(collect_for_ever, folder, seed + number, has_locks) for number in range(COLLECTORS)]
    bad: list[str] = []
    lost = 0
    try:
        with using_disk(Disk() if has_locks else LocklessDisk()):
            for number in range(count):
                operation = shuffled[number % len(shuffled)]
                texts, is_lost = problems(operation, looks[operation.name], folder / str(number), has_locks)
                bad += [f"{operation.name}{'' if has_locks else ', no locks'}: {text}" for text in texts]
                lost += is_lost
                if number % 100 == 99:
                    print(
                        f"{number + 1:,} of {count:,}{'' if has_locks else ' without locks'}, {len(bad)} bad",
                        flush=True,
                    )
                if number % LIVES == LIVES - 1:
                    collectors[0].kill()
                    collectors[0].join(PATIENCE)
                    collectors = [*collectors[1:], child(collect_for_ever, folder, seed + number, has_locks)]
        bad += ["a collector has died"] * sum(not collector.is_alive() for collector in collectors)
    finally:
        for collector in collectors:
            collector.kill()
            collector.join(PATIENCE)
    ckptfmt.gc(folder, delete=True, grace=0, recursive=True)
    bad += [f"{path.name} is left" for path in folder.rglob(f".*{TEMPORARY_SUFFIX}")]
    return bad, lost


def problems(operation: Operation, look: Any, work: Path, has_locks: bool) -> tuple[list[str], bool]:
    """Carry an operation out in a new folder, which is removed again: what is wrong, and whether it was given up."""
    work.mkdir()
    error, allowed = None, None
    try:
        operation.prepare(work)
        allowed = operation.during
        operation.act(work)
    except ckptfmt.CkptError as raised:
        error = raised
    is_lost = error is not None and not has_locks and error.code in LOST
    found, _ = entries(work, look)
    texts = []
    if error is not None and not is_lost:
        texts.append(f"raises {error!r}")
    if not is_lost and found not in operation.after:
        texts.append(f"there is {found or 'nothing'}")
    if is_lost and allowed is not None and found not in allowed:
        texts.append(f"{error!r}, and there is {found or 'nothing'}")
    shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(work.parent / f"{work.name}-mail", ignore_errors=True)
    return texts, is_lost


def collect_for_ever(folder: Path, seed: int, has_locks: bool) -> None:
    """Collect below a folder, each time by another clock and with another grace."""
    chosen, now = random.Random(seed), time.time
    with using_disk(Disk() if has_locks else LocklessDisk()):
        while True:
            ahead = chosen.choice(CLOCKS)
            time.time = lambda ahead=ahead: now() + ahead  # type: ignore[misc]
            try:
                ckptfmt.gc(folder, delete=True, grace=chosen.choice((0, DAY)), recursive=True)
            except ckptfmt.CkptError as error:
                if error.code not in ("not-found", "io"):  # folders come and go
                    raise
