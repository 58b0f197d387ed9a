#!/usr/bin/env bash
# zipnn 0.5.4 (torch 2.13.0): `compress` of bfloat16 and float32 reorders the bits of what it is given in place, without a word:
# a model whose state dict was compressed computes something else from then on, and even an object of type bytes is another
# one afterwards. What is decompressed is right. float16 is not changed.
#
# Output seen:
#   float32:  decompressed as it was: True, the tensor itself as it was: False
#   bfloat16: decompressed as it was: True, the tensor itself as it was: False
#   float16:  decompressed as it was: True, the tensor itself as it was: True
#   bytes of bfloat16: decompressed as they were: True, themselves as they were: False
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet zipnn==0.5.4 torch==2.13.0 numpy==2.4.6
cd "$folder"

venv/bin/python -W ignore - <<'PROGRAM'
import sys

import torch
from zipnn import ZipNN

found = []
for name in ("float32", "bfloat16", "float16"):
    weight = torch.linspace(-1, 1, 6000).to(getattr(torch, name))
    before = weight.clone()
    back = ZipNN(input_format="torch").decompress(ZipNN(input_format="torch").compress(weight))
    found.append((back.equal(before), weight.equal(before)))
    print(f"{f'{name}:'.ljust(9)} decompressed as it was: {found[-1][0]}, the tensor itself as it was: {found[-1][1]}")
data = torch.linspace(-1, 1, 6000).to(torch.bfloat16).view(torch.uint8).numpy().tobytes()
before = bytearray(data)
back = ZipNN(bytearray_dtype="bfloat16").decompress(ZipNN(bytearray_dtype="bfloat16").compress(data))
found.append((back == before, data == before))
print(f"bytes of bfloat16: decompressed as they were: {found[-1][0]}, themselves as they were: {found[-1][1]}")
sys.exit(found != [(True, False), (True, False), (True, True), (True, False)])
PROGRAM
