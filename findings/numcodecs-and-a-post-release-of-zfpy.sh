#!/usr/bin/env bash
# numcodecs 0.16.6 with zfpy 1.0.1.post0, which its extra "zfpy" takes: numcodecs cannot be imported, and so zarr-python
# cannot either, though no array uses that codec. numcodecs reads the version of zfpy as numbers, and "post0" is none.
# With zfpy 1.0.0 both can.
#
# Output seen:
#   zfpy 1.0.0: imported
#   zfpy 1.0.1.post0: ValueError: invalid literal for int() with base 10: 'post0'
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet zarr==3.1.6 numcodecs==0.16.6 numpy==2.4.6

found=
for version in 1.0.0 1.0.1.post0; do
  "$folder/venv/bin/pip" install --quiet "zfpy==$version"
  said=$("$folder/venv/bin/python" -W ignore -c 'import zarr; print("imported")' 2>&1 | tail -n 1 || true)
  echo "zfpy $version: $said"
  found+="$said;"
done
[[ $found == "imported;ValueError: invalid literal for int() with base 10: 'post0';" ]]
