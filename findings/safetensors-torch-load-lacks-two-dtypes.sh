#!/usr/bin/env bash
# safetensors 0.8.0 with torch 2.13.0: `safetensors.torch.load`, which takes bytes, raises KeyError where a tensor is
# F8_E8M0 or F4, though `save` has made these bytes, and `load_file` reads them. So does torch's own
# HuggingFaceStorageReader for F8_E8M0, which asks the same table. A slice of F4 that is all of it raises RuntimeError.
#
# Output seen:
#   float8_e4m3fnuz: load float8_e4m3fnuz, load_file float8_e4m3fnuz, slice float8_e4m3fnuz
#   float8_e8m0fnu: load KeyError('F8_E8M0'), load_file float8_e8m0fnu, slice float8_e8m0fnu
#   float4_e2m1fn_x2: load KeyError('F4'), load_file float4_e2m1fn_x2, slice RuntimeError
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
from safetensors.torch import load, load_file, save


def tried(read):
    try:
        return str(read().dtype).removeprefix("torch.")
    except KeyError as error:
        return repr(error)
    except RuntimeError:
        return "RuntimeError"


found = {}
for name in ("float8_e4m3fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2"):
    octets = save({"w": torch.arange(16, dtype=torch.uint8).view(getattr(torch, name))})
    with open("w.safetensors", "wb") as file:
        file.write(octets)
    from_bytes, from_file = tried(lambda: load(octets)["w"]), tried(lambda: load_file("w.safetensors")["w"])
    with safe_open("w.safetensors", "pt") as file:
        part = tried(lambda: file.get_slice("w")[:])
    print(f"{name}: load {from_bytes}, load_file {from_file}, slice {part}")
    found[name] = from_bytes, from_file, part
sys.exit(
    found["float8_e8m0fnu"] != ("KeyError('F8_E8M0')", "float8_e8m0fnu", "float8_e8m0fnu")
    or found["float4_e2m1fn_x2"] != ("KeyError('F4')", "float4_e2m1fn_x2", "RuntimeError")
)
PROGRAM
