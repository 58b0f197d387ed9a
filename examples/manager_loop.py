"""A training loop with a checkpoint manager: saves in the background, keeps the right ones, stops well when preempted.

    python examples/manager_loop.py RUN [STEPS]

Run it, stop it with `kill` or Ctrl-C, run the same command again: it goes on where it was. `ckptfmt ls RUN` shows what
was kept, and why.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

import numpy as np

from ckptfmt import CheckpointManager
from ckptfmt.manager import Best, Every, Last, Schedule

RATE, NOISE = 0.05, 0.5


def main(directory: str = "run", steps: str = "200") -> None:
    last = int(steps)
    schedule = Schedule(steps=10, seconds=600, last=last)
    with CheckpointManager(directory, schedule=schedule, keep=[Last(2), Every(100), Best("loss")]) as manager:
        manager.on_preemption(signal.SIGTERM, signal.SIGINT)
        latest = manager.latest()
        state = start() if latest is None else manager.restore(fallback=True)
        print(f"starting at step {state['step']}")
        while state["step"] < last:
            loss = advance(state)
            manager.save(state["step"], state, metrics={"loss": loss}, block=False)  # copies the arrays, and returns
            if manager.preempted:
                break
    best = manager.best()
    kept = ", ".join(str(step.step) for step in manager.steps())
    print(f"stopped at step {state['step']}; kept {kept}; best {best and best.step}")


def start() -> dict[str, Any]:
    """A new run: a point on its way to the origin, and all that is needed to go on to the bit."""
    return {"step": 0, "w": np.full(1000, 10.0), "rng": np.random.default_rng(0).bit_generator.state}


def advance(state: dict[str, Any]) -> float:
    """One step of stochastic gradient descent, in place; gives the loss before it."""
    rng = np.random.default_rng()
    rng.bit_generator.state = state["rng"]
    loss = float(np.mean(state["w"] ** 2))
    state["w"] -= RATE * (2 * state["w"] + NOISE * rng.standard_normal(state["w"].shape))
    state |= {"step": state["step"] + 1, "rng": rng.bit_generator.state}
    return loss


if __name__ == "__main__":
    main(*sys.argv[1:])
