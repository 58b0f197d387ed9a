"""One process of a contest: both sides take turns, in shuffled order in each round."""

from __future__ import annotations

import os
import random
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import disk
from benchmarks.memory import Meter, give_back, touch
from benchmarks.states import STATES

from .contest import CONTESTS, Cluster, Contest
from .place import Action, Place

SEED = 7
DEVICES = 2  # of a process of JAX, if there are several


@dataclass(frozen=True, slots=True)
class Job:
    """A contest by its place in the table, and one process's part in it. `meeting`: where processes find each other, a
    file for torch and an address for JAX."""

    contest: int
    folder: str
    quick: bool
    rounds: int
    rank: int
    meeting: str


Figures = list[list[tuple[float, int]]]
"""For each round, for both sides: seconds, and resident bytes that this process added at most."""


def work(job: Job) -> Figures:
    """Do one process's part."""
    warnings.simplefilter("ignore")  # DCP warns of a missing process group
    contest = CONTESTS[job.contest]
    state = STATES["llama"](quick=job.quick)
    actions, barrier, leave = _enter(contest, job)
    _play(contest, actions, Place(state.excerpt(), contest.ranks, job.rank), job, 1, barrier)  # imports, first calls
    figures = _play(contest, actions, Place(state, contest.ranks, job.rank), job, job.rounds, barrier)
    leave()
    return figures


def _play(
    contest: Contest,
    actions: dict[str, Action],
    place: Place,
    job: Job,
    rounds: int,
    barrier: Callable[[], None],
) -> Figures:
    paths = [os.path.join(job.folder, side) for side in ("ours", "theirs")]
    sides = [contest.ours, contest.theirs]
    for saver, path in zip(contest.saved_by or (), paths, strict=False):
        actions[saver](path, place)()
        barrier()
    if contest.saved_by:
        place.kept.clear()
    shuffler = random.Random(SEED)  # the same on every rank
    found: Figures = []
    for _ in range(rounds):
        pair: list[Any] = [None, None]
        for side in shuffler.sample([0, 1], 2):
            call = actions[sides[side]](paths[side], place)
            os.sync()
            give_back()
            touch(place.state.nbytes // contest.ranks)
            barrier()
            with Meter() as meter:
                began = time.perf_counter()
                call()
                seconds = time.perf_counter() - began
            pair[side] = seconds, meter.spell.resident_rise if meter.spell else 0
            barrier()
            if not contest.saved_by:
                _remove(paths[side : side + 1], job, barrier)
        found.append(pair)
    _remove(paths, job, barrier)
    return found


def _remove(paths: list[str], job: Job, barrier: Callable[[], None]) -> None:
    if job.rank == 0:
        for path in paths:
            disk.remove(Path(path))
    barrier()


def _nothing() -> None:
    """What a process that is alone does to meet the others."""


def _enter(contest: Contest, job: Job) -> tuple[dict[str, Action], Callable[[], None], Callable[[], None]]:
    """The actions, a barrier for all processes, and how to part."""
    cluster: Cluster = contest.cluster
    if cluster == "jax":
        return _enter_jax(contest, job)
    import torch
    import torch.distributed as dist

    from .torch_actions import ACTIONS

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // contest.ranks))
    if contest.ranks == 1:
        return ACTIONS, _nothing, _nothing
    dist.init_process_group("gloo", init_method=f"file://{job.meeting}", rank=job.rank, world_size=contest.ranks)
    return ACTIONS, dist.barrier, dist.destroy_process_group


def _enter_jax(contest: Contest, job: Job) -> tuple[dict[str, Action], Callable[[], None], Callable[[], None]]:
    import jax

    barrier, leave = _nothing, _nothing
    if contest.ranks > 1:
        jax.config.update("jax_num_cpu_devices", DEVICES)
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(job.meeting, contest.ranks, job.rank)
        from jax.experimental.multihost_utils import sync_global_devices

        def barrier() -> None:
            sync_global_devices("round")

        leave = jax.distributed.shutdown
    from .jax_actions import ACTIONS

    return ACTIONS, barrier, leave
