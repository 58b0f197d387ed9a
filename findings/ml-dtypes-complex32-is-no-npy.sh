#!/usr/bin/env bash
# ml_dtypes 0.7.0 (numpy 2.4.6): `numpy.save` writes arrays of complex32 with the descriptor '<c4', which `numpy.load`
# and `numpy.dtype` refuse, as they did '<W4' of 0.6.0. Those of bcomplex32, '<W4' before too, have '<V4' now: they are
# loaded as void of four bytes, without a word.
#
# Output seen:
#   complex32  descr '<c4', kind 'c', is a complexfloating: False; load: ValueError descr is not a valid dtype descriptor: '<c4'
#   bcomplex32 descr '<V4', kind 'V', is a complexfloating: False; load: |V4
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet ml_dtypes==0.7.0 numpy==2.4.6

"$folder/venv/bin/python" - <<'PROGRAM'
import io
import sys

import ml_dtypes
import numpy as np

SEEN = {
    "complex32": ("<c4", "c", "ValueError descr is not a valid dtype descriptor: '<c4'"),
    "bcomplex32": ("<V4", "V", "|V4"),
}
found = {}
for name in SEEN:
    dtype = np.dtype(getattr(ml_dtypes, name))
    file = io.BytesIO()
    np.save(file, np.zeros(3, dtype))
    file.seek(0)
    try:
        loaded = np.load(file).dtype.str
    except ValueError as error:
        loaded = f"ValueError {error}"
    found[name] = (dtype.str, dtype.kind, loaded)
    is_complex = np.issubdtype(dtype, np.complexfloating)
    print(f"{name:10} descr {dtype.str!r}, kind {dtype.kind!r}, is a complexfloating: {is_complex}; load: {loaded}")
sys.exit(found != SEEN)
PROGRAM
