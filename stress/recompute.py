"""Gradients in a child process that is killed at random moments, forward, backward and while it tidies up: the process
that goes on gives the same gradient to the bit, and nothing is left. What a run that nobody resumes leaves, a
collection of garbage removes."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import numpy as np

import ckptfmt
from ckptfmt.recompute import Gradient, gradient

from .processes import CONTEXT, child
from .result import Result

COUNT = 200
STEPS = 40
# schedule, and its budgets; the last one finds out when to stop
WAYS: tuple[dict[str, Any], ...] = (
    {"schedule": "multistage", "memory": 3, "disk": 4},
    {"schedule": "revolve", "disk": 4},
    {"schedule": "h-revolve", "memory": 2, "disk": 6},
    {"schedule": "periodic-disk-revolve", "memory": 2, "disk": "unlimited"},
    {"schedule": "disk", "disk": "unlimited"},
    {"schedule": "revolve", "memory": 4},
    {"schedule": "two-level", "memory": 1, "disk": "unlimited"},
)
PAUSES = (0.0, 0.002, 0.01)  # seconds that a step takes


def run(folder: Path, *, seed: int, count: int = COUNT) -> Result:
    """`count` kills, of runs that are killed up to three times each, in turn of schedules."""
    moments = random.Random(seed)
    bad: list[str] = []
    kills = finished = number = 0
    where = {"forward": 0, "back": 0}
    wanted = full_storage()
    while kills < count:
        way = WAYS[number % len(WAYS)]
        work = folder / str(number)
        pause, every = moments.choice(PAUSES), moments.choice([0.0, 0.02, 10.0])
        for _ in range(moments.randint(1, 3)):
            was_killed = killed(work, way, pause, every, moments.uniform(0, 0.6))
            kills += was_killed
            finished += not was_killed
        result = resumed(work, way, 0.0, every)
        if result.report.resumed is not None:
            where[result.report.resumed[0]] += 1
        bad += [f"run {number}, {way}, seed {seed}: {text}" for text in problems(work, wanted, result)]
        bad += [f"run {number}, {way}, not resumed: {text}" for text in left_by_a_kill(folder / "once", way, moments)]
        number += 1
    ends = f"{where['forward']:,} that went on forward and {where['back']:,} back"
    return Result(f"{kills:,} kills of {number:,} runs, {ends}, beside {finished:,} children that had ended", bad)


def initial() -> dict[str, Any]:
    return {"x": np.linspace(-1, 1, 4000), "rng": np.random.default_rng(5)}


def step(state: dict[str, Any], number: int) -> dict[str, Any]:
    noise = state["rng"].standard_normal(4000)
    return {"x": np.sin(state["x"] + number) + 0.1 * noise * state["x"], "rng": state["rng"]}


def adjoint(state: dict[str, Any], number: int, after: Any) -> Any:
    noise = state["rng"].standard_normal(4000)
    return np.cos(state["x"] + number) * after + 0.1 * noise * after


def seed_of(final: dict[str, Any]) -> Any:
    return 2 * final["x"]


def full_storage() -> Gradient:
    return gradient(step, adjoint, initial(), STEPS, seed_of, memory=STEPS, schedule="memory")


def resumed(folder: Path, way: dict[str, Any], pause: float, every: float, *, resume: bool = True) -> Gradient:
    def slow(state: dict[str, Any], number: int) -> dict[str, Any]:
        time.sleep(pause)
        return step(state, number)

    steps: Any = STEPS
    if way["schedule"] == "two-level":

        def steps(_: Any, number: int) -> bool:
            return number < STEPS

    more: dict[str, Any] = {"journal_every": every, "resume": True} if resume else {}
    if resume or "disk" in way:
        more["folder"] = folder
    return gradient(slow, adjoint, initial(), steps, seed_of, **way, **more)


def killed(
    folder: Path, way: dict[str, Any], pause: float, every: float, seconds: float, *, resume: bool = True
) -> bool:
    """Let a child compute until it is killed, so many seconds after it began; gives whether it was, before its end."""
    begun = CONTEXT.Event()
    process = child(compute, folder, way, pause, every, resume, begun)
    begun.wait(120)
    process.join(seconds)
    was_killed: bool = process.is_alive()
    process.kill()
    process.join()
    return was_killed


def compute(folder: Path, way: dict[str, Any], pause: float, every: float, resume: bool, begun: Any) -> None:
    begun.set()
    resumed(folder, way, pause, every, resume=resume)


def problems(folder: Path, wanted: Gradient, found: Gradient) -> list[str]:
    """What is wrong with a gradient, and with what is left of its run."""
    texts = []
    if found.adjoint.tobytes() != wanted.adjoint.tobytes():
        texts.append("another gradient")
    if found.state["x"].tobytes() != wanted.state["x"].tobytes():
        texts.append("another final state")
    if found.state["rng"].bit_generator.state != wanted.state["rng"].bit_generator.state:
        texts.append("another generator at the end")
    if found.report.damaged:
        texts.append(f"damaged snapshots: {found.report.damaged}")
    if folder.exists():
        texts.append(f"left: {sorted(path.name for path in folder.iterdir())}")
    return texts


def left_by_a_kill(folder: Path, way: dict[str, Any], moments: random.Random) -> list[str]:
    """What a run that nobody resumes leaves, after a collection of garbage."""
    if "disk" not in way:
        return []
    folder.mkdir(exist_ok=True)
    killed(folder, way, 0.0005, 0.0, moments.uniform(0, 0.1), resume=False)
    ckptfmt.gc(folder, delete=True, grace=0)
    return [f"left: {path.name}" for path in folder.iterdir()]
