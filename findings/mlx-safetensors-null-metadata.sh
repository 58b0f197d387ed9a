#!/usr/bin/env bash
# mlx 0.32.4 (CPU): a safetensors file that is saved without metadata has `"__metadata__": null` in its header. The
# format says that this key holds a map of text to text; a reader that takes it for one when it is there fails. With
# metadata the map is there. safetensors 0.8.0 itself leaves the key out, and takes null for none.
#
# Output seen:
#   mlx without metadata: __metadata__ is there, None
#   mlx with metadata:    __metadata__ is there, {'k': 'v'}
#   safetensors:          __metadata__ is absent; of mlx's file it reads None
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "mlx[cpu]==0.32.4" safetensors==0.8.0 numpy==2.4.6
cd "$folder"

venv/bin/python - <<'PROGRAM'
import json
import sys

import mlx.core as mx
import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file


def header(path):
    with open(path, "rb") as file:
        return json.loads(file.read(int.from_bytes(file.read(8), "little")))


def words(path):
    found = header(path)
    return f"is there, {found['__metadata__']}" if "__metadata__" in found else "is absent"


mx.save_safetensors("bare.safetensors", {"x": mx.zeros(3)})
mx.save_safetensors("told.safetensors", {"x": mx.zeros(3)}, {"k": "v"})
save_file({"x": np.zeros(3, np.float32)}, "other.safetensors")
with safe_open("bare.safetensors", "numpy") as file:
    read = file.metadata()
print("mlx without metadata: __metadata__", words("bare.safetensors"))
print("mlx with metadata:    __metadata__", words("told.safetensors"))
print("safetensors:          __metadata__", f"{words('other.safetensors')}; of mlx's file it reads {read}")
seen = (words("bare.safetensors"), words("told.safetensors"), words("other.safetensors"), read)
sys.exit(seen != ("is there, None", "is there, {'k': 'v'}", "is absent", None))
PROGRAM
