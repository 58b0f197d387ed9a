#!/usr/bin/env bash
# XGBoost 3.2.0: the value that an XGBRegressor was told to take for "missing" is part neither of what `save_model`
# writes nor of what `load_model` restores, without a word: a model trained with missing=0 takes zeros for numbers after
# it was loaded, and predicts something else.
#
# Output seen:
#   ubj: missing 0 -> nan, same predictions False; after set_params(missing=0) True
#   json: missing 0 -> nan, same predictions False; after set_params(missing=0) True
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet xgboost-cpu==3.2.0 scikit-learn==1.9.1 numpy==2.4.6
cd "$folder"

venv/bin/python - <<'PROGRAM'
import sys

import numpy as np
import xgboost

x = np.random.default_rng(0).normal(size=(500, 4))
y = x[:, 0] * 3 + x[:, 1] ** 2
x[np.abs(x) < 0.5] = 0
model = xgboost.XGBRegressor(missing=0, n_estimators=5, n_jobs=1).fit(x, y)
found = []
for form in ("ubj", "json"):
    model.save_model(f"model.{form}")
    loaded = xgboost.XGBRegressor()
    loaded.load_model(f"model.{form}")
    missing, same = loaded.missing, np.array_equal(model.predict(x), loaded.predict(x))
    loaded.set_params(missing=0)
    told = np.array_equal(model.predict(x), loaded.predict(x))
    print(f"{form}: missing {model.missing} -> {missing}, same predictions {same}; after set_params(missing=0) {told}")
    found.append((np.isnan(missing), same, told))
sys.exit(found != [(True, False, True)] * 2)
PROGRAM
