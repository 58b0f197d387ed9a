#!/usr/bin/env bash
# Keras 3.15.1 with tensorflow-cpu 2.21.0: the SavedModel of `model.export(path)` has each weight twice, as two tensors of
# its checkpoint, `variables/0` and `_all_variables/0`: a model of 1 MiB takes 2 MiB.
#
# Output seen:
#   weights: 1048576 bytes, stored: 2097594 bytes
#   _all_variables/0/.ATTRIBUTES/VARIABLE_VALUE [512, 512]
#   variables/0/.ATTRIBUTES/VARIABLE_VALUE [512, 512]
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet tensorflow-cpu==2.21.0 keras==3.15.1
cd "$folder"

TF_CPP_MIN_LOG_LEVEL=3 venv/bin/python - 2>/dev/null <<'PROGRAM'
import os
import sys

import keras
import tensorflow as tf

model = keras.Sequential([keras.layers.Input((512,)), keras.layers.Dense(512, use_bias=False)])
model.export("model", verbose=False)
weights, stored = 4 * 512 * 512, os.path.getsize("model/variables/variables.data-00000-of-00001")
print(f"weights: {weights} bytes, stored: {stored} bytes")
for name, shape in tf.train.list_variables("model/variables/variables"):
    if shape:
        print(name, shape)
sys.exit(stored < 2 * weights)
PROGRAM
