#!/usr/bin/env bash
# Keras 3.15.1 (JAX 0.10.2): the state of a `SeedGenerator`, as each Dropout has one, is a variable of the model and is saved
# neither in `.keras` nor in `.weights.h5`, without a word: a run that goes on from there has the masks of its first steps
# once more.
#
# Output seen:
#   ran 3 steps: seed_generator/seed_generator_state [1, 3]
#   from .keras: [1, 0], from .weights.h5: [1, 0]
#   the mask of its next step is that of step 1: True
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet keras==3.15.1 jax==0.10.2 numpy==2.4.6
cd "$folder"

KERAS_BACKEND=jax JAX_PLATFORMS=cpu venv/bin/python -W ignore - 2>/dev/null <<'PROGRAM'
import sys

import keras
import numpy as np


def model():
    return keras.Sequential([keras.layers.Input((8,)), keras.layers.Dropout(0.5, seed=1)])


def masked(made):
    return np.asarray(made(np.ones((1, 8)), training=True)).tolist()


def state(made):
    return made.variables[0].numpy().tolist()


first = model()
masks = [masked(first) for _ in range(3)]
print("ran 3 steps:", first.variables[0].path, state(first))
first.save("run.keras")
first.save_weights("run.weights.h5")
whole = keras.models.load_model("run.keras")
weights = model()
weights.load_weights("run.weights.h5")
found = [state(whole), state(weights)]
print(f"from .keras: {found[0]}, from .weights.h5: {found[1]}")
again = masked(whole) == masks[0] != masks[1]
print("the mask of its next step is that of step 1:", again)
sys.exit(state(first) != [1, 3] or found != [[1, 0], [1, 0]] or not again)
PROGRAM
