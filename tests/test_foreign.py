"""What a file that is no checkpoint looks like: the error says so, with the real writers of other formats."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import shlex
import tarfile
import tempfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import flax.serialization
import fsspec
import gguf
import h5py
import lz4.frame
import numpy as np
import pytest
import safetensors.numpy
import tensor_bundles
from click.testing import CliRunner, Result
from fuzz.wire import SMALL_MODEL
from hypothesis import given
from hypothesis import strategies as st
from numcodecs.zstd import Zstd
from peers import peer

import ckptfmt
from ckptfmt.cli.app import cli

torch = peer("torch")

ARRAYS = {"a": np.zeros(3)}


def npy() -> bytes:
    out = io.BytesIO()
    np.save(out, ARRAYS["a"])
    return out.getvalue()


def npz() -> bytes:
    out = io.BytesIO()
    np.savez(out, **ARRAYS)
    return out.getvalue()


def zipped(*names: str, **members: bytes) -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in {**dict.fromkeys(names, b"{}"), **members}.items():
                archive.writestr(name, data)
        return file.getvalue()


def tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        member = tarfile.TarInfo("model.npz")
        member.size = len(npz())
        archive.addfile(member, io.BytesIO(npz()))
    return out.getvalue()


def torch_file(**options: object) -> bytes:
    out = io.BytesIO()
    torch.save({"w": torch.ones(300)}, out, **options)
    return out.getvalue()


def hdf5() -> bytes:
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        file["w"] = np.ones(3)
    return out.getvalue()


def gguf_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        writer = gguf.GGUFWriter(f"{folder}/x.gguf", "llama")
        writer.add_tensor("w", np.ones(32, np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return Path(folder, "x.gguf").read_bytes()


def command(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


POINTER = b"""version https://git-lfs.github.com/spec/v1
oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393
size 4976698672
"""
LINE = "Make a checkpoint of it: ckptfmt convert"
UNPACK, FETCH = "Unpack it first", "fetch it again"
# what a file holds, or what makes it: how it is called, and the advice
FILES: dict[str, tuple[bytes | Callable[[], bytes], str, str]] = {
    "nothing": (b"", "an empty file", FETCH),
    "zeros": (bytes(5000), "zeros", FETCH),
    "safetensors": (safetensors.numpy.save(ARRAYS), "a safetensors file", LINE),
    "half a header": (
        safetensors.numpy.save({f"w{i}": np.ones(3) for i in range(9)})[:100],
        "cut off in its header: 100 bytes",
        FETCH,
    ),
    "npy": (npy(), "a NumPy .npy file", LINE),
    "npz": (npz(), "a NumPy .npz file", LINE),
    "half an npz": (npz()[:-30], "a NumPy .npz file that is cut off", FETCH),
    "torch": (torch_file, "a torch.save file", LINE),
    "half a torch": (lambda: torch_file()[:900], "a torch.save file that is cut off", FETCH),
    "old torch": (
        lambda: torch_file(_use_new_zipfile_serialization=False),
        "a torch.save file of before torch 1.6",
        LINE,
    ),
    "hdf5": (hdf5(), "an HDF5 file", LINE),
    "gguf": (gguf_file(), "a GGUF file", LINE),
    "tflite": (
        Path(__file__).with_name("data").joinpath("tflite/small.tflite").read_bytes(),
        "a TensorFlow Lite model",
        LINE,
    ),
    "tensorflow": (
        tensor_bundles.index_of([tensor_bundles.HEADER, (b"w", tensor_bundles.entry(b""))]),
        "the index of a TensorFlow checkpoint",
        LINE,
    ),
    "onnx": (SMALL_MODEL, "an ONNX model", LINE),
    "flax": (flax.serialization.msgpack_serialize(ARRAYS), "a msgpack file, as flax writes it", LINE),
    "zip": (zipped("readme.txt"), "a ZIP archive without a commit record", "the program that wrote it"),
    "keras": (zipped("metadata.json", "config.json", **{"model.weights.h5": hdf5()}), "a Keras model (.keras)", LINE),
    "gzip": (gzip.compress(npz()), "a gzip file", LINE),
    "zstd": (Zstd().encode(npz()), "a zstd file", LINE),
    "bzip2": (bz2.compress(npz()), "a bzip2 file", LINE),
    "xz": (lzma.compress(npz()), "an xz file", LINE),
    "lz4": (lz4.frame.compress(npz()), "an lz4 file", LINE),
    "7-Zip": (b"7z\xbc\xaf\x27\x1c" + bytes(range(100)), "a 7-Zip archive", UNPACK),
    "tar": (tar(), "a tar archive", LINE),
    "pickle": (pickle.dumps(ARRAYS), "a Python pickle", LINE),
    "pointer": (POINTER, "a Git LFS pointer: it stands for a file of 4,976,698,672 bytes", "git lfs pull"),
    "page": (
        b"<!DOCTYPE html>\n<html><head>",
        "an HTML page, which begins '<!DOCTYPE html>",
        "Fetch the file again",
    ),
    "store": (
        b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>AccessDenied</Code><Message>Access Denied</Message>',
        "an error of a store: AccessDenied",
        "Fetch the file again",
    ),
    "json": (b'{"error":"Repository not found"}', """JSON text, which begins '{"error":"Repository""", FETCH),
    "words": (b"Entry not found", "text, which begins 'Entry not found'", FETCH),
    "other bytes": (b"\xf0\x01\x02" * 50, "no", "ckptfmt"),
}


def data_of(kind: str) -> bytes:
    data = FILES[kind][0]
    return data if isinstance(data, bytes) else data()


def refusal(path: Path, data: bytes) -> ckptfmt.CkptError:
    path.write_bytes(data)
    with pytest.raises(ckptfmt.NotACheckpointError) as raised:
        ckptfmt.open(path)
    assert raised.value.code == "not-a-checkpoint"
    assert raised.value.path == str(path)
    return raised.value


@pytest.mark.parametrize("kind", FILES)
def test_the_error_says_what_it_is_and_what_helps(tmp_path: Path, kind: str) -> None:  # [COM-005]
    (_, words, advice), data = FILES[kind], data_of(kind)
    error = refusal(tmp_path / "model.bin", data)
    assert words.removeprefix("no") in error.message
    assert advice in error.advice
    for call in (ckptfmt.load, ckptfmt.verify):
        with pytest.raises(ckptfmt.NotACheckpointError) as raised:
            call(tmp_path / "model.bin")
        assert str(raised.value) == str(error)


@pytest.mark.parametrize("kind", [kind for kind, (_, _, advice) in FILES.items() if advice == LINE])
def test_the_line_that_converts_it_does(tmp_path: Path, kind: str) -> None:
    error = refusal(tmp_path / "a model.bin", data_of(kind))
    line = error.advice.partition(": ")[2]
    assert command(*shlex.split(line)[1:]).exit_code == 0
    assert ckptfmt.verify(tmp_path / "a model.ckpt").ok


@pytest.mark.parametrize("named", ["torch", "hdf5", "gguf", "npz", "ckptfmt"])
def test_a_source_of_another_format_than_the_one_named(tmp_path: Path, named: str) -> None:
    (tmp_path / "x").write_bytes(data_of("safetensors"))
    with pytest.raises(ckptfmt.CkptError, match="looks like safetensors, also with an index, not like") as raised:
        ckptfmt.convert(tmp_path / "x", tmp_path / "y.ckpt", source_format=named)
    assert raised.value.advice == "Leave out source_format=, or name that one"
    (tmp_path / "x").write_bytes(data_of("page"))
    with pytest.raises(ckptfmt.CkptError, match="an HTML page"):
        ckptfmt.convert(tmp_path / "x", tmp_path / "y.ckpt", source_format=named)


def test_on_a_store(tmp_path: Path) -> None:
    fs = fsspec.filesystem("memory")
    fs.pipe_file("/foreign/a model.bin", data_of("safetensors"))
    fs.pipe_file("/foreign/pointer", POINTER)
    with pytest.raises(ckptfmt.NotACheckpointError, match="a safetensors file") as raised:
        ckptfmt.load("memory://foreign/a model.bin")
    assert raised.value.advice == "Fetch it, and make a checkpoint of it: ckptfmt convert 'a model.bin' 'a model.ckpt'"
    with pytest.raises(ckptfmt.NotACheckpointError, match="a Git LFS pointer"):
        ckptfmt.load("memory://foreign/pointer")


@pytest.mark.parametrize("kind", [kind for kind, (_, _, advice) in FILES.items() if advice != LINE])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.gguf"])
def test_a_conversion_says_the_same_of_a_file_and_of_a_folder(tmp_path: Path, kind: str, name: str) -> None:
    (_, words, advice), data = FILES[kind], data_of(kind)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / name).write_bytes(data)
    (tmp_path / "model" / "config.json").write_text("{}")
    for source in (tmp_path / "model" / name, tmp_path / "model"):
        with pytest.raises(ckptfmt.CkptError) as raised:
            ckptfmt.convert(source, tmp_path / "x.ckpt")
        assert words in raised.value.message
        assert raised.value.path == str(tmp_path / "model" / name)
        assert advice in raised.value.advice


def test_the_command_line_says_it_too(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(POINTER)
    for name in ("inspect", "verify", "get", "convert"):
        done = command(name, tmp_path / "model.safetensors", *(["x"] if name in ("get", "convert") else []))
        assert done.exit_code == 2
        assert "a Git LFS pointer" in done.stderr
        assert "git lfs pull" in done.stderr


ARCHIVES = {
    "model/data/0": "a torch.save file",  # TorchScript
    "archive/version": "a torch.save file",
    "model/data/weights/weight_0": "an exported program of torch",
    "serialized_exported_program.json": "an exported program of torch",
    "data": "an archive of Stable-Baselines3",
    "schema.json": "a skops file",
}


@pytest.mark.parametrize("member", ARCHIVES)
def test_archives_are_told_by_their_first_member(tmp_path: Path, member: str) -> None:
    error = refusal(tmp_path / "model.bin", zipped(member))
    assert ARCHIVES[member] in error.message
    assert LINE in error.advice


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles(tmp_path: Path, protocol: int) -> None:
    assert "a Python pickle" in str(refusal(tmp_path / "other", pickle.dumps({"a": 1}, protocol)))


def test_a_directory_without_commit(tmp_path: Path) -> None:  # [COM-004]
    (tmp_path / "manifest.msgpack").write_bytes(b"")
    with pytest.raises(ckptfmt.NotACheckpointError, match="COMMIT"):
        ckptfmt.open(tmp_path)


def no_safetensors(header: bytes, length: int | None = None) -> bytes:
    return (len(header) if length is None else length).to_bytes(8, "little") + header


@pytest.mark.parametrize(
    "data",
    [
        no_safetensors(b'{"a":1'),
        no_safetensors(b'{"a":1}', 1 << 60),
        no_safetensors(b'{"a":1}', 8),
        no_safetensors(b"{\xff}"),
        no_safetensors(json.dumps(["a"]).encode()),
        b"\x00" * 8,
        b"PK\3\4",
        b"PK\3\4" + b"\xff" * 40,
    ],
    ids=range(8),
)
def test_what_only_begins_like_another_format(tmp_path: Path, data: bytes) -> None:
    assert "safetensors" not in str(refusal(tmp_path / "other", data))


def test_deep_json_is_no_trap(tmp_path: Path) -> None:
    refusal(tmp_path / "other", no_safetensors(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"))


@given(st.binary(max_size=600))
def test_any_bytes_are_refused(scratch: Callable[[], object], data: bytes) -> None:  # [COM-004]
    with scratch() as folder:  # type: ignore[attr-defined]
        path = Path(folder) / "other"
        path.write_bytes(data)
        with pytest.raises(ckptfmt.NotACheckpointError):
            ckptfmt.open(path)


def test_a_safetensors_header_is_not_parsed(tmp_path: Path) -> None:
    """[LIM-007] Empty arrays take far more memory than their bytes."""
    header = b'{"a":[' + b"[]," * (1 << 20) + b"[]]}"
    (tmp_path / "x").write_bytes(len(header).to_bytes(8, "little") + header)
    tracemalloc.start()
    try:
        with pytest.raises(ckptfmt.NotACheckpointError, match="safetensors"):
            ckptfmt.open(tmp_path / "x")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
