#!/usr/bin/env bash
# onnx 1.23.2: `Cast` to FLOAT8E8M0, as the reference implementation has it, gives 2⁻¹²⁶ for 2⁻¹²⁷, the least number of that
# type, which it has exactly: rounding "up", which is what a model gets that does not say another, takes it for one that
# lies between two. With "nearest" and "down", and in onnxruntime 1.32.0, it stays.
#
# Output seen:
#   of 2^-125, 2^-126, 2^-127
#   up: reference -125, -126, -126; onnxruntime -125, -126, -127
#   nearest: reference -125, -126, -127; onnxruntime -125, -126, -127
#   down: reference -125, -126, -127; onnxruntime -125, -126, -127
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
exponents = [-125, -126, -127]
print("of " + ", ".join(f"2^{exponent}" for exponent in exponents))
wrong = {}
for mode in ("up", "nearest", "down"):
    nodes = [
        onnx.helper.make_node("Cast", ["x"], ["few"], to=onnx.TensorProto.FLOAT8E8M0, round_mode=mode),
        onnx.helper.make_node("Cast", ["few"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    x, y = (onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [3]) for name in "xy")
    opset = onnx.helper.make_opsetid("", 24)
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "net", [x], [y]), opset_imports=[opset], ir_version=12)
    given = {"x": np.array([2.0**exponent for exponent in exponents], np.float32)}
    reference = np.log2(ReferenceEvaluator(model).run(None, given)[0].astype(np.float64)).astype(int).tolist()
    session = onnxruntime.InferenceSession(model.SerializeToString())
    found = np.log2(session.run(None, given)[0].astype(np.float64)).astype(int).tolist()
    print(f"{mode}: reference {str(reference)[1:-1]}; onnxruntime {str(found)[1:-1]}")
    wrong[mode] = reference != exponents, found != exponents
sys.exit(wrong != {"up": (True, False), "nearest": (False, False), "down": (False, False)})
PROGRAM
