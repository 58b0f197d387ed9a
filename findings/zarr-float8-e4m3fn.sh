#!/usr/bin/env bash
# TensorStore 0.1.86, zarrista 0.1.0 (zarrs), Python 3.11 or later; seen on 2026-11-29.
# TensorStore writes Zarr v3 arrays of data type float8_e4m3fn, the float8 of most models, a name that Zarr's extension
# registry does not have (it has float8_e4m3). zarrs reads the other float8 kinds that TensorStore writes, and refuses this
# one: "data type float8_e4m3fn is not supported".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorstore==0.1.86 zarrista==0.1.0 ml_dtypes==0.6.0
"$folder/venv/bin/python" - "$folder" <<'PYTHON'
import sys
import ml_dtypes, numpy as np, tensorstore, zarrista
from zarrista import Array, store

kinds = ["float8_e3m4", "float8_e4m3fnuz", "float8_e4m3b11fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e4m3fn"]
refused = []
for kind in kinds:
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{sys.argv[1]}/zarr/{kind}"}}
    made = tensorstore.open(spec, create=True, dtype=tensorstore.dtype(kind), shape=[4]).result()
    made.write(np.array([1, 2, 0, 0.5]).astype(getattr(ml_dtypes, kind))).result()
    assert tensorstore.open(spec).result().read().result().dtype == getattr(ml_dtypes, kind)
    try:
        Array.open(store.FilesystemStore(f"{sys.argv[1]}/zarr"), f"/{kind}")[:]
    except Exception as error:
        print(kind, type(error).__name__, error)
        refused.append(kind)
assert refused == ["float8_e4m3fn"], refused
PYTHON
