#!/usr/bin/env bash
# pyfive 1.3.0 and jsfive 0.4.2: a virtual dataset of HDF5, which puts datasets of other files together, is read without a
# word as no data: `dataset[...]` of pyfive is None, and the value of jsfive undefined, while both tell its shape.
#
# Output seen:
#   h5py:   (2, 3) [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
#   pyfive: (2, 3) None
#   jsfive: 2,3 undefined
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pyfive==1.3.0 h5py==3.16.0 numpy==2.4.6
cd "$folder"
npm install --silent --no-audit --no-fund --prefix . jsfive@0.4.2 >/dev/null

venv/bin/python -W ignore - <<'PROGRAM'
import sys

import h5py
import numpy as np
import pyfive

layout = h5py.VirtualLayout((2, 3), "f4")
for rank in range(2):
    with h5py.File(f"rank-{rank}.h5", "w") as file:
        file["w"] = np.full(3, rank + 1, "f4")
    layout[rank] = h5py.VirtualSource(f"rank-{rank}.h5", "w", (3,))
with h5py.File("w.h5", "w") as file:
    file.create_virtual_dataset("w", layout)
with h5py.File("w.h5") as file:
    print("h5py:  ", file["w"].shape, file["w"][...].tolist())
dataset = pyfive.File("w.h5")["w"]
print("pyfive:", dataset.shape, dataset[...])
sys.exit(dataset.shape != (2, 3) or dataset[...] is not None)
PROGRAM
node --input-type=module - <<'PROGRAM'
import { readFileSync } from 'node:fs';
import { File } from 'jsfive';

const { buffer, byteOffset, byteLength } = readFileSync('w.h5');
const dataset = new File(buffer.slice(byteOffset, byteOffset + byteLength), 'w.h5').get('w');
const { shape, value } = dataset;
console.log(`jsfive: ${shape} ${value}`);
process.exit(`${shape}` === '2,3' && value === undefined ? 0 : 1);
PROGRAM
