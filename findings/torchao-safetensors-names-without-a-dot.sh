#!/usr/bin/env bash
# torchao 0.18.0 (torch 2.13.0): its safetensors support takes a state dict apart and cannot put it together again where a
# tensor lies at the top of the model, as the class token of a vision transformer does: its name has no dot.
# Where such a tensor is quantised, as the weight of a `Linear` by itself, it cannot be taken apart, either.
#
# Output seen:
#   lin.bias, lin.weight: lin.bias, lin.weight
#   cls_token, lin.bias, lin.weight: ValueError: not enough values to unpack (expected 2, got 1)
#   bias, weight: IndexError: list index out of range
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torchao==0.18.0 safetensors==0.8.0 torch==2.13.0 numpy==2.4.6
cd "$folder"

venv/bin/python -W ignore - 2>/dev/null <<'PROGRAM'
import sys

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict, unflatten_tensor_state_dict
from torchao.quantization import Int8WeightOnlyConfig, quantize_


class Model(torch.nn.Module):
    def __init__(self, token):
        super().__init__()
        self.lin = torch.nn.Linear(64, 32)
        if token:
            self.cls_token = torch.nn.Parameter(torch.ones(3))


def there_and_back(model):
    quantize_(model, Int8WeightOnlyConfig(version=2))
    state = model.state_dict()
    try:
        tensors, metadata = flatten_tensor_state_dict(state)
        save_file(tensors, "model.safetensors", metadata)
        with safe_open("model.safetensors", "pt") as file:
            found, _ = unflatten_tensor_state_dict(load_file("model.safetensors"), file.metadata())
        found = ", ".join(sorted(found))
    except (IndexError, ValueError) as error:
        found = f"{type(error).__name__}: {error}"
    print(f"{', '.join(sorted(state))}: {found}")
    return found.split(":")[0]


found = [there_and_back(model) for model in (Model(False), Model(True), torch.nn.Linear(64, 32))]
sys.exit(found != ["lin.bias, lin.weight", "ValueError", "IndexError"])
PROGRAM
