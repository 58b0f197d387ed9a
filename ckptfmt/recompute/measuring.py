"""What the steps of a program cost, measured once."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from ..api import load, save
from ..calls import takes
from ..format.tree import Tree
from ..storage import path_of
from ..storage.temporaries import folder_beside
from .computation import AdjointFunction, Computation, PlainSteps, StepFunction
from .costs import Costs

ROUNDS = 3


@takes()
def measure(
    step: StepFunction,
    adjoint: AdjointFunction,
    state: Tree,
    seed: Any,
    *,
    folder: str | os.PathLike[str] | None = None,
) -> Costs:
    """Measure what a program costs, in seconds: the first step, its adjoint, and a snapshot of the initial state in
    `folder`, which is removed again; without one the disk costs nothing. The arguments are those of `gradient`, but
    `seed` is an adjoint as that of the state after a step."""
    where = None if folder is None else path_of(folder)
    return measured(PlainSteps(step, adjoint, state), state, where, seed)


def measured(computation: Computation, state: Any, folder: str | None, seed: Any = None) -> Costs:
    """The costs of a computation in seconds, each the least of three: a step from the initial state, its adjoint if
    there is a `seed` for it (else as much as a step), and a snapshot in a folder (None: nothing)."""
    hold, give = computation.hold, computation.give

    def step() -> None:
        computation.advance(give(hold(state), last=True), 0, 1)

    def copy() -> None:
        give(hold(state), last=True)

    copying = _least(copy)
    forward = max(_least(step) - copying, 1e-9)
    adjoint = forward
    if seed is not None:
        adjoint = max(_least(lambda: computation.reverse(give(hold(state), last=True), 0, hold(seed))) - copying, 0.0)
    if folder is None:
        return Costs(forward, adjoint, 0.0, 0.0)
    with folder_beside(os.path.join(folder, "measure")) as place:
        path = os.path.join(place, "snapshot.ckpt")
        tree, _ = computation.pack(hold(state))
        write = _least(lambda: save(path, tree, overwrite=True, durable=False))
        read = _least(lambda: load(path))
    return Costs(forward, adjoint, write, read)


def _least(work: Callable[[], Any]) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)
