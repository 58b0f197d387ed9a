#!/usr/bin/env bash
# pyfive 1.3.0, jsfive 0.4.2 and h5wasm 0.10.3 (HDF5 2.0.0): integers of 4 bits, which HDF5 stores in a byte each with a
# precision that the datatype names, are read as bytes, without a word, so negative ones come as positive ones.
# h5py reads them as they are, as the HDF5 library does where it is asked for int8.
#
# Output seen:
#   h5py:   int8 [1, 7, -1, -8]
#   pyfive: int8 [1, 7, 15, 8]
#   jsfive: <i1 [1,7,15,8]
#   h5wasm: <b [1,7,15,8]
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pyfive==1.3.0 h5py==3.16.0 numpy==2.4.6
cd "$folder"
echo '{"private": true, "type": "module"}' >package.json
npm install --silent --no-audit --no-fund jsfive@0.4.2 h5wasm@0.10.3

venv/bin/python - <<'PROGRAM'
import sys

import h5py
import numpy as np
import pyfive

kind = h5py.h5t.STD_I8LE.copy()
kind.set_precision(4)
values = np.array([1, 7, -1, -8], np.int8)
with h5py.File("w.h5", "w") as file:
    dataset = h5py.h5d.create(file.id, b"w", kind, h5py.h5s.create_simple(values.shape))
    dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, values)
with h5py.File("w.h5") as file:
    found = file["w"][:]
    print("h5py:  ", found.dtype, found.tolist())
other = pyfive.File("w.h5")["w"][:]
print("pyfive:", other.dtype, other.tolist())
sys.exit(found.tolist() != values.tolist() or other.tolist() != [1, 7, 15, 8])
PROGRAM
cat >look.js <<'JAVASCRIPT'
import { readFileSync } from 'node:fs';
import h5wasm from 'h5wasm/node';
import { File } from 'jsfive';

await h5wasm.ready;
const { buffer, byteOffset, byteLength } = readFileSync('w.h5');
const found = {
  jsfive: new File(buffer.slice(byteOffset, byteOffset + byteLength), 'w.h5').get('w'),
  h5wasm: new h5wasm.File('w.h5', 'r').get('w'),
};
let changed = false;
for (const [name, dataset] of Object.entries(found)) {
  const values = JSON.stringify(Array.from(dataset.value));
  console.log(`${name}: ${dataset.dtype} ${values}`);
  changed ||= values !== '[1,7,15,8]';
}
process.exit(changed ? 1 : 0);
JAVASCRIPT
node look.js
