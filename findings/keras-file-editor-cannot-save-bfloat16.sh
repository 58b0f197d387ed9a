#!/usr/bin/env bash
# Keras 3.15.1 (JAX 0.10.2, h5py 3.16.0): `KerasFileEditor`, which is for renaming and deleting what a file of weights has, opens
# one with bfloat16 and cannot save it, though nothing was edited: HDF5 has bfloat16 as two bytes with the dtype in an attribute,
# which the editor does not read. Those of float16 it saves.
#
# Output seen:
#   float16: saved
#   bfloat16: ValueError: Invalid dtype: void16
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet keras==3.15.1 jax==0.10.2 h5py==3.16.0 numpy==2.4.6
cd "$folder"

KERAS_BACKEND=jax JAX_PLATFORMS=cpu venv/bin/python -W ignore - 2>/dev/null <<'PROGRAM'
import contextlib
import io
import sys

import keras

found = []
for dtype in ("float16", "bfloat16"):
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(2, dtype=dtype)])
    model.save_weights("one.weights.h5")
    with contextlib.redirect_stdout(io.StringIO()):
        editor = keras.saving.KerasFileEditor("one.weights.h5")
    try:
        editor.save("two.weights.h5")
        found.append("saved")
    except ValueError as error:
        found.append(f"ValueError: {error}")
    print(f"{dtype}: {found[-1]}")
sys.exit(found != ["saved", "ValueError: Invalid dtype: void16"])
PROGRAM
