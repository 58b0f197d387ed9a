#!/usr/bin/env bash
# Keras 3.15.1: a model with bfloat16 weights can be saved in the older form (`.h5`), whose datasets are two opaque bytes
# with nothing that says what they are. `load_model` of that file raises a TypeError (backend JAX); the same model as
# `.keras`, in which an attribute says it, is loaded.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet keras==3.15.1 jax==0.10.2
cd "$folder"
KERAS_BACKEND=jax "$folder/venv/bin/python" - <<'EOF'
import h5py
import keras
import numpy as np

model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3, dtype="bfloat16")])
model.save("model.keras")
model.save("model.h5")
again = keras.models.load_model("model.keras")
assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), again.get_weights(), strict=True))
with h5py.File("model.h5") as file:
    kernel = file["model_weights"]["dense"].visititems(lambda name, item: item if isinstance(item, h5py.Dataset) else None)
    print("stored as", kernel.dtype, "with the attributes", dict(kernel.attrs))
    assert kernel.dtype == "V2" and not kernel.attrs
try:
    keras.models.load_model("model.h5")
except TypeError as error:
    print("load_model:", type(error).__name__, str(error).splitlines()[0][:120])
else:
    raise SystemExit("it is loaded now")
EOF
