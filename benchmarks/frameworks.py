"""`python -m benchmarks.frameworks [--quick]`: torch tensors beside NumPy arrays, and torch's own ways beside ours.

Every measurement is a process of its own (or one for each rank), which first does the same on a few megabytes, so that
imports and first calls are not measured. The two sides of a contest take turns, in shuffled order, within each round;
ratios are taken within the round, and the median of the rounds is shown with least and greatest. Nothing is flushed to
the disk; files are in the page cache when they are loaded.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from benchmarks import disk
from benchmarks.contenders.contender import as_uint16
from benchmarks.course import ROOT
from benchmarks.memory import Meter, touch
from benchmarks.states import STATES, State

SEED = 7
TIMEOUT = 600  # seconds of one measurement


@dataclass(frozen=True, slots=True)
class Contest:
    """Our side, the side that it is compared with, and how many times as fast ours has to be. Each side is an action
    and the checkpoint that it saves or loads."""

    title: str
    ours: tuple[str, str]
    theirs: tuple[str, str]
    needed: float
    ranks: int = 1


CONTESTS = (
    Contest("save: torch tensors beside NumPy arrays", ("save_torch", "t"), ("save_numpy", "n"), 0.95),
    Contest("load: torch tensors beside NumPy arrays", ("load_torch", "t"), ("load_numpy", "n"), 0.95),
    Contest("save: beside torch.save", ("save_torch", "t"), ("torch_save", "p"), 1.0),
    Contest(
        "load_into a module, beside load_state_dict(torch.load)", ("load_into", "t"), ("load_state_dict", "p"), 1.5
    ),
    Contest("load_into a meta module, beside assign=True", ("load_into_meta", "t"), ("load_state_dict_meta", "p"), 1.0),
    *(
        Contest(f"DCP {verb}, {ranks} rank{'s'[: ranks - 1]}", (f"dcp_{verb}", "d"), (f"fs_{verb}", "f"), needed, ranks)
        for ranks, needed in ((1, 3.0), (2, 1.0), (4, 1.0))
        for verb in ("save", "load")
    ),
)


@dataclass(frozen=True, slots=True)
class Job:
    """One process's work."""

    action: str
    path: str
    quick: bool
    ranks: int
    rank: int
    store: str


# ---- what is measured: each gives the call to be timed


def _tensors(state: State) -> dict[str, Any]:
    import torch

    return {n: torch.from_numpy(as_uint16(array)).view(torch.bfloat16) for n, array in state.arrays().items()}


def _module(state: State, device: str) -> Any:
    import torch

    module = torch.nn.Module()
    for name, shape in state.shapes.items():
        value = torch.zeros(shape, dtype=torch.bfloat16, device=device) + (device != "meta")  # pages that are there
        module.register_parameter(name.replace(".", "_"), torch.nn.Parameter(value))
    return module


def _renamed(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name.replace(".", "_"): value for name, value in tensors.items()}


def save_numpy(path: str, state: State, job: Job) -> Callable[[], Any]:
    import ckptfmt

    arrays = _renamed(state.arrays())
    return lambda: ckptfmt.save(path, arrays, durable=False)


def save_torch(path: str, state: State, job: Job) -> Callable[[], Any]:
    import ckptfmt_torch

    tensors = _renamed(_tensors(state))
    return lambda: ckptfmt_torch.save(path, tensors, durable=False)


def torch_save(path: str, state: State, job: Job) -> Callable[[], Any]:
    import torch

    tensors = _renamed(_tensors(state))
    return lambda: torch.save(tensors, path)


def load_numpy(path: str, state: State, job: Job) -> Callable[[], Any]:
    import ckptfmt

    return lambda: ckptfmt.load(path)


def load_torch(path: str, state: State, job: Job) -> Callable[[], Any]:
    import ckptfmt_torch

    return lambda: ckptfmt_torch.load(path)


def load_into(path: str, state: State, job: Job, device: str = "cpu") -> Callable[[], Any]:
    import ckptfmt_torch

    module = _module(state, device)
    return lambda: ckptfmt_torch.load_into(path, module)


def load_into_meta(path: str, state: State, job: Job) -> Callable[[], Any]:
    return load_into(path, state, job, "meta")


def load_state_dict(path: str, state: State, job: Job, device: str = "cpu") -> Callable[[], Any]:
    import torch

    module = _module(state, device)
    return lambda: module.load_state_dict(torch.load(path, weights_only=True), assign=device == "meta")


def load_state_dict_meta(path: str, state: State, job: Job) -> Callable[[], Any]:
    return load_state_dict(path, state, job, "meta")


def _sharded(state: State, job: Job, blank: bool) -> dict[str, Any]:
    """Tensors sharded along their first axis over the ranks; plain ones in one process."""
    import torch

    if job.ranks == 1:
        tensors = _tensors(state)
        return {n: torch.zeros_like(t) + 1 for n, t in tensors.items()} if blank else tensors
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Shard

    mesh = init_device_mesh("cpu", (job.ranks,))
    found = {}
    for name, shape in state.shapes.items():
        rows = -(-shape[0] // job.ranks)
        part = as_uint16(state.array(name)[rows * job.rank : rows * (job.rank + 1)]).copy()
        local = torch.from_numpy(part).view(torch.bfloat16)
        found[name] = DTensor.from_local(
            torch.zeros_like(local) + 1 if blank else local,
            mesh,
            [Shard(0)],
            run_check=False,
            shape=torch.Size(shape),
            stride=torch.empty(shape, device="meta").stride(),
        )
    return found


def _dcp(state: State, job: Job, *, writer: Any = None, reader: Any = None) -> Callable[[], Any]:
    from torch.distributed.checkpoint.state_dict_loader import load
    from torch.distributed.checkpoint.state_dict_saver import save

    tensors = _sharded(state, job, blank=reader is not None)
    alone = job.ranks == 1
    if writer is not None:
        return lambda: save(tensors, storage_writer=writer, no_dist=alone)
    return lambda: load(tensors, storage_reader=reader, no_dist=alone)


def dcp_save(path: str, state: State, job: Job) -> Callable[[], Any]:
    from ckptfmt_torch.dcp import StorageWriter

    return _dcp(state, job, writer=StorageWriter(path, durable=False))


def fs_save(path: str, state: State, job: Job) -> Callable[[], Any]:
    from torch.distributed.checkpoint.filesystem import FileSystemWriter

    return _dcp(state, job, writer=FileSystemWriter(path, sync_files=False))


def dcp_load(path: str, state: State, job: Job) -> Callable[[], Any]:
    from ckptfmt_torch.dcp import StorageReader

    return _dcp(state, job, reader=StorageReader(path))


def fs_load(path: str, state: State, job: Job) -> Callable[[], Any]:
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    return _dcp(state, job, reader=FileSystemReader(path))


ACTIONS: dict[str, Callable[[str, State, Job], Callable[[], Any]]] = {
    action.__name__: action
    for action in (
        *(save_numpy, save_torch, torch_save, load_numpy, load_torch),
        *(load_into, load_into_meta, load_state_dict, load_state_dict_meta),
        *(dcp_save, fs_save, dcp_load, fs_load),
    )
}
# What saves the checkpoint that an action loads; the others save.
SAVED_BY = {
    "load_numpy": "save_numpy",
    "load_torch": "save_torch",
    "load_into": "save_torch",
    "load_into_meta": "save_torch",
    "load_state_dict": "torch_save",
    "load_state_dict_meta": "torch_save",
    "dcp_load": "dcp_save",
    "fs_load": "fs_save",
}


# ---- one process


def work(job: Job) -> dict[str, float]:
    """Seconds from a common start to the end of the slowest rank, and the resident bytes that this rank added."""
    warnings.simplefilter("ignore")  # DCP warns of a missing process group
    import torch
    import torch.distributed as dist

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // job.ranks))
    if job.ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{job.store}", rank=job.rank, world_size=job.ranks)
    state = STATES["llama"](quick=job.quick)
    _warm_up(job, state.excerpt())
    call = ACTIONS[job.action](job.path, state, job)
    touch(state.nbytes // job.ranks)
    if job.ranks > 1:
        dist.barrier()
    with Meter() as meter:
        began = time.perf_counter()
        call()
        seconds = time.perf_counter() - began
    if job.ranks > 1:
        slowest = torch.tensor(seconds, dtype=torch.float64)
        dist.all_reduce(slowest, dist.ReduceOp.MAX)
        seconds = slowest.item()
        dist.destroy_process_group()
    return {"seconds": seconds, "rise": meter.spell.resident_rise if meter.spell else 0}


def _warm_up(job: Job, excerpt: State) -> None:
    path = f"{job.path}.warm-up"
    saver = SAVED_BY.get(job.action)
    if saver is not None:
        ACTIONS[saver](path, excerpt, job)()
    ACTIONS[job.action](path, excerpt, job)()
    if job.ranks > 1:
        import torch.distributed as dist

        dist.barrier()
    if job.rank == 0:
        disk.remove(Path(path))


def run(action: str, path: Path, quick: bool, ranks: int) -> dict[str, float]:
    """Run an action in fresh processes; gives rank 0's figures."""
    store = path.with_name("store")
    disk.remove(store)
    environment = {**os.environ, "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // ranks))}
    processes = []
    for rank in range(ranks):
        job = Job(action, str(path), quick, ranks, rank, str(store))
        command = [sys.executable, "-m", "benchmarks.frameworks", "--job", json.dumps(asdict(job))]
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(subprocess.Popen(command, cwd=ROOT, env=environment, **pipes))
    try:
        outcomes = [process.communicate(timeout=TIMEOUT) for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, (_, words) in zip(processes, outcomes, strict=True):
        if process.returncode:
            raise click.ClickException(f"{action} on {ranks} ranks failed:\n{words[-2000:]}")
    figures: dict[str, float] = json.loads(outcomes[0][0].splitlines()[-1])
    return figures


# ---- the course


def _round(contest: Contest, folder: Path, quick: bool, shuffler: random.Random) -> list[dict[str, float]]:
    """Both sides once, ours first in the result."""
    found = {}
    for side in shuffler.sample([0, 1], 2):
        action, name = (contest.ours, contest.theirs)[side]
        path = folder / name
        if action in SAVED_BY:
            run(SAVED_BY[action], path, quick, contest.ranks)
        os.sync()
        found[side] = run(action, path, quick, contest.ranks)
        disk.remove(path)
    return [found[0], found[1]]


@click.command()
@click.option("--quick", is_flag=True, help="A small state: too small for verdicts, for a glance only.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--only", default="", help="Only contests whose title holds this text.")
@click.option("--folder", type=click.Path(path_type=Path), help="Where checkpoints are written.")
@click.option("--job", hidden=True)
def main(quick: bool, rounds: int, only: str, folder: Path | None, job: str | None) -> None:
    """Measure the torch adapter beside the NumPy path and torch's own ways."""
    if job is not None:
        print(json.dumps(work(Job(**json.loads(job)))))
        return
    console, shuffler = Console(width=150), random.Random(SEED)
    size = STATES["llama"](quick=quick).nbytes / 1e9
    table = Table(title=f"bfloat16 state of {size:.2f} GB; median of {rounds} (least–greatest); above 1 is faster")
    for column in ("", "ours, s", "beside, s", "ratio", "asked for", "memory added, MiB: ours", "beside"):
        table.add_column(column)
    with tempfile.TemporaryDirectory(dir=folder, prefix="ckptfmt-bench-") as scratch:
        for contest in CONTESTS:
            if only not in contest.title:
                continue
            pairs = [_round(contest, Path(scratch), quick, shuffler) for _ in range(rounds)]
            ratios = [theirs["seconds"] / ours["seconds"] for ours, theirs in pairs]
            ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
            table.add_row(
                contest.title,
                *(f"{statistics.median(one['seconds'] for one in side):.3f}" for side in (ours, theirs)),
                f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})",
                f"≥ {contest.needed}",
                *(f"{statistics.median(one['rise'] for one in side) / (1 << 20):.0f}" for side in (ours, theirs)),
            )
            console.print(f"{contest.title}: {statistics.median(ratios):.2f}")
    console.print(table)


if __name__ == "__main__":
    main()
