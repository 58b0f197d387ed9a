"""The tensors in the hands of stock tools: zarr-python, TensorStore, zipfile and unzip read every one, without a
warning and without our code. [ZARR-001] [ZARR-012] [ZARR-015] [PACK-007] [COM-002]"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tensorstore
import zarr
from damage import LAYOUTS, flipped, small_chunks, zones
from inside import inside
from zarr.storage import LocalStore, ZipStore

import ckptfmt
from ckptfmt.format.dtypes import DTYPES
from ckptfmt.testing import equal_trees
from ckptfmt.testing.strategies import ODD_KEYS, filled

PAGE = Path(__file__).parents[1] / "docs/zarr.md"
each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def many_tensors() -> dict[Any, Any]:
    """Every dtype; 0-d, empty, nested and oddly named tensors; and compressed ones of several chunks."""
    return {
        "dtypes": {name: filled(row.numpy, (3, 5), 7) for name, row in DTYPES.items()},
        "scalars": [filled(row.numpy, (), 3) for row in DTYPES.values()],
        "empty": [np.zeros((0,)), np.zeros((3, 0, 2), np.int8), np.zeros((0, 3), ml_dtypes.int4)],
        "times": np.array(["2020-01-01", "NaT"], "M8[s]"),
        "odd": {
            key: np.array([i], np.uint8) for i, key in enumerate((*ODD_KEYS, "line\nfeed", "ü" * 20, 0, -1, 10**30))
        },
        "deep": {str(i): {"x": [(np.arange(i),)]} for i in range(4)},
        "zstd": np.arange(20_000).reshape(100, 200),
        "gzip": np.arange(3000, dtype=np.float32),
        "blosc": np.arange(5000, dtype=np.int16).reshape(50, 100),
        "bfloat16 blosc": np.arange(5000).astype(ml_dtypes.bfloat16),
    }


RULES = {"zstd": "zstd", "gzip": "gzip", "*blosc": "blosc", "**": None}


def stored_form(array: Any) -> Any:
    """The storage elements of an array, worked out by hand from section 3. [DTYPE-003] [DTYPE-004]"""
    if array.dtype.kind in "mM":
        return array.view(np.int64)
    row = next(row for row in DTYPES.values() if row.numpy == array.dtype)
    if row.per == 1:
        return array if row.is_core else array.view(row.storage)
    bits = array.view(np.uint8) & (2**row.bits - 1)
    if not array.shape:
        return bits
    padded = np.zeros((*array.shape[:-1], -(-array.shape[-1] // row.per) * row.per), np.uint8)
    padded[..., : array.shape[-1]] = bits
    shifts = np.arange(row.per, dtype=np.uint8) * np.uint8(row.bits)
    cells = padded.reshape(*array.shape[:-1], padded.shape[-1] // row.per, row.per)
    return np.bitwise_or.reduce(cells << shifts, axis=-1)


def save_many(path: Path, layout: str) -> dict[str, Any]:
    """Save `many_tensors`, and give what a stock reader must find: node names to storage elements."""
    tree = many_tensors()
    with small_chunks(block=1 << 20, chunk=10_000):
        ckptfmt.save(path, tree, layout=layout, compression=RULES, durable=False)
    expected = {}
    with ckptfmt.open(path) as checkpoint:
        for keys, tensor in checkpoint.tensors.items():
            array = tree
            for key in keys:
                array = array[key]
            expected[tensor.name] = np.asarray(stored_form(array))
        assert checkpoint["zstd"].chunks > 5
    return expected


def archive_of(path: Path) -> Path:
    """The ZIP that holds the whole hierarchy: the file, or its only pack. [LAY-005]"""
    return path if path.is_file() else path / "packs" / "00000.zip"


@contextmanager
def stock_group(path: Path, layout: str) -> Iterator[zarr.Group]:
    """The hierarchy as zarr-python opens it."""
    store = LocalStore(path, read_only=True) if layout == "loose" else ZipStore(archive_of(path), mode="r")
    try:
        group = zarr.open_group(store, path="tensors", mode="r")
        assert isinstance(group, zarr.Group)
        yield group
    finally:
        store.close()


# ---- zarr-python


@each_layout
def test_typed_zarr(tmp_path: Path, layout: str) -> None:
    """zarr-python's own arrays, of logical dtypes and shapes, in whole and in parts."""
    path = tmp_path / "model.ckpt"
    save_many(path, layout)
    with ckptfmt.open(path) as checkpoint:
        group = checkpoint.typed_zarr
        assert isinstance(group, zarr.Group)
        assert dict(group.members(max_depth=None)).keys() == dict(checkpoint.zarr.members(max_depth=None)).keys()  # type: ignore[union-attr]
        for tensor in checkpoint.tensors.values():
            array = group[tensor.name]
            assert isinstance(array, zarr.Array)
            assert (array.shape, array.dtype) == (tensor.shape, tensor.stored_dtype)
            expected = inside(checkpoint).fetcher.tensors([tensor.index], True, {})[tensor.index]
            assert equal_trees(np.asarray(array[...]), expected), tensor.name
            if array.ndim == 2:
                assert equal_trees(np.asarray(array[1:3, ::2]), expected[1:3, ::2]), tensor.name


def test_typed_zarr_of_one_tensor(tmp_path: Path) -> None:
    w = np.arange(21).reshape(3, 7).astype(ml_dtypes.int4)
    ckptfmt.save(tmp_path / "w", w)
    with ckptfmt.open(tmp_path / "w") as checkpoint:
        array = checkpoint.typed_zarr
        assert equal_trees(np.asarray(array[:]), w)  # type: ignore[index]


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/zarr.md as one program, in an empty folder, and its lines for other frameworks."""
    torch, jnp = pytest.importorskip("torch"), pytest.importorskip("jax.numpy")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {"torch": torch, "jnp": jnp}
    exec(compile("\n".join(blocks), "zarr.md", "exec"), names)
    w, raw = names["w"], names["raw"]
    lines = re.findall(r"^values = (.*?)  # (\w+)", PAGE.read_text(), re.MULTILINE)
    assert [framework for _, framework in lines] == ["NumPy", "torch", "JAX"]
    for line, framework in lines:
        values = eval(line, names)
        assert "bfloat16" in str(values.dtype), framework
        assert values.tolist() == w.tolist(), framework
    float8 = np.array([1.5, -448]).astype(ml_dtypes.float8_e4m3fn)
    assert torch.from_numpy(float8.view(np.uint8)).view(torch.float8_e4m3fn).tolist() == [1.5, -448]
    node = shutil.which("node", path=os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))
    if node is not None:  # zarrita.js gives raw.data as a Uint16Array
        line = re.findall(r"^```js\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)[0]
        raw_data = f"const raw = {{data: Uint16Array.of({', '.join(map(str, raw.ravel()))})}};"
        program = f"{raw_data}\n{line}\nconsole.log(JSON.stringify(Array.from(values, String)))"
        said = subprocess.run([node, "-e", program], capture_output=True, text=True, check=True).stdout
        assert json.loads(said) == ["1", "-2.5", "Infinity", "0"]


def test_typed_zarr_is_verified(tmp_path: Path) -> None:
    w = np.arange(100).astype(ml_dtypes.bfloat16)
    ckptfmt.save(tmp_path / "w", w)
    data = bytearray((tmp_path / "w").read_bytes())
    data[data.index(w.tobytes())] ^= 1
    (tmp_path / "w").write_bytes(data)
    with ckptfmt.open(tmp_path / "w") as checkpoint, pytest.raises(ckptfmt.CorruptError) as caught:
        checkpoint.typed_zarr[:]  # type: ignore[index]
    assert caught.value.code == "block-digest"


@each_layout
def test_zarr_reads_every_tensor(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    expected = save_many(path, layout)
    with stock_group(path, layout) as group:
        for name, elements in expected.items():
            array = group[name]
            assert isinstance(array, zarr.Array)
            assert equal_trees(np.asarray(array[...]), elements), name


@each_layout
def test_zarr_lists_the_hierarchy(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    expected = save_many(path, layout)
    with stock_group(path, layout) as group:
        members = dict(group.members(max_depth=None))
        assert {name for name, node in members.items() if isinstance(node, zarr.Array)} == set(expected)
        groups = {name for name, node in members.items() if isinstance(node, zarr.Group)}
        assert groups == {name.rsplit("/", i)[0] for name in expected for i in range(1, name.count("/") + 1)}
        assert "bfloat16" in str(group.tree())
        assert group.attrs["ckptfmt"] == {"format": [1, 2]}
        assert group["dtypes/bfloat16"].attrs["ckptfmt"] == {"dtype": "bfloat16", "shape": [3, 5]}
        assert group["dtypes/int4"].attrs["ckptfmt"] == {"dtype": "int4", "shape": [3, 5]}
        assert dict(group["dtypes/float32"].attrs) == {}


@each_layout
def test_zarr_reads_parts(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    expected = save_many(path, layout)["zstd"]
    with stock_group(path, layout) as group:
        array = group["zstd"]
        assert isinstance(array, zarr.Array)
        for index in ((0, 0), slice(3, 70), (slice(None, None, 7), slice(-3, None))):
            assert np.array_equal(np.asarray(array[index]), expected[index])


@each_layout
def test_a_tree_that_is_one_tensor(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, np.arange(6.0).reshape(2, 3), layout=layout, durable=False)
    store = LocalStore(path, read_only=True) if layout == "loose" else ZipStore(archive_of(path), mode="r")
    array = zarr.open_array(store, path="tensors", mode="r")
    assert np.array_equal(np.asarray(array[...]), np.arange(6.0).reshape(2, 3))
    assert array.attrs["ckptfmt"] == {"format": [1, 0]}
    store.close()


# ---- TensorStore


@each_layout
def test_tensorstore_reads_every_tensor(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    expected = save_many(path, layout)
    context = tensorstore.Context({"cache_pool": {"total_bytes_limit": 1 << 20}})
    for name, elements in expected.items():
        if layout == "loose":
            store = {"driver": "file", "path": f"{path}/tensors/{name}/"}
        else:
            archive = {"driver": "file", "path": str(archive_of(path))}
            store = {"driver": "zip", "base": archive, "path": f"tensors/{name}/"}
        array = tensorstore.open({"driver": "zarr3", "kvstore": store}, context=context, read=True, open=True).result()
        assert equal_trees(np.asarray(array.read().result()), elements), name


# ---- ZIP tools


def test_zipfile(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    expected = save_many(path, "file")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert archive.comment.startswith(b"ckptfmt/1.2 file manifest=")
        assert path.read_bytes().endswith(archive.comment)
        names = archive.namelist()
        assert len(set(names)) == len(names)
        assert names[-1] == "manifest.msgpack"
        assert {f"tensors/{name}/zarr.json" for name in expected} < set(names)
        assert all(member.compress_type == zipfile.ZIP_STORED for member in archive.infolist())
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        archive.extractall(tmp_path / "extracted")
    with stock_group(tmp_path / "extracted", "loose") as group:  # what was packed is what a directory would be
        assert np.array_equal(np.asarray(group["gzip"][...]), expected["gzip"])  # type: ignore[index]


@pytest.mark.skipif(shutil.which("unzip") is None, reason="unzip is not installed")
def test_unzip(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    save_many(path, "file")
    done = subprocess.run(["unzip", "-t", path], capture_output=True, text=True, check=True)
    assert "No errors detected" in done.stdout
    assert done.stderr == ""
    shown = subprocess.run(["unzip", "-z", path], capture_output=True, text=True, check=True).stdout
    assert path.read_bytes().split(b"ckptfmt/1.2 ")[-1].decode() in shown


def test_damage_is_seen_by_zip_tools(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, {"x": np.zeros(100_000)}, durable=False)
    (zone,) = [zone for zone in zones(path) if zone.where == "block"]
    with flipped(path, zone.start + 5000, 3), zipfile.ZipFile(path) as archive:
        assert archive.testzip() == "tensors/x/c/0"


# ---- zarr over our own reader


@each_layout
def test_our_store_gives_what_stock_stores_give(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    expected = save_many(path, layout)
    with ckptfmt.open(path) as checkpoint, stock_group(path, layout) as stock:
        group = checkpoint.zarr
        assert isinstance(group, zarr.Group)
        for name, elements in expected.items():
            array = group[name]
            assert isinstance(array, zarr.Array)
            assert equal_trees(np.asarray(array[...]), elements)
            assert array.metadata == stock[name].metadata
        ours, theirs = (sorted(dict(one.members(max_depth=None))) for one in (group, stock))
        assert ours == theirs
        assert np.array_equal(np.asarray(group["zstd"][5:9, ::3]), expected["zstd"][5:9, ::3])  # type: ignore[index]


@each_layout
def test_our_store_is_read_only(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, {"x": np.arange(3)}, layout=layout, durable=False)
    with ckptfmt.open(path) as checkpoint:
        group: Any = checkpoint.zarr
        for write in (
            lambda: group["x"].__setitem__(0, 5),
            lambda: group.create_array("y", shape=3, dtype="i4"),
            lambda: group.__delitem__("x"),
            lambda: group.attrs.update(a=1),
        ):
            with pytest.raises((ValueError, NotImplementedError)):
                write()
    assert ckptfmt.verify(path).ok


@each_layout
def test_our_store_verifies(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, {"x": np.arange(1000), "y": np.arange(1000)}, layout=layout, durable=False)
    (zone,) = [zone for zone in zones(path) if zone.tensor == ("x",)]
    with flipped(zone.file, zone.start, 0):
        with ckptfmt.open(path) as checkpoint:
            group: Any = checkpoint.zarr
            with pytest.raises(ckptfmt.CorruptError) as caught:
                group["x"][3]
            assert (caught.value.code, caught.value.tensor) == ("block-digest", "x")
            assert np.array_equal(group["y"][...], np.arange(1000))
        with ckptfmt.open(path, verify=False) as checkpoint:
            group = checkpoint.zarr
            assert group["x"][0] == 1


@each_layout
def test_our_store_of_one_tensor(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "model.ckpt"
    ckptfmt.save(path, np.arange(6.0), layout=layout, durable=False)
    with ckptfmt.open(path) as checkpoint:
        array = checkpoint.zarr
        assert isinstance(array, zarr.Array)
        assert np.array_equal(np.asarray(array[2:4]), [2, 3])
