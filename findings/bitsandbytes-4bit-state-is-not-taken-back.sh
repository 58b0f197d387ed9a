#!/usr/bin/env bash
# bitsandbytes 0.50.2 with torch 2.13.0: `load_state_dict` of a quantised Linear4bit refuses the `state_dict()` of another
# one, since it expects none of the tensors beside the weight (absmax and others). With `strict=False` it takes the packed
# weight and keeps its own absmax: the layer computes something else, and nothing is said.
#
# Output seen:
#   strict: Unexpected key(s) in state_dict: "weight.absmax", "weight.quant_map", "weight.nested_absmax", ...
#   strict=False: missing [], same output False
#   Params4bit.from_prequantized: same output True
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 2>/dev/null
"$folder/venv/bin/pip" install --quiet bitsandbytes==0.50.2 2>/dev/null
cd "$folder"

venv/bin/python - 2>/dev/null <<'PROGRAM'
import sys

import torch
from bitsandbytes.nn import Linear4bit, Params4bit


def quantised(seed):
    torch.manual_seed(seed)
    return Linear4bit(128, 64, bias=False, compute_dtype=torch.float32, quant_type="nf4").to("cpu")


first, second, x = quantised(1), quantised(2), torch.ones(2, 128)
state, wanted = {key: value.clone() for key, value in first.state_dict().items()}, first(x)
try:
    second.load_state_dict(state)
    refused = ""
except RuntimeError as error:
    refused = str(error).split("\n\t")[1]
print(f"strict: {refused[:92]} ...")
told = second.load_state_dict(state, strict=False)
same = torch.equal(second(x), wanted)
print(f"strict=False: missing {told.missing_keys}, same output {same}")
third = quantised(3)
stats = {key.removeprefix("weight."): value for key, value in state.items() if key != "weight"}
third.weight = Params4bit.from_prequantized(state["weight"], stats, device="cpu", module=third)
rebuilt = torch.equal(third(x), wanted)
print(f"Params4bit.from_prequantized: same output {rebuilt}")
sys.exit("Unexpected key" not in refused or same or not rebuilt)
PROGRAM
