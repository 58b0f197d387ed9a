#!/usr/bin/env bash
# JAX 0.10.2: jax.grad leaves out ordered callbacks in the body of a scan, without a word.
#
# An ordered io_callback in the body of lax.scan, which returns nothing and hangs on nothing that is differentiated, is
# called once for each step where the value is computed. Under jax.grad, with jit or without, it is never called: the
# partial evaluation of scan keeps of the known part what its results need, and not what has effects. Where a result
# of the callback is used, it stays. (jax-ml/jax issue 16637 is on the same rule and debug.callback.)
#
# Seen: value: [0.0, 1.0, 2.0]; grad: []; grad of what uses the result: [0.0, 1.0, 2.0]
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "jax==0.10.2"
cd "$folder"
venv/bin/python - <<'PYTHON'
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import io_callback

seen = []


def note(x):
    seen.append(float(x))
    return np.float32(0)


def function(scale, used):
    def body(total, x):
        zero = io_callback(note, jax.ShapeDtypeStruct((), jnp.float32), x, ordered=True)
        return total + jnp.sin(x * scale) + (zero if used else 0), None

    return jax.lax.scan(body, 0.0, jnp.arange(3.0))[0]


def calls(function, *arguments):
    seen.clear()
    jax.block_until_ready(function(*arguments))
    jax.effects_barrier()
    return list(seen)


every = [0.0, 1.0, 2.0]
assert calls(function, 1.0, False) == every
print("value:", every)
found = calls(jax.grad(function), 1.0, False)
print("grad:", found)
print("grad of what uses the result:", calls(jax.grad(function), 1.0, True))
if found == every:
    sys.exit("JAX now calls them")
PYTHON
