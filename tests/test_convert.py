"""Conversion from and to other formats, against files that their own libraries wrote and read in the same test."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from collections import OrderedDict
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
from foreign_writers import MATRIX
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ckptfmt
from ckptfmt.conversion import FORMATS, open_source
from ckptfmt.testing.equality import assert_same_tree
from ckptfmt.testing.strategies import trees

CORE = [
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
]


def imported(source: Path, **options: Any) -> tuple[Any, Any]:
    """The tree and the metadata of a source after its conversion."""
    target = source.parent / "imported.ckpt"
    report = ckptfmt.convert(source, target, overwrite=True, durable=False, **options)
    assert report.verified
    with ckptfmt.open(target) as checkpoint:
        assert checkpoint.verify().ok
        return checkpoint.load(), checkpoint.metadata


def exported(tree: Any, target: Path, metadata: Any = None, **options: Any) -> ckptfmt.ConvertReport:
    source = target.parent / "exported.ckpt"
    ckptfmt.save(source, tree, metadata=metadata, overwrite=True, durable=False)
    return ckptfmt.convert(source, target, durable=False, **options)


def one_of_each(dtypes: list[str]) -> dict[str, Any]:
    arrays = {name: (np.arange(6) % 2).astype(name).reshape(2, 3) for name in dtypes}
    return {**arrays, "scalar": np.array(7.5), "empty": np.zeros((0, 3), np.float32)}


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


def test_zarr_is_written_as_layout_loose(tmp_path: Path) -> None:
    with pytest.raises(ckptfmt.InputError, match="layout='loose'"):
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
    from ckptfmt.conversion.gguf import PLAIN, QUANTISED_TYPES

    sizes = {int(kind): size for kind, size in gguf.GGML_QUANT_SIZES.items()}
    assert set(PLAIN) | set(QUANTISED_TYPES) == set(sizes)
    assert {kind: (row.elements, row.bytes) for kind, row in QUANTISED_TYPES.items()} == {
        kind: size for kind, size in sizes.items() if kind not in PLAIN
    }


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


def in_order(tree: Any, like: Any) -> Any:
    """The same dicts with their keys in the order of another tree."""
    return {key: in_order(tree[key], item) for key, item in like.items()} if isinstance(like, dict) else tree


def test_flax_cuts_large_arrays_as_flax_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ckptfmt.conversion import flax

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
        "step": np.int64(3),
        "lr": np.float64(2.5),
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


# ---- torch


@pytest.fixture(scope="session")
def torch() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("torch")


def torch_tree(torch: Any) -> dict[str, Any]:
    model = torch.nn.Linear(3, 2)
    return {
        "model": model.state_dict(),
        "tied": model.weight,
        "transposed": torch.arange(6).reshape(2, 3).T,
        "bf16": torch.ones(3, dtype=torch.bfloat16),
        "f8": torch.ones(3).to(torch.float8_e4m3fn),
        "u16": torch.tensor([1, 2], dtype=torch.uint16),
        "c32": torch.ones(2, dtype=torch.complex32),
        "scalar": torch.tensor(4.5),
        "empty": torch.zeros(0, 3),
        "expanded": torch.ones(1).expand(4),
        "step": 7,
        "big": 1 << 80,
        "betas": (0.9, 0.95),
        "names": ["a", None, True, b"\x00\xff", 1 + 2j],
        5: "int key",
    }


@pytest.mark.filterwarnings("ignore:ComplexHalf support")
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_torch_both_ways(tmp_path: Path, torch: Any, zipped: bool) -> None:
    original = torch_tree(torch)
    torch.save(original, tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    tree, metadata = imported(tmp_path / "x.pt")
    assert list(tree) == list(original)
    assert type(tree["model"]) is OrderedDict
    assert tree["tied"] is tree["model"]["weight"]
    for name in ("transposed", "scalar", "empty", "expanded", "u16"):
        assert tree[name].tolist() == original[name].tolist()
    assert [tree[name].dtype.name for name in ("bf16", "f8", "c32")] == ["bfloat16", "float8_e4m3fn", "complex32"]
    assert all(tree[name] == original[name] for name in ("step", "big", "betas", "names", 5))
    assert metadata == {"torch.attributes": {"model": {"_metadata": OrderedDict({"": {"version": 1}})}}}

    report = ckptfmt.convert(tmp_path / "imported.ckpt", tmp_path / "y.pt", durable=False)
    assert not report.losses
    again = torch.load(tmp_path / "y.pt", weights_only=True)
    assert list(again) == list(original)
    assert again["model"]._metadata == original["model"]._metadata
    assert again["tied"].data_ptr() == again["model"]["weight"].data_ptr()
    for name, value in original.items():
        if isinstance(value, torch.Tensor):
            assert again[name].dtype == value.dtype
            assert again[name].shape == value.shape
            raw = [
                np.asarray(t.detach().contiguous().view(torch.uint8) if t.numel() and t.ndim else t.detach())
                for t in (again[name], value)
            ]
            assert raw[0].tobytes() == raw[1].tobytes()
        elif name != "model":
            assert again[name] == value


def test_torch_files_that_torch_makes_big_endian_or_compressed_differ(tmp_path: Path, torch: Any) -> None:
    """The member `byteorder` is believed: the same bytes read the other way round."""
    import zipfile

    torch.save({"a": torch.tensor([1, 256], dtype=torch.int16)}, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as archive, zipfile.ZipFile(tmp_path / "y.pt", "w") as other:
        for name in archive.namelist():
            other.writestr(name, b"big" if name.endswith("byteorder") else archive.read(name))
    assert imported(tmp_path / "x.pt")[0]["a"].tolist() == [1, 256]
    assert imported(tmp_path / "y.pt")[0]["a"].tolist() == [256, 1]


def test_torch_with_an_index(tmp_path: Path, torch: Any) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "pytorch_model-1.bin")
    torch.save({"b": torch.zeros(3)}, tmp_path / "pytorch_model-2.bin")
    index = {"weight_map": {"a": "pytorch_model-1.bin", "b": "pytorch_model-2.bin"}}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    tree, _ = imported(tmp_path)
    assert (tree["a"].tolist(), tree["b"].tolist()) == ([1, 1], [0, 0, 0])


def test_overlapping_views_are_a_loss(tmp_path: Path, torch: Any) -> None:
    whole = torch.arange(6.0)
    torch.save({"whole": whole, "part": whole[2:4]}, tmp_path / "x.pt")
    with pytest.raises(ckptfmt.InputError, match="shares memory"):
        imported(tmp_path / "x.pt")
    tree, _ = imported(tmp_path / "x.pt", allow_loss=True)
    assert tree["part"].tolist() == [2, 3]


def test_torch_types_that_are_no_tensors_are_a_loss(tmp_path: Path, torch: Any) -> None:
    torch.save({"d": torch.float16, "s": torch.Size([2, 3]), "set": {1}, "dev": torch.device("cpu")}, tmp_path / "x.pt")
    report = ckptfmt.convert(tmp_path / "x.pt", tmp_path / "x.ckpt", allow_loss=True)
    assert [loss.path for loss in report.losses] == ["d", "set", "dev"]
    assert ckptfmt.load(tmp_path / "x.ckpt") == {
        "d": "torch.float16",
        "s": (2, 3),
        "set": [1],
        "dev": "torch.device('cpu',)",
    }


def test_dcp(tmp_path: Path, torch: Any) -> None:
    dcp = pytest.importorskip("torch.distributed.checkpoint")
    tree = {
        "model": {"w": torch.arange(6.0).reshape(2, 3), "b": torch.ones(3, dtype=torch.bfloat16)},
        "step": 3,
        "layers": [torch.ones(2), 5],
        "scalar": torch.tensor(7),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(tree, checkpoint_id=tmp_path / "x", no_dist=True)
    found, _ = imported(tmp_path / "x")
    expected = {
        "model": {"w": np.arange(6, dtype="f4").reshape(2, 3), "b": np.ones(3, ml_dtypes.bfloat16)},
        "step": 3,
        "layers": [np.ones(2, "f4"), 5],
        "scalar": np.array(7),
    }
    assert_same_tree(in_order(found, expected), expected)


SHARDED = """
import os, sys, warnings
warnings.simplefilter("ignore")
import torch, torch.distributed as dist, torch.distributed.checkpoint as dcp
from torch.distributed.tensor import distribute_tensor, Shard, init_device_mesh
rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method="file://" + sys.argv[2], rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))
tree = {"rows": distribute_tensor(torch.arange(35.0).reshape(7, 5), mesh, [Shard(0)]),
        "columns": distribute_tensor(torch.arange(35.0).reshape(7, 5), mesh, [Shard(1)])}
dcp.save(tree, checkpoint_id=sys.argv[3])
dist.barrier()
os._exit(0)  # at a usual end threads of torch's own, now and then, abort the process ("terminate called ...")
"""


def test_dcp_of_two_processes(tmp_path: Path, torch: Any) -> None:
    commands = [[sys.executable, "-c", SHARDED, str(rank), f"{tmp_path}/store", f"{tmp_path}/x"] for rank in (0, 1)]
    processes = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for command in commands]
    assert [process.wait(120) for process in processes] == [0, 0]
    tree, _ = imported(tmp_path / "x")
    whole = np.arange(35, dtype="f4").reshape(7, 5)
    assert_same_tree(tree, dict.fromkeys(tree, whole) if tree["rows"] is tree["columns"] else {**tree, "rows": whole})
    assert_same_tree(tree["columns"], whole)
    with open_source(str(tmp_path / "x")) as source:
        for index in ((slice(2, 6),), (slice(3, 4), slice(1, 4)), ()):
            assert_same_tree(source.tree["columns"][index], whole[index])


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
