#!/usr/bin/env bash
# LightGBM 4.7.0 with pandas 3.1.1: a model is trained (keep_training_booster=True, as LGBMRegressor has it) on a
# categorical column whose categories are intervals, as `pandas.cut` makes them, or dates; it predicts, and cannot be
# saved: "Circular reference detected". The categories are written as JSON, which has neither. Those that are text,
# numbers or bools can.
#
# Output seen:
#   text: predicts, saved
#   intervals: predicts, ValueError: Circular reference detected
#   dates: predicts, ValueError: Circular reference detected
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet lightgbm==4.7.0 pandas==3.1.1 numpy==2.4.6
cd "$folder"

venv/bin/python - <<'PROGRAM'
import sys

import lightgbm
import numpy as np
import pandas as pd

x = np.random.default_rng(0).normal(size=500)
COLUMNS = {
    "text": pd.Categorical(np.where(x > 0, "a", "b")),
    "intervals": pd.cut(x, [-9, -1, 0, 1, 9]),
    "dates": pd.Categorical(pd.to_datetime(np.where(x > 0, "2026-01-01", "2026-02-01"))),
}
found = {}
for name, column in COLUMNS.items():
    frame = pd.DataFrame({"c": column})
    model = lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(frame, x), 5, keep_training_booster=True)
    assert np.corrcoef(model.predict(frame), x)[0, 1] > 0.5
    try:
        model.save_model("model.txt")
        found[name] = "saved"
    except ValueError as error:
        found[name] = f"ValueError: {error}"
    print(f"{name}: predicts, {found[name]}")
sys.exit(found["text"] != "saved" or any("Circular" not in found[name] for name in ("intervals", "dates")))
PROGRAM
