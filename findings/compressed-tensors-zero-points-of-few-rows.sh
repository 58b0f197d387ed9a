#!/usr/bin/env bash
# compressed-tensors 0.20.1 (torch 2.13.0): a weight of 8 rows or fewer with zero points of 4 bits is compressed, and cannot
# be decompressed. Eight rows make one word, so the array of packed zero points has an axis of length 1; torch calls it
# contiguous whatever the stride of that axis is, and refuses to see words with that stride as bytes.
#
# Output seen:
#   9 rows: decompressed, to (9, 64)
#   8 rows: RuntimeError: self.stride(-1) must be 1 to view Int as Byte (different element sizes), but got 2
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet compressed-tensors==0.20.1 torch==2.13.0 numpy==2.4.6
cd "$folder"

venv/bin/python -W ignore - 2>/dev/null <<'PROGRAM'
import sys

import torch
from compressed_tensors.compressors import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

arguments = QuantizationArgs(num_bits=4, type="int", strategy="group", group_size=32, symmetric=False)
scheme = QuantizationScheme(targets=["Linear"], weights=arguments)


def there_and_back(rows):
    state = {
        "weight": torch.arange(rows * 64.0).reshape(rows, 64),
        "weight_scale": torch.full((rows, 2), rows * 64 / 15),
        "weight_zero_point": torch.full((rows, 2), -8, dtype=torch.int8),
    }
    compressed = PackedQuantizationCompressor.compress(state, scheme)
    try:
        weight = PackedQuantizationCompressor.decompress(compressed, scheme)["weight"]
        found = f"decompressed, to {tuple(weight.shape)}"
    except RuntimeError as error:
        found = f"RuntimeError: {error}"
    print(f"{rows} rows: {found}")
    return found


found = [there_and_back(rows) for rows in (9, 8)]
sys.exit(not found[0].startswith("decompressed") or not found[1].startswith("RuntimeError: self.stride(-1)"))
PROGRAM
