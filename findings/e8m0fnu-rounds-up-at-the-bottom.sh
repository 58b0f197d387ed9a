#!/usr/bin/env bash
# ml_dtypes 0.6.0 (numpy 2.4.6): a cast to float8_e8m0fnu takes every number between 2**-127 and 2**-126 to 2**-126, the
# farther end. Elsewhere it takes the nearer power of two: 1.125 * 2**k becomes 2**k for every k but -127, whether it
# comes as float64, float32 or bfloat16. (float32 is subnormal there, and its exponent field does not tell 2**-127.)
#
# Output seen, as the quotient of the result and the number:
#   float64  1.125*2**-127 -> 1.7778   1.125*2**-126 -> 0.8889   1.125 -> 0.8889
#   float32  1.125*2**-127 -> 1.7778   1.125*2**-126 -> 0.8889   1.125 -> 0.8889
#   bfloat16 1.125*2**-127 -> 1.7778   1.125*2**-126 -> 0.8889   1.125 -> 0.8889
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ml_dtypes==0.6.0 numpy==2.4.6

"$folder/venv/bin/python" - <<'PROGRAM'
import sys

import ml_dtypes
import numpy as np

e8m0 = ml_dtypes.float8_e8m0fnu
as_seen = True
for source in (np.float64, np.float32, ml_dtypes.bfloat16):
    words = [f"{np.dtype(source).name:8}"]
    for power in (-127, -126, 0):
        number = np.array([1.125 * 2.0**power]).astype(source)
        result = float(number.astype(e8m0)[0])
        words.append(f"1.125*2**{power} -> {result / float(number[0]):.4f}")
        as_seen &= result == 2.0 ** (power + 1 if power == -127 else power)
    print("  ".join(words))
sys.exit(not as_seen)
PROGRAM
