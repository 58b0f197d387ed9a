#!/usr/bin/env bash
# torch 2.13.0 with safetensors 0.8.0: `HuggingFaceStorageWriter(..., save_distributed=True, enable_consolidation=True)`
# puts the shards together into one .safetensors file. A tensor without axes, as a logit scale, is 0 there, without a word;
# one of integers or bools raises TypeError; and one of complex64 makes a file that cannot be read.
# The shards themselves, in the folder "sharded", hold all of them as they were.
#
# Output seen:
#   [1.5, 2.5]: as it was
#   3.0: 0.0
#   [1, 2]: TypeError: torch.finfo() requires a floating point input type. Use torch.iinfo to handle 'torch.finfo'
#   [True, False]: TypeError: torch.finfo() requires a floating point input type. Use torch.iinfo to handle 'torch.finfo'
#   [(1+2j)]: SafetensorError: Error while deserializing header: invalid shape, data type, or offset for tensor
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet safetensors==0.8.0 torch==2.13.0 numpy==2.4.6
cd "$folder"

venv/bin/python -W ignore - 2>/dev/null <<'PROGRAM'
import sys

import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file
from torch.distributed.checkpoint import CheckpointException, HuggingFaceStorageWriter


def consolidated(tensor, path):
    """What becomes of a tensor, beside another."""
    writer = HuggingFaceStorageWriter(path=path, save_distributed=True, enable_consolidation=True)
    try:
        dcp.save({"t": tensor, "w": torch.ones(2)}, storage_writer=writer, no_dist=True)
        found = load_file(f"{path}/model-00001-of-00001.safetensors")["t"]
    except CheckpointException as error:
        return str(error).strip().splitlines()[-1]
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    assert load_file(f"{path}/sharded/shard-00001-model-00001-of-00001.safetensors")["t"].equal(tensor)
    return "as it was" if found.equal(tensor) else str(found.tolist())


values = [[1.5, 2.5], 3.0, [1, 2], [True, False], [1 + 2j]]
found = [consolidated(torch.tensor(value), f"run-{number}") for number, value in enumerate(values)]
for value, result in zip(values, found):
    print(f"{value}: {result}")
sys.exit([result.split(":")[0] for result in found] != ["as it was", "0.0", "TypeError", "TypeError", "SafetensorError"])
PROGRAM
