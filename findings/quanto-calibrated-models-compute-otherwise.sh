#!/usr/bin/env bash
# optimum-quanto 0.2.7 with torch 2.13.0: a calibrated and frozen model, saved and taken back by `requantize`, computes
# something else, without a word: the calibration stops quantising outputs that need not be, which is not part of the
# state dict and starts anew, so each output is rounded to 8 bits. With `Calibration(streamline=False)`, or without
# activations, it is the same.
#
# Output seen:
#   weights only:                  same True
#   Calibration():                 same False
#   Calibration(streamline=False): same True
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet optimum-quanto==0.2.7 torch==2.13.0 numpy==2.4.6
cd "$folder"

venv/bin/python -W ignore - <<'PROGRAM'
import sys

import torch
from optimum import quanto
from torch import nn

x = torch.linspace(-1, 1, 32).reshape(2, 16)


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))


def same(activations, **options):
    first, second = model(), model()
    quanto.quantize(first, weights=quanto.qint8, activations=activations)
    if activations:
        with quanto.Calibration(**options):
            first(x)
    quanto.freeze(first)
    quanto.requantize(second, first.state_dict(), quanto.quantization_map(first))
    one, other = (m.eval()(x) for m in (first, second))
    as_tensor = lambda y: y.dequantize() if isinstance(y, quanto.QTensor) else y
    return torch.equal(as_tensor(one), as_tensor(other))


found = [same(None), same(quanto.qint8), same(quanto.qint8, streamline=False)]
for name, equal in zip(("weights only", "Calibration()", "Calibration(streamline=False)"), found):
    print(f"{name + ':':30} same {equal}")
sys.exit(found != [True, False, True])
PROGRAM
