#!/usr/bin/env bash
# numpy-parser 1.2.3 (npm): an array of text in .npy, `<U2`, is read as integers of 16 bits, without a word, as the
# letter's case is not looked at; and every array of one axis gets a second one, of length 1.
#
# Output seen:
#   <U2 (2,): Uint16Array [97,0,98,0,99,0,0,0] of shape [2,1]
#   <f4 (3,): Float32Array [0,1,2] of shape [3,1]
#   <f4 (1, 3): Float32Array [0,1,2] of shape [1,3]
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6
cd "$folder"
npm install --silent --no-audit --no-fund --prefix . numpy-parser@1.2.3 >/dev/null

venv/bin/python - <<'PROGRAM'
import numpy as np

np.save("text.npy", np.array(["ab", "c"]))
np.save("one.npy", np.arange(3, dtype=np.float32))
np.save("two.npy", np.arange(3, dtype=np.float32).reshape(1, 3))
PROGRAM
cat >program.cjs <<'PROGRAM'
const { readFileSync } = require('node:fs');
const { fromArrayBuffer } = require('numpy-parser');

const shown = (path) => {
  const { buffer, byteOffset, byteLength } = readFileSync(path);
  const { data, shape } = fromArrayBuffer(buffer.slice(byteOffset, byteOffset + byteLength));
  return `${data.constructor.name} [${Array.from(data)}] of shape [${shape}]`;
};
const found = { '<U2 (2,)': 'text.npy', '<f4 (3,)': 'one.npy', '<f4 (1, 3)': 'two.npy' };
for (const [name, path] of Object.entries(found)) console.log(`${name}: ${shown(path)}`);
process.exit(shown('text.npy').startsWith('Uint16Array') && shown('one.npy').endsWith('[3,1]') ? 0 : 1);
PROGRAM
node program.cjs
