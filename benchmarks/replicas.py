"""`python -m benchmarks.replicas`: how long a run takes to be restored from a replica in memory, and from a disk.

A run is saved with `replicas=Memory()`. Then new processes restore its newest step, in turn: from the replica; from the
disk, of which the page cache holds nothing (`POSIX_FADV_DONTNEED`); and from the page cache. Each is verified. A figure
is the time of `restore`, in a process that has imported what it needs; ratios are taken within a round, and quoted is
their median with least and greatest. What `save(block=False)` takes with a replica and without one is told, too: both
copy the arrays, and all else happens in the background.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from ckptfmt.manager import CheckpointManager, Memory

from .disk import forget, fsync

PROGRAM = """
import sys, time
from ckptfmt.manager import CheckpointManager, Memory
import ckptfmt.reading.loading, ckptfmt.reading.checkpoint, ckptfmt.layouts.file
run = CheckpointManager(sys.argv[1], replicas=Memory() if sys.argv[2] == "replica" else None)
begin = time.perf_counter()
tree = run.restore()
print(time.perf_counter() - begin, run.restored_from)
"""
WAYS = ("replica", "cold disk", "page cache")
TENSORS = 16


def restored(run: Path, way: str) -> float:
    """Seconds of one restore in a process of its own."""
    if way == "cold disk":
        forget(run)
    command = [sys.executable, "-P", "-c", PROGRAM, str(run), way]
    seconds, path = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    if (os.path.dirname(path) != str(run)) != (way == "replica"):
        raise click.ClickException(f"{way}: it was restored from {path}")
    return float(seconds)


def blocked(run: Path, arrays: dict[str, Any], replicas: Memory | None, saves: int = 4) -> float:
    """Seconds for which a save in the background blocks, once it has its buffers."""
    found = []
    with CheckpointManager(run, replicas=replicas, keep=1, durable=False) as manager:
        for step in range(saves):
            begin = time.perf_counter()
            manager.save(step, arrays, block=False)
            found.append(time.perf_counter() - begin)
            manager.wait()
    return min(found[1:])


def told(name: str, ratios: list[float]) -> str:
    return f"{name}: {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"


@click.command()
@click.option("--megabytes", default=1024, show_default=True)
@click.option("--rounds", default=7, show_default=True)
@click.option("--dir", "folder", type=click.Path(exists=True, path_type=Path), help="Of the disk, instead of $TMPDIR.")
def main(*, megabytes: int, rounds: int, folder: Path | None) -> None:
    """Measure how long a restore takes from memory, and from a disk."""
    random = np.random.default_rng(0)
    arrays = {f"t{number}": random.random(megabytes * (1 << 20) // TENSORS // 8) for number in range(TENSORS)}
    with tempfile.TemporaryDirectory(dir=folder) as work:
        run = Path(work) / "run"
        with_one = blocked(Path(work) / "with", arrays, Memory())
        without = blocked(Path(work) / "without", arrays, None)
        shutil.rmtree(Path(work) / "with")
        shutil.rmtree(Path(work) / "without")
        with CheckpointManager(run, replicas=Memory(), durable=True) as manager:
            manager.save(1, arrays)
            arrays.clear()
            fsync(run)
            times = [{way: restored(run, way) for way in WAYS} for _ in range(rounds)]
    for way in WAYS:
        seconds = [each[way] for each in times]
        rate = megabytes / 1024 * 1.073741824 / statistics.median(seconds)
        click.echo(
            f"{way:11} {statistics.median(seconds):.3f} s ({min(seconds):.3f}–{max(seconds):.3f}), {rate:.2f} GB/s"
        )
    click.echo(told("cold disk / replica", [each["cold disk"] / each["replica"] for each in times]))
    click.echo(told("page cache / replica", [each["page cache"] / each["replica"] for each in times]))
    click.echo(f"save(block=False) blocks for {1000 * with_one:.0f} ms with a replica, {1000 * without:.0f} ms without")


if __name__ == "__main__":
    main()
