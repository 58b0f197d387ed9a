#!/usr/bin/env bash
# blosc2 4.14.1: big-endian arrays are stored and given back as they are, and computed with as if they were
# little-endian, without a word: sums and expressions are of other numbers, and `arange` makes another sequence.
#
# Output seen:
#   <i4: stored [0, 1, 2, 3], a + 1 [1, 2, 3, 4], sum 6, arange [0, 1, 2, 3]
#   >i4: stored [0, 1, 2, 3], a + 1 [1, 16777217, 33554433, 50331649], sum 100663296, arange [0, 16777216, 33554432, 50331648]
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet blosc2==4.14.1 numpy==2.4.6
cd "$folder"

venv/bin/python - <<'PROGRAM'
import sys

import blosc2
import numpy as np

found = {}
for dtype in ("<i4", ">i4"):
    array = blosc2.asarray(np.arange(4, dtype=dtype))
    stored, more, total = array[:].tolist(), (array + 1)[:].tolist(), int(array.sum())
    counted = blosc2.arange(4, dtype=np.dtype(dtype))[:].tolist()
    print(f"{dtype}: stored {stored}, a + 1 {more}, sum {total}, arange {counted}")
    assert stored == [0, 1, 2, 3]
    found[dtype] = (more == [1, 2, 3, 4], total == 6, counted == [0, 1, 2, 3])
sys.exit(found != {"<i4": (True, True, True), ">i4": (False, False, False)})
PROGRAM
