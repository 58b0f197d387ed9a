"""Training in JAX on a mesh of devices, that can stop and go on: on the same mesh to the bit, or on another.

python examples/jax_training.py --checkpoint run.ckpt --steps 40 --mesh 4x2
python examples/jax_training.py --checkpoint run.ckpt --steps 80 --mesh 2x2

Needs the packages jax and optax; it runs on CPU devices.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any, NamedTuple

import ckptfmt_jax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import ckptfmt

WIDTH, BATCH = 256, 64
AXES = ("rows", "columns")
OPTIMIZER = optax.adamw(1e-3)


class State(NamedTuple):
    """Everything that a run needs to go on."""

    params: Any
    optimizer: Any
    key: jax.Array
    step: jax.Array


def start(key: jax.Array) -> State:
    """A new run."""
    first, second, rest = jax.random.split(key, 3)
    params = {
        "hidden": jax.random.normal(first, (8, WIDTH)) / math.sqrt(8),
        "out": jax.random.normal(second, (WIDTH, 8)) / math.sqrt(WIDTH),
    }
    return State(params, OPTIMIZER.init(params), rest, jnp.zeros((), jnp.int32))


def loss(params: Any, x: jax.Array) -> jax.Array:
    """How badly a network of one hidden layer sorts vectors."""
    return jnp.mean((jnp.tanh(x @ params["hidden"]) @ params["out"] - jnp.sort(x, axis=1)) ** 2)


def advance(state: State) -> tuple[State, jax.Array]:
    """One step on a random batch; gives the batch's loss."""
    key, drawn = jax.random.split(state.key)
    value, gradients = jax.value_and_grad(loss)(state.params, jax.random.normal(drawn, (BATCH, 8)))
    updates, optimizer = OPTIMIZER.update(gradients, state.optimizer, state.params)
    return State(optax.apply_updates(state.params, updates), optimizer, key, state.step + 1), value


def shardings(state: State, mesh: Mesh) -> State:
    """The wide sides of arrays over the whole mesh, everything else on every device."""

    def place(leaf: Any) -> NamedSharding:
        return NamedSharding(mesh, PartitionSpec(*(AXES if side == WIDTH else None for side in leaf.shape)))

    placed: State = jax.tree.map(place, state)
    return placed


def main() -> None:
    parser = argparse.ArgumentParser(description="Train on a mesh, save, and resume if there is a checkpoint.")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--mesh", default="4x2", help="rows x columns of devices")
    options = parser.parse_args()
    rows, columns = map(int, options.mesh.split("x"))
    jax.config.update("jax_num_cpu_devices", rows * columns)
    mesh = Mesh(np.asarray(jax.devices()).reshape(rows, columns), AXES)

    shapes = jax.eval_shape(start, jax.random.key(0))  # containers, shapes and dtypes of a run; nothing is computed
    where = shardings(shapes, mesh)
    if options.checkpoint.exists():
        state = ckptfmt_jax.load(options.checkpoint, shapes, sharding=where)  # onto this mesh, whichever saved it
    else:
        state = jax.device_put(start(jax.random.key(0)), where)

    step, value = jax.jit(advance), math.nan
    while state.step < options.steps:
        state, value = step(state)
    ckptfmt_jax.save(options.checkpoint, state, overwrite=True, metadata={"loss": float(value)})

    with ckptfmt.open(options.checkpoint) as ckpt:
        print(f"step {state.step} on a mesh of {options.mesh}: loss {ckpt.metadata['loss']:.4f}")
        print(f"{ckpt['params/hidden']}: {ckpt['params/hidden'].stored_bytes:,} bytes, each shard stored once")


if __name__ == "__main__":
    main()
