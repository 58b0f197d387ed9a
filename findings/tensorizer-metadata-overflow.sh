#!/usr/bin/env bash
# tensorizer 2.12.1: a state of 5,000 small tensors cannot be written. The room for names and shapes has a fixed size,
# which is found too small once all of them were given; 3,000 are written and read again.
#
# Output seen:
#   3000 tensors: 3000 read again
#   5000 tensors: RuntimeError: Metadata overflow
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 tensorizer==2.12.1 numpy==2.4.6
cd "$folder"

venv/bin/python -W ignore - <<'PROGRAM'
import sys

import torch
from tensorizer import TensorDeserializer, TensorSerializer


def outcome(count):
    try:
        serializer = TensorSerializer("state.tensors")
        serializer.write_state_dict({f"model.layers.{i}.weight": torch.zeros(4) for i in range(count)})
        serializer.close()
        return f"{len(TensorDeserializer('state.tensors'))} read again"
    except RuntimeError as error:
        return f"RuntimeError: {error}"


found = {count: outcome(count) for count in (3000, 5000)}
for count, words in found.items():
    print(f"{count} tensors: {words}")
sys.exit(found != {3000: "3000 read again", 5000: "RuntimeError: Metadata overflow"})
PROGRAM
