#!/usr/bin/env bash
# tinygrad 0.14.0: integers of 8 bits without a sign in the metadata of a GGUF file are read as `bytes` of one character;
# those with a sign, and all others, as numbers.
#
# Output seen:
#   gguf:     general.file_type 7, tokenizer.flags [1, 2, 255], layers -1, heads 65535
#   tinygrad: general.file_type b'\x07', tokenizer.flags [b'\x01', b'\x02', b'\xff'], layers -1, heads 65535
#
# tinygrad asks for a compiler when it starts, clang unless CC says another: here any C compiler will do.
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tinygrad==0.14.0 gguf==0.19.0 numpy==2.4.6
cd "$folder"
cat >compile <<'COMPILE'
#!/bin/sh
cc -w -c -x c -O2 -fPIC -ffreestanding -fno-math-errno -nostdlib - -o "$HOME/kernel.o" && cat "$HOME/kernel.o"
COMPILE
chmod +x compile

HOME="$folder" CC="$folder/compile" venv/bin/python - <<'PROGRAM'
import sys

import gguf
import numpy as np
from tinygrad.llm.gguf import gguf_load

writer = gguf.GGUFWriter("small.gguf", "llama")
writer.add_uint8("general.file_type", 7)
kinds = {"sub_type": gguf.GGUFValueType.UINT8}
writer.add_key_value("tokenizer.flags", [1, 2, 255], gguf.GGUFValueType.ARRAY, **kinds)
writer.add_int8("layers", -1)
writer.add_uint16("heads", 65535)
writer.add_tensor("w", np.zeros(4, np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

names = ("general.file_type", "tokenizer.flags", "layers", "heads")
fields = gguf.GGUFReader("small.gguf").fields
print("gguf:    ", ", ".join(f"{name} {fields[name].contents()}" for name in names))
pairs = gguf_load("small.gguf")[0]
print("tinygrad:", ", ".join(f"{name} {pairs[name]}" for name in names))
sys.exit([pairs[name] for name in names] != [b"\x07", [b"\x01", b"\x02", b"\xff"], -1, 65535])
PROGRAM
