#!/usr/bin/env bash
# OpenVINO 2026.4.1 with onnx 1.23.2: of an ONNX tensor that lies in `int32_data`, as `onnx.helper.make_tensor` writes
# it, the codes of bfloat16 and float8 are taken for numbers and cast: 1.0 in bfloat16, whose code is 0x3f80, is 16256.
# Of UINT32, which lies in `uint64_data`, the words are read as if they were of 32 bits. Nothing is said. The same
# tensors in `raw_data` are read as they are, and so is float16 in either.
#
# Output seen:
#   FLOAT16      raw_data [1.0, 2.0, 3.0], typed field [1.0, 2.0, 3.0]
#   BFLOAT16     raw_data [1.0, 2.0, 3.0], typed field [16256.0, 16384.0, 16384.0]
#   FLOAT8E4M3FN raw_data [1.0, 2.0, 3.0], typed field [56.0, 64.0, 64.0]
#   FLOAT8E5M2   raw_data [1.0, 2.0, 3.0], typed field [64.0, 64.0, 64.0]
#   UINT32       raw_data [1.0, 2.0, 3.0], typed field [1.0, 0.0, 2.0]
#   INT8         raw_data [1.0, 2.0, 3.0], typed field [1.0, 2.0, 3.0]
#
# Exits non-zero if that changes.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet openvino==2026.4.1 onnx==1.23.2 ml_dtypes==0.6.0 numpy==2.4.6
cd "$folder"

venv/bin/python - <<'PROGRAM'
import sys

import numpy as np
import onnx
import openvino
from onnx import TensorProto, helper

NAMES = ("FLOAT16", "BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E5M2", "UINT32", "INT8")


def read(tensor):
    output = helper.make_tensor_value_info("y", tensor.data_type, tensor.dims)
    graph = helper.make_graph([helper.make_node("Identity", ["w"], ["y"])], "g", [], [output], [tensor])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "model.onnx")
    nodes = openvino.Core().read_model("model.onnx").get_ops()
    [constant] = [node for node in nodes if node.get_type_name() == "Constant"]
    return constant.get_data(dtype=np.float32).tolist()


wrong = []
for name in NAMES:
    kind = getattr(TensorProto, name)
    numbers = np.array([1, 2, 3]).astype(helper.tensor_dtype_to_np_dtype(kind))
    raw = read(helper.make_tensor("w", kind, [3], numbers.tobytes(), raw=True))
    typed = read(helper.make_tensor("w", kind, [3], [1, 2, 3]))
    print(f"{name:12} raw_data {raw}, typed field {typed}")
    assert raw == [1, 2, 3]
    wrong.append(typed != [1, 2, 3])
sys.exit(wrong != [False, True, True, True, True, False])
PROGRAM
