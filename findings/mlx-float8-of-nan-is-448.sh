#!/usr/bin/env bash
# mlx 0.32.4, on a CPU: `mx.to_fp8` makes 448 of NaN, without a word, though float8_e4m3fn has a NaN, which `mx.from_fp8` reads.
# So a weight that is NaN is finite after it was stored in 8 bits. `mx.quantize` makes 896 of all of a group in the mode
# mxfp8 where one of it is NaN, and 0 in mxfp4, though the scale could say NaN.
#
# Output seen:
#   to_fp8: [1.0, nan, inf] -> [1.0, 448.0, 448.0]; from_fp8 of 0x7f: nan
#   mxfp8: [nan, 1.0, 1.0, ...] -> [896.0, 896.0, 896.0, ...]
#   mxfp4: [nan, 1.0, 1.0, ...] -> [0.0, 0.0, 0.0, ...]
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "mlx[cpu]==0.32.4" numpy==2.4.6
cd "$folder"

venv/bin/python -W ignore - <<'PROGRAM'
import math
import sys

import mlx.core as mx

mx.set_default_device(mx.cpu)
values = [1.0, math.nan, math.inf]
cast = mx.from_fp8(mx.to_fp8(mx.array(values)), dtype=mx.float32).tolist()
read = mx.from_fp8(mx.array([0x7F], dtype=mx.uint8), dtype=mx.float32).item()
print(f"to_fp8: {values} -> {cast}; from_fp8 of 0x7f: {read}")
group = mx.array([[math.nan] + [1.0] * 31])
found = []
for mode in ("mxfp8", "mxfp4"):
    back = mx.dequantize(*mx.quantize(group, mode=mode), mode=mode, dtype=mx.float32)[0].tolist()
    print(f"{mode}: [nan, 1.0, 1.0, ...] -> [{', '.join(map(str, back[:3]))}, ...]")
    found.append(set(back))
sys.exit(cast != [1.0, 448.0, 448.0] or not math.isnan(read) or found != [{896.0}, {0.0}])
PROGRAM
