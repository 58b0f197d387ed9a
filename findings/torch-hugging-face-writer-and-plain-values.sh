#!/usr/bin/env bash
# torch 2.13.0 with safetensors 0.8.0: `HuggingFaceStorageWriter` of torch.distributed.checkpoint takes a state dict with a
# plain value, as the step of a run, without a word, and writes that value in torch's own form, a ZIP archive, to the
# beginning of the .safetensors file, of which then no tensor can be read. Without it, the same tensor is.
#
# Output seen:
#   {'w': tensor}: begins with b'\xa8\x00\x00\x00', read: w
#   {'w': tensor, 'step': 3}: begins with b'PK\x03\x04', SafetensorError: Error while deserializing header: header too large
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
import torch.distributed.checkpoint as dcp
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch.distributed.checkpoint import HuggingFaceStorageWriter

states = {"{'w': tensor}": {"w": torch.ones(2)}, "{'w': tensor, 'step': 3}": {"w": torch.ones(2), "step": 3}}
read = []
for number, (name, state) in enumerate(states.items()):
    dcp.save(state, storage_writer=HuggingFaceStorageWriter(path=f"run-{number}"), no_dist=True)
    path = f"run-{number}/model-00001-of-00001.safetensors"
    with open(path, "rb") as file:
        begin = file.read(4)
    try:
        found = "read: " + ", ".join(load_file(path))
        read.append(True)
    except SafetensorError as error:
        found = f"SafetensorError: {error}"
        read.append(False)
    print(f"{name}: begins with {begin}, {found}")
sys.exit(read != [True, False])
PROGRAM
