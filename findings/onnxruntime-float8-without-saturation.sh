#!/usr/bin/env bash
# onnxruntime 1.32.0: `Cast` to float8 with `saturate=0`. Of what is too large for E4M3FN, whose greatest number is 448,
# 465 becomes NaN, 480 to 495 become 448, and 496 NaN again; of what is too large for E5M2, 61440 to 65535 become NaN, and
# 65536 infinity. By the table of `Cast` all are NaN and infinity, as the reference implementation of onnx 1.23.2 has it.
#
# Output seen:
#   E4M3FN: of [464, 465, 479, 480, 495, 496] reference [448, nan, nan, nan, nan, nan]
#           onnxruntime [448, nan, nan, 448, 448, nan]
#   E5M2: of [61439, 61440, 65535, 65536] reference [57344, inf, inf, inf]
#         onnxruntime [57344, nan, nan, inf]
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


def shown(values):
    return "[" + ", ".join(f"{value:.0f}" for value in values) + "]"


found = []
for name, values in {"E4M3FN": [464, 465, 479, 480, 495, 496], "E5M2": [61439, 61440, 65535, 65536]}.items():
    to = getattr(onnx.TensorProto, f"FLOAT8{name}")
    nodes = [
        onnx.helper.make_node("Cast", ["x"], ["few"], to=to, saturate=0),
        onnx.helper.make_node("Cast", ["few"], ["y"], to=onnx.TensorProto.FLOAT),
    ]
    x, y = (onnx.helper.make_tensor_value_info(end, onnx.TensorProto.FLOAT, [len(values)]) for end in "xy")
    opset = onnx.helper.make_opsetid("", 24)
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "net", [x], [y]), opset_imports=[opset], ir_version=12)
    onnx.checker.check_model(model)
    given = {"x": np.array(values, np.float32)}
    reference = shown(ReferenceEvaluator(model).run(None, given)[0])
    found.append(shown(onnxruntime.InferenceSession(model.SerializeToString()).run(None, given)[0]))
    print(f"{name}: of {shown(values)} reference {reference}")
    print(f"{' ' * len(name)}  onnxruntime {found[-1]}")
sys.exit(found != ["[448, nan, nan, 448, 448, nan]", "[57344, nan, nan, inf]"])
PROGRAM
