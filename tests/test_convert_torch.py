"""Conversion from and to files of torch, against torch itself."""

from __future__ import annotations

import io
import json
import pickle
import subprocess
import sys
import time
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from conversions import imported, in_order
from inside import inside

import ckptfmt
from ckptfmt.conversion import open_source, pickles
from ckptfmt.format.tree import tags
from ckptfmt.testing.equality import assert_same_tree


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
    assert metadata is None
    with ckptfmt.open(tmp_path / "imported.ckpt") as checkpoint:
        assert (("model",), "torch.state_dict") in {
            (path, name) for path, name, _ in tags(inside(checkpoint).manifest.tree)
        }

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

    one = torch.view_as_complex(torch.tensor([1, 256], dtype=torch.int16).view(torch.float16).reshape(1, 2))
    torch.save({"a": torch.tensor([1, 256], dtype=torch.int16), "c": one}, tmp_path / "x.pt")
    with zipfile.ZipFile(tmp_path / "x.pt") as archive, zipfile.ZipFile(tmp_path / "y.pt", "w") as other:
        for name in archive.namelist():
            other.writestr(name, b"big" if name.endswith("byteorder") else archive.read(name))
    assert imported(tmp_path / "x.pt")[0]["a"].tolist() == [1, 256]
    found = imported(tmp_path / "y.pt")[0]
    assert found["a"].tolist() == [256, 1]
    assert found["c"].view(np.int16).tolist() == [256, 1]  # each part by itself


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


def test_torch_types_that_are_no_tensors_come_along(tmp_path: Path, torch: Any) -> None:
    tree = {
        "d": torch.float16,
        "s": torch.Size([2, 3]),
        "dev": [torch.device("cuda", 1)],
        "p": torch.nn.Parameter(torch.ones(2), requires_grad=False),
        "empty": b"",
    }
    torch.save(tree, tmp_path / "x.pt")
    assert not ckptfmt.convert(tmp_path / "x.pt", tmp_path / "x.ckpt").losses
    assert not ckptfmt.convert(tmp_path / "x.ckpt", tmp_path / "y.pt").losses
    again = torch.load(tmp_path / "y.pt", weights_only=False)  # which alone takes empty bytes
    for found in (ckptfmt.load(tmp_path / "x.ckpt", framework="torch"), again):
        assert [type(found[key]) for key in tree] == [type(value) for value in tree.values()]
        assert {key: found[key] for key in tree if key != "p"} == {key: tree[key] for key in tree if key != "p"}
        assert not found["p"].requires_grad
    assert ckptfmt.load(tmp_path / "x.ckpt")["d"] == "float16"


def test_torch_types_without_a_place_are_a_loss(tmp_path: Path, torch: Any) -> None:
    odd = {"set": {1}, "map": {(1, 2): "x"}, "layout": torch.strided, "storage": torch.UntypedStorage(2), 1.5: 0}
    torch.save(odd, tmp_path / "x.pt")
    report = ckptfmt.convert(tmp_path / "x.pt", tmp_path / "x.ckpt", allow_loss=True)
    assert [loss.path for loss in report.losses] == ["map", "layout", "storage", ""]
    found = ckptfmt.load(tmp_path / "x.ckpt")
    assert (found["set"], found["map"], found["1.5"]) == ({1}, {"(1, 2)": "x"}, 0)


def test_sets_keep_their_order_whatever_their_hashes(tmp_path: Path, torch: Any) -> None:
    tree = {"ints": {9, 10, -5}, "nested": {frozenset({b"x", None}), (1,), (), None}, "text": {"b", "aa"}}
    ckptfmt.save(tmp_path / "x.ckpt", tree)
    assert ckptfmt.convert(tmp_path / "x.ckpt", tmp_path / "x.pt").losses == ()
    assert torch.load(tmp_path / "x.pt", weights_only=False) == tree
    assert ckptfmt.convert(tmp_path / "x.pt", tmp_path / "y.ckpt").losses == ()
    assert ckptfmt.diff(tmp_path / "x.ckpt", tmp_path / "y.ckpt").equal


def test_what_is_left_out_of_a_list_leaves_its_place(tmp_path: Path, torch: Any) -> None:
    ckptfmt.save(tmp_path / "x.ckpt", {"a": [np.str_("x"), {1}, 2]})
    report = ckptfmt.convert(tmp_path / "x.ckpt", tmp_path / "x.pt", allow_loss=True)
    assert [loss.path for loss in report.losses] == ["a/0"]
    assert torch.load(tmp_path / "x.pt", weights_only=False) == {"a": [None, {1}, 2]}


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


@pytest.mark.parametrize("conflict", [False, True])
def test_state_dicts_in_several_files_have_all_versions(tmp_path: Path, conflict: bool) -> None:
    """Of modules, which each file tells of its own."""
    torch = pytest.importorskip("torch")
    state = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)).state_dict()
    names, weight_map = list(state), {}
    for number, part in enumerate((names[:2], names[2:])):
        file = f"pytorch_model-0000{number + 1}-of-00002.bin"
        shard = OrderedDict((name, state[name]) for name in part)
        modules = ("", str(number))
        shard._metadata = OrderedDict((name, dict(state._metadata[name])) for name in modules)
        if conflict and number:
            shard._metadata[""]["version"] = 7
        torch.save(shard, tmp_path / file)
        weight_map |= dict.fromkeys(part, file)
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    if conflict:
        with pytest.raises(ckptfmt.InputError, match="says of the module '' differs from the files before it"):
            ckptfmt.convert(index, tmp_path / "a.ckpt")
        return
    assert ckptfmt.convert(index, tmp_path / "a.ckpt").losses == ()
    assert ckptfmt.convert(tmp_path / "a.ckpt", tmp_path / "a.pt").losses == ()
    back = torch.load(tmp_path / "a.pt")
    assert list(back) == names
    assert back._metadata == state._metadata
    assert back._metadata["1"] == {"version": 2}


def test_the_time_that_storages_take_is_not_that_of_the_pickle() -> None:
    """Of an archive all bytes are read and checked when it is opened: of 20 GB for longer than any pickle may take."""

    def slow(key: str) -> Any:
        begin = time.thread_time()
        while time.thread_time() < begin + pickles.PATIENCE / 20:
            pass
        return np.zeros(64, np.uint8)

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", str(value)) if type(value) is float else None

    file = io.BytesIO()
    Pickler(file, 2).dump([[float(number) for number in range(40)], list(range(1 << 10))])
    file.seek(0)
    found = pickles.load(file, {}, lambda identity: slow(identity[1]))
    assert len(found[0]) == 40
