"""Make what is in `coreml`: python tests/data/make_coreml.py, with coremltools 9.0 and numpy 2.4.6 on Linux.

`program.mlpackage` is an ML program whose weights lie in a file of blobs, of every type that coremltools writes there,
`network.mlmodel` a neural network with layers of many kinds, `pipeline.mlmodel` two small ones. The `.npz` beside each
has what coremltools itself reads of it, by the names that this package gives.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
from coremltools.converters.mil import Builder
from coremltools.converters.mil.frontend.milproto.load import TranscriptionContext, _load_value
from coremltools.converters.mil.mil import types
from coremltools.models import datatypes
from coremltools.models.neural_network import NeuralNetworkBuilder
from coremltools.models.pipeline import Pipeline

HERE = Path(__file__).parent / "coreml"
RNG = np.random.default_rng(7)


def numbers(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def save(name: str, arrays: dict[str, np.ndarray]) -> None:
    """As two arrays, since each takes some hundred bytes in a ZIP archive: what they are, and all bytes."""
    said = [f"{key} {array.dtype.name} {' '.join(map(str, array.shape))}" for key, array in arrays.items()]
    octets = np.frombuffer(b"".join(array.tobytes() for array in arrays.values()), np.uint8)
    np.savez_compressed(HERE / name, said=np.array(said), octets=octets)


# ---- an ML program

LUT = {1: types.np_uint1_dtype, 2: types.np_uint2_dtype, 3: types.np_uint3_dtype, 4: types.np_uint4_dtype,
       6: types.np_uint6_dtype, 8: np.uint8}  # fmt: skip


@Builder.program(input_specs=[Builder.TensorSpec(shape=(1, 5))], opset_version=ct.target.iOS18)
def program(x: Any) -> Any:
    x = Builder.linear(x=x, weight=numbers(7, 5), bias=numbers(7), name="first")
    for bits, dtype in LUT.items():
        indices = RNG.integers(0, 1 << bits, (7, 7)).astype(dtype)
        lut = numbers(1, 1, 1 << bits, 1)
        w = Builder.constexpr_lut_to_dense(indices=indices, lut=lut, name=f"lut{bits}")
        x = Builder.linear(x=x, weight=w, name=f"of_lut{bits}")
    for name, dtype in (("int4", types.np_int4_dtype), ("uint4", types.np_uint4_dtype), ("int8", np.int8)):
        low, high = (0, 16) if name == "uint4" else (-8, 8)
        data = RNG.integers(low, high, (7, 7)).astype(dtype)
        w = Builder.constexpr_blockwise_shift_scale(data=data, scale=numbers(7, 1), name=f"of_{name}")
        x = Builder.linear(x=x, weight=w, name=f"linear_{name}")
    half = Builder.cast(x=x, dtype="fp16")
    half = Builder.linear(
        x=half, weight=numbers(3, 7).astype(np.float16), bias=numbers(3).astype(np.float16), name="half"
    )
    x = Builder.cast(x=half, dtype="fp32")
    pred = Builder.greater(x=Builder.reduce_sum(x=x), y=np.float32(0))
    return Builder.cond(
        pred=pred,
        _true_fn=lambda: Builder.add(x=x, y=numbers(1, 3), name="true"),
        _false_fn=lambda: Builder.mul(x=x, y=np.tile(numbers(1, 1), (1, 3)), name="false"),
    )


def read_program(path: Path) -> dict[str, np.ndarray]:
    """What coremltools reads of a program with one function."""
    spec = ct.utils.load_spec(str(path))
    context = TranscriptionContext(str(path / "Data/com.apple.CoreML/weights"))
    found: dict[str, np.ndarray] = {}

    def block(operations: Any) -> None:
        for operation in operations:
            output = operation.outputs[0].name
            values = [*operation.attributes.items()]
            for key, argument in operation.inputs.items():
                values += [(key, binding.value) for binding in argument.arguments if binding.HasField("value")]
            for key, value in values:
                if key == "name" or not value.type.HasField("tensorType"):
                    continue
                array = np.asarray(_load_value(context, value))
                if array.dtype.kind not in "US":
                    name = output if (operation.type, key) == ("const", "val") else f"{output}.{key}"
                    shape = [dim.constant.size for dim in value.type.tensorType.dimensions]
                    found[name] = array.reshape(shape)
            for inner in operation.blocks:
                block(inner.operations)

    function = spec.mlProgram.functions["main"]
    block(function.block_specializations[function.opset].operations)
    return {name: array.astype(array.dtype.name) for name, array in found.items()}


def make_program() -> None:
    model = ct.convert(
        program,
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS18,
        compute_precision=ct.precision.FLOAT32,
        pass_pipeline=ct.PassPipeline.EMPTY,
        skip_model_load=True,
    )
    model.author, model.short_description, model.version = "tests", "every type", "1"
    model.user_defined_metadata["key"] = "value"
    shutil.rmtree(HERE / "program.mlpackage", ignore_errors=True)
    model.save(str(HERE / "program.mlpackage"))
    save("program.npz", read_program(HERE / "program.mlpackage"))


# ---- neural networks


def network() -> NeuralNetworkBuilder:
    """Layers with weights of every kind and form; they need not fit each other, as nothing runs them."""
    inputs, outputs = [("x", datatypes.Array(5))], [("y", datatypes.Array(3))]
    builder = NeuralNetworkBuilder(inputs, outputs, disable_rank5_shape_mapping=True)
    builder.add_inner_product("dense", numbers(3, 5), numbers(3), 5, 3, True, "x", "a")
    builder.add_inner_product(
        "bytes", RNG.integers(0, 256, (3, 4), np.uint8).tobytes(), None, 4, 3, False, "a", "b",
        is_quantized_weight=True, quantization_type="linear", nbits=8, quant_scale=numbers(3), quant_bias=numbers(3),
    )  # fmt: skip
    builder.add_inner_product(
        "table", RNG.integers(0, 256, 6, np.uint8).tobytes(), None, 4, 3, False, "b", "c", is_quantized_weight=True,
        quantization_type="lut", nbits=4, quant_lut=numbers(16),
    )  # fmt: skip
    convolution = {"stride_height": 1, "stride_width": 1, "border_mode": "valid", "groups": 2, "has_bias": True}
    builder.add_convolution(
        "conv", 4, 6, 3, 2, W=numbers(3, 2, 4, 6), b=numbers(6), input_name="c", output_name="d", **convolution
    )
    builder.add_convolution(
        "deconv", 4, 6, 3, 2, W=numbers(3, 2, 4, 3), b=numbers(6), is_deconv=True, input_name="d", output_name="e",
        **convolution,
    )  # fmt: skip
    builder.add_convolution3d(
        "conv3d", 4, 6, 1, 2, 3, W=numbers(6, 2, 1, 2, 3), b=numbers(6), has_bias=True, groups=2, input_name="e",
        output_name="f",
    )  # fmt: skip
    builder.add_batchnorm("norm", 2, numbers(2), numbers(2), numbers(2), numbers(2), input_name="f", output_name="g")
    builder.add_embedding("embed", numbers(3, 7), None, 7, 3, False, "g", "h")
    builder.add_embedding_nd("embed_nd", "h", "i", 7, 3, numbers(3, 7))
    builder.add_load_constant_nd("constant", "j", numbers(2, 3), [2, 3])
    builder.add_activation("prelu", "PRELU", "j", "k", params=numbers(4))
    builder.add_scale("scale", numbers(2, 1, 1), numbers(2, 1, 1), True, "k", "l", [2, 1, 1], [2, 1, 1])
    builder.add_layer_normalization("layer_norm", "l", "m", [2, 3], numbers(2, 3), numbers(2, 3))
    builder.add_batched_mat_mul("matmul", ["m"], "n", weight_matrix_rows=2, weight_matrix_columns=3, W=numbers(2, 3))
    inner, outer, bias = ([numbers(*shape) for _ in range(4)] for shape in ((3, 3), (3, 2), (3,)))
    builder.add_unilstm("lstm", inner, outer, bias, 3, 2, ["n", "p", "q"], ["r", "s", "t"], peep=bias[:3])
    builder.add_bidirlstm(
        "bilstm", inner, outer, bias, inner[::-1], outer[::-1], bias[::-1], 3, 2, ["r", "s", "t", "u", "v"],
        ["o", "w", "z", "a1", "a2"],
    )  # fmt: skip
    builder.add_gru("gru", inner[:3], outer[:3], bias[:3], 3, 2, ["o", "a3"], ["a4", "a5"])
    builder.add_simple_rnn("rnn", inner[0], outer[0], bias[0], 3, 2, "TANH", ["a4", "a6"], ["a7", "a8"])
    branch = builder.add_branch("branch", "a7")
    for part, name in ((branch.branch.ifBranch, "yes"), (branch.branch.elseBranch, "no")):
        layers = NeuralNetworkBuilder(nn_spec=part, disable_rank5_shape_mapping=True)
        layers.add_inner_product(name, numbers(3, 3), None, 3, 3, False, "a7", "y")
    return builder


def read_network(layers: Any, above: str = "") -> dict[str, np.ndarray]:
    """Every WeightParams in layers, as protobuf finds it, without a shape."""
    found: dict[str, np.ndarray] = {}

    def visit(message: Any, label: str) -> None:
        if message.DESCRIPTOR.name == "WeightParams":
            raw = [(message.float16Value, np.float16), (message.int8RawValue, np.int8), (message.rawValue, np.uint8)]
            arrays = [np.frombuffer(data, dtype) for data, dtype in raw if data]
            if message.floatValue or arrays:
                found[label] = np.array(message.floatValue, np.float32) if message.floatValue else arrays[0]
            return
        for field, value in message.ListFields():
            if field.message_type is None or field.message_type.name == "QuantizationParams":
                continue
            if field.message_type.name == "NeuralNetwork":
                found.update(read_network(value.layers, f"{label}.{field.name}."))
            elif field.is_repeated:
                for number, item in enumerate(value):
                    visit(item, f"{label}.{field.name}" + (f".{number}" if len(value) > 1 else ""))
            else:
                visit(value, f"{label}.{field.name}")

    for layer in layers:
        kind = layer.WhichOneof("layer")
        visit(getattr(layer, kind), above + layer.name)
    return found


def make_networks() -> None:
    model = network().spec
    ct.utils.save_spec(model, str(HERE / "network.mlmodel"))
    save("network.npz", read_network(model.neuralNetwork.layers))

    first = NeuralNetworkBuilder([("x", datatypes.Array(2))], [("y", datatypes.Array(2))])
    first.add_inner_product("dense", numbers(2, 2).astype(np.float16), None, 2, 2, False, "x", "y")
    spec = Pipeline([("x", datatypes.Array(2))], [("y", datatypes.Array(2))])
    spec.add_model(first.spec)
    ct.utils.save_spec(spec.spec, str(HERE / "pipeline.mlmodel"))


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    make_program()
    make_networks()
