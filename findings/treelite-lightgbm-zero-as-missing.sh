#!/usr/bin/env bash
# Treelite 4.8.1 with LightGBM 4.7.0: a model that was trained with zero_as_missing=True is imported without a word, and
# takes the other branch for zeros and for NaN where a split sends what is missing to the right: other predictions for
# such rows.
#
# Output seen:
#   x:        [-2.0, -1.0, 0.0, 1.0, 2.0, nan]
#   LightGBM: [1.0, 2.0, 7.0, 3.0, 4.0, 7.0]
#   Treelite: [1.0, 2.0, 2.0, 3.0, 4.0, 2.0]
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet treelite==4.8.1 lightgbm==4.7.0 numpy==2.4.6
cd "$folder"

venv/bin/python - <<'PROGRAM'
import sys

import lightgbm
import numpy as np
import treelite

x = np.array([-2.0, -1, 0, 0, 1, 2] * 20)[:, None]
y = np.array([1.0, 2, 7, 7, 3, 4] * 20)
params = {
    **{"verbose": -1, "num_threads": 1, "min_data_in_leaf": 1},
    **{"learning_rate": 1, "num_leaves": 8, "zero_as_missing": True},
}
model = lightgbm.train(params, lightgbm.Dataset(x, y), 1)
rows = np.array([-2.0, -1, 0, 1, 2, np.nan])[:, None]
wanted = model.predict(rows)
found = treelite.gtil.predict(treelite.frontend.from_lightgbm(model), rows).ravel()
print("x:       ", rows.ravel().tolist())
print("LightGBM:", wanted.round(3).tolist())
print("Treelite:", found.round(3).tolist())
sys.exit((np.abs(wanted - found) > 0.1).tolist() != [False, False, True, False, False, True])
PROGRAM
