"""Training in Flax NNX and optax with a checkpoint manager: stop it at any moment, and it goes on to the bit.

    python examples/nnx_training.py RUN [STEPS]

Needs the packages flax and optax. Model, optimizer and the model's random streams are one state; `like=` gives it back
with its containers, from a template that costs nothing to make.
"""

from __future__ import annotations

import sys

import ckptfmt_jax  # noqa: F401  the adapter
import jax
import jax.numpy as jnp
import optax
from flax import nnx

from ckptfmt import CheckpointManager
from ckptfmt.manager import Best, Last


class Sorter(nnx.Module):  # type: ignore[misc]  # not typed
    """Sorts vectors, roughly."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(8, 64, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.out = nnx.Linear(64, 8, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(self.dropout(nnx.relu(self.hidden(x))))


class Run(nnx.Module):  # type: ignore[misc]  # not typed
    """Everything that is saved."""

    def __init__(self) -> None:
        self.rngs = nnx.Rngs(0)
        self.model = Sorter(self.rngs)
        self.optimizer = nnx.Optimizer(self.model, optax.adamw(3e-3), wrt=nnx.Param)


@nnx.jit  # type: ignore[untyped-decorator]
def advance(run: Run) -> jax.Array:
    """One step on a random batch; gives the batch's loss."""
    x = jax.random.normal(run.rngs(), (32, 8))

    def loss(model: Sorter) -> jax.Array:
        return jnp.mean((model(x) - jnp.sort(x, axis=1)) ** 2)

    value, gradients = nnx.value_and_grad(loss)(run.model)
    run.optimizer.update(run.model, gradients)
    return value


def main(directory: str = "run", steps: str = "100") -> None:
    with CheckpointManager(directory, schedule=10, keep=[Last(2), Best("loss")]) as manager:
        manager.on_preemption()
        latest = manager.latest()
        if latest is None:
            run = Run()
        else:
            graph, shapes = nnx.split(nnx.eval_shape(Run))
            run = nnx.merge(graph, manager.restore(like=shapes))
        step = 0 if latest is None else latest.step
        print(f"starting at step {step}")
        while step < int(steps):
            loss = advance(run)
            step += 1
            manager.save(step, nnx.state(run), metrics={"loss": loss}, block=False)  # arrays of JAX need no copy
            if manager.preempted:
                break
    print(f"stopped at step {step}; kept {', '.join(str(step.step) for step in manager.steps())}")


if __name__ == "__main__":
    main(*sys.argv[1:])
