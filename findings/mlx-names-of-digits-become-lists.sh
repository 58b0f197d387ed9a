#!/usr/bin/env bash
# mlx 0.32.4: weights of a module that keeps layers in a dict by numbers that are text, as experts "0" and "1", are saved and
# cannot be loaded: `tree_unflatten` makes a list of each dict whose first key is digits, so numbers that are left out are
# filled with empty dicts, too.
#
# Output seen:
#   saved: experts.0.bias, experts.0.weight, experts.1.bias, experts.1.weight
#   load_weights: KeyError 0
#   {'2': 'a', '5': 'b'} -> [{}, {}, 'a', {}, {}, 'b']
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet "mlx[cpu]==0.32.4" numpy==2.4.6
cd "$folder"

venv/bin/python -W ignore - <<'PROGRAM'
import sys

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.experts = {"0": nn.Linear(2, 2), "1": nn.Linear(2, 2)}


Model().save_weights("w.safetensors")
print("saved:", ", ".join(sorted(mx.load("w.safetensors"))))
try:
    Model().load_weights("w.safetensors")
    found = "loaded"
except KeyError as error:
    found = f"KeyError {error}"
print("load_weights:", found)
tree = {"2": "a", "5": "b"}
back = tree_unflatten(tree_flatten(tree))
print(tree, "->", back)
sys.exit(found != "KeyError 0" or back != [{}, {}, "a", {}, {}, "b"])
PROGRAM
