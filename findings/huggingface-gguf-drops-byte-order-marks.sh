#!/usr/bin/env bash
# @huggingface/gguf 0.4.6 (JavaScript): a text that begins with U+FEFF is read without it, as its TextDecoder takes that
# for a byte order mark. Vocabularies have such tokens ("\ufeffusing" and "using" are two tokens of many), and become
# the same text. gguf 0.19.0 (Python) reads what it wrote.
#
# Output seen:
#   gguf:             ['using', '\ufeffusing', 'a\ufeff']
#   @huggingface/gguf: ["using","using","a\ufeff"]
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

writer = gguf.GGUFWriter("tokens.gguf", "llama")
writer.add_array("tokenizer.ggml.tokens", ["using", "\ufeffusing", "a\ufeff"])
writer.add_tensor("w", np.zeros(2, np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
print("gguf:             ", ascii(gguf.GGUFReader("tokens.gguf").fields["tokenizer.ggml.tokens"].contents()))
PROGRAM
node --input-type=module - <<'PROGRAM'
import { gguf } from '@huggingface/gguf';

const { metadata } = await gguf('./tokens.gguf', { allowLocalFile: true });
const tokens = metadata['tokenizer.ggml.tokens'];
console.log('@huggingface/gguf:', JSON.stringify(tokens).replaceAll('\ufeff', '\\ufeff'));
process.exit(tokens[0] === 'using' && tokens[1] === 'using' && tokens[2] === 'a\ufeff' ? 0 : 1);
PROGRAM
