#!/usr/bin/env bash
# safetensors 0.8.0 with paddlepaddle 3.3.1: `safetensors.paddle` reads U16 as bfloat16, of the same bits and other values,
# without a word, and saves it again as BF16. U32 and U64 raise RuntimeError.
#
# Output seen:
#   NumPy:  uint16 [1, 16256, 65535]
#   Paddle: paddle.bfloat16 [9.183549615799121e-41, 1.0, nan]
#   again:  BF16
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

import numpy as np
import safetensors
import safetensors.numpy
import safetensors.paddle

safetensors.numpy.save_file({"w": np.array([1, 0x3F80, 0xFFFF], np.uint16)}, "w.safetensors")
w = safetensors.numpy.load_file("w.safetensors")["w"]
print("NumPy: ", w.dtype, w.tolist())
found = safetensors.paddle.load_file("w.safetensors")
print("Paddle:", found["w"].dtype, found["w"].astype("float32").numpy().tolist())
safetensors.paddle.save_file(found, "again.safetensors")
with safetensors.safe_open("again.safetensors", "numpy") as file:
    again = file.get_slice("w").get_dtype()
print("again: ", again)
sys.exit(again != "BF16")
PROGRAM
