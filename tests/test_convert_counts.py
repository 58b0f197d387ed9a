"""A source that says how much there should be is held to it: all of it, a refusal, or a loss that is named; and a name
that stands twice is never the last one."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import safetensors.numpy
from conversions import imported
from peers import peer

import ckptfmt
from ckptfmt.conversion import open_source
from ckptfmt.testing.equality import assert_same_tree

safetensors_torch = peer("safetensors.torch")
torch = peer("torch")
dcp = peer("torch.distributed.checkpoint")

gguf = pytest.importorskip("gguf")

W = np.arange(8, dtype=np.float32)


def refused(path: Path, code: str, words: str) -> None:
    target = path.parent / "never.ckpt"
    with pytest.raises(ckptfmt.CkptError, match=words) as raised:
        ckptfmt.convert(path, target)
    assert raised.value.code == code
    assert not target.exists()


# ---- GGUF in parts


def split(folder: Path, tensors: int = 3) -> list[Path]:
    """A model of which each file has one tensor."""
    writer = gguf.GGUFWriter(folder / "m.gguf", "llama", split_max_tensors=1)
    writer.add_uint32("layers", 7)
    for number in range(tensors):
        writer.add_tensor(f"blk.{number}", W + number)
    writer.write_header_to_file(folder / "m.gguf")
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("m-*.gguf"))


def changed(path: Path, before: bytes, after: bytes) -> None:
    data = path.read_bytes()
    assert data.count(before) == 1
    path.write_bytes(data.replace(before, after))


def pair(key: str, form: str, value: int) -> bytes:
    kind = {"<H": 2, "<i": 5}[form]
    return key.encode() + kind.to_bytes(4, "little") + value.to_bytes(2 if form == "<H" else 4, "little")


@pytest.mark.parametrize("given", [0, 2])
def test_all_parts_of_a_gguf_are_read(tmp_path: Path, given: int) -> None:
    parts = split(tmp_path)
    tree, metadata = imported(parts[given])
    names = {tensor.name for part in parts for tensor in gguf.GGUFReader(part).tensors}
    assert set(tree) == names == {"blk.0", "blk.1", "blk.2"}
    assert all(tree[f"blk.{number}"].tolist() == (W + number).tolist() for number in range(3))
    assert metadata["gguf.metadata"] == {"general.architecture": "llama", "layers": 7} | {
        key: value for key, value in metadata["gguf.metadata"].items() if key.startswith("general.")
    }


def test_parts_of_a_gguf_that_are_missing_or_others(tmp_path: Path) -> None:
    parts = split(tmp_path)
    data = [part.read_bytes() for part in parts]
    parts[1].unlink()
    refused(parts[0], "bad-source", "part 2 of 3 is missing")
    parts[1].write_bytes(data[2])
    refused(parts[0], "bad-source", "says that it is part 2 of 3")
    parts[1].write_bytes(data[1].replace(b"blk.1", b"blk.0"))
    refused(parts[0], "bad-source", "stands in two parts")
    parts[1].write_bytes(data[1])
    changed(parts[0], pair("split.tensors.count", "<i", 3), pair("split.tensors.count", "<i", 4))
    refused(parts[0], "bad-source", r"have 3 tensors, where split.tensors.count is \[3, 4\]")
    (tmp_path / "other.gguf").write_bytes(data[0])
    refused(tmp_path / "other.gguf", "bad-source", "not named so that the others can be found")


def test_the_parts_of_a_gguf_count_as_its_size(tmp_path: Path) -> None:
    parts = split(tmp_path)
    with open_source(str(parts[0])) as source:
        assert source.size == sum(part.stat().st_size for part in parts)


# ---- indexes


def index(folder: Path, document: Any, suffix: str = "safetensors") -> Path:
    name = "model.safetensors.index.json" if suffix == "safetensors" else "pytorch_model.bin.index.json"
    path = folder / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def two_files(folder: Path, suffix: str = "safetensors") -> dict[str, str]:
    names = [f"model-0000{number}-of-00002.{suffix}" for number in (1, 2)]
    for number, name in enumerate(names):
        if suffix == "safetensors":
            safetensors.numpy.save_file({f"w{number}": W}, folder / name, {"format": "pt"})
        else:
            torch.save({f"w{number}": torch.from_numpy(W)}, folder / name)
    return {"w0": names[0], "w1": names[1]}


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_indexes(tmp_path: Path, suffix: str) -> None:
    weight_map = two_files(tmp_path, suffix)
    about = {"total_size": 64, "total_parameters": 16, "mergekit_version": "0.0.6"}
    path = index(tmp_path, {"metadata": about, "weight_map": weight_map}, suffix)
    tree, metadata = imported(path)
    assert_same_tree(tree, {"w0": W, "w1": W.copy()})
    assert json.loads(metadata["index.metadata"]) == {"mergekit_version": "0.0.6"}
    with open_source(str(path)) as source:
        assert source.size == sum((tmp_path / name).stat().st_size for name in weight_map.values())
    index(tmp_path, {"metadata": {"total_size": 96}, "weight_map": weight_map}, suffix)
    refused(path, "lossy", "counts 96 bytes of tensors, where its files have 64")
    index(tmp_path, {"metadata": {"total_size": 64}, "weight_map": {"w0": weight_map["w0"]}}, suffix)
    refused(path, "lossy", "counts 64 bytes")
    index(tmp_path, {"weight_map": weight_map | {"w2": weight_map["w1"]}}, suffix)
    refused(path, "bad-source", "differ about the tensor 'w2'")
    twice = json.dumps(weight_map).replace("{", '{"w0": "model-00002-of-00002.' + suffix + '", ')
    index(tmp_path, f'{{"weight_map": {twice}}}', suffix)
    refused(path, "bad-source", "'w0' stands twice")
    index(tmp_path, {"weight_map": weight_map}, suffix)
    (tmp_path / weight_map["w1"]).unlink()
    refused(path, "bad-source", "which is missing")
    refused(tmp_path / weight_map["w0"], "lossy", "1 of 2; convert their index")
    report = ckptfmt.convert(tmp_path / weight_map["w0"], tmp_path / "x.ckpt", allow_loss=True)
    assert [loss.kind for loss in report.losses] == ["missing"]


def test_tied_tensors_are_counted_once_or_each(tmp_path: Path) -> None:
    tied = torch.from_numpy(W)
    torch.save({"a": tied, "b": tied}, tmp_path / "model.bin")
    for total in (32, 64):
        document = {"metadata": {"total_size": total}, "weight_map": {"a": "model.bin", "b": "model.bin"}}
        path = index(tmp_path, document, "bin")
        ckptfmt.convert(path, tmp_path / "x.ckpt", overwrite=True)


# ---- torch's HuggingFaceStorageWriter


def hf_saved(folder: Path, tree: Any, **options: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(tree, storage_writer=dcp.HuggingFaceStorageWriter(path=str(folder), **options), no_dist=True)


def shard(folder: Path, number: int, tensors: dict[str, tuple[Any, list[int]]]) -> Path:
    """A file as `save_distributed=True` makes one of each process."""
    path = folder / f"shard-{number:05}-model-00001-of-00001.safetensors"
    info = {name: {"saved_offsets": at} for name, (_, at) in tensors.items()}
    metadata = {"format": "pt", "DCP_VERSION": "1.0", "DCP_SHARDING_INFO": json.dumps(info)}
    safetensors.numpy.save_file({name: array for name, (array, _) in tensors.items()}, path, metadata)
    return path


def test_files_of_an_index_with_sharding_info_each(tmp_path: Path) -> None:
    hf_saved(tmp_path / "x", {"a": torch.zeros(3), "b": torch.ones(2, 2)}, fqn_to_index_mapping={"a": 1, "b": 2})
    tree, metadata = imported(tmp_path / "x")
    assert (tree["a"].tolist(), tree["b"].tolist()) == ([0, 0, 0], [[1, 1], [1, 1]])
    assert metadata == {"format": "pt"}


def test_shards_are_joined_as_torch_joins_them(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    hf_saved(folder, {"w": torch.ones(2, 2)}, save_distributed=True)
    assert [path.name for path in folder.iterdir()] == ["shard-00001-model-00001-of-00001.safetensors"]
    assert imported(folder)[0]["w"].tolist() == [[1, 1], [1, 1]]
    whole = np.arange(12, dtype=np.float32).reshape(4, 3)
    shard(folder, 1, {"w": (whole[:2], [0, 0]), "b": (W, [0])})
    second = shard(folder, 2, {"w": (whole[2:], [2, 0])})
    (tmp_path / "imported.ckpt").unlink()
    tree, metadata = imported(folder)
    assert_same_tree((tree["w"], tree["b"], metadata), (whole, W, {"format": "pt"}))
    target = {"w": torch.zeros(4, 3), "b": torch.zeros(8)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.load(target, storage_reader=dcp.HuggingFaceStorageReader(str(folder)), no_dist=True)
    assert target["w"].tolist() == tree["w"].tolist()
    refused(second, "lossy", r"part of it that begins at \[2, 0\]")
    shard(folder, 1, {"w": (whole[:1], [0, 0])})
    refused(folder, "bad-source", "the parts of 'w' do not make up its shape")
    shard(folder, 1, {"w": (whole[:3], [0, 0])})
    refused(folder, "bad-source", "the parts of 'w' do not make up its shape")
    (folder / "shard-00001-model-00001-of-00001.safetensors").unlink()
    refused(folder, "bad-source", "the parts of 'w' do not make up its shape")
    shard(folder, 2, {"w": (whole, [0, 0])})
    refused(folder, "lossy", "shard 1 is not there")


def test_an_index_means_whole_tensors(tmp_path: Path) -> None:
    part = shard(tmp_path, 2, {"w": (W, [8])})
    refused(index(tmp_path, {"weight_map": {"w": part.name}}), "bad-source", "a part of 'w' alone")


# ---- DCP


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = {"a": torch.ones(2), "b": {"c": torch.zeros(3), "step": 1}}
        dcp.save(tree, checkpoint_id=tmp_path / "x", no_dist=True)
    return tmp_path / "x"


def edited(folder: Path, edit: Any) -> None:
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    edit(metadata)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))


def drop(name: str, of: str) -> Any:
    def edit(metadata: Any) -> None:
        table = getattr(metadata, of)
        for key in [key for key in table if getattr(key, "fqn", key) == name]:
            del table[key]

    return edit


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda metadata: metadata.planner_data.update({"b.c": ("a",)}), "two names have one path"),
        (drop("b.c", "planner_data"), "differ about 'b.c'"),
        (drop("b.c", "state_dict_metadata"), "does not know"),
        (drop("b.c", "storage_data"), "0 parts of 'b.c', where 1"),
        (drop("b.step", "storage_data"), "0 parts of 'b.step', where 1"),
    ],
)
def test_dcp_is_held_to_its_metadata(saved: Path, edit: Any, words: str) -> None:
    edited(saved, edit)
    refused(saved, "bad-source", words)


def test_a_file_of_dcp_that_is_missing(saved: Path) -> None:
    (saved / "__0_0.distcp").unlink()
    with pytest.raises(ckptfmt.CkptError) as raised:
        ckptfmt.convert(saved, saved.parent / "never.ckpt")
    assert raised.value.code in ("bad-source", "not-found")


# ---- names that stand twice


def test_names_that_stand_twice(tmp_path: Path) -> None:
    header = '{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}'
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode() + b"\1\2")
    refused(tmp_path / "x.safetensors", "bad-source", "'a' stands twice")
    packed = b"\x82" + msgpack.packb("a") + msgpack.packb(1) + msgpack.packb("a") + msgpack.packb(2)
    (tmp_path / "x.msgpack").write_bytes(packed)
    refused(tmp_path / "x.msgpack", "bad-source", "'a' stands twice")
    torch.save({"a": torch.ones(2)}, tmp_path / "x.pt")
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "x.pt", "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr(next(name for name in archive.namelist() if name.endswith("data/0")), b"\0" * 8)
    refused(tmp_path / "x.pt", "bad-source", "same name")
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    for number in (1, 2):
        writer.add_uint32(f"key.{number}", number)
        writer.add_tensor(f"blk.{number}", W)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    data = (tmp_path / "x.gguf").read_bytes()
    for kind in ("key", "blk"):
        (tmp_path / "x.gguf").write_bytes(data.replace(f"{kind}.2".encode(), f"{kind}.1".encode()))
        refused(tmp_path / "x.gguf", "bad-source", f"'{kind}.1' stands twice")


# ---- float4


def test_float4_goes_both_ways(tmp_path: Path) -> None:
    packed = torch.arange(8, dtype=torch.uint8).reshape(2, 4).view(torch.float4_e2m1fn_x2)
    safetensors_torch.save_file({"w": packed}, tmp_path / "a.safetensors")
    torch.save({"w": packed, "tied": packed}, tmp_path / "a.pt")
    for source in ("a.safetensors", "a.pt"):
        ckptfmt.convert(tmp_path / source, tmp_path / "x.ckpt", overwrite=True)
        assert ckptfmt.open(tmp_path / "x.ckpt")["w"].shape == (2, 8)
        report = ckptfmt.convert(tmp_path / "x.ckpt", tmp_path / "b.pt", overwrite=True)
        assert not report.losses
        again = torch.load(tmp_path / "b.pt")["w"]
        assert (again.dtype, again.view(torch.uint8).tolist()) == (packed.dtype, packed.view(torch.uint8).tolist())
    ckptfmt.convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    loaded = safetensors_torch.load_file(tmp_path / "b.safetensors")["w"]
    assert loaded.view(torch.uint8).tolist() == packed.view(torch.uint8).tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save({"w": packed}, checkpoint_id=tmp_path / "dcp", no_dist=True)
    assert ckptfmt.diff(tmp_path / "dcp", tmp_path / "a.safetensors").equal


def test_float4_of_an_odd_axis_is_a_loss(tmp_path: Path) -> None:
    import ml_dtypes

    ckptfmt.save(tmp_path / "x.ckpt", {"w": np.ones((2, 3), ml_dtypes.float4_e2m1fn)})
    for target in ("x.safetensors", "x.pt"):
        report = ckptfmt.convert(tmp_path / "x.ckpt", tmp_path / target, allow_loss=True)
        assert [(loss.kind, loss.path) for loss in report.losses] == [("dtype", "w")]


# ---- GGUF's types


def test_tensors_of_every_type_of_gguf_are_those_of_its_library(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    random = np.random.default_rng(0)
    for kind, (elements, size) in gguf.GGML_QUANT_SIZES.items():
        if elements > 1:
            blocks = random.integers(0, 256, (3, 2 * size), np.uint8)
            writer.add_tensor(kind.name, blocks, raw_dtype=kind)
        else:
            writer.add_tensor(kind.name, random.integers(0, 256, (3, 4 * size), np.uint8), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tree, metadata = imported(tmp_path / "x.gguf")
    theirs = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "x.gguf").tensors}
    assert tree.keys() == theirs.keys() == {kind.name for kind in gguf.GGML_QUANT_SIZES}
    for name, tensor in theirs.items():
        assert tree[name].tobytes() == tensor.data.tobytes(), name
        if name in metadata["gguf.quantised"]:
            about = metadata["gguf.quantised"][name]
            assert (about["type"], about["shape"][::-1]) == (tensor.tensor_type.name, tensor.shape.tolist())
        else:
            assert list(tree[name].shape)[::-1] == tensor.shape.tolist()
