"""A model of others as the target: a copy of it with other tensors, and nothing else changed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from click.testing import CliRunner
from fuzz.wire import model, tensor, varint

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.conversion import open_source

onnx = pytest.importorskip("onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

DATA = Path(__file__).with_name("data")
W = np.arange(12, dtype=np.float32).reshape(3, 4)


def template(path: Path, **options: Any) -> Any:
    """A model with tensors of several kinds."""
    int4 = ml_dtypes.int4
    tensors = [
        numpy_helper.from_array(W, "layer.w"),
        numpy_helper.from_array(W.astype(ml_dtypes.bfloat16), "half"),
        helper.make_tensor("floats", 1, (2,), [1.0, 2.0]),
        helper.make_tensor("few", 22, (3, 5), (np.arange(15) % 8).astype(int4).reshape(3, 5), raw=True),
        helper.make_tensor("ints", 7, (3,), [1, 2, 300]),
        helper.make_tensor("text", 8, (1,), [b"kept"]),
    ]
    node = helper.make_node("MatMul", ["x", "layer.w"], ["y"], name="multiply")
    values = [helper.make_tensor_value_info(name, 1, ["n", size]) for name, size in (("x", 3), ("y", 4))]
    made = helper.make_model(helper.make_graph([node], "net", values[:1], values[1:], tensors), producer_name="tests")
    onnx.save_model(made, path, **options)
    return onnx.load(path)


def others() -> dict[str, Any]:
    few = (np.arange(15)[::-1] % 8).astype(ml_dtypes.int4).reshape(3, 5)
    tree = {"half": (W + 0.5).astype(ml_dtypes.bfloat16), "floats": np.array([3, 4], np.float32), "few": few}
    return {"layer": {"w": W + 100}, **tree}


def saved(path: Path, tree: Any, **options: Any) -> Path:
    ckptfmt.save(path, tree, durable=False, **options)
    return path


def arrays(model: Any, folder: Path | str = "") -> dict[str, Any]:
    return {item.name: numpy_helper.to_array(item, str(folder)) for item in model.graph.initializer}


def test_tensors_of_an_onnx_model_are_replaced(tmp_path: Path) -> None:
    before = template(tmp_path / "model.onnx")
    source = saved(tmp_path / "x.ckpt", others(), compression="zstd")
    report = ckptfmt.convert(source, tmp_path / "new.onnx", template=tmp_path / "model.onnx")
    assert report.verified
    assert report.losses == ()
    after = onnx.load(tmp_path / "new.onnx")
    onnx.checker.check_model(after)
    expected = {
        **arrays(before),
        "layer.w": others()["layer"]["w"],
        **{k: others()[k] for k in ("half", "floats", "few")},
    }
    for name, array in arrays(after).items():
        assert array.dtype == expected[name].dtype
        assert np.array_equal(array, expected[name])
    for item in (*before.graph.initializer, *after.graph.initializer):
        if item.name in ("layer.w", "half", "few", "floats"):
            item.ClearField("raw_data")
            item.ClearField("float_data")
    assert before == after


@pytest.mark.parametrize("one", [True, False])
def test_external_data_of_a_model_is_replaced(tmp_path: Path, one: bool) -> None:
    (tmp_path / "model").mkdir()
    location = {"location": "weights.bin"} if one else {}
    template(tmp_path / "model/net.onnx", save_as_external_data=True, all_tensors_to_one_file=one, size_threshold=0,
             **location)  # fmt: skip
    source = saved(tmp_path / "x.ckpt", others())
    options = {"template": tmp_path / "model/net.onnx"}
    ckptfmt.convert(source, tmp_path / "new", **options)
    ckptfmt.convert(source, tmp_path / "new", **options, overwrite=True)
    (tmp_path / "new/other").touch()
    with pytest.raises(ckptfmt.CkptError, match="new"):
        ckptfmt.convert(source, tmp_path / "new", **options, overwrite=True)
    (tmp_path / "new/other").unlink()
    names = sorted(path.name for path in (tmp_path / "model").iterdir())
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == names
    after = arrays(onnx.load(tmp_path / "new/net.onnx"), tmp_path / "new")
    assert np.array_equal(after["layer.w"], W + 100)
    assert after["few"].tobytes() == others()["few"].tobytes()
    with open_source(str(tmp_path / "new")) as opened:
        assert np.array_equal(opened.tree["layer.w"], W + 100)


def test_into_an_open_file(tmp_path: Path) -> None:
    template(tmp_path / "model.onnx")
    source = saved(tmp_path / "x.ckpt", others())
    ckptfmt.convert(source, tmp_path / "new.onnx", template=tmp_path / "model.onnx")
    with open(tmp_path / "open", "w+b") as file:
        ckptfmt.convert(source, file, template=tmp_path / "model.onnx")
    assert (tmp_path / "open").read_bytes() == (tmp_path / "new.onnx").read_bytes()


def test_a_model_comes_back_as_it_was(tmp_path: Path) -> None:
    template(tmp_path / "model.onnx")
    ckptfmt.convert(tmp_path / "model.onnx", tmp_path / "x.ckpt")
    options = {"template": tmp_path / "model.onnx", "allow_loss": {"value", "nesting"}}  # texts are left out
    ckptfmt.convert(tmp_path / "x.ckpt", tmp_path / "back.onnx", **options)
    assert (tmp_path / "back.onnx").read_bytes() == (tmp_path / "model.onnx").read_bytes()


def test_what_does_not_fit_is_a_loss(tmp_path: Path) -> None:
    template(tmp_path / "model.onnx")
    odd = {
        "layer.w": W.T,
        "half": W,
        "ints": np.array([1, 2, 3]),
        "more": W,
        "text": W,
        "floats": np.ones(2, np.float32),
    }
    source = saved(tmp_path / "x.ckpt", odd)
    with pytest.raises(ckptfmt.CkptError) as raised:
        ckptfmt.convert(source, tmp_path / "new.onnx", template=tmp_path / "model.onnx")
    assert raised.value.code == "lossy"
    assert {
        loss.path: loss.message.removeprefix("it is left out: ") for loss in raised.value.report if loss.kind == "value"
    } == {
        "layer.w": "it is float32 of shape [4, 3], and the template has float32 of shape [3, 4]",
        "half": "it is float32 of shape [3, 4], and the template has bfloat16 of shape [3, 4]",
        "ints": "the template has its elements in a form that is not replaced",
        "more": "the template has none of that name",
        "text": "the template has a plain value of that name",
    }
    assert not (tmp_path / "new.onnx").exists()
    ckptfmt.convert(source, tmp_path / "new.onnx", template=tmp_path / "model.onnx", allow_loss=True)
    assert arrays(onnx.load(tmp_path / "new.onnx"))["floats"].tolist() == [1, 1]


def test_a_template_that_is_none(tmp_path: Path) -> None:
    template(tmp_path / "model.onnx")
    source = saved(tmp_path / "x.ckpt", {"net": others()})
    cases = [
        ("new.onnx", {"template": tmp_path / "model.onnx"}, "no-match", "no tensor has the name"),
        ("new.onnx", {}, "unknown-format", "template= names a model"),
        ("new.safetensors", {"template": tmp_path / "model.onnx"}, "bad-option", "a target of safetensors is no copy"),
        ("new.onnx", {"template": source}, "bad-option", "of a template of ckptfmt"),
        ("new.ckpt", {"template": tmp_path / "model.onnx"}, "bad-option", "a target of ckptfmt is no copy"),
        ("new.onnx", {"template": tmp_path / "gone.onnx"}, "not-found", "cannot open"),
    ]
    for target, options, code, words in cases:
        with pytest.raises(ckptfmt.CkptError, match=words) as raised:
            ckptfmt.convert(source, tmp_path / target, **options)
        assert raised.value.code == code
        assert not (tmp_path / target).exists()
    ckptfmt.convert(source, tmp_path / "new.onnx", template=tmp_path / "model.onnx", root="net")


def test_two_tensors_in_one_place(tmp_path: Path) -> None:
    """Those of a model may share their bytes; others that differ cannot, which is seen before anything is there."""
    pair = [(5, tensor(name, 1, (2,), (14, 1), (13, b"\n\x08location\x12\x01w"))) for name in ("a", "b")]
    (tmp_path / "model.onnx").write_bytes(model(*pair))
    (tmp_path / "w").write_bytes(bytes(8))
    source = saved(tmp_path / "x.ckpt", {"a": np.ones(2, np.float32), "b": np.zeros(2, np.float32)})
    options = {"template": tmp_path / "model.onnx"}
    with pytest.raises(ckptfmt.CkptError) as raised:
        ckptfmt.convert(source, tmp_path / "new", **options)
    assert raised.value.code == "not-equal"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "w", "x.ckpt"]
    same = saved(tmp_path / "y.ckpt", {"a": np.ones(2, np.float32), "b": np.ones(2, np.float32)})
    ckptfmt.convert(same, tmp_path / "new", **options)
    assert (tmp_path / "new/w").read_bytes() == np.ones(2, np.float32).tobytes()


def test_models_of_other_formats(tmp_path: Path) -> None:
    shutil.copyfile(DATA / "tflite/small.tflite", tmp_path / "m.tflite")
    shutil.copyfile(DATA / "coreml/network.mlmodel", tmp_path / "m.mlmodel")
    shutil.copytree(DATA / "coreml/program.mlpackage", tmp_path / "m.mlpackage")
    for name, tensors in {
        "m.tflite": {"w": np.full((2, 3), 7, np.float32), "i4": np.array([-1, -2, -8], ml_dtypes.int4)},
        "m.mlmodel": {"dense.weights": np.full((3, 5), 7, np.float32)},
        "m.mlpackage": {"first_weight_0": np.full((7, 5), 7, np.float32),
                        "lut1.indices": np.ones((7, 7), ml_dtypes.uint1)},
    }.items():  # fmt: skip
        source = saved(tmp_path / f"{name}.ckpt", tensors)
        report = ckptfmt.convert(source, tmp_path / f"new.{name}", template=tmp_path / name)
        assert report.target_format in ("tflite", "coreml")
        with open_source(str(tmp_path / name)) as old, open_source(str(tmp_path / f"new.{name}")) as new:
            assert new.metadata == old.metadata
            for key in old.tree:
                if key in tensors or key == "other.w":  # which is tied
                    key_of = key.removeprefix("other.")
                    assert np.array_equal(new.tree[key][()], tensors[key_of])
                elif hasattr(old.tree[key], "dtype"):
                    assert np.array_equal(new.tree[key][()], old.tree[key][()])


def test_keys_of_gguf_come_from_a_template(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "llama")
    writer.add_array("tokenizer.ggml.tokens", ["a", "b"])
    writer.add_tensor("token_embd.weight", W)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    source = saved(tmp_path / "x.ckpt", {"token_embd.weight": W * 2})
    ckptfmt.convert(source, tmp_path / "new.gguf", template=tmp_path / "m.gguf")
    (found,) = gguf.GGUFReader(tmp_path / "new.gguf").tensors
    assert np.array_equal(found.data, W * 2)
    assert "tokenizer.ggml.tokens" in gguf.GGUFReader(tmp_path / "new.gguf").fields


def test_the_command(tmp_path: Path) -> None:
    template(tmp_path / "model.onnx")
    source = saved(tmp_path / "x.ckpt", others())
    done = CliRunner().invoke(
        cli, ["convert", "--template", f"{tmp_path}/model.onnx", str(source), f"{tmp_path}/n.onnx"]
    )
    assert done.exit_code == 0, done.output
    (tmp_path / "some").mkdir()
    saved(tmp_path / "some" / "y.ckpt", others())
    each = ["--each", "--to", "onnx", str(tmp_path / "some"), str(tmp_path / "all")]
    done = CliRunner().invoke(cli, ["convert", "--template", f"{tmp_path}/model.onnx", *each])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "all" / "y.onnx").read_bytes() == (tmp_path / "n.onnx").read_bytes()
    done = CliRunner().invoke(cli, ["convert", str(source), f"{tmp_path}/m.onnx"])
    assert "--template" in done.output


def test_numbers_of_any_length_that_stay(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(model((5, tensor("a", 7, (3,), (7, varint(1) + varint(300) + varint(-1))))))
    source = saved(tmp_path / "x.ckpt", {"a": np.array([1, 300, -1])})
    ckptfmt.convert(source, tmp_path / "n.onnx", template=tmp_path / "m.onnx")
    assert (tmp_path / "n.onnx").read_bytes() == (tmp_path / "m.onnx").read_bytes()
