#!/usr/bin/env bash
# gguf 0.19.0: GGUFWriter.add_array takes arrays of arrays and writes them as the format says, each with its length;
# GGUFReader's contents() gives their items as one flat list, so that [[1, 2], [3]] and [[1], [2, 3]] read alike, though
# their files differ.
#
# Output seen:
#   [[1, 2], [3]] -> types ['ARRAY', 'ARRAY', 'INT32'] contents [1, 2, 3]
#   [[1], [2, 3]] -> the same contents [1, 2, 3] of different bytes True
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


def written(name, value):
    writer = GGUFWriter(name, "llama")
    writer.add_array("k", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with open(name, "rb") as file:
        return file.read()


one, other = written("one.gguf", [[1, 2], [3]]), written("other.gguf", [[1], [2, 3]])
found = [GGUFReader(name).fields["k"] for name in ("one.gguf", "other.gguf")]
print("[[1, 2], [3]] -> types", [kind.name for kind in found[0].types], "contents", found[0].contents())
print("[[1], [2, 3]] -> the same contents", found[1].contents(), "of different bytes", one != other)
sys.exit(not (one != other and found[0].contents() == found[1].contents() == [1, 2, 3]))
PROGRAM
