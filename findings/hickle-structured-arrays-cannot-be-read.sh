#!/usr/bin/env bash
# hickle 5.0.3 (h5py 3.16.0, NumPy 2.4.6), which keeps Python objects in HDF5: an array with fields is dumped, and cannot be
# loaded. The error says that the file is no hickle file; h5py reads the array of it.
#
# Output seen:
#   hickle: ValueError, "Provided argument 'file_obj' does not appear to be a valid hickle file!"
#   h5py: [(1, 2.5)]
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet hickle==5.0.3 h5py==3.16.0 numpy==2.4.6
cd "$folder"

venv/bin/python -W ignore - <<'PROGRAM'
import sys

import h5py
import hickle
import numpy as np

array = np.array([(1, 2.5)], [("step", "i4"), ("loss", "f8")])
hickle.dump(array, "run.hkl")
try:
    hickle.load("run.hkl")
    found = "loaded"
except ValueError as error:
    found = f"ValueError, \"{str(error.args[0]).split(' (')[0]}\""
print("hickle:", found)
with h5py.File("run.hkl") as file:
    inside = file["data"][()]
print("h5py:", inside)
sys.exit(not found.endswith('valid hickle file!"') or inside.tolist() != array.tolist())
PROGRAM
