#!/usr/bin/env bash
# TensorStore 0.1.86: what its data type "byte" reads comes as a NumPy array whose elements have no size, so none of its
# bytes can be had of it; arrays of raw bytes in Zarr (`|V3`) open so. `ts.cast` to uint8, which would help, is refused.
# Uint8 can be written into such an array, and is there for zarr-python.
#
# Output seen:
#   zarr-python: [b'abc', b'def']
#   TensorStore: dtype |V0, shape (2, 3), bytes b''; cast: ValueError: Cannot convert byte <-> uint8
#   zarr-python, after TensorStore wrote uint8: [b'\x01\x02\x03', b'\x04\x05\x06']
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorstore==0.1.86 zarr==3.1.6 numpy==2.4.6
cd "$folder"

venv/bin/python -W ignore - <<'PROGRAM'
import sys

import numpy as np
import tensorstore as ts
import zarr


def elements():
    return [element.tobytes() for element in zarr.open_array("a", mode="r")[...]]


array = zarr.create_array("a", shape=(2,), dtype="V3", chunks=(2,), zarr_format=2)
array[...] = np.array([b"abc", b"def"], "V3")
print("zarr-python:", elements())
opened = ts.open({"driver": "zarr", "kvstore": {"driver": "file", "path": "a"}}).result()
found = opened.read().result()
try:
    cast = str(ts.cast(opened, ts.uint8))
except ValueError as error:
    cast = f"ValueError: {error}"
print(f"TensorStore: dtype {found.dtype.str}, shape {found.shape}, bytes {found.tobytes()}; cast: {cast}")
opened.write(np.array([[1, 2, 3], [4, 5, 6]], np.uint8)).result()
print("zarr-python, after TensorStore wrote uint8:", elements())
sys.exit((found.dtype.str, found.tobytes(), cast[:10]) != ("|V0", b"", "ValueError") or elements()[0] != b"\1\2\3")
PROGRAM
