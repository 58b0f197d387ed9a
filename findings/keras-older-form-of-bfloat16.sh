#!/usr/bin/env bash
# Keras 3.15.1 (backend JAX 0.10.2): a model with bfloat16 weights can be saved in the older form (`.h5`), whose datasets
# are two opaque bytes, with nothing that says what they are, and `load_model` of that file raises a TypeError. In
# `.keras` an attribute says it, and the same model is loaded.
#
# Output seen:
#   .keras: loaded
#   .h5: |V2 with the attributes {}
#   .h5: TypeError
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet keras==3.15.1 jax==0.10.2
cd "$folder"

KERAS_BACKEND=jax venv/bin/python - 2>/dev/null <<'PROGRAM'
import sys

import h5py
import keras
import numpy as np

model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3, use_bias=False, dtype="bfloat16")])
model.save("model.keras")
model.save("model.h5")
(again,) = keras.models.load_model("model.keras").get_weights()
seen = [".keras: loaded" if np.array_equal(again, model.get_weights()[0]) else ".keras: other weights"]
with h5py.File("model.h5") as file:
    path = file["model_weights/dense"].attrs["weight_names"][0]
    kernel = file["model_weights/dense"][path]
    seen.append(f".h5: {kernel.dtype} with the attributes {dict(kernel.attrs)}")
try:
    keras.models.load_model("model.h5")
    seen.append(".h5: loaded")
except TypeError as error:
    seen.append(f".h5: {type(error).__name__}")
print("\n".join(seen))
sys.exit(seen != [".keras: loaded", ".h5: |V2 with the attributes {}", ".h5: TypeError"])
PROGRAM
