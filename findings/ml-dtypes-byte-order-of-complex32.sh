#!/usr/bin/env bash
# ml_dtypes 0.6.0 (numpy 2.4.6): the bytes of complex32 and bcomplex32 are swapped as those of one number of four bytes,
# not of two of two: read in the other byte order, as a file of a big-endian machine has them, 1+2j is 2+1j. NumPy swaps
# each part of its own complex dtypes by itself. Mended in 0.7.0.
#
# Output seen, of elements 1+2j whose parts are big-endian:
#   complex32 (2+1j), bcomplex32 (2+1j), complex64 (1+2j)
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

found = {}
for name, part in (("complex32", np.float16), ("bcomplex32", ml_dtypes.bfloat16), ("complex64", np.float32)):
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    width = np.dtype(part).itemsize
    parts = np.array([1, 2], part).view(f"u{width}")
    foreign = np.frombuffer(parts.astype(f">u{width}").tobytes(), dtype.newbyteorder(">"))
    found[name] = complex(foreign[0])
print(", ".join(f"{name} {value}" for name, value in found.items()))
sys.exit(found != {"complex32": 2 + 1j, "bcomplex32": 2 + 1j, "complex64": 1 + 2j})
PROGRAM
