#!/usr/bin/env bash
# equinox 0.13.8 (jax 0.10.2): tree_serialise_leaves writes JAX arrays of float8 and int4 without complaint, and
# tree_deserialise_leaves cannot read them again; bfloat16, which NumPy lacks as well, it can. Each leaf is a .npy record,
# which has no name for such a dtype; of bfloat16 equinox notes the name beside it.
#
# Output seen:
#   bfloat16 written, read again
#   float8_e4m3fn written, not read: RuntimeError
#   float8_e5m2 written, not read: TreePathError
#   int4 written, not read: RuntimeError
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet equinox==0.13.8 jax==0.10.2 numpy==2.4.6
cd "$folder"

JAX_PLATFORMS=cpu venv/bin/python - <<'PROGRAM'
import io
import sys

import equinox as eqx
import jax.numpy as jnp


def outcome(name):
    tree = {"x": jnp.ones(2, name)}
    file = io.BytesIO()
    eqx.tree_serialise_leaves(file, tree)
    file.seek(0)
    try:
        found = eqx.tree_deserialise_leaves(file, tree)["x"]
    except Exception as error:
        return f"written, not read: {type(error).__name__}"
    return "written, read again" if (found == tree["x"]).all() else "written, read as something else"


names = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "int4")
seen = [outcome(name) for name in names]
for name, words in zip(names, seen):
    print(name, words)
failed = [words.startswith("written, not read") for words in seen]
sys.exit(failed != [False, True, True, True])
PROGRAM
