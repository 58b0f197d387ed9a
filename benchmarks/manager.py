"""How long an asynchronous save blocks, beside one memcpy of the host tree; how far it slows training down; how long
listing many steps takes.

    OMP_NUM_THREADS=1 python -m benchmarks.manager [--quick] [--rounds N] [--steps N] [--dir DIR]

A round is a memcpy of all arrays into arrays that are there already, and then the call that begins a save, with nothing
in flight; the save is waited for. The first save also has to get its memory from the system, and is shown apart.
Ratios are taken within a round; quoted is their median with least and greatest. Peers are Orbax's CheckpointManager and
torch DCP's async_save (one gloo process, its default stager) with the same arrays.

Training is a loop of products of matrices, with and without a save beside it; both share this machine's cores, memory
and disk, so what a save costs in CPU is in the figure.
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
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np

import ckptfmt
from ckptfmt.manager import CheckpointManager

from .memory import Sampler, Spell, status
from .states import STATES

Arrays = dict[str, Any]
Calls = tuple[Callable[[int], Any], Callable[[], Any]]  # begin the save of a step; wait for it


def _seconds(call: Callable[..., Any], *arguments: Any) -> float:
    gc.collect()
    began = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - began


# ---- contenders


@contextmanager
def _ckptfmt(folder: Path, arrays: Arrays) -> Iterator[Calls]:
    with CheckpointManager(folder, keep=1) as manager:
        yield lambda step: manager.save(step, arrays, block=False), manager.wait


@contextmanager
def _orbax(folder: Path, arrays: Arrays) -> Iterator[Calls]:
    import orbax.checkpoint as ocp

    with ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(max_to_keep=1)) as manager:
        yield lambda step: manager.save(step, args=ocp.args.StandardSave(arrays)), manager.wait_until_finished


@contextmanager
def _dcp(folder: Path, arrays: Arrays) -> Iterator[Calls]:
    """Tensors are the same bytes, seen as int16 or float32."""
    import torch
    import torch.distributed as dist
    from torch.distributed.checkpoint.state_dict_saver import async_save

    kinds = {2: np.int16, 4: np.float32}
    state = {name: torch.from_numpy(array.view(kinds[array.itemsize])) for name, array in arrays.items()}
    pending: list[Any] = []

    def wait() -> None:
        pending.pop().result()
        shutil.rmtree(folder / "one")

    folder.mkdir()
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=0, world_size=1)
    try:
        yield lambda step: pending.append(async_save(state, checkpoint_id=str(folder / "one"))), wait
    finally:
        dist.destroy_process_group()


CONTENDERS = {"ckptfmt": _ckptfmt, "Orbax": _orbax, "torch DCP": _dcp}


# ---- measurements


def blocking(calls: Calls, arrays: Arrays, rounds: int) -> dict[str, list[float]]:
    """Seconds of the first save's blocking part, and of each round's memcpy, blocking part and whole save."""
    save, wait = calls
    target = {name: array.copy() for name, array in arrays.items()}

    def copy() -> None:
        for name, array in arrays.items():
            np.copyto(target[name], array)

    found: dict[str, list[float]] = {"first": [_seconds(save, 0)], "memcpy": [], "blocking": [], "whole": []}
    wait()
    for step in range(1, rounds + 1):
        os.sync()
        found["memcpy"].append(_seconds(copy))
        found["blocking"].append(_seconds(save, step))
        found["whole"].append(found["blocking"][-1] + _seconds(wait))
    return found


def memory(folder: Path, arrays: Arrays) -> int:
    """Bytes of private memory that the first save in the background adds at most, sampled every 2 ms from a thread."""
    sampler, done = Sampler(os.getpid()), threading.Event()

    def sample() -> None:
        while not done.wait(0.002):
            sampler.sample()

    thread = threading.Thread(target=sample)
    thread.start()
    gc.collect()
    (before,) = status("self", "RssAnon")
    with CheckpointManager(folder) as manager:
        began = time.monotonic()
        manager.save(0, arrays, block=False)
        manager.wait()
        ended = time.monotonic()
    done.set()
    thread.join()
    return sampler.rise(Spell(began, ended, before, 0))


def training(folder: Path, arrays: Arrays) -> tuple[float, float]:
    """Seconds of a training step, median: alone, and beside a save that runs all the while."""
    weights = np.random.default_rng(0).standard_normal((600, 600), np.float32)

    def step() -> float:
        return _seconds(lambda: [weights @ weights for _ in range(4)])

    alone = [step() for _ in range(200)]
    beside = []
    with CheckpointManager(folder) as manager:
        manager.save(0, arrays, block=False)
        while manager._worker.steps:
            beside.append(step())
    return statistics.median(alone), statistics.median(beside)


def listing(folder: Path, steps: int) -> dict[str, float]:
    """Seconds to list `steps` steps for the first time and again, to find the latest, and to restore it; all but the
    second by a new manager."""
    folder.mkdir()
    manager = CheckpointManager(folder)
    ckptfmt.save(folder / "one", {"w": np.zeros(10)}, durable=False)
    for step in range(steps):
        shutil.copyfile(folder / "one", manager._run.path_of(step))
    first = _seconds(manager.steps)
    assert len(manager.steps()) == steps
    return {
        "list": first,
        "list again": _seconds(manager.steps),
        "latest": _seconds(CheckpointManager(folder).latest),
        "restore latest": _seconds(CheckpointManager(folder).restore),
    }


# ---- report


def _spread(values: list[float], unit: str = "") -> str:
    return f"{statistics.median(values):.4g}{unit} ({min(values):.4g} to {max(values):.4g})"


@contextmanager
def _emptied(folder: Path) -> Iterator[Path]:
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _contend(name: str, contender: Callable[..., AbstractContextManager[Calls]], *arguments: Any, rounds: int) -> None:
    folder, arrays = arguments
    try:
        with _emptied(folder) as place, contender(place, arrays) as calls:
            found = blocking(calls, arrays, rounds)
    except ImportError as error:
        click.echo(f"  {name} was left out: {error}")
        return
    ratios = [save / copy for save, copy in zip(found["blocking"], found["memcpy"], strict=True)]
    click.echo(f"  {name:9}  blocking / memcpy {_spread(ratios)}")
    click.echo("             " + "; ".join(f"{key} {_spread(seconds, ' s')}" for key, seconds in found.items()))


@click.command()
@click.option("--quick", is_flag=True, help="Small states.")
@click.option("--rounds", type=int, default=5, show_default=True)
@click.option("--steps", type=int, default=10_000, show_default=True, help="Steps to list.")
@click.option("--dir", "parent", type=click.Path(path_type=Path), default=".", help="Where checkpoints go meanwhile.")
def main(quick: bool, rounds: int, steps: int, parent: Path) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=parent) as name:
        folder = Path(name).resolve()
        for state in (make(quick=quick) for make in STATES.values()):
            arrays = state.arrays()
            click.echo(f"{state.title}: {len(arrays):,} tensors, {state.nbytes / 1e9:.2f} GB")
            if state.name == "llama":
                with _emptied(folder / "memory") as place:
                    added = memory(place, arrays) - state.nbytes
                click.echo(f"  memory of the first save: tree + {added / 2**20:.0f} MiB")
                with _emptied(folder / "training") as place:
                    alone, beside = training(place, arrays)
                slower = 100 * (beside / alone - 1)
                click.echo(
                    f"  training step {alone * 1e3:.2f} ms, beside a save {beside * 1e3:.2f} ms: {slower:+.0f} %"
                )
            for title, contender in CONTENDERS.items():
                _contend(title, contender, folder / "save", arrays, rounds=rounds)
        click.echo(f"{steps:,} steps")
        for key, second in listing(folder / "steps", steps).items():
            click.echo(f"  {key:15} {second:.4f} s")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.manager")
