#!/usr/bin/env bash
# safetensors 0.8.0: `safetensors.numpy.save` and `save_file` write an array whose elements do not lie in C order, as a
# transposed one or one in Fortran order, by its memory: the file has its shape, and its elements in another order. There
# is no word of it. Version 0.7.0 wrote the elements in their order. The documents of both ask for contiguous arrays,
# which these are to NumPy (`F_CONTIGUOUS`); `safetensors.torch` refuses such tensors.
#
# Output seen:
#   array:  [[0, 3], [1, 4], [2, 5]]
#   0.7.0:  transposed [[0, 3], [1, 4], [2, 5]], Fortran [[0, 3], [1, 4], [2, 5]]
#   0.8.0:  transposed [[0, 1], [2, 3], [4, 5]], Fortran [[0, 1], [2, 3], [4, 5]]
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
cat >program.py <<'PROGRAM'
import sys

import numpy as np
import safetensors
from safetensors.numpy import load_file, save_file

w = np.arange(6).reshape(2, 3).T
save_file({"transposed": w, "Fortran": np.asfortranarray(w.copy())}, "w.safetensors")
found = {name: value.tolist() for name, value in load_file("w.safetensors").items()}
if safetensors.__version__ == "0.7.0":
    print("array: ", w.tolist())
print(f"{safetensors.__version__}: ", ", ".join(f"{name} {found[name]}" for name in ("transposed", "Fortran")))
wrong = [value != w.tolist() for value in found.values()]
sys.exit(wrong != 2 * [safetensors.__version__ == "0.8.0"])
PROGRAM
for version in 0.7.0 0.8.0; do
    python3 -m venv "venv-$version"
    "venv-$version/bin/pip" install --quiet "safetensors==$version" numpy==2.4.6
    "venv-$version/bin/python" program.py
done
