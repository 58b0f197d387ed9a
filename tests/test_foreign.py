"""What a file that is no checkpoint looks like: the error says so, with the real writers of other formats."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from numcodecs.zstd import Zstd

import ckptfmt

ARRAYS = {"a": np.zeros(3)}


def npy() -> bytes:
    out = io.BytesIO()
    np.save(out, ARRAYS["a"])
    return out.getvalue()


def npz() -> bytes:
    out = io.BytesIO()
    np.savez(out, **ARRAYS)
    return out.getvalue()


def zipped(*names: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in names:
            archive.writestr(name, b"data")
    return out.getvalue()


def tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("member"))
    return out.getvalue()


FILES = {
    "an empty file": b"",
    "a safetensors file": safetensors.numpy.save(ARRAYS),
    "a NumPy .npy file": npy(),
    "a NumPy .npz file": npz(),
    "a torch.save file": zipped("archive/data.pkl", "archive/version"),
    "a ZIP archive without a commit record": zipped("readme.txt"),
    "a gzip file": gzip.compress(b"data"),
    "a zstd file": Zstd().encode(b"data"),
    "a tar archive": tar(),
    "an HDF5 file": b"\x89HDF\r\n\x1a\n" + bytes(504),
    "a GGUF file": b"GGUF\3\0\0\0" + bytes(16),
    "perhaps an old torch.save file": pickle.dumps(ARRAYS, 2),
    "a file of another kind": b"some text",
}


def refusal(path: Path, data: bytes) -> ckptfmt.CkptError:
    path.write_bytes(data)
    with pytest.raises(ckptfmt.NotACheckpointError) as raised:
        ckptfmt.open(path)
    assert raised.value.code == "not-a-checkpoint"
    assert raised.value.path == str(path)
    return raised.value


@pytest.mark.parametrize(("words", "data"), FILES.items(), ids=FILES)
def test_the_error_says_what_it_is(tmp_path: Path, words: str, data: bytes) -> None:  # [COM-005]
    assert words in str(refusal(tmp_path / "other", data))


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
