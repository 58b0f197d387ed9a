#!/usr/bin/env bash
# safetensors 0.8.0 with paddlepaddle 3.3.1: a file in which one tensor has no elements, as `safetensors.paddle.save_file`
# itself writes it, cannot be read by `load_file`: none of its tensors is. `load`, which takes its bytes, can.
#
# Output seen:
#   load: empty [0, 3], w [2]
#   load_file: ValueError: (InvalidArgument) input.strides[0] must be 1 to view uint8 as float32, but got 0
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet safetensors==0.8.0 paddlepaddle==3.3.1 numpy==2.4.6
cd "$folder"

venv/bin/python -W ignore - <<'PROGRAM' 2>/dev/null
import sys
from pathlib import Path

import paddle
from safetensors.paddle import load, load_file, save_file

save_file({"w": paddle.ones([2]), "empty": paddle.zeros([0, 3])}, "w.safetensors")
found = load(Path("w.safetensors").read_bytes())
print("load:", ", ".join(f"{name} {list(found[name].shape)}" for name in sorted(found)))
try:
    print("load_file:", sorted(load_file("w.safetensors")))
except ValueError as error:
    print("load_file: ValueError:", str(error).splitlines()[0])
    sys.exit(0)
sys.exit(1)
PROGRAM
