#!/usr/bin/env bash
# ncnn 1.0.20261020 (Python): `ncnn.Mat` of a NumPy array takes its shape and its memory, and not its strides, without a
# word: of a transposed array or of every second element it has other elements.
#
# Output seen:
#   w:      [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]], ncnn [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
#   w.T:    [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]], ncnn [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
#   v[::2]: [0.0, 2.0, 4.0], ncnn [0.0, 1.0, 2.0]
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ncnn==1.0.20261020 numpy==2.4.6
cd "$folder"

venv/bin/python - <<'PROGRAM'
import sys

import ncnn
import numpy as np

w = np.arange(6, dtype=np.float32).reshape(2, 3)
v = np.arange(6, dtype=np.float32)
same = []
for name, array in {"w": w, "w.T": w.T, "v[::2]": v[::2]}.items():
    matrix = np.array(ncnn.Mat(array).clone())
    print(f"{name + ':':7} {array.tolist()}, ncnn {matrix.tolist()}")
    same.append(np.array_equal(matrix, array))
sys.exit(same != [True, False, False])
PROGRAM
