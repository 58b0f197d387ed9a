#!/usr/bin/env bash
# orbax-checkpoint 0.12.8: {"a": {"b": x}, "a.b": y} is saved without a word, and both come back as one of the two
# arrays. Keys are joined with periods to name the array that is stored, and so both have the name a.b; with other shapes
# the save fails in TensorStore.
#
# Output seen:
#   saved    a/b: [1. 1.] a.b: [2. 2.]
#   restored a/b: [1. 1.] a.b: [1. 1.]
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet orbax-checkpoint==0.12.8 jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
cd "$folder"

JAX_PLATFORMS=cpu venv/bin/python -W ignore - <<'PROGRAM'
import sys

import numpy as np
import orbax.checkpoint as ocp

saved = {"a": {"b": np.full(2, 1.0)}, "a.b": np.full(2, 2.0)}
with ocp.PyTreeCheckpointer() as checkpointer:
    checkpointer.save(f"{sys.prefix}/state", saved)
    restored = checkpointer.restore(f"{sys.prefix}/state")
for name, tree in (("saved   ", saved), ("restored", restored)):
    print(name, "a/b:", tree["a"]["b"], "a.b:", tree["a.b"])
sys.exit(not np.array_equal(restored["a"]["b"], restored["a.b"]))
PROGRAM
