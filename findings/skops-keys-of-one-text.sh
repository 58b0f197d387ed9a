#!/usr/bin/env bash
# skops 0.16.0: of a dict with the keys 1 and "1", one value is lost. Both are the name "1" in the JSON of the file, which
# is written twice; on the way back the last counts, and nothing is said.
#
# Output seen:
#   {1: 'int', '1': 'text'} -> {1: 'text'}
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet skops==0.16.0 scikit-learn==1.9.1 numpy==2.4.6
cd "$folder"

venv/bin/python - <<'PROGRAM'
import sys

import skops.io

value = {1: "int", "1": "text"}
found = skops.io.loads(skops.io.dumps(value))
print(value, "->", found)
sys.exit(found != {1: "text"})
PROGRAM
