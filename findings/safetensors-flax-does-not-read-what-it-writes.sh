#!/usr/bin/env bash
# safetensors 0.8.0 with JAX 0.10.2 and flax 0.12.8: `safetensors.flax` writes bfloat16 and float8, and does not read them
# all: `load`, which takes bytes, raises KeyError for each, and `load_file` AttributeError for float8, which it looks for
# in NumPy.
#
# Output seen:
#   float16: load equal, load_file equal
#   bfloat16: load KeyError: 'BF16', load_file equal
#   float8_e4m3fn: load KeyError: 'F8_E4M3', load_file AttributeError: module 'numpy' has no attribute 'float8_e4m3fn'
#   float8_e5m2: load KeyError: 'F8_E5M2', load_file AttributeError: module 'numpy' has no attribute 'float8_e5m2'
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet safetensors==0.8.0 jax==0.10.2 jaxlib==0.10.2 flax==0.12.8 numpy==2.4.6
cd "$folder"

venv/bin/python -W ignore - <<'PROGRAM'
import sys
from pathlib import Path

import jax.numpy as jnp
from safetensors.flax import load, load_file, save_file


def tried(read, w):
    try:
        found = read()["w"]
    except (AttributeError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    return "equal" if found.dtype == w.dtype and bool((found == w).all()) else "not equal"


fine = []
for name in ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"):
    w = jnp.array([1, 0.5, -2]).astype(name)
    save_file({"w": w}, "w.safetensors")
    from_bytes = tried(lambda: load(Path("w.safetensors").read_bytes()), w)
    from_file = tried(lambda: load_file("w.safetensors"), w)
    print(f"{name}: load {from_bytes}, load_file {from_file}")
    fine.append((from_bytes == "equal", from_file == "equal"))
sys.exit(fine != [(True, True), (False, True), (False, False), (False, False)])
PROGRAM
