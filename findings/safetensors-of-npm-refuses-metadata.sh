#!/usr/bin/env bash
# safetensors 0.0.1 (npm): a file with `__metadata__` in its header cannot be opened. The key is part of the format, and
# transformers writes it into every file; the package takes it for a tensor, which has no offsets.
#
# Output seen:
#   without metadata: w
#   with metadata: TypeError: Cannot read properties of undefined (reading 'map')
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet safetensors==0.8.0 numpy==2.4.6
cd "$folder"
npm install --silent --no-audit --no-fund --prefix . safetensors@0.0.1 >/dev/null

venv/bin/python - <<'PROGRAM'
import numpy as np
import safetensors.numpy

w = {"w": np.zeros(2, np.float32)}
safetensors.numpy.save_file(w, "without.safetensors")
safetensors.numpy.save_file(w, "with.safetensors", metadata={"format": "pt"})
PROGRAM
node --input-type=module - <<'PROGRAM'
import { readFileSync } from 'node:fs';
import { SafeTensor } from './node_modules/safetensors/dist/safetensors.es.js';

const names = (path) => [...new SafeTensor(new Uint8Array(readFileSync(path))).metadata.keys()].join();
console.log(`without metadata: ${names('without.safetensors')}`);
try {
  console.log(`with metadata: ${names('with.safetensors')}`);
  process.exit(1);
} catch (error) {
  console.log(`with metadata: ${error}`);
  process.exit(error instanceof TypeError ? 0 : 1);
}
PROGRAM
