"""The memory of conversions is bounded, whatever the format: that of a few parts, and where a tensor can be decoded
only as a whole, of one tensor. Each in a process of its own, which measures its private memory."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import foreign_writers
import h5py
import numpy as np
import pytest
import tensor_bundles
import zarr

import ckptfmt

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
ALLOWED = 100  # MiB, of 240 MB in tensors of 12 MB
TORCH = 150  # MiB of torch itself, which is imported to write its files
TENSORSTORE = 60  # MiB of TensorStore itself, with its threads

MEMORY = """
import sys, numpy as np, ckptfmt
from pathlib import Path
def private():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) >> 10
import threading, time
peak, going = 0, True
def watch():
    global peak
    while going:
        peak = max(peak, private())
        time.sleep(0.002)
before = private()
thread = threading.Thread(target=watch, daemon=True)
thread.start()
ckptfmt.convert(sys.argv[1], sys.argv[2], target_format=sys.argv[3] or None, durable=False, allow_loss=True)
going = False
thread.join()
print(peak - before)
"""


def peak(source: Path, target: Path, format: str = "") -> int:
    """MiB of private memory that a conversion takes at most."""
    command = [sys.executable, "-c", MEMORY, str(source), str(target), format]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@cache
def arrays() -> dict[str, Any]:
    rows = np.random.default_rng(1).standard_normal((100, 1000)).astype(np.float32)
    return {f"t{i}": np.tile(rows + i, (30, 1)) for i in range(20)}


@pytest.fixture(scope="module", autouse=True)
def arrays_go() -> Iterator[None]:
    yield
    arrays.cache_clear()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose chunks are decompressed as they are read."""
    path = tmp_path_factory.mktemp("source") / "source"
    ckptfmt.save(path, arrays(), compression="zstd", durable=False)
    return path


@pytest.mark.parametrize("suffix", ["safetensors", "npz", "h5", "msgpack", "pt", "ckpt"])
def test_both_ways(tmp_path: Path, source: Path, suffix: str) -> None:
    if suffix == "pt":
        pytest.importorskip("torch")
    target = tmp_path / f"x.{suffix}"
    assert peak(source, target) < ALLOWED + (TORCH if suffix == "pt" else 0)
    assert peak(target, tmp_path / "back.ckpt") < ALLOWED


@pytest.mark.parametrize("format", ["torch-dcp", "orbax", "zarr"])
@pytest.mark.slow
def test_into_directories(tmp_path: Path, source: Path, format: str) -> None:
    """Beside what their libraries take themselves, which are imported to write."""
    library = {"torch-dcp": TORCH, "orbax": TORCH + TENSORSTORE, "zarr": 0}[format]
    pytest.importorskip({"torch-dcp": "torch", "orbax": "orbax.checkpoint", "zarr": "zarr"}[format])
    target = tmp_path / "target"
    assert peak(source, target, format) < ALLOWED + library
    if format != "orbax":  # which `test_from_orbax` reads
        assert peak(target, tmp_path / "back.ckpt") < ALLOWED


def npz(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=0) as archive:  # decompressed all the same
        for name, array in arrays().items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.save(file, array)


def hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name, array in arrays().items():
            file.create_dataset(name, data=array, compression="lzf", chunks=(250, 1000))


def zarr_group(path: Path) -> None:
    group = zarr.open_group(path, mode="w")
    for name, array in arrays().items():
        group.create_array(name, data=array, chunks=(256, 1000))


def gguf(path: Path) -> None:
    writer = pytest.importorskip("gguf").GGUFWriter(path, "llama")
    for name, array in arrays().items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def onnx(path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in arrays().items()]
    onnx.save_model(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors)), path)


def keras(path: Path) -> None:
    weights = path.with_suffix(".h5")
    with h5py.File(weights, "w") as file:
        file.update(arrays())
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=0) as archive:
        archive.write(weights, "model.weights.h5")


def tensorflow(path: Path) -> None:
    tensor_bundles.save(path, arrays())


def torch_dcp(path: Path) -> None:
    torch = pytest.importorskip("torch")
    import torch.distributed.checkpoint as dcp

    dcp.save({name: torch.from_numpy(array) for name, array in arrays().items()}, checkpoint_id=path, no_dist=True)


def torch_legacy(path: Path) -> None:
    torch = pytest.importorskip("torch")
    tree = {name: torch.from_numpy(array) for name, array in arrays().items()}
    torch.save(tree, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize(
    "write", [npz, hdf5, zarr_group, gguf, onnx, keras, tensorflow, torch_dcp, torch_legacy], ids=lambda f: f.__name__
)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_from_files_of_others(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "source")
    assert peak(tmp_path / "source", tmp_path / "x.ckpt") < ALLOWED
    found = ckptfmt.load(tmp_path / "x.ckpt")
    for name, array in arrays().items():
        assert np.array_equal(found[name], array)


@pytest.mark.parametrize("name", foreign_writers.ORBAX_KINDS)
@pytest.mark.slow
def test_from_orbax(tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / "tree.npz", **arrays())
    command = [sys.executable, "-W", "ignore", foreign_writers.__file__, "orbax-tree", str(tmp_path), name]
    subprocess.run(command, check=True, capture_output=True)
    assert peak(tmp_path / name, tmp_path / "x.ckpt") < ALLOWED + TENSORSTORE
    found = ckptfmt.load(tmp_path / "x.ckpt")
    assert all(np.array_equal(found[name], array) for name, array in arrays().items())
