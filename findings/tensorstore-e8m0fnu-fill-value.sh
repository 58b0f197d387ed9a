#!/usr/bin/env bash
# TensorStore 0.1.86: the fill value of a Zarr array of float8_e8m0fnu, whose elements are powers of two (2^-127 … 2^127),
# stands in the metadata as another number: 1 as 2^64, 2 as -2^65 (the dtype has no sign), 0.5 as 2^63; and as 0.0, which
# the dtype lacks, where none was given. TensorStore reads these back as the number that was meant, so that only others
# see that it is wrong. bfloat16 and the other float8 dtypes are written as they are.
#
# Output seen:
#   float8_e8m0fnu 1.0: fill_value 1.8446744073709552e+19, read back [1 1]
#   float8_e8m0fnu 2.0: fill_value -3.6893488147419103e+19, read back [2 2]
#   float8_e8m0fnu 0.5: fill_value 9.223372036854776e+18, read back [0.5 0.5]
#   float8_e4m3fn 2.0: fill_value 2.0, read back [2 2]
#   bfloat16 2.0: fill_value 2.0, read back [2 2]
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q tensorstore==0.1.86 numpy==2.4.6 ml_dtypes==0.6.0 2>/dev/null
cd "$folder"
venv/bin/python - <<'PYTHON'
import json

import numpy as np
import tensorstore as ts

SEEN = {("float8_e8m0fnu", 1.0): 2.0**64, ("float8_e8m0fnu", 2.0): -(2.0**65), ("float8_e8m0fnu", 0.5): 2.0**63}
SEEN |= {("float8_e4m3fn", 2.0): 2.0, ("bfloat16", 2.0): 2.0}
for number, ((name, fill), written) in enumerate(SEEN.items()):
    dtype = ts.dtype(name)
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{number}/"}}
    ts.open(spec, create=True, dtype=dtype, shape=[2], fill_value=np.array(fill, dtype.numpy_dtype)).result()
    with open(f"{number}/zarr.json") as file:
        found = json.load(file)["fill_value"]
    read = ts.open(spec, open=True).result().read().result()
    print(f"{name} {fill}: fill_value {found}, read back {read}")
    assert abs(found - written) <= 1e-12 * abs(written)
    assert read.tolist() == [fill, fill]
PYTHON
