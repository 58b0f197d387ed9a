#!/usr/bin/env bash
# gensim 4.4.0: KeyedVectors keeps the norms of its vectors once they were asked for, and does not compute them again
# where a vector is replaced, by `vectors[word] = ...` as by add_vectors(..., replace=True): vectors of norm 1 have
# another one, and `most_similar` gives a similarity of 10, without a word; after a save and a load, too.
#
# Output seen:
#   norm of the vector of norm 1: 1.0, most_similar to itself 1.0
#   replaced by ten times itself: 10.0, most_similar to itself 10.0
#   saved and loaded: 10.0, most_similar to itself 10.0
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet gensim==4.4.0 numpy==2.4.6
cd "$folder"

venv/bin/python - <<'PROGRAM'
import sys

import numpy as np
from gensim.models import KeyedVectors


def look(title, vectors):
    norm = float(np.linalg.norm(vectors.get_vector("a", norm=True)))
    [(word, likeness)] = vectors.most_similar(positive=[np.array([1, 0], np.float32)], topn=1)
    print(f"{title}: {round(norm, 3)}, most_similar to itself {round(likeness, 3)}")
    return round(norm, 3), round(likeness, 3)


vectors = KeyedVectors(2)
vectors.add_vectors(["a", "b"], np.array([[1, 0], [0, 1]], np.float32))
found = [look("norm of the vector of norm 1", vectors)]
vectors["a"] = vectors["a"] * 10
found.append(look("replaced by ten times itself", vectors))
vectors.save("vectors.kv")
found.append(look("saved and loaded", KeyedVectors.load("vectors.kv")))
sys.exit(found != [(1, 1), (10, 10), (10, 10)])
PROGRAM
