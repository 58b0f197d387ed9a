#!/usr/bin/env bash
# XGBoost 3.2.0, OpenVINO 2026.4.1 and CTranslate2 4.8.5: arrays of NumPy whose elements are big-endian, as HDF5, FITS
# and IDX files have them, are taken as if they were little-endian, without a word: XGBoost's features, labels and
# weights, and the tensors of the two others are other numbers. LightGBM 4.7.0 takes them as they are.
#
# Output seen:
#   XGBoost features: <i4 [1.0, 2.0, 3.0], >i4 [16777216.0, 33554432.0, 50331648.0]
#   XGBoost labels:   <i4 [1.0, 2.0, 3.0], >i4 [16777216.0, 33554432.0, 50331648.0]
#   XGBoost weights:  <i4 [1.0, 2.0, 3.0], >i4 [16777216.0, 33554432.0, 50331648.0]
#   OpenVINO tensor:  <i4 [1, 2, 3], >i4 [16777216, 33554432, 50331648]
#   CTranslate2 view: <i4 [1, 2, 3], >i4 [16777216, 33554432, 50331648]
#   LightGBM labels:  <i4 [1.0, 2.0, 3.0], >i4 [1.0, 2.0, 3.0]
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet xgboost-cpu==3.2.0 openvino==2026.4.1 lightgbm==4.7.0 ctranslate2==4.8.5 numpy==2.4.6
cd "$folder"

venv/bin/python - <<'PROGRAM'
import sys

import ctranslate2
import lightgbm
import numpy as np
import openvino
import xgboost

BLANK = np.zeros((3, 1), np.float32)
TAKEN = {
    "XGBoost features": lambda x: xgboost.DMatrix(x[:, None]).get_data().toarray()[:, 0],
    "XGBoost labels": lambda x: xgboost.DMatrix(BLANK, label=x).get_label(),
    "XGBoost weights": lambda x: xgboost.DMatrix(BLANK, weight=x).get_weight(),
    "OpenVINO tensor": lambda x: openvino.Tensor(x).data,
    "CTranslate2 view": lambda x: np.array(ctranslate2.StorageView.from_array(x)),
    "LightGBM labels": lambda x: lightgbm.Dataset(BLANK, x, params={"verbose": -1}).construct().get_label(),
}
numbers = np.array([1, 2, 3], np.int32)
wrong = []
for name, take in TAKEN.items():
    little, big = take(numbers).tolist(), take(numbers.astype(">i4")).tolist()
    print(f"{name + ':':17} <i4 {little}, >i4 {big}")
    assert little == [1, 2, 3]
    wrong.append(big != little)
sys.exit(wrong != [True, True, True, True, True, False])
PROGRAM
