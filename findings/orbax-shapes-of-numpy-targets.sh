#!/usr/bin/env bash
# orbax-checkpoint 0.12.8 (JAX 0.10.2): restored into a tree of other shapes, `StandardCheckpointer` raises ValueError where
# the target has JAX arrays, and where it has NumPy arrays gives arrays of the shapes in the checkpoint, without a word.
# Their dtypes it does follow, of both.
#
# Output seen:
#   into jax.Array (1, 3) float32: ValueError: Requested shape: (1, 3) is not compatible with the stored shape: (2, 3).
#   into np.ndarray (1, 3) float32: (2, 3) float32
#   into np.ndarray (2, 3) int32: (2, 3) int32
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet orbax-checkpoint==0.12.8 jax==0.10.2 numpy==2.4.6
cd "$folder"

JAX_PLATFORMS=cpu venv/bin/python -W ignore - 2>/dev/null <<'PROGRAM'
import os
import sys

import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp


def restored(like, kind):
    """What comes back of a matrix of 2 by 3 that was saved as what the target is."""
    path = os.path.abspath(f"run-{len(os.listdir('.'))}")
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path, {"w": kind(np.ones((2, 3), np.float32))})
        checkpointer.wait_until_finished()
        try:
            found = checkpointer.restore(path, {"w": like})["w"]
            found = f"{found.shape} {found.dtype}"
        except ValueError as error:
            found = f"ValueError: {str(error).split(' Truncating')[0]}"
    print(f"into {'np.ndarray' if kind is np.asarray else 'jax.Array'} {like.shape} {like.dtype}: {found}")
    return found.split(": ")[0]


found = [restored(jnp.zeros((1, 3)), jnp.asarray), restored(np.zeros((1, 3), np.float32), np.asarray)]
found.append(restored(np.zeros((2, 3), np.int32), np.asarray))
sys.exit(found != ["ValueError", "(2, 3) float32", "(2, 3) int32"])
PROGRAM
