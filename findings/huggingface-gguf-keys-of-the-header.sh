#!/usr/bin/env bash
# @huggingface/gguf 0.4.6 (JavaScript): what a header says and what the pairs of a file say stand in one object,
# `metadata`. A pair with the key "version" or "tensor_count", which the format allows, takes the place of the header's
# number, without a word. gguf 0.19.0 (Python) calls those of the header "GGUF.version" and "GGUF.tensor_count".
#
# Output seen:
#   gguf:              GGUF.version 3, version 7b-chat, GGUF.tensor_count 1, tensor_count many
#   @huggingface/gguf: version 7b-chat, tensor_count many
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet gguf==0.19.0 numpy==2.4.6
cd "$folder"
npm install --silent --no-audit --no-fund --prefix . @huggingface/gguf@0.4.6 >/dev/null

venv/bin/python - <<'PROGRAM'
import gguf
import numpy as np

writer = gguf.GGUFWriter("keys.gguf", "llama")
writer.add_string("version", "7b-chat")
writer.add_string("tensor_count", "many")
writer.add_tensor("w", np.zeros(2, np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
fields = gguf.GGUFReader("keys.gguf").fields
names = ("GGUF.version", "version", "GGUF.tensor_count", "tensor_count")
print("gguf:             ", ", ".join(f"{name} {fields[name].contents()}" for name in names))
PROGRAM
node --input-type=module - <<'PROGRAM'
import { gguf } from '@huggingface/gguf';

const { metadata } = await gguf('./keys.gguf', { allowLocalFile: true });
console.log(`@huggingface/gguf: version ${metadata.version}, tensor_count ${metadata.tensor_count}`);
process.exit(metadata.version === '7b-chat' && metadata.tensor_count === 'many' ? 0 : 1);
PROGRAM
