"""Conversion from and to other formats, against files that their own libraries wrote and read in the same test."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign_writers
import h5py
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
import zarr
from conversions import CORE, exported, imported, in_order, one_of_each
from foreign_writers import MATRIX
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ckptfmt
from ckptfmt.conversion import FORMATS, open_source
from ckptfmt.testing.equality import assert_same_tree
from ckptfmt.testing.strategies import trees

# ---- safetensors


def test_safetensors_both_ways(tmp_path: Path) -> None:
    arrays = one_of_each([*CORE, "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64"])
    written = {name: array for name, array in arrays.items() if not name.startswith(("float8", "complex"))}
    safetensors.numpy.save_file(written, tmp_path / "x.safetensors", metadata={"format": "np"})
    tree, metadata = imported(tmp_path / "x.safetensors")
    assert metadata == {"format": "np"}
    assert_same_tree({name: tree[name] for name in written}, written)

    assert not exported(arrays, tmp_path / "y.safetensors", {"k": "v"}).losses
    with safetensors.safe_open(tmp_path / "y.safetensors", "np") as file:
        assert file.metadata() == {"k": "v"}
        assert set(file.keys()) == set(arrays)
        for name in written:
            assert_same_tree(file.get_tensor(name), arrays[name])
    assert_same_tree(imported(tmp_path / "y.safetensors")[0], {name: arrays[name] for name in sorted_by_width(arrays)})


def sorted_by_width(arrays: dict[str, Any]) -> list[str]:
    return sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))


def test_safetensors_of_packed_elements(tmp_path: Path) -> None:
    header = {"a": {"dtype": "F4", "shape": [2, 4], "data_offsets": [0, 4]}}
    write_safetensors(tmp_path / "x.safetensors", header, bytes([0x21, 0x43, 0x65, 0x07]))
    tree, _ = imported(tmp_path / "x.safetensors")
    assert tree["a"].dtype == ml_dtypes.float4_e2m1fn
    assert tree["a"].view(np.uint8).tolist() == [[1, 2, 3, 4], [5, 6, 7, 0]]


def write_safetensors(path: Path, header: dict[str, Any], data: bytes) -> None:
    raw = json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)


@pytest.mark.parametrize("given_path", ["index", "folder"])
def test_safetensors_with_an_index(tmp_path: Path, given_path: str) -> None:
    shards = {"one.safetensors": {"a": MATRIX}, "two.safetensors": {"b": MATRIX + 1, "c": MATRIX[0]}}
    for name, arrays in shards.items():
        safetensors.numpy.save_file(arrays, tmp_path / name)
    index = {"metadata": {}, "weight_map": {"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"}}
    path = tmp_path / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    (tmp_path / "config.json").write_text("{}")
    tree, _ = imported(path if given_path == "index" else tmp_path)
    assert_same_tree(tree, {"a": MATRIX, "b": MATRIX + 1, "c": MATRIX[0]})


@given(tree=trees(max_leaves=6))
def test_any_tree_can_become_safetensors_with_its_losses(scratch: Callable[[], Any], tree: Any) -> None:
    with scratch() as folder:
        ckptfmt.save(f"{folder}/x.ckpt", tree, durable=False)
        try:
            report = ckptfmt.convert(f"{folder}/x.ckpt", f"{folder}/x.safetensors", allow_loss=True, durable=False)
        except ckptfmt.CkptError as error:
            assert error.code == "name-collision"
            return
        arrays = safetensors.numpy.load_file(f"{folder}/x.safetensors") if _is_loadable(folder) else {}
        assert not arrays or len(arrays) == report.tensors
        if not report.losses:
            assert not ckptfmt.diff(f"{folder}/x.ckpt", f"{folder}/x.safetensors").changed


def _is_loadable(folder: str) -> bool:
    """The library's NumPy face lacks some dtypes that the format has."""
    with safetensors.safe_open(f"{folder}/x.safetensors", "np") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    return not kinds & {"F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "C64", "F4", "BF16"}


# ---- NumPy


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_both_ways(tmp_path: Path, save: Any) -> None:
    arrays = one_of_each([*CORE, "complex64", "complex128"])
    arrays |= {
        "fortran": np.asfortranarray(MATRIX),
        "big": MATRIX.astype(">f4"),
        "day": np.array(["2020-02-29"], "M8[D]"),
    }
    save(tmp_path / "x.npz", **arrays)
    tree, _ = imported(tmp_path / "x.npz")
    assert_same_tree(tree, arrays)
    assert not exported(tree, tmp_path / "y.npz").losses
    with np.load(tmp_path / "y.npz") as file:
        assert_same_tree(dict(file), tree)


# ---- HDF5


def test_hdf5_both_ways(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w", track_order=True) as file:
        file.attrs["backend"] = "jax"
        group = file.create_group("layers/dense/vars")
        group.attrs["names"] = ["kernel", "bias"]
        group["0"] = MATRIX
        group.create_dataset("1", data=MATRIX, chunks=(2, 2), compression="gzip", shuffle=True)
        group.create_dataset("2", data=MATRIX.astype(">f8"))
        file["tied"] = group["0"]
        file["soft"] = h5py.SoftLink("/layers/dense/vars/0")
        file["text"] = "words"
        file["flags"] = np.array([True, False])
        file["scalar"] = np.float32(2)
    tree, metadata = imported(tmp_path / "x.h5")
    expected = {"0": MATRIX, "1": MATRIX.copy(), "2": MATRIX.astype("f8")}
    assert_same_tree(tree["layers"]["dense"]["vars"], expected)
    assert tree["tied"] is tree["soft"] is tree["layers"]["dense"]["vars"]["0"]
    assert (tree["text"], tree["flags"].tolist(), tree["scalar"]) == ("words", [True, False], 2)
    attributes = {"": {"backend": "jax"}, "layers/dense/vars": {"names": ["kernel", "bias"]}}
    assert metadata == {"hdf5.attributes": attributes}

    del tree["text"]
    assert not exported(tree, tmp_path / "y.h5").losses
    with h5py.File(tmp_path / "y.h5") as file:
        assert file["tied"] == file["layers/dense/vars/0"]
        assert_same_tree(file["layers/dense/vars/1"][()], MATRIX)
    assert_same_tree(imported(tmp_path / "y.h5")[0], tree)


# ---- Zarr


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr(tmp_path: Path, zarr_format: Any) -> None:
    root = zarr.open_group(tmp_path / "x", mode="w", zarr_format=zarr_format)
    root.attrs["filters"] = "of mine"
    array = root.create_array("a/b", data=MATRIX, chunks=(2, 3))
    array.attrs["unit"] = "m"
    root.create_array("scalar", data=np.array(5))
    if zarr_format == 3:
        root.create_array("sharded", data=MATRIX, chunks=(1, 2), shards=(2, 4))
    tree, metadata = imported(tmp_path / "x")
    assert_same_tree((tree["a"]["b"], tree["scalar"]), (MATRIX, np.array(5)))
    assert metadata == {"zarr.attributes": {"": {"filters": "of mine"}, "a/b": {"unit": "m"}}}
    assert ("sharded" in tree) == (zarr_format == 3)


def test_layout_loose_is_zarr_too(tmp_path: Path) -> None:
    exported({"a": MATRIX}, tmp_path / "x.zarr")
    ckptfmt.convert(tmp_path / "exported.ckpt", tmp_path / "x", layout="loose")
    assert_same_tree(zarr.open_group(tmp_path / "x/tensors", mode="r")["a"][...], MATRIX)
    assert_same_tree(imported(tmp_path / "x/tensors")[0], {"a": MATRIX})


# ---- GGUF


def test_gguf(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_uint32("layers", 7)
    writer.add_array("tokens", ["a", "b"])
    writer.add_tensor("plain", MATRIX)
    writer.add_tensor("half", MATRIX.astype("f2"))
    kind = gguf.GGMLQuantizationType.Q8_0
    blocks = gguf.quants.quantize(np.linspace(-1, 1, 128, dtype="f4").reshape(2, 64), kind)
    writer.add_tensor("quantised", blocks, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tree, metadata = imported(tmp_path / "x.gguf")
    assert_same_tree(tree, {"plain": MATRIX, "half": MATRIX.astype("f2"), "quantised": blocks})
    assert metadata["gguf.metadata"]["tokens"] == ["a", "b"]
    assert metadata["gguf.quantised"] == {"quantised": {"type": "Q8_0", "shape": [2, 64]}}


def test_gguf_knows_every_type_of_its_library() -> None:
    gguf = pytest.importorskip("gguf")
    from ckptfmt.conversion.formats.gguf import PLAIN, QUANTISED_TYPES

    sizes = {int(kind): size for kind, size in gguf.GGML_QUANT_SIZES.items()}
    assert set(PLAIN) | set(QUANTISED_TYPES) >= set(sizes), "and those of later versions"
    known = {kind: (row.elements, row.bytes) for kind, row in QUANTISED_TYPES.items() if kind in sizes}
    assert known == {kind: size for kind, size in sizes.items() if kind not in PLAIN}


# ---- flax and Orbax


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folders of files that a framework wrote."""
    folders: dict[str, Path] = {}

    def write(kind: str) -> Path:
        if kind not in folders:
            folder = folders[kind] = tmp_path_factory.mktemp(kind)
            run_writers(kind, folder)
        return folders[kind]

    return write


def run_writers(*arguments: object) -> None:
    command = [sys.executable, "-W", "ignore", foreign_writers.__file__, *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.mark.parametrize("name", ["flax", "flax-chunked"])
def test_flax_both_ways(written: Any, name: str, tmp_path: Path) -> None:
    pytest.importorskip("flax")
    tree, _ = imported(written("flax") / f"{name}.msgpack")
    expected = {
        "params": {"w": MATRIX, "b": np.ones(3, ml_dtypes.bfloat16)},
        "layers": {"0": MATRIX[0], "1": {"0": MATRIX[1]}},
        "step": 3,
        "lr": 0.5,
        "z": 1 + 2j,
        "scale": np.float32(2),
        "name": "x",
        "none": None,
    }
    assert_same_tree(in_order(tree, expected), expected)
    tree = {"params": expected["params"], "scale": np.float32(2), "step": 3, "name": "x"}
    assert not exported(tree, tmp_path / "y.msgpack").losses
    run_writers("flax-read", tmp_path / "y.msgpack", tmp_path / "leaves.npz")
    with np.load(tmp_path / "leaves.npz") as leaves:
        assert {name: leaf.tolist() for name, leaf in leaves.items()} == {
            "params/w": MATRIX.tolist(),
            "params/b": [1, 1, 1],
            "scale": 2,
            "step": 3,
        }


def test_flax_cuts_large_arrays_as_flax_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ckptfmt.conversion.formats import flax

    monkeypatch.setattr(flax, "CHUNK", 16)
    big = np.arange(11, dtype=np.int64).reshape(11, 1)
    exported({"big": big, "small": np.zeros(2)}, tmp_path / "y.msgpack")
    with open_source(str(tmp_path / "y.msgpack")) as source:
        assert source.tree["big"][(slice(3, 7),)].reshape(-1).tolist() == [3, 4, 5, 6]
    run_writers("flax-read", tmp_path / "y.msgpack", tmp_path / "leaves.npz")
    with np.load(tmp_path / "leaves.npz") as leaves:
        assert leaves["big"].tolist() == big.tolist()


@pytest.mark.parametrize("name", [*foreign_writers.ORBAX_KINDS, "standard"])
def test_orbax(written: Any, name: str) -> None:
    pytest.importorskip("orbax.checkpoint")
    tree, metadata = imported(written("orbax") / f"orbax-{name}")
    expected = {
        "params": {"w": MATRIX, "b": np.ones(3, ml_dtypes.bfloat16)},
        "layers": [MATRIX[0], [MATRIX[1]]],
        "step": 3,
        "lr": 2.5,
        "empty": {},
        "host": MATRIX.copy(),
    }
    assert_same_tree(in_order(tree, expected), expected)
    assert metadata is None


DAMAGED_FIXTURES = ("missing_pytree_data_dir_d", "missing_pytree_data_file_manifest", "added/dummy")


def orbax_fixtures() -> list[Path]:
    """The directories in Orbax's wheel that hold a tree's metadata."""
    try:
        import importlib.util

        spec = importlib.util.find_spec("orbax.checkpoint")
    except ModuleNotFoundError:
        return []
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent / "experimental/v1/_src/testing/compatibility/checkpoints"
    return sorted({path.parent for path in root.rglob("_METADATA")})


def test_old_fixtures_of_orbax() -> None:
    fixtures = orbax_fixtures()
    if not fixtures:
        pytest.skip("orbax-checkpoint is not installed")
    opened = 0
    for path in fixtures:
        if any(damage in str(path) for damage in DAMAGED_FIXTURES):
            with pytest.raises(ckptfmt.CkptError) as raised:
                open_source(str(path))
            assert raised.value.code == "bad-source"
            continue
        with open_source(str(path)) as source:
            (first, *_) = (leaf for leaf in source.tree.values() if hasattr(leaf, "read"))
            assert first[()].tolist() == list(range(first.shape[0]))
            opened += 1
    assert opened > 20


def test_orbax_is_read_without_jax(written: Any) -> None:
    pytest.importorskip("orbax.checkpoint")
    path = written("orbax") / "orbax-standard"
    code = f"""
import sys, ckptfmt
ckptfmt.convert({str(path)!r}, {str(path.parent / "quiet.ckpt")!r})
assert not {{"jax", "orbax", "torch", "flax"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- the whole


@given(array=hnp.arrays(st.sampled_from(CORE), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)))
def test_a_chain_through_every_format_keeps_every_bit(scratch: Callable[[], Any], array: Any) -> None:
    with scratch() as folder:
        ckptfmt.save(f"{folder}/0.ckpt", {"a": array, "b.c": array[..., None]}, durable=False)
        path = f"{folder}/0.ckpt"
        for number, suffix in enumerate(("safetensors", "npz", "h5", "msgpack", "ckpt")):
            target = f"{folder}/{number + 1}.{suffix}"
            ckptfmt.convert(path, target, durable=False)
            path = target
        assert ckptfmt.diff(f"{folder}/0.ckpt", path).equal
        assert_same_tree(ckptfmt.load(path)["a"], array)


def test_formats_are_told_by_their_bytes(tmp_path: Path) -> None:
    """Not by their names."""
    safetensors.numpy.save_file({"a": MATRIX}, tmp_path / "x.h5")
    np.savez(tmp_path / "y.npz", a=MATRIX)
    (tmp_path / "y.npz").rename(tmp_path / "y.pt")
    for name, expected in (("x.h5", "safetensors"), ("y.pt", "npz")):
        with open_source(str(tmp_path / name)) as source:
            assert source.format == expected


def test_every_format_is_in_the_documents() -> None:
    text = (Path(__file__).parent.parent / "docs/convert.md").read_text()
    for format in FORMATS.values():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{format.name}` |"))
        assert all(f"`{suffix}`" in row for suffix in format.suffixes)
        assert ("write" in row) == format.writable
        assert format.extra is None or f"`{format.extra}`" in row
