#!/usr/bin/env bash
# mlx 0.32.4, on a CPU: `mx.quantize` in the modes mxfp8 and mxfp4 makes large numbers or infinities of a group of small ones,
# without a word. The exponent of the scale that the group would need is below the least that E8M0 has (2^-127), and
# comes around to the other end. In mxfp8 that begins with groups of less than 2^-119, which bfloat16 has as normal numbers.
#
# Output seen:
#   mxfp8: 2^-118 -> 2^-118, 2^-120 -> inf, 2^-126 -> inf, 2^-130 -> 2^126
#   mxfp4: 2^-118 -> 2^-118, 2^-120 -> 2^-120, 2^-126 -> inf, 2^-130 -> 2^126
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


def there_and_back(exponent, mode):
    """A group of 32 times the same power of two, quantised and back."""
    found = mx.dequantize(*mx.quantize(mx.full((1, 32), 2.0**exponent), mode=mode), mode=mode, dtype=mx.float32)[0, 0].item()
    return "inf" if math.isinf(found) else f"2^{math.log2(found):.0f}"


found = {mode: [there_and_back(exponent, mode) for exponent in (-118, -120, -126, -130)] for mode in ("mxfp8", "mxfp4")}
for mode, results in found.items():
    print(f"{mode}:", ", ".join(f"2^{exponent} -> {value}" for exponent, value in zip((-118, -120, -126, -130), results)))
expected = {"mxfp8": ["2^-118", "inf", "inf", "2^126"], "mxfp4": ["2^-118", "2^-120", "inf", "2^126"]}
sys.exit(found != expected)
PROGRAM
