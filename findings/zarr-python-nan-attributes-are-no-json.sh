#!/usr/bin/env bash
# zarr-python 3.1.6 writes an attribute that is NaN or infinite, as a loss that diverged, as `NaN` or `Infinity` into
# zarr.json, without a word. JSON has neither, so the whole array cannot be opened by TensorStore 0.1.86 and zarrita.js
# 0.7.5, and Icechunk 1.1.21 does not take it. Zarr itself has a form for such numbers in fill values: the text "NaN".
#
# Output seen:
#   zarr.json: "loss": NaN
#   zarr-python: nan
#   TensorStore: DATA_LOSS: Error opening "zarr3" driver: ... Invalid JSON
#   Icechunk: IcechunkError: bad metadata
#   zarrita.js: InvalidMetadataError: Failed to decode JSON
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet zarr==3.1.6 tensorstore==0.1.86 icechunk==1.1.21 numpy==2.4.6
cd "$folder"
echo '{"private": true, "type": "module"}' >package.json
npm install --silent --no-audit --no-fund zarrita@0.7.5

venv/bin/python -W ignore - <<'PROGRAM'
import math
import sys

import icechunk
import numpy as np
import tensorstore as ts
import zarr


def write(store):
    array = zarr.create_array(store, name="w", shape=(2,), dtype="float32", chunks=(2,), attributes={"loss": math.nan})
    array[...] = np.ones(2)


write("run")
with open("run/w/zarr.json") as file:
    print("zarr.json:", *(line.strip() for line in file if "loss" in line))
print("zarr-python:", zarr.open_array("run/w", mode="r").attrs["loss"])
try:
    ts.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": "run/w"}}).result()
    opened = "opened"
except ValueError as error:
    begin, middle, _ = str(error).partition("Invalid JSON")
    opened = f"{begin.split(' Error reading')[0]} ... {middle}"
print("TensorStore:", opened)
repository = icechunk.Repository.create(icechunk.in_memory_storage())
try:
    write(repository.writable_session("main").store)
    taken = "taken"
except icechunk.IcechunkError as error:
    taken = "IcechunkError: " + "bad metadata" * ("bad metadata" in str(error))
print("Icechunk:", taken)
sys.exit(not opened.endswith("Invalid JSON") or not taken.endswith("bad metadata"))
PROGRAM
node --input-type=module - <<'PROGRAM'
import { readFileSync } from 'node:fs';
import * as zarr from 'zarrita';

const found = await zarr.open.v3(new Map([['/zarr.json', readFileSync('run/w/zarr.json')]]), { kind: 'array' }).then(
  () => 'opened',
  (error) => String(error),
);
console.log('zarrita.js:', found);
process.exit(found === 'InvalidMetadataError: Failed to decode JSON' ? 0 : 1);
PROGRAM
