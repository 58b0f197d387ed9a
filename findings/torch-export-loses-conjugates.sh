#!/usr/bin/env bash
# torch 2.13.0: `torch.export.save` writes the memory of a buffer that is a lazy conjugate (`tensor.conj()`) or a lazy negative
# (its `.imag`) and not that it is one, without a word, so `torch.export.load` gives the sign of each the other way.
# `torch.save` says it in the file.
#
# Output seen:
#   conj: exported [(1-2j)], torch.export.load [(1+2j)], torch.load [(1-2j)]
#   imag: exported [-2.0], torch.export.load [2.0], torch.load [-2.0]
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cd "$folder"

venv/bin/python -W ignore - 2>/dev/null <<'PROGRAM'
import sys

import torch


class Model(torch.nn.Module):
    def __init__(self, tensor):
        super().__init__()
        self.register_buffer("tensor", tensor)

    def forward(self, x):
        return x * self.tensor


conjugate = torch.tensor([1 + 2j]).conj()
found = []
for name, tensor in (("conj", conjugate), ("imag", conjugate.imag)):
    program = torch.export.export(Model(tensor), (torch.ones(1),))
    torch.export.save(program, "model.pt2")
    exported, loaded = program.state_dict["tensor"], torch.export.load("model.pt2").state_dict["tensor"]
    torch.save(tensor, "tensor.pt")
    beside = torch.load("tensor.pt")
    print(f"{name}: exported {exported.tolist()}, torch.export.load {loaded.tolist()}, torch.load {beside.tolist()}")
    found.append((loaded.tolist(), beside.equal(tensor)))
sys.exit(found != [([1 + 2j], True), ([2.0], True)])
PROGRAM
