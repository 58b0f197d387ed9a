#!/usr/bin/env bash
# zarr.js 0.6.3 (npm `zarr`): filters of a Zarr v2 array are passed over, without a word: elements come as Delta or
# Shuffle have encoded them. zarrita.js 0.7.5, which undoes both, and zarr-python 3.1.6, which wrote the arrays, agree.
#
# Output seen:
#   zarr-python: [10, 11, 13, 16]
#   none:    zarr.js [10,11,13,16], zarrita [10,11,13,16]
#   delta:   zarr.js [10,1,2,3], zarrita [10,11,13,16]
#   shuffle: zarr.js [269290250,0,0,0], zarrita [10,11,13,16]
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet zarr==3.1.6 numpy==2.4.6
cd "$folder"
npm install --silent --no-audit --no-fund --prefix . zarr@0.6.3 zarrita@0.7.5 @zarrita/storage@0.2.0 >/dev/null

venv/bin/python -W ignore - <<'PROGRAM'
import numcodecs
import numpy as np
import zarr

values = np.array([10, 11, 13, 16], np.int32)
group = zarr.create_group("group", zarr_format=2)
for name, filters in {"none": None, "delta": [numcodecs.Delta("<i4")], "shuffle": [numcodecs.Shuffle(4)]}.items():
    array = group.create_array(name, shape=(4,), dtype="<i4", chunks=(4,), filters=filters, compressors=None)
    array[:] = values
    assert zarr.open_array(f"group/{name}", mode="r")[:].tolist() == values.tolist()
print("zarr-python:", values.tolist())
PROGRAM
cat >program.mjs <<'PROGRAM'
import { existsSync, readFileSync } from 'node:fs';
import FileSystemStore from '@zarrita/storage/fs';
import { KeyError, openArray } from 'zarr';
import { get, open, root } from 'zarrita';

const store = {
  keys: () => [],
  containsItem: async (key) => existsSync(`group/${key}`),
  getItem: async (key) => {
    if (!existsSync(`group/${key}`)) throw new KeyError(key);
    const { buffer, byteOffset, byteLength } = readFileSync(`group/${key}`);
    return buffer.slice(byteOffset, byteOffset + byteLength);
  },
};
let wrong = 0;
for (const name of ['none', 'delta', 'shuffle']) {
  const one = await (await openArray({ store, path: name, mode: 'r' })).get(null);
  const other = await get(await open.v2(root(new FileSystemStore('group')).resolve(name), { kind: 'array' }));
  console.log(`${`${name}:`.padEnd(8)} zarr.js [${Array.from(one.data)}], zarrita [${Array.from(other.data)}]`);
  wrong += Array.from(one.data).join() !== Array.from(other.data).join();
}
process.exit(wrong === 2 ? 0 : 1);
PROGRAM
node program.mjs
