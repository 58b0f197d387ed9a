#!/usr/bin/env bash
# tensordict 0.15.3: entries called "shape", "device" or "_type" are written by `memmap`, and are not there after
# `load_memmap`, without a word: in `meta.json` what is said of the whole takes the place of what is said of them. A
# module with a buffer called `device` loses it.
#
# Output seen:
#   written: _type.memmap, device.memmap, shape.memmap, weight.memmap
#   read: weight
#   of a module: weight
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
from pathlib import Path

import torch
from tensordict import TensorDict

names = ("weight", "shape", "device", "_type")
TensorDict({name: torch.ones(2) for name in names}).memmap("entries")
print("written:", ", ".join(sorted(path.name for path in Path("entries").glob("*.memmap"))))
entries = list(TensorDict.load_memmap("entries").keys())
print("read:", ", ".join(entries))

module = torch.nn.Linear(2, 2, bias=False)
module.register_buffer("device", torch.ones(1))
TensorDict(module.state_dict()).memmap("module")
state = list(TensorDict.load_memmap("module").keys())
print("of a module:", ", ".join(state))
sys.exit(entries != ["weight"] or state != ["weight"])
PROGRAM
