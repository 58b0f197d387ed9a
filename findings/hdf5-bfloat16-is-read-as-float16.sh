#!/usr/bin/env bash
# pyfive 1.3.0 and jsfive 0.4.2, which read HDF5 without its library: bfloat16 (H5T_FLOAT_BFLOAT16 of HDF5 2.0) is read
# as float16, without a word. The datatype in the file says how many bits the exponent has; both go by its bytes alone.
#
# Output seen:
#   h5py:   [1.0, 2.0, 0.5, -3.0]
#   pyfive: float16 [1.875, 2.0, 1.75, -2.125]
#   jsfive: <f2 [1.875,2,1.75,-2.125]
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pyfive==1.3.0 h5py==3.16.0 numpy==2.4.6
cd "$folder"
npm install --silent --no-audit --no-fund --prefix . jsfive@0.4.2 >/dev/null

venv/bin/python - <<'PROGRAM'
import sys

import h5py
import numpy as np
import pyfive

kind = h5py.h5t.IEEE_F32LE.copy()  # the fields of bfloat16: sign, exponent of 8 bits, significand of 7
kind.set_fields(15, 7, 8, 0, 7)
kind.set_size(2)
values = np.array([1, 2, 0.5, -3], np.float32)
with h5py.File("w.h5", "w") as file:
    dataset = h5py.h5d.create(file.id, b"w", kind, h5py.h5s.create_simple(values.shape))
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
with h5py.File("w.h5") as file:
    print("h5py:  ", file["w"][:].tolist())
found = pyfive.File("w.h5")["w"][:]
print("pyfive:", found.dtype, found.tolist())
sys.exit(found.tolist() != values.astype(np.float32).view(np.uint16)[1::2].view(np.float16).tolist())
PROGRAM
node --input-type=module - <<'PROGRAM'
import { readFileSync } from 'node:fs';
import { File } from 'jsfive';

const { buffer, byteOffset, byteLength } = readFileSync('w.h5');
const dataset = new File(buffer.slice(byteOffset, byteOffset + byteLength), 'w.h5').get('w');
console.log(`jsfive: ${dataset.dtype} ${JSON.stringify(Array.from(dataset.value))}`);
process.exit(dataset.value[0] === 1.875 ? 0 : 1);
PROGRAM
