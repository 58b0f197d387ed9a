#!/usr/bin/env bash
# torch 2.13.0: the `state_dict()` of an optimizer that went through `dcp.save` and `dcp_to_torch_save` is no longer one.
# DCP writes the int keys of its state as text, so `load_state_dict` takes it without a word and no parameter gets its
# moments; and DCP leaves out empty dicts, so that of SGD without momentum has no "state", which raises KeyError.
#
# Output seen:
#   Adam: keys ['0', '1'] for [0, 1], parameters with moments after load_state_dict: 0 of 2
#   SGD: keys ['param_groups'] for ['param_groups', 'state'], load_state_dict: KeyError 'state'
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cd "$folder"

venv/bin/python -W ignore - <<'PROGRAM'
import sys

import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save


def converted(optimizer, name):
    dcp.save({"optimizer": optimizer.state_dict()}, checkpoint_id=name, no_dist=True)
    dcp_to_torch_save(name, f"{name}.pt")
    return torch.load(f"{name}.pt")["optimizer"]


model = torch.nn.Linear(2, 1)
parameters = list(model.parameters())
model(torch.ones(1, 2)).sum().backward()

adam = torch.optim.Adam(parameters)
adam.step()
state = converted(adam, "adam")
again = torch.optim.Adam(parameters)
again.load_state_dict(state)
moments = sum("exp_avg" in again.state[parameter] for parameter in parameters)
keys = sorted(state["state"])
print(f"Adam: keys {keys} for {sorted(adam.state_dict()['state'])}, ", end="")
print(f"parameters with moments after load_state_dict: {moments} of {len(parameters)}")

sgd = torch.optim.SGD(parameters)
sgd.step()
state = converted(sgd, "sgd")
try:
    torch.optim.SGD(parameters).load_state_dict(state)
    found = "loaded"
except KeyError as error:
    found = f"KeyError {error}"
print(f"SGD: keys {sorted(state)} for {sorted(sgd.state_dict())}, load_state_dict: {found}")
sys.exit((keys, moments, found) != (["0", "1"], 0, "KeyError 'state'"))
PROGRAM
