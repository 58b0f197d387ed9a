#!/usr/bin/env bash
# zarr-python 3.1.6, Python 3.11 or later; seen on 2026-11-30. Where one chunk of a selection cannot be read, the error is
# raised, and the tasks that read the other chunks run on in zarr-python's event loop (`asyncio.gather` in `concurrent_map`
# does not cancel them). When the process ends the loop is closed over them, and asyncio says so on stderr, after the error
# was caught and told.
#
# Output seen:
#   caught: one chunk cannot be read
#   Task was destroyed but it is pending!
#   task: <Task pending name='Task-5' coro=<concurrent_map.<locals>.run() running at ...
#
# Exits non-zero if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet zarr==3.1.6 numpy==2.4.6
cd "$folder"
cat > read.py <<'PROGRAM'
import asyncio

import numpy as np
import zarr
from zarr.storage import LocalStore


class Slow(LocalStore):
    """A disk on which one chunk has a bad sector, and the other one takes its time."""

    async def get(self, key, prototype=None, byte_range=None):
        if key == "c/0":
            raise OSError("one chunk cannot be read")
        if key == "c/1":
            await asyncio.sleep(5)
        return await super().get(key, prototype, byte_range)


zarr.create_array("x.zarr", data=np.arange(8), chunks=(4,))
try:
    zarr.open_array(Slow("x.zarr"), mode="r")[:]
except OSError as error:
    print("caught:", error, flush=True)
PROGRAM
venv/bin/python read.py 2>&1 | cut -c1-100 | tee output
grep -q "^caught: one chunk cannot be read" output
grep -q "Task was destroyed but it is pending" output
