"""Models of Keras 3: archives, weights, weights in shards, and back into Keras."""

from __future__ import annotations

import importlib.util
import io
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import foreign_writers
import h5py
import ml_dtypes
import numpy as np
import pytest
from conversions import imported

import ckptfmt
from ckptfmt.conversion import open_source
from ckptfmt.conversion.source import is_tensor, nbytes, walk
from ckptfmt.format.names import path_text
from ckptfmt.testing.equality import assert_same_tree

MODELS = ["trained", "subclassed", "int8", "int4", "float8"]
ARCHIVES = [name for name in MODELS if name != "subclassed"]


def run(kind: str, folder: Path) -> None:
    command = [sys.executable, "-W", "ignore", foreign_writers.__file__, kind, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("keras") is None:
        pytest.skip("keras is not installed")
    folder = tmp_path_factory.mktemp("keras")
    run("keras", folder)
    return folder


def expected(folder: Path, name: str) -> dict[str, Any]:
    """What Keras reads, by path text."""
    found = {}
    with np.load(folder / f"{name}.npz") as arrays:
        for key, array in arrays.items():
            place, dtype = key.split("|")
            found[place] = array.view(ml_dtypes.bfloat16) if dtype == "bfloat16" else array
    assert found
    return dict(sorted(found.items()))


def tensors(source: Any) -> dict[str, Any]:
    leaves = {path_text(path): leaf for path, leaf in walk(source.tree) if is_tensor(leaf)}
    return {place: np.asarray(leaves[place][()]) for place in sorted(leaves)}


@pytest.mark.parametrize("name", MODELS)
def test_weights_and_archives_hold_what_keras_reads(folder: Path, name: str) -> None:
    paths = [folder / f"{name}.weights.h5", *([folder / f"{name}.keras"] if name in ARCHIVES else [])]
    for path in paths:
        with open_source(str(path)) as source:
            assert source.format == ("keras" if path.suffix == ".keras" else "hdf5")
            assert source.losses == ()
            assert_same_tree(tensors(source), expected(folder, name))


def test_what_an_archive_says_of_its_model(folder: Path) -> None:
    with open_source(str(folder / "trained.keras")) as source:
        assert source.metadata["keras.metadata"]["keras_version"].startswith("3.")
        config = source.metadata["keras.config"]
        assert config["class_name"] == "Sequential"
        assert source.metadata["hdf5.attributes"]["layers/dense/vars"] == {"name": "half"}


def test_weights_in_shards_are_those_in_one_file(folder: Path) -> None:
    assert len(list(folder.glob("parts_*.weights.h5"))) >= 3
    for path in (folder / "parts.weights.json", folder):
        if path == folder:
            shutil.copytree(folder, folder / "alone", ignore=lambda _, names: [n for n in names if "parts" not in n])
            path = folder / "alone"
        with open_source(str(path)) as source, open_source(str(folder / "trained.weights.h5")) as whole:
            assert (source.format, source.losses) == ("keras", ())
            assert_same_tree(tensors(source), tensors(whole))
            assert source.metadata == whole.metadata


def test_an_archive_that_was_packed_again(folder: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(folder / "trained.keras") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    packed = tmp_path / "packed.keras"
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in reversed(members.items()):
            archive.writestr(name, data)
        archive.writestr("assets/words.txt", "a b")
    with open_source(str(packed)) as source, open_source(str(folder / "trained.keras")) as whole:
        assert [tuple(loss) for loss in source.losses] == [
            ("value", "'assets/words.txt'", "a file in the archive is left out")
        ]
        assert_same_tree(tensors(source), tensors(whole))
        assert source.metadata == whole.metadata


def test_keras_loads_what_comes_back(folder: Path, tmp_path: Path) -> None:
    """From weights, archives and shards into a checkpoint, and back."""
    ways = [(folder / f"{name}.weights.h5", name) for name in MODELS]
    ways += [(folder / f"{name}.keras", f"{name}-archive") for name in ARCHIVES]
    ways.append((folder / "parts.weights.json", "trained-parts"))
    for path, name in ways:
        assert ckptfmt.convert(path, tmp_path / f"{name}.ckpt", durable=False).losses == ()
        back = tmp_path / f"back-{name}.weights.h5"
        losses = ckptfmt.convert(tmp_path / f"{name}.ckpt", back, durable=False, allow_loss="metadata").losses
        left = {"'keras.config' is left out", "'keras.metadata' is left out"} if path.suffix == ".keras" else set()
        assert {loss.message for loss in losses} == left
    run("keras-load", tmp_path)
    assert len(list(tmp_path.glob("*.loaded"))) == len(ways)


def test_models_in_the_older_form(folder: Path) -> None:
    """In which Keras 3.15 stores bfloat16 as two bytes without a word, and does not load it itself."""
    with open_source(str(folder / "trained.h5")) as source:
        assert (source.format, source.losses) == ("hdf5", ())
        found = tensors(source)
    values = [array.tobytes() for place, array in found.items() if place.startswith("model_weights")]
    layers = [array for place, array in expected(folder, "trained").items() if place.startswith("layers")]
    assert sorted(values) == sorted(array.tobytes() for array in layers)
    assert found["model_weights/half/small/half/kernel"].dtype == ml_dtypes.bfloat16


# ---- without Keras


def weights(*groups: str, name: str = "0", value: float = 1.0) -> bytes:
    with io.BytesIO() as stream:
        with h5py.File(stream, "w") as file:
            for group in groups:
                file[f"{group}/{name}"] = np.full(3, value, np.float32)
                file[group].attrs["name"] = "layer"
        return stream.getvalue()


def archive_of(path: Path, compression: int = zipfile.ZIP_STORED, **members: bytes) -> Path:
    documents = {"metadata.json": b'{"keras_version": "3.15.1"}', "config.json": b'{"class_name": "Model"}'}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in {**documents, "model.weights.h5": weights("layers/dense/vars"), **members}.items():
            if data:
                archive.writestr(name, data)
    return path


def read_all(path: Path, name: str | None) -> None:
    with open_source(str(path), name) as source:
        for _, leaf in walk(source.tree):
            if is_tensor(leaf) and nbytes(leaf) < 1 << 20:
                leaf[()]


def refused(path: Path, *codes: str, name: str | None = None) -> ckptfmt.CkptError:
    with pytest.raises(ckptfmt.CkptError) as raised:
        read_all(path, name)
    assert raised.value.code in (codes or ("bad-source",))
    return raised.value


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_archive(tmp_path: Path, compression: int) -> None:
    path = archive_of(tmp_path / "model.keras", compression)
    tree, metadata = imported(path)
    assert_same_tree(tree, {"layers": {"dense": {"vars": {"0": np.ones(3, np.float32)}}}})
    assert metadata["keras.config"] == {"class_name": "Model"}
    whole = path.read_bytes()
    for size in range(0, len(whole), 97):
        path.write_bytes(whole[:size])
        refused(path, "bad-source", "unknown-format", name="keras")
    for at in range(0, len(whole), 31):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << at % 8]) + whole[at + 1 :])
        try:
            read_all(path, "keras")
        except ckptfmt.CkptError as error:
            assert error.code in ("bad-source", "unsupported-source", "limit-exceeded")


HOSTILE: dict[str, tuple[str, dict[str, bytes]]] = {
    "no weights": ("unsupported-source", {"model.weights.h5": b""}),
    "weights that are none": ("bad-source", {"model.weights.h5": b"weights"}),
    "a configuration that is no JSON": ("bad-source", {"config.json": b"{"}),
    "a configuration that is too deep": ("bad-source", {"config.json": b"[" * 100_000}),
    "a deep configuration": ("too-deep", {"config.json": b"[" * 500 + b"]" * 500}),
    "a name twice": ("bad-source", {"config.json": b'{"a": 1, "a": 2}'}),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives(tmp_path: Path, name: str) -> None:
    code, members = HOSTILE[name]
    refused(archive_of(tmp_path / "x.keras", **members), code)


def test_links_out_of_an_archive(tmp_path: Path) -> None:
    (tmp_path / "other.h5").write_bytes(weights("vars"))
    with io.BytesIO() as stream:
        with h5py.File(stream, "w") as file:
            file["layers"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/vars")
        refused(archive_of(tmp_path / "x.keras", **{"model.weights.h5": stream.getvalue()}), "unsafe-source")


def test_members_that_decompress_to_far_more(tmp_path: Path) -> None:
    for member in ("model.weights.h5", "config.json"):
        path = archive_of(tmp_path / "x.keras", zipfile.ZIP_DEFLATED, **{member: bytes(32 << 20)})
        refused(path, "limit-exceeded")


def shards(folder: Path, weight_map: dict[str, Any], total: Any = None) -> Path:
    (folder / "m_00000.weights.h5").write_bytes(weights("layers/dense/vars", "layers/other/vars"))
    (folder / "m_00001.weights.h5").write_bytes(weights("layers/dense/vars", name="1", value=2))
    index = folder / "m.weights.json"
    index.write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}))
    return index


FIRST, SECOND = "m_00000.weights.h5", "m_00001.weights.h5"
SOUND = {"/layers/dense/vars": [FIRST, SECOND], "/layers/other/vars": FIRST}


def test_shards(tmp_path: Path) -> None:
    for path in (shards(tmp_path, SOUND, 36.0), tmp_path):
        with open_source(str(path)) as source:
            assert (source.losses, source.place.passed_over) == ((), ())
            found = {place: leaf[0] for place, leaf in tensors(source).items()}
            assert found == {"layers/dense/vars/0": 1, "layers/dense/vars/1": 2, "layers/other/vars/0": 1}
            assert source.metadata["hdf5.attributes"]["layers/dense/vars"] == {"name": "layer"}
    with open_source(str(shards(tmp_path, SOUND, 72))) as source:
        assert [loss.kind for loss in source.losses] == ["missing"]
    with open_source(str(tmp_path / FIRST)) as source:
        assert [loss.kind for loss in source.losses] == ["missing"]
    other = weights("layers/dense/vars", name="1").replace(b"layer\0", b"other\0")
    index = shards(tmp_path, SOUND, 36)
    (tmp_path / SECOND).write_bytes(other)
    with open_source(str(index)) as source:
        assert {loss.kind for loss in source.losses} <= {"metadata"}


BROKEN: dict[str, tuple[str, Any]] = {
    "a group that is not there": ("bad-source", {**SOUND, "/layers/third/vars": FIRST}),
    "a group that is not named": ("bad-source", {"/layers/dense/vars": [FIRST, SECOND]}),
    "a file that is not there": ("bad-source", {**SOUND, "/layers/third/vars": "m_00002.weights.h5"}),
    "a file elsewhere": ("unsafe-source", {**SOUND, "/layers/third/vars": "../x.h5"}),
    "a file that is none": ("unsafe-source", {**SOUND, "/layers/third/vars": [3]}),
    "no map": ("bad-source", [1]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_indexes_that_do_not_fit(tmp_path: Path, name: str) -> None:
    code, weight_map = BROKEN[name]
    refused(shards(tmp_path, weight_map), code)


def test_a_variable_in_two_shards(tmp_path: Path) -> None:
    index = shards(tmp_path, SOUND)
    (tmp_path / SECOND).write_bytes(weights("layers/dense/vars"))
    assert "before it, too" in refused(index).message


def test_a_shard_that_is_a_link_out(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    index = shards(tmp_path / "model", SOUND)
    (tmp_path / "model" / SECOND).rename(tmp_path / "outside.h5")
    (tmp_path / "model" / SECOND).symlink_to(tmp_path / "outside.h5")
    refused(index, "unsafe-source")
