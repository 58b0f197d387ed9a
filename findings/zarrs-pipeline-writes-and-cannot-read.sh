#!/usr/bin/env bash
# zarrs 0.2.3 as the codec pipeline of zarr-python 3.1.6: arrays of format 2 that are big-endian, or whose order is F,
# are written without complaint, and the same pipeline cannot read them, where zarr-python's own can. Arrays of format 3
# it reads in either byte order and with a transposition.
#
# Output seen:
#   format 2, plain:      zarrs read, zarr-python read
#   format 2, big-endian: zarrs RuntimeError: Non-native byte order not supported, zarr-python read
#   format 2, order F:    zarrs ValueError: input array must be a C contiguous array, zarr-python read
#   format 3, big-endian: zarrs read, zarr-python read
#   format 3, transposed: zarrs read, zarr-python read
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet zarrs==0.2.3 zarr==3.1.6 numpy==2.4.6
cd "$folder"

venv/bin/python -W ignore - <<'PROGRAM'
import sys

import numpy as np
import zarr
import zarrs  # noqa: F401  (registers the pipeline)
from zarr.codecs import TransposeCodec

PIPELINES = {"zarrs": "zarrs.ZarrsCodecPipeline", "zarr-python": "zarr.core.codec_pipeline.BatchedCodecPipeline"}
ARRAYS = {
    "format 2, plain": ("<i4", {"zarr_format": 2}),
    "format 2, big-endian": (">i4", {"zarr_format": 2}),
    "format 2, order F": ("<i4", {"zarr_format": 2, "order": "F"}),
    "format 3, big-endian": (">i4", {"zarr_format": 3}),
    "format 3, transposed": ("<i4", {"zarr_format": 3, "filters": [TransposeCodec(order=(1, 0))]}),
}


def read(name, pipeline, wanted):
    with zarr.config.set({"codec_pipeline.path": PIPELINES[pipeline]}):
        try:
            assert np.array_equal(zarr.open_array(name, mode="r")[:], wanted)
        except (RuntimeError, ValueError) as error:
            return f"{type(error).__name__}: {error}"
    return "read"


failed = []
for name, (dtype, options) in ARRAYS.items():
    values = np.arange(35, dtype=dtype).reshape(5, 7)
    with zarr.config.set({"codec_pipeline.path": PIPELINES["zarrs"]}):
        array = zarr.create_array(name, shape=values.shape, dtype=values.dtype, chunks=(2, 3), **options)
        array[:] = values
    answers = {pipeline: read(name, pipeline, values) for pipeline in PIPELINES}
    print(f"{name + ':':21} " + ", ".join(f"{pipeline} {answer}" for pipeline, answer in answers.items()))
    assert answers["zarr-python"] == "read"
    failed.append(answers["zarrs"] != "read")
sys.exit(failed != [False, True, True, False, False])
PROGRAM
