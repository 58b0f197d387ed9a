#!/usr/bin/env bash
# zarrita.js 0.7.5, Node 20 or later; seen on 2026-11-30.
# An array with an axis of length 0 is opened, and `get` of it throws "Input contains an empty iterator". A slice of nothing
# of an array that is not empty gives an array of length 0, as it should; zarr-python and TensorStore read both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{"private": true, "type": "module"}' >package.json
npm install --silent --no-audit --no-fund zarrita@0.7.5
cat >look.js <<'JAVASCRIPT'
import * as zarr from 'zarrita';

function open(shape, chunk) {
  const codecs = [{ name: 'bytes', configuration: { endian: 'little' } }];
  const document = {
    zarr_format: 3, node_type: 'array', shape, data_type: 'int32', fill_value: 0, codecs, attributes: {},
    chunk_grid: { name: 'regular', configuration: { chunk_shape: chunk } },
    chunk_key_encoding: { name: 'default', configuration: { separator: '/' } },
  };
  return zarr.open.v3(new Map([['/zarr.json', new TextEncoder().encode(JSON.stringify(document))]]), { kind: 'array' });
}

const said = async (promise) => promise.then(({ shape }) => `shape [${shape}]`, (error) => error.message);
const found = {
  'shape [0, 3]': await said(zarr.get(await open([0, 3], [1, 3]))),
  'shape [3, 0]': await said(zarr.get(await open([3, 0], [3, 1]))),
  'nothing of shape [4]': await said(zarr.get(await open([4], [4]), [zarr.slice(2, 2)])),
};
console.log(found);
const expected = ['Input contains an empty iterator.', 'Input contains an empty iterator.', 'shape [0]'];
process.exit(JSON.stringify(Object.values(found)) === JSON.stringify(expected) ? 0 : 1);
JAVASCRIPT
node look.js
