#!/usr/bin/env bash
# gguf 0.19.0: GGUFWriter.add_string and add_array take an empty string and an empty array, leave the key out of the
# file, and say nothing, though GGUF has both: a file with such keys cannot be written again as it was.
#
# Output seen:
#   asked for: ['general.architecture', 'a', 'b', 'c']
#   in the file: ['general.architecture', 'c']
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet gguf==0.19.0 numpy==2.4.6
cd "$folder"

venv/bin/python - <<'PROGRAM'
import sys

from gguf import GGUFReader, GGUFWriter

writer = GGUFWriter("x.gguf", "llama")
writer.add_string("a", "")
writer.add_array("b", [])
writer.add_string("c", "text")
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
found = [key for key in GGUFReader("x.gguf").fields if not key.startswith("GGUF.")]
print("asked for:", ["general.architecture", "a", "b", "c"])
print("in the file:", found)
sys.exit(found != ["general.architecture", "c"])
PROGRAM
