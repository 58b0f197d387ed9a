#!/usr/bin/env bash
# gensim 4.4.0: a word with a space is written to the binary form of word2vec without a word, and read up to the space:
# the rest of it is the beginning of a vector, and the end of that vector is the beginning of the next word. Nothing is
# raised. The text form with the same words cannot be read ("could not convert string to float").
#
# Output seen:
#   written: new york [1.0, 2.0], b [3.0, 4.0], c [5.0, 6.0]
#   binary:  words read as written 1 of 3; new has the bytes b'york \x00\x00\x80' as its vector
#   text:    ValueError
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

vectors = KeyedVectors(2)
vectors.add_vectors(["new york", "b", "c"], np.arange(1, 7, dtype=np.float32).reshape(3, 2))
print("written:", ", ".join(f"{word} {vectors[word].tolist()}" for word in vectors.index_to_key))
vectors.save_word2vec_format("vectors.bin", binary=True)
vectors.save_word2vec_format("vectors.txt", binary=False)
read = KeyedVectors.load_word2vec_format("vectors.bin", binary=True)
whole = [word for word in vectors.index_to_key if word in read and np.array_equal(read[word], vectors[word])]
first = read["new"].tobytes()
print(f"binary:  words read as written {len(whole)} of 3; new has the bytes {first} as its vector")
try:
    KeyedVectors.load_word2vec_format("vectors.txt", binary=False)
    text = "read"
except ValueError:
    text = "ValueError"
print("text:   ", text)
sys.exit(len(whole) == 3 or not first.startswith(b"york ") or text != "ValueError")
PROGRAM
