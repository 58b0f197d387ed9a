#!/usr/bin/env bash
# mlx 0.32.4 (CPU): of a safetensors file, tensors of the dtypes F8_E4M3 and F8_E8M0 are read as uint8, without a word:
# the array does not say that these are codes of numbers, and saved again they are U8 for every reader. F8_E5M2 and F64
# are refused by name, although mlx has float64 (and reads it from .npy).
#
# Output seen:
#   F8_E4M3: mlx.core.uint8, saved again as U8
#   F8_E8M0: mlx.core.uint8, saved again as U8
#   F8_E5M2: [safetensor] unsupported dtype F8_E5M2
#   F64: [safetensor] unsupported dtype F64
#   float64 of .npy: mlx.core.float64
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "mlx[cpu]==0.32.4" numpy==2.4.6
cd "$folder"

venv/bin/python - <<'PROGRAM'
import json
import sys

import mlx.core as mx
import numpy as np


def written(code, itemsize):
    header = json.dumps({"x": {"dtype": code, "shape": [2], "data_offsets": [0, 2 * itemsize]}}).encode()
    header += b" " * (-len(header) % 8)
    with open("in.safetensors", "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header + bytes(2 * itemsize))


def outcome(code, itemsize):
    written(code, itemsize)
    try:
        x = mx.load("in.safetensors")["x"]
    except RuntimeError as error:
        return str(error)
    mx.save_safetensors("out.safetensors", {"x": x})
    with open("out.safetensors", "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return f"{x.dtype}, saved again as {header['x']['dtype']}"


seen = {code: outcome(code, size) for code, size in (("F8_E4M3", 1), ("F8_E8M0", 1), ("F8_E5M2", 1), ("F64", 8))}
np.save("x.npy", np.ones(2))
seen["float64 of .npy"] = str(mx.load("x.npy").dtype)
for name, words in seen.items():
    print(f"{name}: {words}")
expected = ["mlx.core.uint8, saved again as U8"] * 2
expected += [f"[safetensor] unsupported dtype {code}" for code in ("F8_E5M2", "F64")] + ["mlx.core.float64"]
sys.exit(list(seen.values()) != expected)
PROGRAM
