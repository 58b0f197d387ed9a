#!/usr/bin/env bash
# zarr-python 3.1.6: a group in which one array has a data type that zarr-python lacks (bfloat16, as TensorStore writes
# it) cannot be listed at all: members(), arrays() and array_keys() raise ValueError, though every other array opens by
# its name.
#
# Output seen:
#   g["a"]: [1. 1. 1.]
#   members: ValueError: No Zarr data type found that matches 'bfloat16'
#   array_keys: ValueError: No Zarr data type found that matches 'bfloat16'
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet zarr==3.1.6 tensorstore==0.1.86 ml_dtypes==0.6.0 numpy==2.4.6
cd "$folder"

venv/bin/python -W ignore - <<'PROGRAM'
import sys

import ml_dtypes
import numpy as np
import tensorstore
import zarr

zarr.create_group("group").create_array("a", data=np.ones(3))
spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": "group/b"}}
array = tensorstore.open(spec, create=True, dtype=tensorstore.bfloat16, shape=[3]).result()
array.write(np.ones(3, ml_dtypes.bfloat16)).result()
group = zarr.open_group("group", mode="r")
print('g["a"]:', group["a"][:])
failed = 0
for name in ("members", "array_keys"):
    try:
        print(f"{name}:", list(getattr(group, name)()))
    except ValueError as error:
        failed += 1
        print(f"{name}: ValueError: {' '.join(str(error).split())}")
sys.exit(failed != 2)
PROGRAM
