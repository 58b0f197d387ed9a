"""Core ML: files that coremltools wrote (tests/data/make_coreml.py), and what it reads of them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conversions import imported
from fuzz.wire import message
from hostile import refused

import ckptfmt
from ckptfmt.conversion import open_source
from ckptfmt.conversion.coreml_layers import LAYERS
from ckptfmt.conversion.formats.coreml import MIL_TYPES
from ckptfmt.conversion.source import mapped_arrays

DATA = Path(__file__).with_name("data") / "coreml"
MODEL, WEIGHTS = "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights/weight.bin"


def expected(name: str) -> dict[str, np.ndarray]:
    """What coremltools reads."""
    file = np.load(DATA / name)
    octets, arrays, at = file["octets"].tobytes(), {}, 0
    for text in file["said"].tolist():
        key, dtype, *shape = text.split(" ")
        sides = tuple(map(int, filter(None, shape)))
        end = at + int(np.prod(sides)) * np.dtype(dtype).itemsize
        arrays[key] = np.frombuffer(octets[at:end], dtype).reshape(sides)
        at = end
    return arrays


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA / "program.mlpackage", tmp_path / "x.mlpackage"))


def test_an_ml_program(package: Path) -> None:
    refused(package, "lossy", "uint3 becomes uint8")
    tree, metadata = imported(package, allow_loss="dtype")
    theirs = expected("program.npz")
    assert tree.keys() == theirs.keys()
    for name, array in theirs.items():
        assert tree[name].shape == array.shape
        assert np.array_equal(tree[name].astype(array.dtype), array)
        narrow = {"lut1.indices": "uint1", "lut2.indices": "uint2", "lut4.indices": "uint4", "of_int4.data": "int4"}
        assert tree[name].dtype.name == {**narrow, "of_uint4.data": "uint4"}.get(name, array.dtype.name)
    about = metadata["coreml.metadata"]
    assert (about["author"], about["versionString"], about["userDefined"]["key"]) == ("tests", "1", "value")


def test_parts_of_few_bits(package: Path) -> None:
    with open_source(str(package)) as source:
        for name in ("lut1.indices", "lut3.indices", "lut6.indices", "of_int4.data"):
            whole = source.tree[name][()]
            for index in ((slice(2, 5),), (slice(3, 4), slice(2, 7)), (slice(1, 6), slice(3, 4)), (slice(7, 7),)):
                assert np.array_equal(source.tree[name][index], whole[index])


def test_a_neural_network(tmp_path: Path) -> None:
    shutil.copyfile(DATA / "network.mlmodel", tmp_path / "x.mlmodel")
    tree, metadata = imported(tmp_path / "x.mlmodel")
    theirs = expected("network.npz")
    assert tree.keys() == theirs.keys()
    for name, array in theirs.items():
        assert tree[name].dtype == array.dtype
        assert np.array_equal(tree[name].reshape(-1), array)
    shapes = {name: tree[name].shape for name in theirs if tree[name].ndim > 1}
    assert shapes["conv.weights"] == (6, 4, 3, 2)
    assert shapes["deconv.weights"] == (4, 3, 3, 2)
    assert shapes["conv3d.weights"] == (6, 2, 1, 2, 3)
    assert shapes["scale.bias"] == (2, 1, 1)
    assert shapes["bilstm.weightParams.1.outputGateRecursionMatrix"] == (3, 3)
    assert shapes["branch.elseBranch.no.weights"] == (3, 3)
    quantised = metadata["coreml.quantised"]
    assert quantised.keys() == {"bytes.weights", "table.weights"}
    assert len(quantised["bytes.weights"]["scale"]) == 3
    assert len(quantised["table.weights"]["floatValue"]) == 1 << quantised["table.weights"]["numberOfBits"]


def test_a_pipeline(tmp_path: Path) -> None:
    shutil.copyfile(DATA / "pipeline.mlmodel", tmp_path / "x.mlmodel")
    tree, _ = imported(tmp_path / "x.mlmodel")
    assert {name: array.shape for name, array in tree.items()} == {"model_0.dense.weights": (2, 2)}


def test_a_model_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "x.mlmodel").write_bytes(message((1, 1), (2, b""), (402, b"")))
    refused(tmp_path / "x.mlmodel", "lossy", "a model of the type treeEnsembleClassifier is left out")


def test_every_layer_has_its_own_names() -> None:
    assert len({name for name, _, _ in LAYERS.values()}) == len(LAYERS)
    assert len({kind.name for kind in MIL_TYPES.values()}) == len(MIL_TYPES)
    blobs = [kind.blob for kind in MIL_TYPES.values() if kind.blob]
    assert sorted(blobs) == list(range(1, 18))


def test_a_package_in_a_folder(tmp_path: Path) -> None:
    shutil.copytree(DATA / "program.mlpackage", tmp_path / "model/x.mlpackage")
    report = ckptfmt.convert(tmp_path / "model", tmp_path / "x.ckpt", allow_loss="dtype")
    assert report.source == str(tmp_path / "model/x.mlpackage")
    assert report.source_format == "coreml"


# ---- packages that are wrong


def changed_manifest(package: Path, place: Any) -> None:
    manifest = json.loads((package / "Manifest.json").read_text())
    manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]["path"] = place
    (package / "Manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("place", ["../../outside", "/etc/hostname", "link"])
def test_a_model_outside_of_its_package(package: Path, place: str) -> None:
    (package.parent / "outside").write_bytes((DATA / "pipeline.mlmodel").read_bytes())
    (package / "Data/link").symlink_to(package.parent / "outside")
    changed_manifest(package, place)
    refused(package, "unsafe-source")


@pytest.mark.parametrize("place", ["gone", 5, None])
def test_a_model_that_is_missing(package: Path, place: Any) -> None:
    changed_manifest(package, place)
    refused(package, "bad-source")
    (package / "Manifest.json").write_text("{}")
    refused(package, "bad-source")


@pytest.mark.parametrize("target", ["outside", "/etc/hostname"])
def test_files_outside_of_the_package(package: Path, target: str) -> None:
    shutil.copyfile(package / WEIGHTS, package.parent / "outside")
    os.unlink(package / WEIGHTS)
    (package / WEIGHTS).symlink_to(package.parent / target)
    refused(package, "unsafe-source", "leads out of it")
    model = (package / MODEL).read_bytes()
    here, there = b"@model_path/weights/weight.bin", b"@model_path/../../../outside/x"
    (package / MODEL).write_bytes(model.replace(here, there))
    refused(package, "unsafe-source", "outside of the folder")


def test_weights_that_are_missing_or_cut_off(package: Path) -> None:
    data = (package / WEIGHTS).read_bytes()
    for size in (0, 7, 63, 64, 100, 128, 1000, len(data) - 20):
        (package / WEIGHTS).write_bytes(data[:size])
        refused(package, "bad-source")
    (package / WEIGHTS).write_bytes(data[:4] + b"\3" + data[5:])
    refused(package, "unsupported-source", "version 3")
    os.unlink(package / WEIGHTS)
    refused(package, "bad-source", "is missing")


def test_blobs_that_are_others(package: Path) -> None:
    data = (package / WEIGHTS).read_bytes()
    for at, value in ((64, b"\0"), (68, b"\4"), (72, b"\1"), (79, b"\x7f"), (87, b"\x7f"), (72, b"\xff\xff")):
        (package / WEIGHTS).write_bytes(data[:at] + value + data[at + len(value) :])
        refused(package, "bad-source")


def test_blocks_within_blocks(tmp_path: Path) -> None:
    block = b""
    for _ in range(200):
        block = message((3, message((1, "cond"), (4, block))))
    function = message((3, message((1, ""), (2, block))))
    program = message((2, message((1, "main"), (2, function))))
    (tmp_path / "x.mlmodel").write_bytes(message((1, 9), (2, b""), (502, program)))
    refused(tmp_path / "x.mlmodel", "too-deep")
    model = message((1, 1), (500, b""))
    for _ in range(200):
        model = message((1, 1), (2, b""), (202, message((1, model))))
    (tmp_path / "x.mlmodel").write_bytes(model)
    refused(tmp_path / "x.mlmodel", "too-deep")


def test_other_messages_are_no_models(tmp_path: Path) -> None:
    for data in (
        message((1, 1), (2, b"")),
        message((1, 1), (502, 5)),
        message((1, 1), (3, b""), (502, b"")),
        b"\x08\1",
    ):
        (tmp_path / "x.mlmodel").write_bytes(data)
        refused(tmp_path / "x.mlmodel", "unknown-format")


def test_every_byte_changed(package: Path, tmp_path: Path) -> None:
    for file in (MODEL, WEIGHTS):
        data = (package / file).read_bytes()
        for place in range(0, len(data), 53 if file == MODEL else 29):
            changed = bytearray(data)
            changed[place] ^= (0x01, 0x80, 0xFF, 0x02)[place % 4]
            (package / file).write_bytes(changed)
            try:
                with open_source(str(package), "coreml") as source:
                    mapped_arrays(source.tree, str(tmp_path))
            except ckptfmt.CkptError as error:
                assert error.code in ("bad-source", "unsafe-source", "unsupported-source", "limit-exceeded")
        (package / file).write_bytes(data)
