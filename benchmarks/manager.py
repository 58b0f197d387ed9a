"""How long an asynchronous save blocks, beside one memcpy of the host tree; and how long listing many steps takes.

    python -m benchmarks.manager [--quick] [--rounds N] [--steps N] [--dir DIR]

Blocking time is that of `manager.save(step, tree, block=False)` with nothing in flight. The memcpy copies the same
arrays into arrays that are there already, so both touch the same memory; the first save also has to get that memory
from the system, and is shown apart. Ratios are taken within a round; quoted is their median with least and greatest.
"""

from __future__ import annotations

import gc
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np

import ckptfmt
from ckptfmt.manager import CheckpointManager

from .memory import Sampler, Spell, status
from .states import STATES


def _seconds(call: Callable[[], Any]) -> float:
    gc.collect()
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _copy(source: dict[str, Any], target: dict[str, Any]) -> None:
    for name, array in source.items():
        np.copyto(target[name], array)


def blocking(folder: Path, arrays: dict[str, Any], rounds: int) -> dict[str, list[float]]:
    """Seconds of each round: the memcpy, the blocking part of a save, and the whole save; the first save apart."""
    target = {name: array.copy() for name, array in arrays.items()}
    found: dict[str, list[float]] = {"memcpy": [], "blocking": [], "whole": []}
    with CheckpointManager(folder, keep=1) as manager:
        found["first"] = [_seconds(lambda: manager.save(0, arrays, block=False))]
        manager.wait()
        for step in range(1, rounds + 1):
            os.sync()
            found["memcpy"].append(_seconds(lambda: _copy(arrays, target)))
            began = time.perf_counter()
            found["blocking"].append(_seconds(lambda step=step: manager.save(step, arrays, block=False)))  # type: ignore[misc]
            manager.wait()
            found["whole"].append(time.perf_counter() - began)
    return found


@contextmanager
def _sampled() -> Iterator[Callable[[Spell], int]]:
    """Private memory of this process, sampled from a thread every 2 ms while the block runs."""
    sampler, done = Sampler(os.getpid()), threading.Event()

    def sample() -> None:
        while not done.wait(0.002):
            sampler.sample()

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield sampler.rise
    finally:
        done.set()
        thread.join()


def memory(folder: Path, arrays: dict[str, Any]) -> int:
    """Bytes of private memory that the first save in the background adds at most."""
    gc.collect()
    (before,) = status("self", "RssAnon")
    with _sampled() as rise, CheckpointManager(folder) as manager:
        began = time.monotonic()
        manager.save(0, arrays, block=False)
        manager.wait()
        return rise(Spell(began, time.monotonic(), before, 0))


def listing(folder: Path, steps: int) -> dict[str, float]:
    """Seconds to list `steps` steps for the first time, again, and to find and restore the latest, each by a new
    manager but for the second."""
    folder.mkdir()
    manager = CheckpointManager(folder)
    names = manager._run.path_of
    ckptfmt.save(folder / "one", {"w": np.zeros(10)}, durable=False)
    for step in range(steps):
        shutil.copyfile(folder / "one", names(step))
    again = CheckpointManager(folder)
    first = _seconds(again.steps)
    assert len(again.steps()) == steps
    return {
        "list": first,
        "list again": _seconds(again.steps),
        "latest": _seconds(CheckpointManager(folder).latest),
        "restore latest": _seconds(CheckpointManager(folder).restore),
    }


@click.command()
@click.option("--quick", is_flag=True, help="Small states and few rounds.")
@click.option("--rounds", type=int, default=5, show_default=True)
@click.option("--steps", type=int, default=10_000, show_default=True, help="Steps to list.")
@click.option("--dir", "parent", type=click.Path(path_type=Path), default=".", help="Where checkpoints go meanwhile.")
def main(quick: bool, rounds: int, steps: int, parent: Path) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=parent) as name:
        folder = Path(name)
        for state in (make(quick=quick) for make in STATES.values()):
            arrays = state.arrays()
            click.echo(f"{state.title}: {len(arrays):,} tensors, {state.nbytes / 1e9:.2f} GB")
            if state.name == "llama":
                added = memory(folder / "memory", arrays)
                click.echo(f"  memory of the first save: tree + {(added - state.nbytes) / 2**20:.0f} MiB")
                shutil.rmtree(folder / "memory")
            found = blocking(folder / state.name, arrays, rounds)
            shutil.rmtree(folder / state.name)
            for key, seconds in found.items():
                click.echo(f"  {key:9} {statistics.median(seconds):.4f} s ({min(seconds):.4f} to {max(seconds):.4f})")
            ratios = [save / copy for save, copy in zip(found["blocking"], found["memcpy"], strict=True)]
            median = statistics.median(ratios)
            click.echo(f"  blocking / memcpy  {median:.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
        click.echo(f"{steps:,} steps")
        for key, second in listing(folder / "steps", steps).items():
            click.echo(f"  {key:15} {second:.4f} s")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.manager")
