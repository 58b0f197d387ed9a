#!/usr/bin/env bash
# h5wasm 0.10.3 (HDF5 2.0.0), Node 20 or later: of a dataset compressed with LZF, which every h5py has built in, `value`
# throws nothing and gives an array of the right type and length with other numbers: HDF5's read fails, as the filter is
# not there, and what it returns is not looked at. HDF5 itself prints its own account of that to the console.
#
# Output seen:
#   gzip: 24 of 24 elements as written
#   lzf:  8 of 24 elements as written
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet h5py==3.16.0 numpy==2.4.6
cd "$folder"
echo '{"private": true, "type": "module"}' >package.json
npm install --silent --no-audit --no-fund h5wasm@0.10.3

venv/bin/python - <<'PROGRAM'
import h5py
import numpy as np

with h5py.File("w.h5", "w") as file:
    for name, sign in (("gzip", -1), ("lzf", 1)):
        data = sign * np.arange(1, 25, dtype="f4").reshape(4, 6)
        file.create_dataset(name, data=data, chunks=(2, 4), compression=name)
PROGRAM
cat >look.js <<'JAVASCRIPT'
import h5wasm from 'h5wasm/node';

await h5wasm.ready;
const file = new h5wasm.File('w.h5', 'r');
const [gzip, lzf] = ['gzip', 'lzf'].map((name) => Array.from(file.get(name).value));
const same = (values, sign) => values.filter((value, at) => value === sign * (at + 1)).length;
console.log(`gzip: ${same(gzip, -1)} of 24 elements as written`);
console.log(`lzf:  ${same(lzf, 1)} of 24 elements as written`);
process.exit(same(gzip, -1) === 24 && same(lzf, 1) < 24 ? 0 : 1);
JAVASCRIPT
node look.js 2>/dev/null
