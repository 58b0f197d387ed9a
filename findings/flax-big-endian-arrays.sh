#!/usr/bin/env bash
# flax 0.12.8 (NumPy 2.4.6): arrays of NumPy whose elements are big-endian, as HDF5, FITS and .npy files have them, are
# serialised with their bytes as they lie and a dtype without a byte order, so they come back as other numbers, without a
# word.
#
# Output seen:
#   >i4 [1, 2, 3] -> int32 [16777216, 33554432, 50331648]
#   >f4 [1.0, 2.0, 3.0] -> float32 [4.600602988224807e-41, 8.96831017167883e-44, 2.304855714121459e-41]
#   <i4 [1, 2, 3] -> int32 [1, 2, 3]
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet flax==0.12.8 jax==0.10.2 numpy==2.4.6
cd "$folder"

JAX_PLATFORMS=cpu venv/bin/python -W ignore - <<'PROGRAM'
import sys

import numpy as np
from flax.serialization import msgpack_restore, msgpack_serialize

same = []
for dtype in (">i4", ">f4", "<i4"):
    array = np.array([1, 2, 3], dtype)
    found = msgpack_restore(msgpack_serialize({"w": array}))["w"]
    print(dtype, array.tolist(), "->", found.dtype, found.tolist())
    same.append(found.tolist() == array.tolist())
sys.exit(same != [False, False, True])
PROGRAM
