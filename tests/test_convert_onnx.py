"""ONNX: whatever its library can write is read as the library reads it."""

from __future__ import annotations

import sys
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversions import imported
from fuzz.wire import SMALL_MODEL, message, model, tensor, varint
from hostile import refused

import ckptfmt
from ckptfmt.conversion import open_source
from ckptfmt.conversion.formats.onnx import TYPES
from ckptfmt.conversion.protobuf import BLOCK
from ckptfmt.conversion.source import mapped_arrays

onnx = pytest.importorskip("onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

KINDS = dict(onnx.TensorProto.DataType.items())
NUMBERS = {name: kind for name, kind in KINDS.items() if name not in ("UNDEFINED", "STRING")}
SHAPES = [(), (0,), (7,), (3, 5), (2, 0, 3)]


def graph_of(tensors: list[Any], nodes: list[Any] | None = None, name: str = "g") -> Any:
    return helper.make_graph(nodes or [], name, [], [], tensors)


def saved(path: Path, tensors: list[Any], nodes: list[Any] | None = None, **options: Any) -> Any:
    model = helper.make_model(graph_of(tensors, nodes), producer_name="tests")
    onnx.save_model(model, path, **options)
    return model


def equal(mine: Any, theirs: np.ndarray) -> None:
    assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape)
    assert mine.tobytes() == theirs.tobytes()


# ---- types


def test_every_type_of_the_library_is_known() -> None:
    assert TYPES.keys() | {0, 8} == set(KINDS.values())
    for kind, name in TYPES.items():
        assert helper.tensor_dtype_to_np_dtype(kind).name == name


@pytest.mark.parametrize("raw", [True, False])
def test_tensors_of_every_type(tmp_path: Path, raw: bool) -> None:
    rng = np.random.default_rng(1)
    tensors = []
    for (name, kind), shape in product(NUMBERS.items(), SHAPES):
        dtype = helper.tensor_dtype_to_np_dtype(kind)
        bits = {"float6": 63, "float4": 15, "int4": 15, "int2": 3, "bool": 1}
        mask = next((mask for part, mask in bits.items() if part in dtype.name), 255)
        octets = rng.integers(0, 256, (int(np.prod(shape)), dtype.itemsize), np.uint8) & np.uint8(mask)
        values = octets.reshape(-1).view(dtype).reshape(shape)
        if not raw and dtype.kind in "fcV":  # the library casts what it puts into fields
            least = -1 if dtype.name == "int2" else 1  # which ends at 1; some floats have no 0
            values = (np.arange(values.size) % 3 + least).astype(np.float32).astype(dtype).reshape(shape)
        label = f"{name}{len(shape)}{values.size}"
        tensors.append(helper.make_tensor(label, kind, shape, values if raw else values.flatten().tolist(), raw=raw))
    saved(tmp_path / "x.onnx", tensors)
    tree, metadata = imported(tmp_path / "x.onnx")
    assert metadata["onnx.metadata"]["producer_name"] == "tests"
    theirs = {item.name: numpy_helper.to_array(item) for item in onnx.load(tmp_path / "x.onnx").graph.initializer}
    assert tree.keys() == theirs.keys()
    for name, array in theirs.items():
        equal(tree[name], array)


def test_parts_of_what_lies_several_in_a_byte(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    tensors = []
    for name in ("UINT4", "INT2", "FLOAT6E3M2", "FLOAT4E2M1"):
        dtype = helper.tensor_dtype_to_np_dtype(KINDS[name])
        mask = {"U": 15, "I": 3}.get(name[0], 63 if "6" in name else 15)
        values = (rng.integers(0, 256, (3, 5, 7), np.uint8) & np.uint8(mask)).view(dtype)
        tensors.append(helper.make_tensor(name, KINDS[name], (3, 5, 7), values, raw=True))
    values = rng.integers(-(1 << 40), 1 << 40, 3 * 5 * 7)
    tensors.append(helper.make_tensor("INT64", KINDS["INT64"], (3, 5, 7), values.tolist()))
    saved(tmp_path / "x.onnx", tensors)
    with open_source(str(tmp_path / "x.onnx")) as source:
        for item in tensors:
            whole = numpy_helper.to_array(item)
            for index in [(slice(1, 3),), (slice(1, 2), slice(2, 4)), (slice(1, 2), slice(2, 3), slice(3, 6)),
                          (slice(0, 3), slice(1, 5), slice(2, 7)), (slice(2, 2),), ()]:  # fmt: skip
                equal(source.tree[item.name][index], np.ascontiguousarray(whole[index]))


def test_strings_are_plain_values(tmp_path: Path) -> None:
    kind = KINDS["STRING"]
    cells = helper.make_tensor("cells", kind, (2, 2), [b"a", "b\u00fc".encode(), b"", b"\xff"])
    one, none = helper.make_tensor("one", kind, (), [b"x"]), helper.make_tensor("none", kind, (1 << 40, 0), [])
    saved(tmp_path / "x.onnx", [cells, one, none])
    tree, _ = imported(tmp_path / "x.onnx")
    assert tree == {"cells": [["a", "b\u00fc"], ["", b"\xff"]], "one": "x", "none": []}


# ---- where tensors stand


def vector(name: str, *values: float) -> Any:
    return numpy_helper.from_array(np.array(values, np.float32), name)


def test_tensors_of_nodes_graphs_and_functions(tmp_path: Path) -> None:
    def branch(value: float) -> Any:
        inner = helper.make_node("If", ["c"], ["r"], then_branch=graph_of([vector("w", value + 0.5)]))
        return graph_of([vector("w", value)], [helper.make_node("Constant", [], ["k"], value=vector("", value)), inner])

    nodes = [
        helper.make_node("Constant", [], ["const"], value=vector("named otherwise", 1)),
        helper.make_node("Constant", [], ["number"], value_float=2.5),
        helper.make_node("ConstantOfShape", ["const"], ["filled"], name="fill", value=vector("", 3)),
        helper.make_node("If", ["c"], ["r"], name="if", then_branch=branch(4), else_branch=branch(5)),
        helper.make_node("If", ["c"], ["s"], name="if", then_branch=branch(6), else_branch=branch(7)),
        helper.make_node("Of", [], ["m"], domain="ours", many=[vector("", 8), vector("", 9)], graphs=[branch(10)]),
    ]
    constant = helper.make_node("Constant", [], ["y"], value=vector("", 11))
    function = helper.make_function("f", "fn", [], ["y"], [constant], [helper.make_opsetid("", 18)])
    made = helper.make_model(graph_of([vector("w", 0)], nodes), functions=[function])
    training = made.training_info.add()
    training.algorithm.CopyFrom(graph_of([vector("rate", 12)]))
    onnx.save_model(made, tmp_path / "x.onnx")
    tree, _ = imported(tmp_path / "x.onnx")
    branches = {"if.then_branch": 4, "if.else_branch": 5, "if_4.then_branch": 6, "if_4.else_branch": 7}
    expected = {"w": 0.0, "const": 1, "fill.value": 3, "Of_5.many.0": 8, "Of_5.many.1": 9, "f::fn.y": 11}
    expected["training_info.0.algorithm.rate"] = 12
    for name, value in {**branches, "Of_5.graphs.0": 10}.items():
        expected |= {f"{name}.w": value, f"{name}.k": value, f"{name}.If_1.then_branch.w": value + 0.5}
    assert {name: array.tolist() for name, array in tree.items()} == {name: [value] for name, value in expected.items()}


def test_sparse_tensors_stay_as_they_are_stored(tmp_path: Path) -> None:
    values, indices = vector("w", 1, 2), numpy_helper.from_array(np.array([[0, 3], [1 << 30, 7]]), "w_indices")
    made = helper.make_model(graph_of([]))
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1 << 40, 9]))
    onnx.save_model(made, tmp_path / "x.onnx")
    tree, metadata = imported(tmp_path / "x.onnx")
    assert metadata["onnx.sparse"] == {"w.values": {"dims": [1 << 40, 9]}}
    assert tree["w.values"].tolist() == [1, 2]
    assert tree["w.indices"].tolist() == [[0, 3], [1 << 30, 7]]


def test_what_a_model_says_of_itself(tmp_path: Path) -> None:
    made = helper.make_model(graph_of([vector("w", 1)], name="net"), producer_name="p", model_version=-3,
                             opset_imports=[helper.make_opsetid("", 21), helper.make_opsetid("ours", 1)])  # fmt: skip
    helper.set_model_props(made, {"author": "\u00fc", "license": ""})
    onnx.save_model(made, tmp_path / "x.onnx")
    _, metadata = imported(tmp_path / "x.onnx")
    assert metadata["onnx.metadata"] == {
        "ir_version": made.ir_version,
        "producer_name": "p",
        "model_version": -3,
        "graph": "net",
        "opset_import": {"": 21, "ours": 1},
        "metadata_props": {"author": "\u00fc", "license": ""},
    }


# ---- other files


def weights() -> list[Any]:
    return [numpy_helper.from_array(np.arange(999, dtype=np.float32) * n, f"w.{n}") for n in range(3)]


@pytest.mark.parametrize("one", [True, False])
def test_external_data(tmp_path: Path, one: bool) -> None:
    node = helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.arange(500.0), "k"))
    location = {"location": "x.data"} if one else {}
    saved(tmp_path / "x.onnx", weights(), [node], save_as_external_data=True, all_tensors_to_one_file=one,
          size_threshold=0, convert_attribute=True, **location)  # fmt: skip
    files = [path for path in tmp_path.iterdir() if path.name != "x.onnx"]
    assert len(files) == (1 if one else 4)
    with open_source(str(tmp_path / "x.onnx")) as source:
        assert source.size == sum(path.stat().st_size for path in tmp_path.iterdir())
    tree, _ = imported(tmp_path / "x.onnx")
    for item in weights():
        equal(tree[item.name], numpy_helper.to_array(item))
    assert tree["k"].tolist() == list(range(500))
    files[-1].write_bytes(files[-1].read_bytes()[:-1])
    refused(tmp_path / "x.onnx", "bad-source", "lies in")
    files[-1].unlink()
    refused(tmp_path / "x.onnx", "bad-source", "is missing, in which")


def external(location: str, *more: tuple[str, str], count: int = 4) -> bytes:
    entries = [("location", location), *more]
    fields = [(13, message((1, key), (2, value))) for key, value in entries]
    return model((5, tensor("w", 1, (count,), (14, 1), *fields)))


def test_a_part_of_a_file_beyond_memory(tmp_path: Path) -> None:
    with open(tmp_path / "x.data", "wb") as file:
        file.truncate(1 << 40)
        file.seek((1 << 39) - 8)
        file.write(np.arange(4, dtype=np.float32).tobytes())
    data = external("x.data", ("offset", str((1 << 39) - 8)), ("length", "16"), ("checksum", "not looked at"))
    (tmp_path / "x.onnx").write_bytes(data)
    tree, _ = imported(tmp_path / "x.onnx")
    assert tree["w"].tolist() == [0, 1, 2, 3]
    (tmp_path / "x.onnx").write_bytes(external("x.data", count=1 << 38))
    with open_source(str(tmp_path / "x.onnx")) as source:
        assert source.tree["w"][(1 << 37) - 2 : 1 << 37].tolist() == [0, 1]


@pytest.mark.parametrize("location", ["/etc/hostname", "../x.data", "a/../../x.data", "link", "a/link/x.data"])
def test_external_data_outside(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    (folder / "a").mkdir(parents=True)
    (tmp_path / "x.data").write_bytes(bytes(16))
    (folder / "link").symlink_to(tmp_path / "x.data")
    (folder / "a/link").symlink_to(tmp_path)
    (folder / "x.onnx").write_bytes(external(location))
    with pytest.raises(ckptfmt.CkptError, match=r"outside|out of it") as raised:
        ckptfmt.convert(folder / "x.onnx", tmp_path / "never.ckpt")
    assert raised.value.code == "unsafe-source"


def test_external_data_in_a_cache_and_below(tmp_path: Path) -> None:
    """Snapshots of Hugging Face link to blobs beside them."""
    snapshot, blobs = tmp_path / "models--a--b/snapshots/1", tmp_path / "models--a--b/blobs"
    (snapshot / "onnx").mkdir(parents=True)
    blobs.mkdir()
    (blobs / "m").write_bytes(external("./model.onnx_data"))
    (blobs / "d").write_bytes(bytes(16))
    (snapshot / "model.onnx").symlink_to(blobs / "m")
    (snapshot / "model.onnx_data").symlink_to(blobs / "d")
    report = ckptfmt.convert(snapshot, tmp_path / "x.ckpt")
    assert report.source == str(snapshot / "model.onnx")
    assert report.passed_over == ("model.onnx_data", "onnx/")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (external(""), "lies in the file"),
        (external("a\0b"), "lies in the file"),
        (external("x.data", ("offset", "-1")), "no number of bytes"),
        (external("x.data", ("length", "1_6")), "no number of bytes"),
        (external("x.data", ("offset", "1")), "where 16 are due"),
        (external("x.data", ("length", "17")), "up to byte 17"),
        (external("x.data", ("offset", "9" * 19)), "up to byte"),
        (external("x.data", ("location", "x.data")), "stands twice"),
        (external("x.data", count=5), "where 20 are due"),
    ],
)
def test_external_data_that_is_wrong(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "x.data").write_bytes(bytes(16))
    (tmp_path / "x.onnx").write_bytes(data)
    refused(tmp_path / "x.onnx", "bad-source", words)


def test_external_data_that_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(external("dir"))
    (tmp_path / "dir").mkdir()
    refused(tmp_path / "x.onnx", "io")


# ---- the wire format


def test_messages_as_other_writers_may_have_them(tmp_path: Path) -> None:
    """Numbers that are packed or not or both, messages in parts, fields that are unknown, and others twice."""
    dims = (1, varint(2) + varint(3))
    half = message(dims, (2, 7), (7, varint(1) + varint(-2)), (7, 3), (7, varint(4)), (7, 5), (7, 6), (8, "other"))
    one = message((5, half + message((8, "name"), (99, "unknown"), (98, 1.5))))
    graph = [one, message((5, tensor("b", 9, (2,), (5, 0), (5, 256))))]
    data = message((1, 7), (7, graph[0]), (8, message((2, 9))), (7, graph[1]), (77, 1))
    (tmp_path / "x.onnx").write_bytes(data)
    tree, _ = imported(tmp_path / "x.onnx")
    assert tree["name"].tolist() == [[1, -2, 3], [4, 5, 6]]
    assert tree["b"].tolist() == [False, True]
    theirs = onnx.load_from_string(data).graph.initializer
    equal(tree["name"], numpy_helper.to_array(theirs[0]))


def test_many_packed_numbers(tmp_path: Path) -> None:
    """Of any length, over the borders of blocks, in any part."""
    rng = np.random.default_rng(3)
    values = rng.integers(-(1 << 62), 1 << 62, 40_000) >> rng.integers(0, 62, 40_000)
    item = helper.make_tensor("w", KINDS["INT64"], (40_000,), values.tolist())
    assert item.ByteSize() > 3 * BLOCK
    (tmp_path / "x.onnx").write_bytes(model((5, item.SerializeToString())))
    with open_source(str(tmp_path / "x.onnx")) as source:
        for first, last in [(0, 40_000), (0, 1), (39_999, 40_000), *rng.integers(0, 40_000, (200, 2)).tolist()]:
            assert np.array_equal(source.tree["w"][(slice(first, max(first, last)),)], values[first : max(first, last)])


def test_other_messages_are_no_models(tmp_path: Path) -> None:
    for data in (
        message((1, 1), (2, message((1, "meta graph")))),  # SavedModel of TensorFlow
        message((1, 8), (7, b"\0")),
        message((1, 8), (7, 5)),
        message((1, 8), (7, message((99, "x")))),
        message((7, message((5, "x"))), (1, 8)),
        message((1, 8), (1, 8), (7, b"")),
        b"\x08" * 100,
    ):
        (tmp_path / "x.onnx").write_bytes(data)
        refused(tmp_path / "x.onnx", "unknown-format")


def test_a_model_of_core_ml_is_none(tmp_path: Path) -> None:
    """Its file begins with a version, too."""
    (tmp_path / "x.onnx").write_bytes(message((1, 5), (2, message((1, "description"))), (502, b"")))
    assert ckptfmt.convert(tmp_path / "x.onnx", tmp_path / "x.ckpt").source_format == "coreml"


def test_a_model_that_names_no_operators_may_be_cut_off(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(SMALL_MODEL[: -len(message((8, message((2, 15)))))])
    refused(tmp_path / "x.onnx", "lossy", "cut off behind its graph")
    assert "raw" in imported(tmp_path / "x.onnx", allow_loss="missing")[0]


def test_what_is_cut_off_anywhere(tmp_path: Path) -> None:
    begin = len(message((1, 8), (2, "by hand"))) + 6  # from there on the graph is seen
    for size in range(begin, len(SMALL_MODEL)):
        if size != len(SMALL_MODEL) - 4:
            (tmp_path / "x.onnx").write_bytes(SMALL_MODEL[:size])
            refused(tmp_path / "x.onnx", "bad-source", f"is cut off: it holds {size:,} of at least")


def test_every_byte_changed(tmp_path: Path) -> None:
    """Into others, of which some end the field before them, or make it longer than all."""
    for place, change in product(range(len(SMALL_MODEL)), (0x01, 0x07, 0x80)):
        data = bytearray(SMALL_MODEL)
        data[place] ^= change
        (tmp_path / "x.onnx").write_bytes(data)
        try:
            with open_source(str(tmp_path / "x.onnx"), "onnx") as source:
                mapped_arrays(source.tree, str(tmp_path))
        except ckptfmt.CkptError as error:
            assert error.path == str(tmp_path / "x.onnx")
            assert error.code in ("bad-source", "unsafe-source", "unsupported-source", "limit-exceeded")


WRONG = {
    "too few bytes": (5, tensor("w", 1, (4,), (9, bytes(15)))),
    "too many bytes": (5, tensor("w", 1, (4,), (9, bytes(17)))),
    "no elements": (5, tensor("w", 1, (4,))),
    "elements in the field of another type": (5, tensor("w", 1, (1,), (5, 1))),
    "elements twice": (5, tensor("w", 1, (1,), (4, 1.0), (9, bytes(4)))),
    "a shape beyond the file": (5, tensor("w", 1, (1 << 40,), (9, bytes(4)))),
    "a side below zero": (5, tensor("w", 1, (-1,), (9, b""))),
    "too many axes": (5, tensor("w", 1, (1,) * 65, (9, bytes(4)))),
    "no name": (5, tensor("", 1, (1,), (4, 1.0))),
    "a name that is no text": (5, message((8, b"\xff"), (2, 1), (9, b""))),
    "too few strings": (5, tensor("w", 8, (2,), (6, "a"))),
    "a group": (5, b"\x0b\x0c"),
    "a number beyond all fields": (5, varint(8 << 29) + b"\0"),
    "the field 0": (5, b"\0\0"),
    "a varint without end": (5, b"\x08" + b"\x80" * 11),
    "a length beyond its message": (5, b"\x0a\xff\x7f"),
    "packed numbers that are cut off": (5, message((1, b"\x80"))),
    "packed floats that are cut off": (5, tensor("w", 1, (1,), (4, bytes(5)))),
    "a name that is a number": (5, message((8, 1))),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_breaks_the_format(tmp_path: Path, what: str) -> None:
    (tmp_path / "x.onnx").write_bytes(model(WRONG[what]))
    refused(tmp_path / "x.onnx", "bad-source")


def test_names_that_stand_twice(tmp_path: Path) -> None:
    one = (5, tensor("w", 1, (1,), (4, 1.0)))
    (tmp_path / "x.onnx").write_bytes(model(one, one))
    refused(tmp_path / "x.onnx", "bad-source", "stands twice")


def test_types_that_are_unknown(tmp_path: Path) -> None:
    for kind in (0, 29, -1):
        (tmp_path / "x.onnx").write_bytes(model((5, tensor("w", kind, (1,), (9, b"\0")))))
        refused(tmp_path / "x.onnx", "unsupported-source", "unknown type")
    (tmp_path / "x.onnx").write_bytes(model((5, tensor("w", 1, (1,), (3, b""), (9, bytes(4))))))
    refused(tmp_path / "x.onnx", "unsupported-source", "segment")


def test_graphs_within_graphs(tmp_path: Path) -> None:
    graph = message((5, tensor("w", 1, (1,), (4, 1.0))))
    for depth in range(400):
        graph = message((1, message((4, "If"), (5, message((1, "g"), (6, graph))))))
        if depth == 60:
            (tmp_path / "x.onnx").write_bytes(model((1, message((4, "If"), (5, message((6, graph)))))))
            assert len(imported(tmp_path / "x.onnx")[0]) == 1
    (tmp_path / "x.onnx").write_bytes(message((1, 8), (7, graph)))
    refused(tmp_path / "x.onnx", "too-deep")


def test_names_that_would_take_far_more_memory_than_the_file(tmp_path: Path) -> None:
    inner = message(*((5, tensor(f"{n}", 1, (0,))) for n in range(4000)))
    node = message((3, "n" * 100_000), (5, message((1, "g"), (6, inner))))
    (tmp_path / "x.onnx").write_bytes(model((1, node)))
    refused(tmp_path / "x.onnx", "limit-exceeded")


@pytest.mark.skipif(sys.platform != "linux", reason="/proc says how a mapping is read")
def test_looking_for_tensors_reads_nothing_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system may read megabytes around each page that is looked at, which came to half of a model of 2 GB."""
    from ckptfmt.conversion.formats import onnx as module

    path, honest, seen = tmp_path / "x.onnx", module._read, list[bool]()
    saved(path, [vector("w", 1, 2)])

    def is_random() -> bool:
        areas = Path("/proc/self/smaps").read_text().split("VmFlags:")
        return any(str(path) in area and " rr" in flags.split("\n")[0] for area, flags in pairwise(areas))

    def read(*given: Any) -> Any:
        seen.append(is_random())
        return honest(*given)

    monkeypatch.setattr(module, "_read", read)
    with open_source(str(path)) as source:
        assert source.tree["w"].tolist() == [1, 2]
        assert seen == [True]
        assert not is_random(), "what is converted is read in order"
