"""TensorFlow Lite: constants are what the generated code of its schema reads."""

from __future__ import annotations

import struct
from itertools import product
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from conversions import imported
from hostile import refused
from tflite_models import FLOAT, KINDS, STRING, W, flatbuffers, model, of, small, strings, tflite

import ckptfmt
from ckptfmt.conversion import open_source
from ckptfmt.conversion.formats.tflite import HANDLES, TYPES
from ckptfmt.conversion.source import mapped_arrays


def equal(mine: Any, theirs: np.ndarray) -> None:
    assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
    assert mine.tobytes() == theirs.tobytes()


def test_every_type_of_the_schema_is_known() -> None:
    assert set(KINDS.values()) <= TYPES.keys() | HANDLES.keys() | {STRING}
    for name, kind in KINDS.items():
        assert kind not in TYPES or TYPES[kind] == name.lower()


def test_tensors_of_every_type(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    arrays, tensors = {}, []
    for (kind, name), shape in product(TYPES.items(), [(), (7,), (3, 5), (2, 1, 4)]):
        dtype = np.dtype(getattr(ml_dtypes, name, name))
        octets = rng.integers(0, 256, (int(np.prod(shape)), dtype.itemsize), np.uint8)
        bits = int(name[-1]) if name in ("int4", "uint4", "int2") else 8
        octets &= np.uint8(1 if name == "bool" else (1 << bits) - 1)
        label = f"{name}-{len(shape)}"
        arrays[label] = octets.reshape(-1).view(dtype).reshape(shape)
        data = arrays[label].tobytes()
        if bits < 8:  # the first in the lowest bits
            cells = np.pad(octets.reshape(-1), (0, -octets.size % (8 // bits))).reshape(-1, 8 // bits)
            data = (cells << np.arange(0, 8, bits, dtype=np.uint8)).sum(1, dtype=np.uint8).tobytes()
        tensors.append({"name": label, "kind": kind, "shape": shape or None, "data": data})
    (tmp_path / "x.tflite").write_bytes(model((None, tensors)))
    tree, metadata = imported(tmp_path / "x.tflite")
    assert metadata == {"tflite.metadata": {"version": 3, "description": "by tests"}}
    assert tree.keys() == arrays.keys()
    for name, array in arrays.items():
        equal(tree[name], array)
    theirs = tflite.Model.GetRootAsModel((tmp_path / "x.tflite").read_bytes(), 0)
    graph = theirs.Subgraphs(0)
    for item in map(graph.Tensors, range(graph.TensorsLength())):
        octets = theirs.Buffers(item.Buffer()).DataAsNumpy()
        if octets.size == arrays[item.Name().decode()].nbytes:
            assert octets.tobytes() == tree[item.Name().decode()].tobytes()


def test_constants_of_several_subgraphs(tmp_path: Path) -> None:
    """What is computed has no buffer. Names may be taken, or none; one buffer may be that of several tensors."""
    main = [
        of("w", W, FLOAT),
        {"name": "computed", "kind": FLOAT, "shape": (1, 2)},
        of("w", W + 1, FLOAT),
        of(None, W + 2, FLOAT),
        {"name": "one", "kind": KINDS["INT8"], "shape": None, "data": b"\x05"},
    ]
    others = [("prefill", [of("w", W, FLOAT)]), (None, [of("w", W, FLOAT), of("v", W + 3, FLOAT)])]
    (tmp_path / "x.tflite").write_bytes(model(("main", main), *others))
    tree, _ = imported(tmp_path / "x.tflite")
    names = {"w": 0, "w.2": 1, ".3": 2, "prefill.w": 0, "subgraph_2.w": 0, "subgraph_2.v": 3}
    assert {name: int(array[0, 0]) for name, array in tree.items() if name != "one"} == names
    assert tree["one"].tolist() == 5
    assert tree["w"] is tree["prefill.w"] is tree["subgraph_2.w"]


def blockwise(scales: int) -> Any:
    def make(builder: Any) -> tuple[int, int]:
        builder.StartObject(4)
        builder.PrependInt32Slot(0, scales, 0)
        builder.PrependInt32Slot(2, 32, 0)
        return 2, builder.EndObject()

    return make


def along_axes(builder: Any) -> tuple[int, int]:
    """As the schema of LiteRT 2.3 has it, which the package tflite lacks."""
    axes = builder.CreateNumpyVector(np.array([0, 1], np.int32))
    builder.StartObject(4)
    builder.PrependInt32Slot(0, 3, 0)
    builder.PrependInt32Slot(1, 9, 0)  # of no tensor that has a name
    builder.PrependInt32Slot(2, 16, 0)
    builder.PrependUOffsetTRelativeSlot(3, axes, 0)
    return 3, builder.EndObject()


def custom(builder: Any) -> tuple[int, int]:
    builder.StartObject(1)
    return 1, builder.EndObject()


def test_how_tensors_are_quantised(tmp_path: Path) -> None:
    about = {"scale": [0.5, 0.25], "zero_point": [3, -4], "quantized_dimension": 1, "min": [-1], "max": [1]}
    int8 = np.arange(6, dtype=np.int8).reshape(2, 3)
    main = [
        of("a/b", int8, KINDS["INT8"], quantised=about),
        of("blocks", int8, KINDS["INT8"], quantised={"details": blockwise(3)}),
        of("axes", int8, KINDS["INT8"], quantised={"details": along_axes}),
        of("scales", W, FLOAT, quantised={}),
    ]
    (tmp_path / "x.tflite").write_bytes(model((None, main)))
    _, metadata = imported(tmp_path / "x.tflite")
    assert metadata["tflite.quantised"] == {
        "a/b": {
            key: [float(item) for item in value] if key in ("min", "max") else value for key, value in about.items()
        },
        "blocks": {"blockwise": {"scales": "scales", "block_size": 32}},
        "axes": {
            "multi_axis": {"scales": "scales", "zero_points": None, "block_size": 16, "quantized_dimensions": [0, 1]}
        },
    }
    (tmp_path / "x.tflite").write_bytes(model((None, [of("w", int8, KINDS["INT8"], quantised={"details": custom})])))
    refused(tmp_path / "x.tflite", "lossy", "metadata of 'w'")


def test_what_a_model_says_of_itself(tmp_path: Path) -> None:
    (tmp_path / "x.tflite").write_bytes(model(metadata={"min_runtime_version": b"1.5.0\0\0\0"}))
    tree, metadata = imported(tmp_path / "x.tflite")
    assert tree == {}
    about = {"version": 3, "description": "by tests", "metadata": {"min_runtime_version": b"1.5.0\0\0\0"}}
    assert metadata == {"tflite.metadata": about}


def test_strings_are_plain_values(tmp_path: Path) -> None:
    main = [
        {"name": "s", "kind": STRING, "shape": (2, 2), "data": strings(b"a", "\u00fc".encode(), b"", b"\xff")},
        {"name": "none", "kind": STRING, "shape": (0,), "data": strings()},
    ]
    (tmp_path / "x.tflite").write_bytes(model((None, main)))
    assert imported(tmp_path / "x.tflite")[0] == {"s": [["a", "\u00fc"], ["", b"\xff"]], "none": []}
    for data in (strings(b"a"), b"\2", struct.pack("<i", -1), strings(b"a", b"b")[:-3], b"\2" + bytes(19),
                 struct.pack("<4i", 2, 16, 40, 16)):  # fmt: skip
        main = [{"name": "s", "kind": STRING, "shape": (2,), "data": data}]
        (tmp_path / "x.tflite").write_bytes(model((None, main)))
        refused(tmp_path / "x.tflite", "bad-source")


def test_buffers_behind_the_first_two_gib(tmp_path: Path) -> None:
    data = model((None, [of("a", W, FLOAT), {"name": "b", "kind": FLOAT, "shape": (6,), "number": 2}]),
                 more=[(1 << 32, 24)])  # fmt: skip
    with open(tmp_path / "x.tflite", "wb") as file:
        file.write(data)
        file.seek(1 << 32)
        file.write((W + 1).tobytes())
    tree, _ = imported(tmp_path / "x.tflite")
    assert tree["b"].tolist() == [1, 2, 3, 4, 5, 6]
    with open(tmp_path / "x.tflite", "r+b") as file:
        file.truncate((1 << 32) + 23)
    refused(tmp_path / "x.tflite", "bad-source", "is cut off: it holds 4,294,967,319 of at least 4,294,967,320")


def test_what_cannot_be_read_is_left_out_by_name(tmp_path: Path) -> None:
    main = [of("s", W, FLOAT, sparse=True), of("r", W, KINDS["RESOURCE"]), of("w", W, FLOAT)]
    (tmp_path / "x.tflite").write_bytes(model((None, main)))
    refused(tmp_path / "x.tflite", "lossy", "value of 's': the tensor is left out, as it is sparse")
    assert imported(tmp_path / "x.tflite", allow_loss="value")[0].keys() == {"w"}


def test_what_breaks_the_format(tmp_path: Path) -> None:
    for tensor, code in [
        ({"name": "w", "kind": FLOAT, "shape": (5,), "data": W.tobytes()}, "bad-source"),
        ({"name": "w", "kind": FLOAT, "shape": (-6,), "data": W.tobytes()}, "bad-source"),
        ({"name": "w", "kind": FLOAT, "shape": (1,) * 65, "data": bytes(4)}, "bad-source"),
        ({"name": "w", "kind": FLOAT, "shape": (6,), "number": 9}, "bad-source"),
        ({"name": "w", "kind": 77, "shape": (6,), "data": W.tobytes()}, "unsupported-source"),
    ]:
        (tmp_path / "x.tflite").write_bytes(model((None, [tensor])))
        refused(tmp_path / "x.tflite", code)
    (tmp_path / "x.tflite").write_bytes(model(version=2))
    refused(tmp_path / "x.tflite", "unsupported-source", "version 2")


def test_names_that_would_take_far_more_memory_than_the_file(tmp_path: Path) -> None:
    """One string may be the name of any number of tensors."""
    builder = flatbuffers.Builder(0)
    name = builder.CreateString("n" * 100_000)
    tflite.TensorStart(builder)
    tflite.TensorAddName(builder, name)
    tensor = tflite.TensorEnd(builder)
    tflite.SubGraphStartTensorsVector(builder, 4000)
    for _ in range(4000):
        builder.PrependUOffsetTRelative(tensor)
    tensors = builder.EndVector()
    tflite.BufferStart(builder)
    empty = tflite.BufferEnd(builder)
    tflite.SubGraphStart(builder)
    tflite.SubGraphAddTensors(builder, tensors)
    graph = tflite.SubGraphEnd(builder)
    tflite.ModelStartSubgraphsVector(builder, 1)
    builder.PrependUOffsetTRelative(graph)
    graphs = builder.EndVector()
    tflite.ModelStartBuffersVector(builder, 1)
    builder.PrependUOffsetTRelative(empty)
    buffers = builder.EndVector()
    tflite.ModelStart(builder)
    tflite.ModelAddVersion(builder, 3)
    tflite.ModelAddSubgraphs(builder, graphs)
    tflite.ModelAddBuffers(builder, buffers)
    builder.Finish(tflite.ModelEnd(builder), file_identifier=b"TFL3")
    (tmp_path / "x.tflite").write_bytes(bytes(builder.Output()))
    refused(tmp_path / "x.tflite", "limit-exceeded")


def test_what_is_cut_off_anywhere(tmp_path: Path) -> None:
    data = small()
    for size in sorted({*range(8, len(data) - 4, 3), len(data) - 5}):  # a NUL and padding come last
        (tmp_path / "x.tflite").write_bytes(data[:size])
        with pytest.raises(ckptfmt.CkptError) as raised:
            ckptfmt.convert(tmp_path / "x.tflite", tmp_path / "never.ckpt")
        assert raised.value.code == "bad-source"
        assert f"is cut off: it holds {size:,} of at least" in raised.value.message


def test_every_byte_changed(tmp_path: Path) -> None:
    data = small()
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= (0xFF, 0x01, 0x04)[place % 3]
        (tmp_path / "x.tflite").write_bytes(changed)
        try:
            with open_source(str(tmp_path / "x.tflite"), "tflite") as source:
                mapped_arrays(source.tree, str(tmp_path))
        except ckptfmt.CkptError as error:
            assert error.path == str(tmp_path / "x.tflite")
            assert error.code in ("bad-source", "unsupported-source", "limit-exceeded")
