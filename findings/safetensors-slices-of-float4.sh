#!/usr/bin/env bash
# safetensors 0.8.0 with torch 2.13.0: no slice can be taken of a tensor of float4, as those that share weights out among
# devices do: `get_slice` counts single elements, torch has two in each (float4_e2m1fn_x2), and even the slice of all raises
# RuntimeError. `get_tensor` of the same file gives it.
#
# Output seen:
#   get_tensor: (4, 16)
#   get_slice: shape [4, 32], [:]: RuntimeError: shape '[4, 32]' is invalid for input of size 64
#   get_slice: shape [4, 32], [0:2]: RuntimeError: shape '[4, 32]' is invalid for input of size 64
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet safetensors==0.8.0 torch==2.13.0 numpy==2.4.6
cd "$folder"

venv/bin/python -W ignore - <<'PROGRAM'
import sys

import torch
from safetensors import safe_open
from safetensors.torch import save_file

save_file({"w": torch.arange(64, dtype=torch.uint8).reshape(4, 16).view(torch.float4_e2m1fn_x2)}, "w.safetensors")
found = []
with safe_open("w.safetensors", "pt") as file:
    print("get_tensor:", tuple(file.get_tensor("w").shape))
    part = file.get_slice("w")
    for name, index in (("[:]", slice(None)), ("[0:2]", slice(0, 2))):
        try:
            found.append(str(tuple(part[index].shape)))
        except RuntimeError as error:
            found.append(f"RuntimeError: {error}")
        print(f"get_slice: shape {part.get_shape()}, {name}: {found[-1]}")
sys.exit(not all("is invalid for input of size 64" in text for text in found))
PROGRAM
