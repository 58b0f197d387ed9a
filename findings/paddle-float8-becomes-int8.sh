#!/usr/bin/env bash
# paddlepaddle 3.3.1 (CPU): paddle.save takes tensors of float8_e4m3fn and float8_e5m2, and writes their bits as int8;
# paddle.load gives tensors of int8, with other numbers, and says nothing.
#
# Output seen:
#   float8_e4m3fn [1.5, -2.0] -> int8 [60, -64]
#   float8_e5m2 [1.5, -2.0] -> int8 [62, -64]
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet paddlepaddle==3.3.1 numpy==2.4.6
cd "$folder"

venv/bin/python -W ignore - <<'PROGRAM'
import sys

import paddle

bits = {"float8_e4m3fn": [60, -64], "float8_e5m2": [62, -64]}
found = {}
for name in bits:
    paddle.save({"w": paddle.to_tensor([1.5, -2.0]).astype(name)}, "x.pdparams")
    read = paddle.load("x.pdparams")["w"]
    found[name] = read.tolist()
    print(name, "[1.5, -2.0] -> int8" if read.dtype == paddle.int8 else read.dtype, found[name])
sys.exit(found != bits)
PROGRAM
