#!/usr/bin/env bash
# safetensors 0.8.0 with mlx 0.32.4: `safetensors.mlx.save_file` writes a transposed array, or every second column, with
# its shape and other elements, without a word, as it gives the memory of an array that MLX has not moved. bfloat16, in
# which most weights of MLX are, raises ValueError. `mlx.core.save_safetensors` writes all of them as they are.
#
# Output seen:
#   array:            transposed [[0, 3], [1, 4], [2, 5]], columns [[0, 2], [3, 5]]
#   save_safetensors: transposed [[0, 3], [1, 4], [2, 5]], columns [[0, 2], [3, 5]]
#   save_file:        transposed [[0, 1], [2, 3], [4, 5]], columns [[0, 1], [2, 3]]
#   bfloat16: ValueError: 'bfloat16' is not a valid PEP 3118 buffer format string
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet safetensors==0.8.0 "mlx[cpu]==0.32.4" numpy==2.4.6
cd "$folder"

venv/bin/python - <<'PROGRAM'
import sys

import mlx.core as mx
from safetensors.mlx import save_file


def shown(arrays):
    return ", ".join(f"{name} {arrays[name].tolist()}" for name in ("transposed", "columns"))


def arrays():
    w = mx.arange(6).reshape(2, 3)
    return {"transposed": w.T, "columns": w[:, ::2]}


mx.save_safetensors("own.safetensors", arrays())
save_file(arrays(), "face.safetensors")
own, face = mx.load("own.safetensors"), mx.load("face.safetensors")
print("array:           ", shown(arrays()))
print("save_safetensors:", shown(own))
print("save_file:       ", shown(face))
try:
    save_file({"w": mx.ones(2).astype(mx.bfloat16)}, "bfloat16.safetensors")
    refused = False
except ValueError as error:
    print(f"bfloat16: ValueError: {error}")
    refused = True
sys.exit(not refused or shown(own) != shown(arrays()) or shown(face) == shown(arrays()))
PROGRAM
