"""GGUF: blocks dequantised and quantised, files written again bit by bit, and templates."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

import ckptfmt
from ckptfmt.conversion import open_source
from ckptfmt.conversion.ggml import QUANTISED_TYPES
from ckptfmt.conversion.gguf_values import kind_of, usual
from ckptfmt.testing.equality import assert_same_tree
from tests.conversions import exported, imported

gguf = pytest.importorskip("gguf")
Kind = gguf.GGMLQuantizationType
RNG = np.random.default_rng(7)


def computed(kind: Any) -> bool:
    try:
        gguf.quants.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


BLOCKS = [kind for kind in Kind if int(kind) in QUANTISED_TYPES]
COMPUTED = [kind for kind in BLOCKS if computed(kind)]


def blocks_of(kind: Any, shape: tuple[int, ...], bits: int = 0x3F) -> np.ndarray[Any, Any]:
    """Blocks of any bytes, as all are; without their upper bits no scale is infinite."""
    return RNG.integers(0, 256, gguf.quants.quant_shape_to_byte_shape(shape, kind), np.uint8) & np.uint8(bits)


def written(path: Path, tensors: dict[str, tuple[Any, Any]], fill: Callable[[Any], None] = lambda _: None) -> Path:
    """A file of the library: arrays, with a type where they are blocks."""
    writer = gguf.GGUFWriter(path, "llama")
    fill(writer)
    for name, (array, kind) in tensors.items():
        writer.add_tensor(name, array, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def pairs(writer: Any) -> None:
    """Pairs of every type."""
    for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"):
        getattr(writer, f"add_{name}")(f"k.{name}", 7)
    writer.add_float32("k.float32", 0.1)
    writer.add_float64("k.float64", 0.5)
    writer.add_bool("k.bool", True)
    writer.add_string("k.string", "Grüße")
    writer.add_array("k.tokens", ["a", "ß", ""])
    writer.add_array("k.scores", [0.5, -1.25, float("inf")])
    writer.add_array("k.types", [1, 2, -3])
    writer.add_array("k.flags", [True, False])
    kinds = gguf.GGUFValueType
    writer.add_key_value("k.small", [1, 2], kinds.ARRAY, sub_type=kinds.UINT16)
    writer.add_key_value("k.large", [1 << 40], kinds.ARRAY, sub_type=kinds.UINT64)


def values_in(path: Path) -> dict[str, tuple[Any, list[Any]]]:
    reader = gguf.GGUFReader(path)
    return {key: (field.contents(), field.types) for key, field in reader.fields.items() if not key.startswith("GGUF.")}


# ---- dequantised


@pytest.mark.parametrize("kind", COMPUTED, ids=lambda kind: kind.name)
def test_blocks_become_the_elements_that_the_library_computes(tmp_path: Path, kind: Any) -> None:
    elements = gguf.GGML_QUANT_SIZES[kind][0]
    raw = blocks_of(kind, (33, 2 * elements))
    cube = blocks_of(kind, (2, 3, elements))
    path = written(tmp_path / "x.gguf", {"w": (raw, kind), "cube": (cube, kind), "plain": (np.ones(3, "f4"), None)})
    expected = {"w": gguf.quants.dequantize(raw, kind), "cube": gguf.quants.dequantize(cube, kind)}
    for dtype in ("float32", "float16", "bfloat16"):
        with open_source(str(path), dequantize=dtype) as source:
            found = {name: leaf[()] for name, leaf in source.tree.items()}
            assert "gguf.quantised" not in source.metadata
            part = source.tree["w"][slice(3, 5), slice(7, elements + 3)]
        as_asked = {name: array.astype(dtype) for name, array in expected.items()}
        assert_same_tree(found, {**as_asked, "plain": np.ones(3, "f4")})
        assert_same_tree(part, as_asked["w"][3:5, 7 : elements + 3])


@pytest.mark.parametrize("kind", COMPUTED, ids=lambda kind: kind.name)
def test_blocks_may_hold_any_bits(tmp_path: Path, kind: Any) -> None:
    raw = blocks_of(kind, (40, 256), 0xFF)
    path = written(tmp_path / "x.gguf", {"w": (raw, kind)})
    with np.errstate(all="ignore"):
        expected = gguf.quants.dequantize(raw, kind)
    with open_source(str(path), dequantize="float32") as source:
        assert source.tree["w"][()].tobytes() == expected.tobytes()


def test_dequantised_sources_are_converted_measured_and_compared(tmp_path: Path) -> None:
    raw = gguf.quants.quantize(np.linspace(-1, 1, 4096, dtype="f4").reshape(2, 2048), Kind.Q8_0)
    path = written(tmp_path / "x.gguf", {"w": (raw, Kind.Q8_0)})
    tree, metadata = imported(path, dequantize="float16")
    expected = gguf.quants.dequantize(raw, Kind.Q8_0).astype("f2")
    assert_same_tree(tree, {"w": expected})
    assert set(metadata) == {"gguf.metadata"}
    ours = tmp_path / "imported.ckpt"
    assert ckptfmt.diff(path, ours, dequantize="float16").equal
    assert ckptfmt.diff(ours, path, dequantize="float16").equal
    assert not ckptfmt.diff(path, ours).equal
    [row] = ckptfmt.stats(path, dequantize="float16").tensors
    assert (row.dtype, row.max) == ("float16", float(expected.max()))
    (tmp_path / "folder").mkdir()
    path.rename(tmp_path / "folder" / "x.gguf")
    [outcome] = ckptfmt.convert_each(tmp_path / "folder", tmp_path / "made", dequantize="float32", durable=False)
    assert outcome.report is not None
    assert outcome.report.bytes == 4096 * 4


def test_a_large_tensor_is_dequantised_in_parts(tmp_path: Path) -> None:
    """An expert's matrix may be larger than any part that is read at once, and a row longer."""
    raw = gguf.quants.quantize(RNG.normal(size=(3, 5, 64 * 1024)).astype("f4"), Kind.Q4_0)
    path = written(tmp_path / "x.gguf", {"w": (raw, Kind.Q4_0)})
    assert_same_tree(imported(path, dequantize="float32")[0], {"w": gguf.quants.dequantize(raw, Kind.Q4_0)})
    with open_source(str(path), dequantize="float32") as source:
        assert source.tree["w"].decoded_at_once == 0


def test_all_parts_of_a_model_are_dequantised(tmp_path: Path) -> None:
    raw = gguf.quants.quantize(np.ones((2, 32), "f4"), Kind.Q8_0)
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama", split_max_tensors=1)
    writer.add_uint64("k", 7)
    for name in "ab":
        writer.add_tensor(name, raw, raw_dtype=Kind.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tree, metadata = imported(tmp_path / "m-00002-of-00002.gguf", dequantize="bfloat16")
    expected = gguf.quants.dequantize(raw, Kind.Q8_0).astype(ml_dtypes.bfloat16)
    assert_same_tree(tree, {name: expected.copy() for name in "ab"})
    assert (metadata["gguf.types"], "gguf.quantised" in metadata) == ({"k": "uint64"}, False)
    ckptfmt.convert(tmp_path / "m-00001-of-00002.gguf", tmp_path / "one.gguf", durable=False)
    assert [tensor.name for tensor in gguf.GGUFReader(tmp_path / "one.gguf").tensors] == ["a", "b"]


@pytest.mark.parametrize("kind", [kind for kind in BLOCKS if kind not in COMPUTED], ids=lambda kind: kind.name)
def test_a_type_that_the_library_cannot_compute_is_named(tmp_path: Path, kind: Any) -> None:
    raw = np.zeros(gguf.quants.quant_shape_to_byte_shape((1, 256), kind), np.uint8)
    path = written(tmp_path / "x.gguf", {"blk.0": (raw, kind)})
    with pytest.raises(ckptfmt.UnsupportedError, match=f"'blk.0' is of the type {kind.name}") as raised:
        ckptfmt.convert(path, tmp_path / "x.ckpt", dequantize="float16")
    assert (raised.value.code, raised.value.tensor) == ("unsupported-source", "blk.0")
    imported(path)


def test_elements_beyond_the_range_are_an_error(tmp_path: Path) -> None:
    raw = np.full((1, 34), 127, np.uint8)
    raw[:, :2] = np.frombuffer(np.float16(6e4).tobytes(), np.uint8)
    path = written(tmp_path / "x.gguf", {"w": (raw, Kind.Q8_0)})
    with pytest.raises(ckptfmt.InputError, match="beyond the range of float16") as raised:
        imported(path, dequantize="float16")
    assert raised.value.tensor == "w"
    assert imported(path, dequantize="bfloat16")[0]["w"].max() > 7e6


def test_other_formats_refuse_dequantize_by_name(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"w": np.ones(3, "f4")}, tmp_path / "x.safetensors")
    ckptfmt.save(tmp_path / "x.ckpt", {"w": np.ones(3)})
    for name in ("x.safetensors", "x.ckpt"):
        with pytest.raises(ckptfmt.InputError, match=r"dequantize= can be said of gguf only") as raised:
            ckptfmt.convert(tmp_path / name, tmp_path / "y.ckpt", dequantize="float16")
        assert raised.value.code == "bad-option"
    with pytest.raises(ckptfmt.InputError, match="dequantize= can be said"):
        ckptfmt.diff(tmp_path / "x.ckpt", tmp_path / "x.ckpt", dequantize="float16")
    with pytest.raises(ckptfmt.InputError, match="'int8' is no dtype"):
        ckptfmt.stats(written(tmp_path / "x.gguf", {}), dequantize="int8")


# ---- written


def test_what_came_from_gguf_goes_back_bit_by_bit(tmp_path: Path) -> None:
    tensors: dict[str, tuple[Any, Any]] = {kind.name: (blocks_of(kind, (2, 256)), kind) for kind in COMPUTED}
    for name in ("float32", "float16", "float64", "int8", "int16", "int32", "int64"):
        tensors[name] = (np.arange(7).astype(name), None)
    bits = np.arange(6).astype(ml_dtypes.bfloat16).view(np.uint8)
    tensors |= {"bfloat16": (bits, Kind.BF16), "empty": (np.empty((0, 3), "f4"), None)}
    path = written(tmp_path / "x.gguf", tensors, pairs)
    ckptfmt.convert(path, tmp_path / "x.ckpt", durable=False)
    report = ckptfmt.convert(tmp_path / "x.ckpt", tmp_path / "y.gguf", durable=False)
    assert (report.losses, report.verified) == ((), True)
    assert (tmp_path / "y.gguf").read_bytes() == path.read_bytes()
    found = gguf.GGUFReader(tmp_path / "y.gguf")
    assert [tensor.name for tensor in found.tensors] == list(tensors)
    for tensor in found.tensors:
        array, kind = tensors[tensor.name]
        assert tensor.data.tobytes() == array.tobytes()
        assert kind is None or tensor.tensor_type == kind
    assert values_in(tmp_path / "y.gguf") == values_in(path)


def test_types_of_pairs_are_kept_where_they_are_not_the_usual_ones(tmp_path: Path) -> None:
    metadata = imported(written(tmp_path / "x.gguf", {}, pairs))[1]
    assert metadata["gguf.types"] == {
        **{f"k.{name}": name for name in ("uint8", "int8", "uint16", "int16", "int32", "uint64", "int64", "float64")},
        "k.small": "array of uint16",
        "k.large": "array of uint64",
    }


@pytest.mark.parametrize("alignment", [1, 8, 64, 4096])
def test_alignment_is_kept(tmp_path: Path, alignment: int) -> None:
    tensors = {name: (np.arange(3, dtype="f4"), None) for name in "ab"}
    path = written(tmp_path / "x.gguf", tensors, lambda writer: writer.add_custom_alignment(alignment))
    ckptfmt.convert(path, tmp_path / "y.gguf", durable=False)
    assert (tmp_path / "y.gguf").read_bytes() == path.read_bytes()


def test_empty_arrays_and_arrays_of_arrays_go_back(tmp_path: Path) -> None:
    """Which the library does not write."""
    data = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<QcIIQ", 1, b"k", 9, 8, 0)
    (tmp_path / "x.gguf").write_bytes(data)
    ckptfmt.convert(tmp_path / "x.gguf", tmp_path / "y.gguf", durable=False)
    assert (tmp_path / "y.gguf").read_bytes()[: len(data)] == data
    inner = struct.pack("<IQ2B", 0, 2, 1, 2), struct.pack("<IQ1i", 5, 1, -4), struct.pack("<IQ", 9, 0)
    for arrays in ((inner[0], inner[0]), (inner[0], inner[1]), (inner[2],), ()):
        value = struct.pack("<QcIIQ", 1, b"k", 9, 9, len(arrays)) + b"".join(arrays)
        data = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + value
        (tmp_path / "x.gguf").write_bytes(data)
        ckptfmt.convert(tmp_path / "x.gguf", tmp_path / "y.gguf", overwrite=True, durable=False)
        again = imported(tmp_path / "y.gguf")[1]
        assert again == imported(tmp_path / "x.gguf")[1]
        if len(set(arrays)) < 2:  # else the types of the items become the usual ones
            assert (tmp_path / "y.gguf").read_bytes()[: len(data)] == data


def test_other_checkpoints_as_gguf(tmp_path: Path) -> None:
    tree = {"model": {"w": np.ones((2, 3), "f4"), "b": np.ones(3, ml_dtypes.bfloat16)}}
    assert exported(tree, tmp_path / "x.gguf").losses == ()
    tensors = gguf.GGUFReader(tmp_path / "x.gguf").tensors
    found = {tensor.name: (tensor.tensor_type, tensor.data.tobytes()) for tensor in tensors}
    assert found == {
        "model.w": (Kind.F32, tree["model"]["w"].tobytes()),
        "model.b": (Kind.BF16, tree["model"]["b"].tobytes()),
    }
    assert imported(tmp_path / "x.gguf")[1] == {"gguf.metadata": {}}


def test_what_gguf_cannot_hold(tmp_path: Path) -> None:
    tree = {"flag": np.array([True, False]), "byte": np.arange(3, dtype="u1"), "complex": np.ones(2, "c16")}
    metadata = {"note": 1, "gguf.metadata": {"ok": 1, "none": None, "mixed": [1, "a"], "huge": 1 << 70}}
    metadata |= {"gguf.quantised": {"byte": {"type": "Q8_0", "shape": [32]}}, "gguf.types": {"ok": "array of nothing"}}
    with pytest.raises(ckptfmt.InputError) as raised:
        exported(tree, tmp_path / "x.gguf", metadata)
    assert raised.value.code == "lossy"
    report = exported(tree, tmp_path / "x.gguf", metadata, allow_loss=True)
    told = {(loss.kind, loss.path): loss.message for loss in report.losses}
    assert told["dtype", "flag"] == "bool becomes int8 with the same bits"
    assert told["dtype", "complex"] == "complex128 becomes bytes, along an axis more"
    lost = " ".join(loss.message for loss in report.losses if loss.kind == "metadata")
    assert all(word in lost for word in ("'note'", "gguf.metadata/none", "/mixed", "/huge", "gguf.quantised/byte"))
    found, metadata = imported(tmp_path / "x.gguf")
    assert metadata == {"gguf.metadata": {"ok": 1}}
    assert_same_tree(found["complex"], tree["complex"].view("i1").reshape(2, 16))
    with pytest.raises(ckptfmt.InputError, match="5 axes"):
        exported({"w": np.ones((1,) * 5, "f4")}, tmp_path / "y.gguf")
    assert not (tmp_path / "y.gguf").exists()


def test_names_for_which_llama_cpp_takes_no_file_are_refused(tmp_path: Path) -> None:
    exported({"x" * 61 + "é": np.ones(2, "f4")}, tmp_path / "x.gguf")
    with pytest.raises(ckptfmt.InputError, match="64 bytes") as raised:
        exported({"a": np.ones(2, "f4"), "m": {"x" * 60 + "é": np.ones(2, "f4")}}, tmp_path / "y.gguf")
    assert (raised.value.code, raised.value.tensor) == ("unsupported-key", "m/" + "x" * 60 + "é")
    assert "Rename it" in raised.value.advice
    assert not (tmp_path / "y.gguf").exists()


def test_a_part_of_a_quantised_checkpoint_goes_back(tmp_path: Path) -> None:
    raw = blocks_of(Kind.Q4_K, (2, 256))
    path = written(tmp_path / "x.gguf", {"a.w": (raw, Kind.Q4_K), "b.w": (raw[:1], Kind.Q4_K)})
    ckptfmt.convert(path, tmp_path / "y.gguf", select="a.*", durable=False)
    [tensor] = gguf.GGUFReader(tmp_path / "y.gguf").tensors
    assert (tensor.name, tensor.tensor_type, tensor.data.tobytes()) == ("a.w", Kind.Q4_K, raw.tobytes())


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (3, "uint32"),
        (-3, "int32"),
        (1 << 40, "uint64"),
        (-1 << 40, "int64"),
        (0.5, "float32"),
        (0.1, "float64"),
        (True, "bool"),
        ("a", "string"),
        ([], "array of int32"),
        ([3, 4], "array of int32"),
        ([1 << 40, -1], "array of int64"),
        ([0.5, 0.1], "array of float64"),
        ([float("nan"), 0.5], "array of float32"),
        ([[1], [2]], "array of array of int32"),
        ([[1], ["a"]], None),
    ],
    ids=str,
)
def test_usual_types(value: Any, kind: str | None) -> None:
    assert usual(value) == kind
    assert kind_of(value, {"k": 7}, "k") == kind_of(value, {"k": "array of array"}, "k") or value == []


# ---- a template


def test_a_template_gives_names_order_types_and_pairs(tmp_path: Path) -> None:
    values = {name: RNG.normal(size=(4, 256)).astype("f4") for name in ("q8", "k", "f16", "f32", "bf16")}
    forms = {
        "q8": (gguf.quants.quantize(values["q8"], Kind.Q8_0), Kind.Q8_0),
        "k": (blocks_of(Kind.Q4_K, (4, 256)), Kind.Q4_K),
        "f16": (values["f16"].astype("f2"), None),
        "f32": (values["f32"], None),
        "bf16": (np.zeros((4, 512), np.uint8), Kind.BF16),
    }
    template = written(tmp_path / "form.gguf", forms, pairs)
    tuned = {name: values[name] for name in reversed(values)}
    with pytest.raises(ckptfmt.InputError, match="becomes Q8_0, as in the template"):
        exported(tuned, tmp_path / "x.gguf", template=template)
    report = exported(tuned, tmp_path / "x.gguf", template=template, allow_loss={"dtype"})
    assert {loss.path for loss in report.losses} == {"q8", "f16", "bf16"}
    found = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
    assert list(found) == list(forms)
    kinds = {"q8": Kind.Q8_0, "k": Kind.F32, "f16": Kind.F16, "f32": Kind.F32, "bf16": Kind.BF16}
    assert {name: tensor.tensor_type for name, tensor in found.items()} == kinds
    for name, kind in kinds.items():
        expected = gguf.quants.quantize(values[name], kind)
        assert found[name].data.tobytes() == expected.tobytes()
    assert values_in(tmp_path / "x.gguf") == values_in(template)


@pytest.mark.parametrize("kind", [Kind.Q5_1, Kind.Q8_0], ids=lambda kind: kind.name)
def test_elements_are_quantised_in_parts(tmp_path: Path, kind: Any) -> None:
    values = RNG.normal(size=(3, 256 * 4097)).astype(ml_dtypes.bfloat16)
    form = np.zeros(gguf.quants.quant_shape_to_byte_shape(values.shape, kind), np.uint8)
    template = written(tmp_path / "form.gguf", {"w": (form, kind)})
    exported({"w": values}, tmp_path / "x.gguf", template=template, allow_loss="dtype")
    [tensor] = gguf.GGUFReader(tmp_path / "x.gguf").tensors
    assert tensor.data.tobytes() == gguf.quants.quantize(values.astype("f4"), kind).tobytes()


def test_blocks_stay_as_they_are_beside_a_template(tmp_path: Path) -> None:
    raw = blocks_of(Kind.Q6_K, (2, 256))
    path = written(tmp_path / "x.gguf", {"w": (raw, Kind.Q6_K)})
    template = written(tmp_path / "form.gguf", {"w": (np.zeros((2, 256), "f2"), None)})
    ckptfmt.convert(path, tmp_path / "y.gguf", template=template, durable=False)
    [tensor] = gguf.GGUFReader(tmp_path / "y.gguf").tensors
    assert (tensor.tensor_type, tensor.data.tobytes()) == (Kind.Q6_K, raw.tobytes())


def test_what_has_no_place_in_a_template_and_what_stays(tmp_path: Path) -> None:
    raw = blocks_of(Kind.Q8_0, (2, 32))
    forms = {"w": (np.ones((2, 3), "f4"), None), "kept": (np.ones(3, "f2"), None), "blocks": (raw, Kind.Q8_0)}
    template = written(tmp_path / "form.gguf", forms)
    values = {"w": np.zeros((3, 2), "f4"), "other": np.ones(3), "kept": 3, "n": "text"}
    report = exported(values, tmp_path / "x.gguf", template=template, allow_loss="value")
    assert [str(loss) for loss in report.losses] == [
        "value of 'other': the tensor has no place in the template, and is left out",
        "value of 'n': the str has no place in the template, and is left out",
        "value of 'w': the tensor has another shape in the template, and is left out",
        "value of 'kept': the int is a tensor in the template, and is left out",
    ]
    assert (tmp_path / "x.gguf").read_bytes() == template.read_bytes()
    exported({"model": {"w": np.zeros((2, 3), "f4")}}, tmp_path / "y.gguf", template=template, root="model")
    found = {tensor.name: tensor.data for tensor in gguf.GGUFReader(tmp_path / "y.gguf").tensors}
    assert (found["w"].any(), found["blocks"].tobytes()) == (False, raw.tobytes())
    with pytest.raises(ckptfmt.InputError, match="no copy of a template of gguf"):
        exported({"w": np.ones(3)}, tmp_path / "x.safetensors", template=template)


def test_the_commands_have_both_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ckptfmt.cli import main

    raw = gguf.quants.quantize(np.ones((2, 32), "f4"), Kind.Q8_0)
    path = written(tmp_path / "x.gguf", {"w": (raw, Kind.Q8_0)})
    ours, back = str(tmp_path / "x.ckpt"), str(tmp_path / "y.gguf")
    assert main(["convert", "--dequantize", "float32", str(path), ours, "-q"]) == 0
    assert main(["convert", "--template", str(path), "--allow-loss", "dtype", ours, back, "-q"]) == 0
    assert (tmp_path / "y.gguf").read_bytes() == path.read_bytes()
    assert main(["inspect", str(path), "--dequantize", "float16", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["tensors"][0]["dtype"] == "float16"
    assert main(["inspect", ours, "--dequantize", "float16"]) == 2
    assert "--dequantize can be said of gguf only" in capsys.readouterr().err
