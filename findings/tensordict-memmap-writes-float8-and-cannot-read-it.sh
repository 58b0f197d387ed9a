#!/usr/bin/env bash
# tensordict 0.15.3: tensors of float8 are written by `memmap`, and then nothing of that directory can be read by
# `load_memmap`, as the names of these dtypes are unknown to it.
#
# Output seen:
#   uint16, complex32, bfloat16: equal
#   float8_e4m3fn: KeyError: 'torch.float8_e4m3fn'
#   float8_e5m2: KeyError: 'torch.float8_e5m2'
#   float8_e8m0fnu: KeyError: 'torch.float8_e8m0fnu'
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensordict==0.15.3 torch==2.13.0 numpy==2.4.6
cd "$folder"

venv/bin/python -W ignore - <<'PROGRAM'
import sys

import torch
from tensordict import TensorDict

names = ("uint16", "complex32", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu")
equal, unknown = [], []
for name in names:
    w = torch.arange(64, dtype=torch.uint8).view(getattr(torch, name))
    TensorDict({"w": w, "other": torch.zeros(2)}).memmap(name)
    try:
        found = TensorDict.load_memmap(name)["w"]
    except KeyError as error:
        unknown.append(f"{name}: KeyError: {error}")
    else:
        if found.dtype == w.dtype and torch.equal(found.view(torch.uint8), w.view(torch.uint8)):
            equal.append(name)
print(", ".join(equal) + ": equal", *unknown, sep="\n")
sys.exit(len(equal) != 3 or len(unknown) != 3)
PROGRAM
