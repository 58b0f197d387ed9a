#!/usr/bin/env bash
# pyfive 1.3.0 and jsfive 0.4.2, which read HDF5 without its library: a dataset of which some chunks were never written,
# whose elements are the fill value, cannot be read by pyfive, which has the fill value only where none was written at
# all. jsfive has `undefined` in the place of such elements, or no elements.
#
# Output seen:
#   h5py:   some [1.0, 1.0, 7.0, 7.0], none [7.0, 7.0, 7.0, 7.0], whole [7.0, 7.0, 7.0, 7.0]
#   pyfive: some KeyError: (2,), none [7.0, 7.0, 7.0, 7.0], whole [7.0, 7.0, 7.0, 7.0]
#   jsfive: some [1,1,undefined,undefined], none [], whole [undefined,undefined,undefined,undefined]
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
import pyfive

names = ("some", "none", "whole")
with h5py.File("w.h5", "w") as file:
    file.create_dataset("some", (4,), "f4", chunks=(2,), fillvalue=7)[:2] = 1
    file.create_dataset("none", (4,), "f4", chunks=(2,), fillvalue=7)
    file.create_dataset("whole", (4,), "f4", fillvalue=7)


def read(file, name):
    try:
        return str(file[name][:].tolist())
    except KeyError as error:
        return f"KeyError: {error}"


with h5py.File("w.h5") as file:
    print("h5py:  ", ", ".join(f"{name} {read(file, name)}" for name in names))
found = [read(pyfive.File("w.h5"), name) for name in names]
print("pyfive:", ", ".join(f"{name} {text}" for name, text in zip(names, found)))
sys.exit(found != ["KeyError: (2,)", *2 * ["[7.0, 7.0, 7.0, 7.0]"]])
PROGRAM
node --input-type=module - <<'PROGRAM'
import { readFileSync } from 'node:fs';
import { File } from 'jsfive';

const { buffer, byteOffset, byteLength } = readFileSync('w.h5');
const file = new File(buffer.slice(byteOffset, byteOffset + byteLength), 'w.h5');
const found = ['some', 'none', 'whole'].map((name) => `${name} [${Array.from(file.get(name).value).map(String)}]`);
console.log(`jsfive: ${found.join(', ')}`);
process.exit(found[0] === 'some [1,1,undefined,undefined]' && found[1] === 'none []' ? 0 : 1);
PROGRAM
