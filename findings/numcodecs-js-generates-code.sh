#!/usr/bin/env bash
# numcodecs (npm) 0.3.2, Node 20 or later; seen on 2026-11-30. The modules of its Blosc, LZ4 and Zstandard codecs make
# functions of strings when they are first used (Emscripten's embind). So in a page whose Content-Security-Policy allows
# WebAssembly ('wasm-unsafe-eval'), and no 'unsafe-eval', chunks that are whole cannot be decoded. Node's option
# --disallow-code-generation-from-strings is what such a policy is to a page.
#
# Output seen:
#   allowed: blosc 1000 bytes
#   refused: blosc EvalError: Code generation from strings disallowed for this context
#
# Exits non-zero if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
npm init -y >/dev/null
npm install --silent --no-audit --no-fund numcodecs@0.3.2
cat > decode.mjs <<'PROGRAM'
import { Blosc } from 'numcodecs';

// 1,000 zeros: Blosc 1, stored as they are ("memcpyed"), with its header of 16 bytes
const size = 1000;
const chunk = new Uint8Array(16 + size);
chunk.set([2, 1, 2, 1]);
const header = new DataView(chunk.buffer);
header.setUint32(4, size, true);
header.setUint32(8, size, true);
header.setUint32(12, 16 + size, true);
try {
  const found = await Blosc.fromConfig({ id: 'blosc', clevel: 5, cname: 'lz4', shuffle: 0 }).decode(chunk);
  console.log(`blosc ${found.length} bytes`);
} catch (error) {
  console.log(`blosc ${error.name}: ${error.message}`);
}
PROGRAM
allowed=$(node decode.mjs)
refused=$(node --disallow-code-generation-from-strings decode.mjs)
echo "allowed: $allowed"
echo "refused: $refused"
[ "$allowed" = "blosc 1000 bytes" ]
[ "$refused" = "blosc EvalError: Code generation from strings disallowed for this context" ]
