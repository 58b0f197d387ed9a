#!/usr/bin/env bash
# onnxruntime 1.32.0: `Cast` of floats to INT4, UINT4, INT2 and UINT2 rounds to the nearest integer, where its own cast to
# INT8 leaves the fraction out, as the reference implementation of onnx 1.23.2 does for all of them.
#
# Output seen (of [1.7, -1.7, 0.6, 6.9], without signs for the types that have none, and up to 1.9 for those of two bits):
#   INT8:  reference [1, -1, 0, 6], onnxruntime [1, -1, 0, 6]
#   INT4:  reference [1, -1, 0, 6], onnxruntime [2, -2, 1, 7]
#   UINT4: reference [1, 1, 0, 6], onnxruntime [2, 2, 1, 7]
#   INT2:  reference [0, -1, 0, 0], onnxruntime [1, -2, 1, 1]
#   UINT2: reference [1, 1, 0, 1], onnxruntime [2, 2, 1, 2]
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cd "$folder"

venv/bin/python -W ignore - <<'PROGRAM'
import sys

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator

onnxruntime.set_default_logger_severity(4)
kinds = {
    "INT8": [1.7, -1.7, 0.6, 6.9],
    "INT4": [1.7, -1.7, 0.6, 6.9],
    "UINT4": [1.7, 1.7, 0.6, 6.9],
    "INT2": [0.7, -1.7, 0.6, 0.9],
    "UINT2": [1.7, 1.7, 0.6, 1.9],
}
differ = []
for name, values in kinds.items():
    to = getattr(onnx.TensorProto, name)
    nodes = [
        onnx.helper.make_node("Cast", ["x"], ["few"], to=to),
        onnx.helper.make_node("Cast", ["few"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [4]) for name in "xy")
    opset = onnx.helper.make_opsetid("", 25)
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "net", [x], [y]), opset_imports=[opset], ir_version=13)
    onnx.checker.check_model(model)
    given = {"x": np.array(values, np.float32)}
    reference = ReferenceEvaluator(model).run(None, given)[0].astype(int).tolist()
    found = onnxruntime.InferenceSession(model.SerializeToString()).run(None, given)[0].astype(int).tolist()
    print(f"{name + ':':6} reference {reference}, onnxruntime {found}")
    differ += [name] if found != reference else []
sys.exit(differ != ["INT4", "UINT4", "INT2", "UINT2"])
PROGRAM
