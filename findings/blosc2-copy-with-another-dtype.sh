#!/usr/bin/env bash
# blosc2 4.14.1: `copy(dtype=...)` of an array copies its bytes and names the other dtype, without a word: the integers
# 0, 1, 2 ... become tiny floats, and behind them come zeros where the new elements are wider. `asarray(..., dtype=...)`
# and `blosc2.astype` convert.
#
# Output seen:
#   int32 [0, 1, 2, 3]
#   astype(float64):     [0.0, 1.0, 2.0, 3.0]
#   copy(dtype=float64): [2.121995791e-314, 6.365987374e-314, 0.0, 0.0]
#   copy(dtype=float32): [0.0, 1.401298464324817e-45, 2.802596928649634e-45, 4.203895392974451e-45]
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet blosc2==4.14.1 numpy==2.4.6
cd "$folder"

venv/bin/python - <<'PROGRAM'
import sys

import blosc2
import numpy as np

array = blosc2.asarray(np.arange(4, dtype=np.int32))
print("int32", array[:].tolist())
print("astype(float64):    ", blosc2.astype(array, np.float64)[:].tolist())
wide = array.copy(dtype=np.float64)
print("copy(dtype=float64):", wide[:].tolist())
same = array.copy(dtype=np.float32)
print("copy(dtype=float32):", same[:].tolist())
assert wide.dtype == np.float64 and same.dtype == np.float32
bits = np.arange(4, dtype=np.int32)
sys.exit(not (np.array_equal(same[:].view(np.int32), bits) and np.array_equal(wide[:].view(np.int32)[:4], bits)))
PROGRAM
