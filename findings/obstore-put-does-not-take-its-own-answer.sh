#!/usr/bin/env bash
# obstore 0.12.1: what `put` returns cannot be given to the next `put` as the version that is to be replaced, where the store
# has no versions, as memory and files have none: it holds `"version": None`, which the type `UpdateVersion` allows and which
# raises TypeError. Without that entry it is taken, and refused where somebody else wrote meanwhile.
#
# Output seen:
#   put: {'e_tag': '"0"', 'version': None}
#   put with that as mode: TypeError: 'None' is not an instance of 'str'
#   put with its e_tag alone: {'e_tag': '"1"', 'version': None}
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet obstore==0.12.1
cd "$folder"

venv/bin/python - <<'PROGRAM'
import sys

import obstore
from obstore.store import MemoryStore

store = MemoryStore()
first = obstore.put(store, "latest", b"1")
print("put:", first)
try:
    found = str(obstore.put(store, "latest", b"2", mode=first))
except TypeError as error:
    found = f"TypeError: {error}"
print("put with that as mode:", found)
second = obstore.put(store, "latest", b"2", mode={"e_tag": first["e_tag"]})
print("put with its e_tag alone:", second)
sys.exit(found != "TypeError: 'None' is not an instance of 'str'" or second["e_tag"] == first["e_tag"])
PROGRAM
