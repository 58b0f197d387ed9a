#!/usr/bin/env bash
# asdf 6.0.0: an array with fields between which bytes lie unused, as `align=True` makes them and as a choice of fields
# is, is written with those bytes and a datatype that has no offsets, so its fields are read from other places, without
# a word. Written inline, an array whose fields fill it is read as a dict where it has two axes.
#
# Output seen:
#   [(1, 2), (3, 4)]          -> [(1, 2), (3, 4)]
#   aligned [(1, 2), (3, 4)]  -> [(1, 512), (0, 3)]
#   x[["a", "c"]] [(1, 7), (3, 8)] -> [(1, 2), (7, 3)]
#   inline, two axes -> TaggedDict
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet asdf==6.0.0 numpy==2.4.6
cd "$folder"

venv/bin/python -W ignore - <<'PROGRAM'
import sys

import asdf
import numpy as np


def through(array, **options):
    asdf.AsdfFile({"x": array}).write_to("x.asdf", **options)
    with asdf.open("x.asdf", memmap=False, lazy_load=False) as file:
        return file["x"] if isinstance(file["x"], dict) else np.asarray(file["x"]).copy()


packed = np.array([(1, 2), (3, 4)], [("a", "i1"), ("b", "<i2")])
aligned = np.zeros(2, np.dtype([("a", "i1"), ("b", "<i2")], align=True))
aligned["a"], aligned["b"] = packed["a"], packed["b"]
three = np.array([(1, 2, 7), (3, 4, 8)], [("a", "<i4"), ("b", "<i4"), ("c", "<i4")])
chosen = three[["a", "c"]]
print(packed.tolist(), "         ->", through(packed).tolist())
print("aligned", aligned.tolist(), " ->", through(aligned).tolist())
print('x[["a", "c"]]', chosen.tolist(), "->", through(chosen).tolist())
inline = through(packed.reshape(2, 1), all_array_storage="inline")
print("inline, two axes ->", type(inline).__name__)
assert through(packed).tolist() == packed.tolist()
wrong = [through(array).tolist() != array.tolist() for array in (aligned, chosen)]
sys.exit(wrong != [True, True] or not isinstance(inline, dict))
PROGRAM
