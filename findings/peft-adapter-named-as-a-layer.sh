#!/usr/bin/env bash
# peft 0.21.2 (torch 2.13.0): of an adapter whose name is that of a layer, as "head", which PEFT takes for LoRA with bias="all",
# the bias of that layer is saved without the layer's name, and is not loaded again, without a word: the name of the adapter
# is taken out of each name wherever it stands.
#
# Output seen:
#   adapter "task": head.bias, lin.base_layer.bias; the model loaded computes the same: True
#   adapter "head": bias, lin.base_layer.bias; the model loaded computes the same: False
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet peft==0.21.2 transformers==5.24.0 safetensors==0.8.0 torch==2.13.0 numpy==2.4.6
cd "$folder"

venv/bin/python - <<'PROGRAM'
import sys

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.lin, self.head = torch.nn.Linear(8, 8), torch.nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.lin(x))


def there_and_back(name):
    model = get_peft_model(Model(), LoraConfig(target_modules=["lin"], bias="all", r=2), adapter_name=name)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_()
    model.save_pretrained("adapters")
    x = torch.ones(1, 8)
    same = PeftModel.from_pretrained(Model(), f"adapters/{name}", adapter_name=name)(x).allclose(model(x))
    names = [key.removeprefix("base_model.model.") for key in load_file(f"adapters/{name}/adapter_model.safetensors")]
    biases = ", ".join(sorted(key for key in names if key.endswith("bias")))
    print(f'adapter "{name}": {biases}; the model loaded computes the same: {same}')
    return same


sys.exit([there_and_back("task"), there_and_back("head")] != [True, False])
PROGRAM
