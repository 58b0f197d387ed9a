#!/usr/bin/env bash
# zarr-python 3.1.6: in an array of format 2 whose fill_value is null ("no fill value is to be used": the specification
# leaves what is not stored undefined), chunks of zeros are left out all the same, as if the fill value were 0. So the
# stored array does not say what these chunks are. TensorStore 0.1.86 stores them in such an array; and where it is told
# that nothing may be filled in (fill_missing_data_reads=False, as Orbax tells it), it cannot read what zarr-python wrote.
#
# Output seen:
#   zarr-python: fill_value None, chunks ['1']
#   TensorStore: fill_value None, chunks ['0', '1']
#   TensorStore, of what zarr-python wrote: NOT_FOUND: chunk {0} stored at local file "zarr-python/0" is missing
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q zarr==3.1.6 tensorstore==0.1.86 numpy==2.4.6 2>/dev/null
cd "$folder"
venv/bin/python - <<'PYTHON'
import json
import os

import numpy as np
import tensorstore as ts
import zarr

VALUES = np.array([0, 0, 1, 2], np.float32)
zarr.create_array("zarr-python", shape=4, chunks=2, dtype="f4", zarr_format=2, fill_value=None)[...] = VALUES
spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": "tensorstore/"}}
layout = ts.ChunkLayout(chunk_shape=[2])
ts.open(spec, create=True, dtype=ts.float32, shape=[4], chunk_layout=layout).result().write(VALUES).result()
found = {}
for name, folder in (("zarr-python", "zarr-python"), ("TensorStore", "tensorstore")):
    with open(f"{folder}/.zarray") as file:
        fill = json.load(file)["fill_value"]
    found[name] = sorted(entry for entry in os.listdir(folder) if entry.isdigit())
    print(f"{name}: fill_value {fill}, chunks {found[name]}")
    assert fill is None
assert found == {"zarr-python": ["1"], "TensorStore": ["0", "1"]}
spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": "zarr-python/"}, "fill_missing_data_reads": False}
try:
    ts.open(spec, open=True).result().read().result()
except ValueError as error:
    message = str(error).partition(" [")[0]
    print(f"TensorStore, of what zarr-python wrote: {message}")
    assert "is missing" in message
else:
    raise SystemExit("TensorStore read it")
PYTHON
