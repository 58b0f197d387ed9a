#!/usr/bin/env bash
# mlx 0.32.4 (gguf 0.19.0): tensors of GGUF in BF16 are loaded as float16, without a word, so what is larger than 65504 is
# infinite and what is smaller than 2^-25 is 0. From safetensors mlx loads bfloat16 as such, which it has.
#
# Output seen:
#   gguf: [1.0, 99840.0, 1e-09, 3e+38]
#   mlx:  mlx.core.float16 [1.0, inf, 0.0, inf]
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "mlx[cpu]==0.32.4" gguf==0.19.0 numpy==2.4.6
cd "$folder"

venv/bin/python -W ignore - <<'PROGRAM'
import sys

import gguf
import mlx.core as mx
import numpy as np

kind = gguf.GGMLQuantizationType.BF16
values = np.array([[1, 1e5, 1e-9, 3e38]], np.float32)
writer = gguf.GGUFWriter("w.gguf", "llama")
writer.add_tensor("w", gguf.quants.quantize(values, kind), raw_dtype=kind)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

held = gguf.quants.dequantize(gguf.GGUFReader("w.gguf").tensors[0].data, kind)
print("gguf:", [float(f"{value:.4g}") for value in held.ravel()])
found = mx.load("w.gguf")["w"]
print("mlx: ", found.dtype, found.reshape(-1).tolist())
sys.exit(found.dtype != mx.float16 or found.reshape(-1).tolist() != [1.0, float("inf"), 0.0, float("inf")])
PROGRAM
