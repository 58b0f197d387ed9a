"""How long an asynchronous save blocks, beside one memcpy of the host tree; how far it slows training down; how long
listing many steps takes.

    OMP_NUM_THREADS=1 python -m benchmarks.manager [--quick] [--rounds N] [--steps N] [--only PART] [--dir DIR]

A round is a memcpy of all arrays into arrays that are there already, and then the call that begins a save, with nothing
in flight; the save is waited for. The first save also has to get its memory from the system, and is shown apart.
Ratios are taken within a round; quoted is their median with least and greatest. Peers are Orbax's CheckpointManager and
torch DCP's async_save (one gloo process, its default stager) with the same arrays.

Training is a loop of products of matrices on one core, with and without a save beside it. Both share this machine's
memory and disk, and its cores if no two are free: so the CPU time of the loop's own thread is told, too,
which does not count waiting for a core, or for the interpreter. A step that takes longer by the clock than by that
waited; one that takes longer by both found memory and caches busy.

A loop in pure Python shares its interpreter with a thread that saves, and shares none with another process. Beside a
save it runs, or is ready to run and waits for a core, or sleeps because another thread has the interpreter: the kernel
counts the first two (`schedstat`), so that the last is known however many programs the machine runs. Told are that
time, and the CPU time of all other threads of the program, both in per cent of the loop's own CPU time, and how much
longer a step takes by the clock, which means something on a machine with a free core alone.

`--only memory|training|python|blocking|steps` measures one of these.
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
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np

import ckptfmt
from ckptfmt.manager import CheckpointManager
from ckptfmt.manager.options import By

from .memory import Sampler, Spell, status
from .states import STATES

Arrays = dict[str, Any]
Calls = tuple[Callable[[int], Any], Callable[[], Any]]  # begin the save of a step; wait for it


def _seconds(call: Callable[..., Any], *arguments: Any) -> float:
    gc.collect()
    began = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - began


def _cpu_seconds(call: Callable[..., Any], *arguments: Any) -> tuple[float, float]:
    """By the clock, and in CPU time of this thread."""
    gc.collect()
    began, cpu = time.perf_counter(), time.thread_time()
    call(*arguments)
    return time.perf_counter() - began, time.thread_time() - cpu


# ---- contenders


@contextmanager
def _ckptfmt(folder: Path, arrays: Arrays, by: By = "thread") -> Iterator[Calls]:
    with CheckpointManager(folder, keep=1, background=by) as manager:
        yield lambda step: manager.save(step, arrays, block=False), manager.wait


@contextmanager
def _ckptfmt_torch(folder: Path, arrays: Arrays, by: By = "thread") -> Iterator[Calls]:
    import ckptfmt_torch  # noqa: F401  the adapter
    import torch

    with _ckptfmt(folder, {name: torch.from_numpy(array) for name, array in _seen(arrays).items()}, by) as calls:
        yield calls


@contextmanager
def _ckptfmt_jax(folder: Path, arrays: Arrays, by: By = "thread") -> Iterator[Calls]:
    import ckptfmt_jax  # noqa: F401  the adapter
    import jax

    with _ckptfmt(folder, jax.block_until_ready(jax.device_put(arrays)), by) as calls:
        yield calls


def _seen(arrays: Arrays) -> Arrays:
    """The same bytes as int16 or float32, which torch takes from NumPy."""
    kinds = {2: np.int16, 4: np.float32}
    return {name: array.view(kinds[array.itemsize]) for name, array in arrays.items()}


@contextmanager
def _orbax(folder: Path, arrays: Arrays, is_async: bool = True) -> Iterator[Calls]:
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=is_async)
    with ocp.CheckpointManager(folder, options=options) as manager:
        yield lambda step: manager.save(step, args=ocp.args.StandardSave(arrays)), manager.wait_until_finished


def _orbax_sync(folder: Path, arrays: Arrays) -> AbstractContextManager[Calls]:
    return _orbax(folder, arrays, is_async=False)


@contextmanager
def _dcp(folder: Path, arrays: Arrays) -> Iterator[Calls]:
    import torch
    import torch.distributed as dist
    from torch.distributed.checkpoint.state_dict_saver import async_save

    state = {name: torch.from_numpy(array) for name, array in _seen(arrays).items()}
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


CONTENDERS: dict[str, Callable[..., AbstractContextManager[Calls]]] = {
    "ckptfmt": _ckptfmt,
    "ckptfmt, torch": _ckptfmt_torch,
    "ckptfmt, JAX": _ckptfmt_jax,
    "ckptfmt, process": partial(_ckptfmt, by="process"),
    "ckptfmt, torch, process": partial(_ckptfmt_torch, by="process"),
    "ckptfmt, JAX, process": partial(_ckptfmt_jax, by="process"),
    "Orbax": _orbax,
    "Orbax, sync": _orbax_sync,
    "torch DCP": _dcp,
}
PARTS = ("memory", "training", "python", "blocking", "steps")
BY: tuple[By, ...] = ("thread", "process")


# ---- measurements


def blocking(calls: Calls, arrays: Arrays, rounds: int) -> dict[str, list[float]]:
    """Seconds of the first save's blocking part, and of each round's memcpy, blocking part and whole save; the same in
    CPU time of the calling thread, which does not count what other programs keep it from."""
    save, wait = calls
    target = {name: array.copy() for name, array in arrays.items()}

    def copy() -> None:
        for name, array in arrays.items():
            np.copyto(target[name], array)

    found: dict[str, list[float]] = {"first": [_seconds(save, 0)], "memcpy": [], "blocking": [], "whole": []}
    wait()
    for step in range(1, rounds + 1):
        os.sync()
        for key, call, arguments in (("memcpy", copy, ()), ("blocking", save, (step,))):
            seconds, cpu = _cpu_seconds(call, *arguments)
            found[key].append(seconds)
            found.setdefault(f"{key}, CPU", []).append(cpu)
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


def training(folder: Path, arrays: Arrays) -> dict[str, float]:
    """By how many per cent a training step takes longer beside a save, by the clock and in CPU time of its own thread;
    medians. And the CPU that the save used meanwhile, in per cent of a core."""
    weights = np.random.default_rng(0).standard_normal((600, 600), np.float32)
    clocks = (time.perf_counter, time.thread_time, time.process_time)

    def step() -> list[float]:
        began = [clock() for clock in clocks]
        for _ in range(4):
            weights @ weights
        return [clock() - start for clock, start in zip(clocks, began, strict=True)]

    alone = [step() for _ in range(200)]
    beside: list[list[float]] = []
    with CheckpointManager(folder) as manager:
        manager.save(0, arrays, block=False)
        while manager._worker.steps:
            beside.append(step())
    (wall, own, _), (wall_beside, own_beside, _) = (
        [statistics.median(times) for times in zip(*steps, strict=True)] for steps in (alone, beside)
    )
    clock, thread, process = map(sum, zip(*beside, strict=True))
    return {
        "by the clock": 100 * (wall_beside / wall - 1),
        "in its own CPU time": 100 * (own_beside / own - 1),
        "CPU of the save": 100 * (process - thread) / clock,
    }


class Loop(NamedTuple):
    """Seconds that a loop in pure Python took by the clock, those in which its thread ran or waited for a core, the CPU
    time of all other threads of the program meanwhile; and its steps."""

    clock: float
    ran: float
    queued: float
    others: float
    steps: int

    @classmethod
    def of(cls, goes_on: Callable[[int], object]) -> Loop:
        def now() -> tuple[float, float, float, float]:
            ran, queued = (int(part) / 1e9 for part in Path("/proc/thread-self/schedstat").read_text().split()[:2])
            return time.perf_counter(), ran, queued, time.process_time()

        steps, began = 0, now()
        while goes_on(steps):
            total = 0
            for number in range(20_000):
                total += number * number % 7
            steps += 1
        clock, ran, queued, cpu = (end - start for end, start in zip(now(), began, strict=True))
        return cls(clock, ran, queued, cpu - ran, steps)


def python(folder: Path, arrays: Arrays, by: By) -> dict[str, float]:
    """By how many per cent a loop in pure Python is slower beside a save: see above."""
    with CheckpointManager(folder, keep=1, durable=False, background=by) as manager:
        for step in range(2):  # the first takes memory, and finds nothing to delete
            manager.save(step, arrays, block=False)
            manager.wait()
        gc.collect()
        alone = Loop.of(lambda steps: steps < 300)
        manager.save(2, arrays, block=False)
        beside = Loop.of(lambda _: manager._worker.steps)
    return {
        "waiting for the interpreter": 100 * (beside.clock - beside.ran - beside.queued) / beside.ran,
        "CPU of other threads": 100 * beside.others / beside.ran,
        "by the clock": 100 * (beside.clock / beside.steps * alone.steps / alone.clock - 1),
    }


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
    cpu = [save / copy for save, copy in zip(found["blocking, CPU"], found["memcpy, CPU"], strict=True)]
    click.echo(f"  {name:23}  blocking / memcpy {_spread(ratios)}; in CPU time of the caller {_spread(cpu)}")
    click.echo(
        "                           " + "; ".join(f"{key} {_spread(seconds, ' s')}" for key, seconds in found.items())
    )


@click.command()
@click.option("--quick", is_flag=True, help="Small states.")
@click.option("--rounds", type=int, default=5, show_default=True)
@click.option("--steps", type=int, default=10_000, show_default=True, help="Steps to list.")
@click.option("--only", type=click.Choice(PARTS), multiple=True, help="Measure only this.")
@click.option("--with", "names", type=click.Choice(list(CONTENDERS)), multiple=True, help="Only these contenders.")
@click.option("--state", type=click.Choice(sorted(STATES)), multiple=True, help="Only with this state.")
@click.option("--dir", "parent", type=click.Path(path_type=Path), default=".", help="Where checkpoints go meanwhile.")
def main(
    quick: bool,
    rounds: int,
    steps: int,
    only: tuple[str, ...],
    names: tuple[str, ...],
    state: tuple[str, ...],
    parent: Path,
) -> None:
    """Measure and print."""
    parts = only or PARTS
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=parent) as name:
        folder = Path(name).resolve()
        for made in (make(quick=quick) for key, make in STATES.items() if key in (state or STATES)):
            arrays = made.arrays()
            click.echo(f"{made.title}: {len(arrays):,} tensors, {made.nbytes / 1e9:.2f} GB")
            if "memory" in parts and made.name == "llama":
                with _emptied(folder / "memory") as place:
                    added = memory(place, arrays) - made.nbytes
                click.echo(f"  memory of the first save: tree + {added / 2**20:.0f} MiB")
            if "training" in parts and made.name == "llama":
                for _ in range(rounds):
                    with _emptied(folder / "training") as place:
                        found = training(place, arrays)
                    text = ", ".join(f"{slower:+.0f} % {what}" for what, slower in found.items())
                    click.echo(f"  a training step beside a save: {text}")
            for by in BY * rounds if "python" in parts else ():
                with _emptied(folder / "python") as place:
                    found = python(place, arrays, by)
                text = ", ".join(f"{slower:+.2f} % {what}" for what, slower in found.items())
                click.echo(f"  a loop in Python beside a save by a {by:8} {text}")
            for title in (names or CONTENDERS) if "blocking" in parts else ():
                contender = CONTENDERS[title]
                _contend(title, contender, folder / "save", arrays, rounds=rounds)
        if "steps" in parts:
            click.echo(f"{steps:,} steps")
            for key, second in listing(folder / "steps", steps).items():
                click.echo(f"  {key:15} {second:.4f} s")


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.manager")
