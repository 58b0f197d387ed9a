#!/usr/bin/env bash
# zarrita.js 0.7.5, Node 20 or later: fill values of uint64 and int64 beyond 2^53 are read by way of a double, without a word,
# so the greatest uint64, which labels have where there is nothing, is 0, and 2^60 + 1 is 2^60. Elements of chunks that were
# written are read as they are, as BigInts.
#
# Output seen:
#   uint64: fill value 18446744073709551615, read 0; written 18446744073709551615, read 18446744073709551615
#   int64: fill value 1152921504606846977, read 1152921504606846976; written 1152921504606846977, read 1152921504606846977
#
# Exits non-zero if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
echo '{"private": true, "type": "module"}' >package.json
npm install --silent --no-audit --no-fund zarrita@0.7.5
cat >look.js <<'JAVASCRIPT'
import * as zarr from 'zarrita';

async function read(dtype, value, arrays) {
  const document = `{
    "zarr_format": 3, "node_type": "array", "shape": [2], "data_type": "${dtype}", "fill_value": ${value}, "attributes": {},
    "codecs": [{ "name": "bytes", "configuration": { "endian": "little" } }],
    "chunk_grid": { "name": "regular", "configuration": { "chunk_shape": [1] } },
    "chunk_key_encoding": { "name": "default", "configuration": { "separator": "/" } }
  }`;
  const chunk = new Uint8Array(arrays.of(value).buffer);
  const store = new Map([['/zarr.json', new TextEncoder().encode(document)], ['/c/1', chunk]]);
  const { data } = await zarr.get(await zarr.open.v3(store, { kind: 'array' }));
  console.log(`${dtype}: fill value ${value}, read ${data[0]}; written ${value}, read ${data[1]}`);
  return [data[0], data[1] === value];
}

const found = [
  await read('uint64', 2n ** 64n - 1n, BigUint64Array),
  await read('int64', 2n ** 60n + 1n, BigInt64Array),
];
process.exit(found.every(([, same]) => same) && found[0][0] === 0n && found[1][0] === 2n ** 60n ? 0 : 1);
JAVASCRIPT
node look.js
