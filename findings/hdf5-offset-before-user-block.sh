#!/usr/bin/env bash
# HDF5 2.0.0 (h5py 3.16.0): H5Dget_offset of a contiguous dataset that was never written says "undefined" (h5py: None),
# except in a file with a user block, where the block's size is added to "undefined", which wraps around: with 512 bytes
# the offset is 511, with 1024 it is 1023. A reader that maps what lies at the offset reads the file's own header as data.
#
# Output seen:
#   user block    0: offset None, space not allocated True
#   user block  512: offset 511, space not allocated True
#   user block 1024: offset 1023, space not allocated True
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q h5py==3.16.0 numpy==2.4.6 2>/dev/null
cd "$folder"
venv/bin/python - <<'PYTHON'
import h5py

for size, expected in ((0, None), (512, 511), (1024, 1023)):
    with h5py.File("x.h5", "w", userblock_size=size) as file:
        dataset = file.create_dataset("filled", (2, 2), "f4", fillvalue=7)
        absent = dataset.id.get_space_status() == h5py.h5d.SPACE_STATUS_NOT_ALLOCATED
        offset = dataset.id.get_offset()
        print(f"user block {size:4}: offset {offset}, space not allocated {absent}")
        assert absent and dataset[0, 0] == 7
        assert offset == expected
PYTHON
