"""One tensor that cannot be read: it is named, and the others are there for whoever allows its loss or asks for
others."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensor_bundles
import zarr
from click.testing import CliRunner

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.testing import assert_same_tree

KEPT = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "z": np.ones(2, np.int8)}
WIDE = np.ones(2, np.longdouble)


def of_numpy(path: Path) -> None:
    np.savez(path, **KEPT, odd=WIDE)
    path.with_name(f"{path.name}.npz").rename(path)


def of_hdf5(path: Path) -> None:
    with h5py.File(path, "w") as file:
        for name, array in {**KEPT, "odd": WIDE}.items():
            file[name] = array
        file["odd"].attrs["unit"] = "m"


def of_zarr(path: Path) -> None:
    group = zarr.open_group(path, mode="w")
    for name, array in {**KEPT, "odd": KEPT["w"]}.items():
        group.create_array(name, data=array, attributes={"unit": "m"})
    about = json.loads((path / "odd" / "zarr.json").read_text())
    (path / "odd" / "zarr.json").write_text(json.dumps(about | {"data_type": "float1024"}))


def of_onnx(path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in {**KEPT, "odd": KEPT["w"]}.items()]
    tensors[-1].data_type = 99
    onnx.save_model(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors)), path)


def of_tflite(path: Path) -> None:
    tflite = pytest.importorskip("tflite_models")
    kinds = {"w": 0, "z": 9, "odd": 77}
    tensors = [tflite.of(name, {**KEPT, "odd": KEPT["w"]}[name], kind) for name, kind in kinds.items()]
    path.write_bytes(tflite.model((None, tensors)))


def of_tensorflow(path: Path) -> None:
    tensor_bundles.save(path, {**KEPT, "odd": KEPT["w"]}, unknown=("odd",))


WRITERS: dict[str, Callable[[Path], None]] = {
    **{
        "npz": of_numpy,
        "hdf5": of_hdf5,
        "zarr": of_zarr,
        "onnx": of_onnx,
        "tflite": of_tflite,
        "tensorflow": of_tensorflow,
    }
}


@pytest.mark.filterwarnings("ignore")  # of what the libraries import
@pytest.mark.parametrize("name", WRITERS)
def test_the_others_can_be_read(tmp_path: Path, name: str) -> None:
    source, target = tmp_path / "model", tmp_path / "x.ckpt"
    WRITERS[name](source)
    with pytest.raises(ckptfmt.InputError, match=r"value of 'odd': .*: it is left out") as caught:
        ckptfmt.convert(source, target)
    assert caught.value.code == "lossy"
    assert not target.exists()
    report = ckptfmt.convert(source, target, select=["w", "z"])
    assert report.losses == ()
    assert_same_tree(ckptfmt.load(target), KEPT)
    report = ckptfmt.convert(source, target, allow_loss="value", overwrite=True)
    assert [(loss.kind, loss.path) for loss in report.losses] == [("value", "odd")]
    assert_same_tree(ckptfmt.load(target), KEPT)
    assert "odd" not in json.dumps(ckptfmt.open(target).metadata or {})
    shown = CliRunner().invoke(cli, ["inspect", str(source)])
    assert shown.exit_code == 0
    assert "a conversion would lose: value of 'odd'" in shown.output
    assert [loss.path for loss in ckptfmt.diff(source, target).not_compared] == ["odd"]


def test_arrays_of_objects_are_refused_as_a_whole(tmp_path: Path) -> None:
    """They are pickles, which are there to be run."""
    np.savez(tmp_path / "x.npz", w=KEPT["w"], odd=np.array([{}], object))
    with pytest.raises(ckptfmt.CkptError) as caught:
        ckptfmt.convert(tmp_path / "x.npz", tmp_path / "x.ckpt", select="w")
    assert caught.value.code == "unsafe-source"


def test_a_damaged_one_is_no_loss(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("w.npy", b"\x93NUMPY nothing")
    with pytest.raises(ckptfmt.CkptError) as caught:
        ckptfmt.convert(tmp_path / "x.npz", tmp_path / "x.ckpt", allow_loss=True)
    assert caught.value.code == "bad-source"
