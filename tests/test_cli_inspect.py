"""`ckptfmt inspect`: the tree as people and programs see it, read from the manifest alone."""

from __future__ import annotations

import argparse
import gzip
import json
import pickle
import re
import tarfile
import threading
import zipfile
from collections import Counter, OrderedDict, deque
from pathlib import Path
from typing import Any, NamedTuple

import flax.serialization
import gguf
import h5py
import ml_dtypes
import numpy as np
import orbax.checkpoint
import pytest
import tensor_bundles
import zarr
from click.testing import CliRunner
from damage import LAYOUTS, rewrite_manifest, save_varied, zones
from fuzz.wire import ml_program
from peers import peer
from safetensors.numpy import save_file

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.conversion import FORMATS
from ckptfmt.conversion.source import LazyArray

ckptfmt_torch = peer("ckptfmt_torch")
torch = peer("torch")
dcp = peer("torch.distributed.checkpoint")


class Point(NamedTuple):
    x: int
    y: int


def inspect(*args: object) -> str:
    result = CliRunner().invoke(cli, ["inspect", *map(str, args)])
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def document(*args: object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(inspect(*args, "--json"))
    return found


def save(path: Path, tree: Any, **options: Any) -> Path:
    ckptfmt.save(path, tree, durable=False, **options)
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    embedding = np.zeros((1000, 64), np.float32)
    tree = {
        "model": {"wte": embedding, "head": embedding, "norm": np.ones(64, ml_dtypes.bfloat16)},
        "optimizer": [{"lr": 0.1, "betas": (0.9, 0.99)}, {"lr": 0.2, "state": np.zeros((1000, 64), np.float32)}],
        "step": 7,
        "note": None,
    }
    return save(
        tmp_path / "model.ckpt",
        tree,
        compression={"optimizer/**": "zstd"},
        schema=("gpt", "3"),
        metadata={"run": "a", "seed": 1},
    )


def test_the_whole_picture(model: Path) -> None:
    with ckptfmt.open(model) as checkpoint:
        stored, sha256 = checkpoint["optimizer/1/state"].stored_bytes, checkpoint.manifest_sha256
    assert inspect(model).splitlines() == [
        str(model),
        f"format 1.0, layout file, written by ckptfmt {ckptfmt.__version__}, sha256 {sha256}",
        "schema gpt, version 3",
        "metadata  {'run': 'a', 'seed': 1}",
        "tree",
        "├── model",
        "│   ├── wte        float32   [1000, 64]  250.0 KiB  raw",
        "│   ├── head       float32   [1000, 64]  250.0 KiB  raw  alias of model/wte",
        "│   └── norm       bfloat16  [64]            128 B  raw",
        "├── optimizer      list",
        "│   ├── 0          {'lr': 0.1, 'betas': (0.9, 0.99)}",
        "│   └── 1",
        "│       ├── lr     0.2",
        f"│       └── state  float32   [1000, 64]  250.0 KiB  zstd to {stored} B",
        "├── step           7",
        "└── note           None",
        f"3 tensors, 128,064 elements, 500.1 KiB, stored in {(256128 + stored) / 1024:.1f} KiB",
    ]


def test_the_whole_document(model: Path) -> None:
    with ckptfmt.open(model) as checkpoint:
        stored, sha256 = checkpoint["optimizer/1/state"].stored_bytes, checkpoint.manifest_sha256
    raw = {"shape": [1000, 64], "dtype": "float32", "elements": 64000, "bytes": 256000, "chunks": 1}
    assert document(model) == {
        "path": str(model),
        "layout": "file",
        "format": [1, 0],
        "generator": f"ckptfmt {ckptfmt.__version__}",
        "manifest_sha256": sha256,
        "schema": {"id": "gpt", "version": "3"},
        "metadata": {"run": "a", "seed": 1},
        "totals": {"tensors": 3, "elements": 128064, "bytes": 512128, "stored_bytes": 256128 + stored},
        "tree": {
            "model": {"wte": {"$tensor": 0}, "head": {"$tensor": 0}, "norm": {"$tensor": 1}},
            "optimizer": [{"lr": 0.1, "betas": {"$tuple": [0.9, 0.99]}}, {"lr": 0.2, "state": {"$tensor": 2}}],
            "step": 7,
            "note": None,
        },
        "tensors": [
            {**raw, "path": ["model", "wte"], "name": "model/wte", "codec": "raw", "stored_bytes": 256000},
            {
                "path": ["model", "norm"],
                "name": "model/norm",
                "shape": [64],
                "dtype": "bfloat16",
                "elements": 64,
                "bytes": 128,
                "chunks": 1,
                "codec": "raw",
                "stored_bytes": 128,
            },
            {
                **raw,
                "path": ["optimizer", 1, "state"],
                "name": "optimizer/1/state",
                "codec": "zstd",
                "stored_bytes": stored,
            },
        ],
        "tags": [],
        "metadata_tags": [],
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_the_manifest_is_read(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "x.ckpt"
    save_varied(path, layout)
    shown, found = inspect(path), document(path)
    assert found["layout"] == layout
    for zone in zones(path):  # nothing but manifest and commit record is left
        if zone.where in ("block", "frame"):
            data = bytearray(zone.file.read_bytes())
            data[zone.start : zone.stop] = bytes(zone.stop - zone.start)
            zone.file.write_bytes(data)
    assert inspect(path) == shown
    assert document(path) == found


def test_every_kind_of_leaf_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    save_varied(path, "file")
    lines = {tuple(line.lstrip("│├└─ ").split()) for line in inspect(path).splitlines()}
    expected = [
        ("int4", "int4", "[5]", "3", "B", "raw"),
        ("0", "float64", "[]", "8", "B", "raw"),  # the int key
        ("'0'", "bool", "[2]", "2", "B", "raw"),
        ("empty", "uint8", "[0,", "3]", "0", "B", "raw"),
        ("when", "datetime64[s]", "[2]", "16", "B", "raw"),
        ("0", "float32", "[3]", "12", "B", "raw", "alias", "of", "tied/0"),
        ("bytes", "b'\\x00\\xff'"),
        ("int", str(1 << 80)),
        ("float", "-0.0"),
        ("scalar", "float32(2.0)"),
    ]
    assert set(expected) <= lines


@pytest.mark.parametrize("tree", [{}, [], (), OrderedDict(), None, 1, "text", [[], {}, ()]])
def test_trees_without_tensors(tmp_path: Path, tree: Any) -> None:
    path = save(tmp_path / "x.ckpt", tree)
    literal = "OrderedDict()" if isinstance(tree, OrderedDict) else repr(tree)
    assert inspect(path).splitlines()[2:] == [f"tree  {literal}", "0 tensors, 0 elements, 0 B"]
    assert document(path)["tensors"] == []


def test_a_tree_that_is_one_tensor(tmp_path: Path) -> None:
    path = save(tmp_path / "x.ckpt", np.arange(3, dtype=np.int8), layout="loose")
    with ckptfmt.open(path) as checkpoint:
        sha256 = checkpoint.manifest_sha256
    assert inspect(path).splitlines()[1:] == [
        f"format 1.0, layout loose, written by ckptfmt {ckptfmt.__version__}, sha256 {sha256}",
        "tree  int8  [3]  3 B  raw",
        "1 tensor, 3 elements, 3 B",
    ]
    assert document(path)["tree"] == {"$tensor": 0}


# ---- select and depth


@pytest.mark.parametrize(
    "select", [["model"], ["model/**", "step"], ["**/lr"], ["optimizer/1/*"], ["model/head"], ["**"]]
)
def test_select_leaves_what_load_leaves(model: Path, select: list[str]) -> None:
    def shape(tree: Any) -> Any:
        if isinstance(tree, dict) and "$tuple" in tree:
            return shape(tree["$tuple"])
        if isinstance(tree, dict):
            return {key: shape(item) for key, item in tree.items() if key not in ("$tensor", "$omitted")} or "leaf"
        return [shape(item) for item in tree] if isinstance(tree, list) else "leaf"

    options = [word for pattern in select for word in ("--select", pattern)]
    loaded = ckptfmt.load(model, select=select)
    assert shape(document(model, *options)["tree"]) == shape(json.loads(json.dumps(loaded, default=lambda _: {})))


def test_select_counts_and_shows_only_what_it_names(model: Path) -> None:
    lines = inspect(model, "-s", "model/head", "-s", "optimizer/*/lr").splitlines()
    assert lines[4:] == [
        "tree",
        "├── model",
        "│   └── head   float32  [1000, 64]  250.0 KiB  raw  alias of model/wte",
        "└── optimizer  [{'lr': 0.1}, {'lr': 0.2}]",
        "1 tensor, 64,000 elements, 250.0 KiB",
    ]
    found = document(model, "-s", "optimizer/1/lr")
    assert found["tree"] == {"optimizer": [{"$omitted": True}, {"lr": 0.2}]}
    assert found["totals"]["tensors"] == 0


def test_select_that_matches_nothing_is_an_error(model: Path) -> None:
    result = CliRunner().invoke(cli, ["inspect", str(model), "-s", "nope", "-s", "no/**"])
    assert result.exit_code == 2
    assert result.stderr.endswith("[no-match]\n")
    assert "'nope', 'no/**'" in result.stderr


@pytest.mark.parametrize(
    ("depth", "tree"),
    [
        (0, ["tree  dict, 3 tensors, 128,064 elements, 500.1 KiB, stored in {total:.1f} KiB"]),
        (
            1,
            [
                "tree",
                "├── model      dict, 2 tensors, 64,064 elements, 250.1 KiB",
                "├── optimizer  list, 1 tensor, 64,000 elements, 250.0 KiB, stored in {state} B",
                "├── step       7",
                "└── note       None",
            ],
        ),
    ],
)
def test_depth_sums_up_what_it_does_not_open(model: Path, depth: int, tree: list[str]) -> None:
    with ckptfmt.open(model) as checkpoint:
        stored = checkpoint["optimizer/1/state"].stored_bytes
    lines = inspect(model, "--depth", depth).splitlines()
    assert lines[4:-1] == [line.format(state=stored, total=(256128 + stored) / 1024) for line in tree]
    assert lines[-1] == inspect(model).splitlines()[-1]
    assert inspect(model, "--depth", 99) == inspect(model)


# ---- size


def test_long_plain_values_are_abbreviated_and_complete_in_json(tmp_path: Path) -> None:
    tree = {
        "list": list(range(100_000)),
        "text": "x" * 100_000,
        "bytes": bytes(100_000),
        "dict": {f"key{number}": number for number in range(1000)},
        "nested": [[number] * 3 for number in range(1000)],
        "int": 1 << 100_000,
        "w": np.zeros(1),
    }
    path = save(tmp_path / "x.ckpt", tree)
    shown = inspect(path)
    assert max(map(len, shown.splitlines())) < 150
    assert shown.count("\n") < 100
    for words in ("(100,000 items)", "(100,000 characters)", "(100,000 bytes)", "976 more plain values"):
        assert words in shown
    found = document(path)["tree"]
    assert found["list"] == tree["list"]
    assert found["text"] == tree["text"]
    assert found["dict"] == tree["dict"]
    assert int(found["int"]["$int"], 0) == tree["int"]


def test_tensors_are_never_abbreviated(tmp_path: Path) -> None:
    count = 4000
    tree = {"layers": [{"w": np.zeros(2, np.int8)} for _ in range(count // 2)]}
    tree["flat"] = {f"p{number}": np.zeros(1, np.int8) for number in range(count // 2)}
    path = save(tmp_path / "x.ckpt", tree)
    shown = inspect(path, "--all")
    assert shown.count(" int8 ") == count
    folded = inspect(path)
    assert folded.count(" int8 ") == 2
    assert folded.splitlines()[-1] == shown.splitlines()[-1]
    assert shown.splitlines()[-1] == "4,000 tensors, 6,000 elements, 5.9 KiB"
    assert len(document(path)["tensors"]) == count


# ---- other formats, several paths, folders


def test_what_the_files_of_a_checkpoint_begin_with(tmp_path: Path) -> None:
    """By which TensorFlow calls it; nothing lies there."""
    tensor_bundles.save(tmp_path / "run-5.index", state())
    (tmp_path / "run-5.index.data-00000-of-00001").rename(tmp_path / "run-5.data-00000-of-00001")
    assert inspect(tmp_path / "run-5").splitlines()[1:2] == [FORMATS["tensorflow"].title]


def state() -> dict[str, np.ndarray[Any, Any]]:
    return {"a.w": np.zeros((2, 3), np.float32), "a.b": np.ones(3, np.float16)}


def save_as(format: str, path: Path) -> None:
    """What the library of each format writes."""
    if format == "safetensors":
        save_file(state(), path, metadata={"who": "me"})
    elif format == "torch":
        torch.save({name: torch.from_numpy(array) for name, array in state().items()}, path)
    elif format == "torch-dcp":
        dcp.save({name: torch.from_numpy(array) for name, array in state().items()}, checkpoint_id=path)
    elif format == "npz":
        np.savez(path.open("wb"), **state())
    elif format == "flax":
        path.write_bytes(flax.serialization.to_bytes(state()))
    elif format == "orbax":
        with orbax.checkpoint.StandardCheckpointer() as saver:
            saver.save(path, state())
    elif format in ("hdf5", "keras"):
        with h5py.File(path, "w") as file:
            for name, array in state().items():
                file[name] = array
        if format == "keras":
            weights = path.read_bytes()
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("model.weights.h5", weights)
    elif format == "tensorflow":
        tensor_bundles.save(path, state())
    elif format == "gguf":
        writer = gguf.GGUFWriter(path, "llama")
        for name, array in state().items():
            writer.add_tensor(name, array)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    elif format == "onnx":
        onnx = pytest.importorskip("onnx")
        tensors = [onnx.numpy_helper.from_array(array, name) for name, array in state().items()]
        onnx.save_model(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [], tensors)), path)
    elif format == "tflite":
        tflite = pytest.importorskip("tflite_models")
        tensors = [tflite.of(name, array, int(array.dtype == np.float16)) for name, array in state().items()]
        path.write_bytes(tflite.model((None, tensors)))
    elif format == "coreml":
        path.write_bytes(ml_program(state()))
    elif format == "paddle":
        path.write_bytes(pickle.dumps({**state(), "StructuredToParameterName@@": dict.fromkeys(state(), "w")}, 4))
    elif format == "pickle":
        path.write_bytes(pickle.dumps(state()))
    elif format == "compressed":
        path.write_bytes(gzip.compress(pickle.dumps(state())))
    elif format == "tar":
        save_file(state(), path.with_suffix(".safetensors"))
        with tarfile.open(path, "w") as archive:
            archive.add(path.with_suffix(".safetensors"), "model.safetensors")
        path.with_suffix(".safetensors").unlink()
    elif format == "torch-export":
        module = torch.nn.Module()
        module.a = torch.nn.Module()
        for name, array in state().items():
            module.a.register_buffer(name.removeprefix("a."), torch.from_numpy(array))
        module.forward = lambda x: x + module.a.w.sum() + module.a.b.sum()
        torch.export.save(torch.export.export(module, (torch.ones(1),)), path)
    elif format == "diffusers":
        (path / "unet").mkdir(parents=True)
        (path / "model_index.json").write_text('{"unet": ["diffusers", "UNet2DModel"]}')
        save_file(state(), path / "unet" / "diffusion_pytorch_model.safetensors", metadata={"who": "me"})
    else:
        group = zarr.create_group(path)
        for name, array in state().items():
            group.create_array(name, data=array)


INNER = {"tar": "safetensors", "compressed": "pickle"}  # what lies in them
OTHERWISE = {"torchscript", "npy", "skops", "stable-baselines3", "deepspeed"}  # whose names are others


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format", sorted(set(FORMATS) - {"ckptfmt", *OTHERWISE}))
def test_every_format_that_is_read(tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model"
    save_as(format, path)
    before = sorted(tmp_path.rglob("*"))
    lines = inspect(path).splitlines()
    titles = [FORMATS[name].title for name in (format, INNER.get(format)) if name]
    assert lines[:2] == [str(path), ": ".join(titles)]
    text = "\n".join(lines)
    assert re.search(r"a\.w +float32 +\[2, 3\] +24 B", text)
    assert re.search(r"a\.b +float16 +\[3\] +6 B", text)
    assert lines[-1] == "2 tensors, 9 elements, 30 B"
    found = document(path)
    assert found["source_format"] == INNER.get(format, format)
    assert found["totals"] == {"tensors": 2, "elements": 9, "bytes": 30, "stored_bytes": 30}
    rows = {row["path"][-1]: row for row in found["tensors"]}
    assert {name: (row["dtype"], row["shape"], row["stored_bytes"]) for name, row in rows.items()} == {
        "a.w": ("float32", [2, 3], None),
        "a.b": ("float16", [3], None),
    }
    assert inspect(path, "--select", "**w").splitlines()[-1] == "1 tensor, 6 elements, 24 B"
    assert document(path, "--from", format) == found
    assert sorted(tmp_path.rglob("*")) == before, "nothing is converted"


def test_no_tensor_of_another_format_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_as("hdf5", tmp_path / "x.h5")
    monkeypatch.setattr(LazyArray, "__getitem__", None)
    assert document(tmp_path / "x.h5")["totals"]["tensors"] == 2


def test_what_is_wrong_with_another_format(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"\xff" * 100)
    (tmp_path / "x.txt").write_text("hello")
    save_as("safetensors", tmp_path / "y.safetensors")
    run = CliRunner().invoke
    assert "[not-a-checkpoint]" in run(cli, ["inspect", str(tmp_path / "x.txt")]).stderr
    result = run(cli, ["inspect", str(tmp_path / "x.safetensors"), "--from", "safetensors"])
    assert (result.exit_code, result.stderr.count("[bad-source]")) == (1, 1)
    result = run(cli, ["inspect", str(tmp_path / "y.safetensors"), "-s", "a.v"])
    assert "no path matches 'a.v'; did you mean" in result.stderr
    assert "'a.w'" in result.stderr


def test_what_a_conversion_would_lose_is_said(tmp_path: Path) -> None:
    class Thing:
        pass

    torch.save({"w": torch.zeros(2), "thing": threading.Thread}, tmp_path / "x.pt")
    text = inspect(tmp_path / "x.pt")
    assert "a conversion would lose: " in text
    assert "thing" in text
    assert document(tmp_path / "x.pt")["losses"]


@pytest.fixture
def many(tmp_path: Path) -> Path:
    folder = tmp_path / "many"
    folder.mkdir()
    for epoch in (2, 10):
        save(folder / f"epoch_{epoch}.ckpt", {"w": np.zeros(epoch)})
    save_as("safetensors", folder / "model.safetensors")
    (folder / "notes.txt").write_text("hello")
    return folder


def test_a_folder_of_many(many: Path) -> None:
    heads = [line for line in inspect(many).splitlines() if line.startswith(str(many))]
    assert [Path(head).name for head in heads] == ["epoch_2.ckpt", "epoch_10.ckpt", "model.safetensors"]
    found = document(many)
    assert (found["path"], found["errors"]) == (str(many), [])
    assert [one["totals"]["tensors"] for one in found["checkpoints"]] == [1, 1, 2]
    assert found["checkpoints"][0] == document(many / "epoch_2.ckpt")
    assert len(document(many.parent, "-r")["checkpoints"]) == 3


def test_several_paths(many: Path) -> None:
    paths = [many / "epoch_2.ckpt", many / "none.ckpt", many / "model.safetensors", many / "notes.txt"]
    result = CliRunner().invoke(cli, ["inspect", *map(str, paths)])
    assert result.exit_code == 2
    assert [line for line in result.stdout.splitlines() if line.startswith("/")] == [str(paths[0]), str(paths[2])]
    assert [line.rpartition("[")[2] for line in result.stderr.splitlines()] == ["not-found]", "not-a-checkpoint]"]
    result = CliRunner().invoke(cli, ["inspect", "--json", *map(str, paths)])
    found = json.loads(result.stdout)
    assert found["paths"] == list(map(str, paths))
    assert [one["path"] for one in found["checkpoints"]] == [str(paths[0]), str(paths[2])]
    assert [one["code"] for one in found["errors"]] == ["not-found", "not-a-checkpoint"]
    damaged = bytearray(paths[0].read_bytes())
    damaged[-100] ^= 1
    paths[0].write_bytes(damaged)
    assert CliRunner().invoke(cli, ["inspect", *map(str, paths)]).exit_code == 1


@pytest.fixture
def tagged(tmp_path: Path) -> Path:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    tree = {
        "model": model.state_dict(),
        "seen": Counter("aab"),
        "queue": deque([1, 2], maxlen=5),
        "run": {"point": Point(1, 2), "args": argparse.Namespace(lr=0.1)},
        "size": torch.Size([1, 2]),
        "own": [torch.nn.Parameter(torch.ones(2), requires_grad=False)],
        "set": {(1, 2)},
        "when": np.datetime64("2020-01-01"),
    }
    ckptfmt_torch.save(tmp_path / "x.ckpt", tree, durable=False, metadata={"device": torch.device("cpu")})
    return tmp_path / "x.ckpt"


def test_tags_are_shown_where_a_value_does_not_say_itself(tagged: Path) -> None:
    text = inspect(tagged)
    for line in (
        "├── model                      OrderedDict, torch.state_dict(3 items)",
        "├── seen                       Counter({'a': 2, 'b': 1})",
        "├── queue                      [1, 2]  collections.deque(5)",
        "├── run",
        f"│   ├── point                  {{'x': 1, 'y': 2}}  python.namedtuple({__name__}.Point)",
        "│   └── args                   {'lr': 0.1}  argparse.Namespace",
        "├── size                       (1, 2)  torch.Size",
        "│   └── 0                      float32  [2]      8 B  raw  torch.Parameter(False)",
        "├── set                        {(1, 2)}",
        "└── when                       datetime64[D](2020-01-01)",
    ):
        assert line in text.splitlines()
    assert "OrderedDict, torch.state_dict(3 items), 7 tensors" in inspect(tagged, "--depth", "1")
    shown = CliRunner().invoke(cli, ["get", str(tagged), "run"]).stdout.splitlines()
    assert shown[-1].endswith("argparse.Namespace")
    assert CliRunner().invoke(cli, ["get", str(tagged), "size"]).stdout == "(1, 2)\n"


def test_tags_in_json(tagged: Path) -> None:
    found = document(tagged)
    tags = {(*tag["path"], tag["tag"]): tag["param"] for tag in found["tags"]}
    assert tags["model", "torch.state_dict"]["1"] == {"version": 2}
    assert tags["run", "point", "python.namedtuple"] == f"{__name__}.Point"
    assert tags["seen", "collections.Counter"] is None
    assert tags["queue", "collections.deque"] == 5
    assert found["metadata_tags"] == [{"path": ["device"], "tag": "torch.device", "param": None}]
    assert {tag["path"][0] for tag in document(tagged, "-s", "run/**")["tags"]} == {"run"}
    result = CliRunner().invoke(cli, ["get", str(tagged), "run/point", "--json"])
    assert json.loads(result.stdout)["tags"] == [
        {"path": ["run", "point"], "tag": "python.namedtuple", "param": f"{__name__}.Point"}
    ]


def test_layers_of_other_tags_are_not_alike(tmp_path: Path) -> None:
    layers = [torch.nn.Parameter(torch.ones(2), requires_grad=number != 2) for number in range(6)]
    ckptfmt_torch.save(tmp_path / "x.ckpt", {"layers": layers})
    text = inspect(tmp_path / "x.ckpt")
    assert re.search(r"─ 3\.\.5 .*torch.Parameter\(True\), 3 alike", text)
    assert re.search(r"─ 2 .*torch.Parameter\(False\)", text)


def test_tags_of_other_formats(tmp_path: Path) -> None:
    torch.save({"m": torch.nn.Linear(2, 2).state_dict(), "c": Counter("a")}, tmp_path / "x.pt")
    text = inspect(tmp_path / "x.pt")
    assert "OrderedDict, torch.state_dict({'': {'version': 1}})" in text
    assert "{'a': 1}  collections.Counter" in text
    assert {"path": ["c"], "tag": "collections.Counter", "param": None} in document(tmp_path / "x.pt")["tags"]


def test_a_tag_of_a_stranger_is_no_text_for_terminals(tmp_path: Path) -> None:
    path = save(tmp_path / "x.ckpt", {"a": np.zeros(1)})

    def hostile(manifest: dict[str, Any]) -> None:
        manifest["tree"] = ["dict", ["a"], [["tag", "\x1b[31m" + "x" * 1000, "\x1b]0;" * 100, ["tensor", 0]]]]

    rewrite_manifest(path, hostile)
    result = CliRunner().invoke(cli, ["inspect", str(path)])
    assert result.exit_code == 0
    assert "\x1b" not in result.output
    assert max(map(len, result.stdout.splitlines())) < 400


class Thing:
    def __init__(self) -> None:
        self.weights = [torch.ones(3), torch.zeros(2, 2)]
        self.table = {"conjugate": torch.ones(2, dtype=torch.complex64).conj()}


def test_tensors_in_objects_that_cannot_be_read_are_counted(tmp_path: Path) -> None:
    kept = torch.ones(3)
    torch.save({"kept": kept, "again": kept, "thing": Thing()}, tmp_path / "x.pt")
    assert "in what cannot be read lie 3 tensors, 44 B" in inspect(tmp_path / "x.pt")
    assert document(tmp_path / "x.pt")["left_out"] == {"tensors": 3, "bytes": 44}
    torch.save({"kept": torch.ones(2, dtype=torch.complex64).conj()}, tmp_path / "y.pt")
    assert document(tmp_path / "y.pt")["left_out"] == {"tensors": 0, "bytes": 0}
    torch.save(Thing(), tmp_path / "z.pt")
    result = CliRunner().invoke(cli, ["inspect", str(tmp_path / "z.pt")])
    assert "; in it lie 3 tensors of 44 bytes" in result.stderr


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    folder = tmp_path / "Llama"
    folder.mkdir()
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for number, name in enumerate(names):
        save_file({f"w{number}": np.ones(3, np.float32)}, folder / name)
    index = {"metadata": {"total_size": 24}, "weight_map": {"w0": names[0], "w1": names[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text("{}")
    return folder


def test_a_model_in_several_files_is_one(sharded: Path) -> None:
    lines = inspect(sharded).splitlines()
    index = sharded / "model.safetensors.index.json"
    assert lines[:2] == [str(sharded), f"safetensors, also with an index, read {index}; passed over config.json"]
    assert lines[-1] == "2 tensors, 6 elements, 24 B"
    found = document(sharded)
    assert (found["path"], found["source"]) == (str(sharded), str(index))
    assert set(found["tree"]) == {"w0", "w1"}
    stats = json.loads(CliRunner().invoke(cli, ["stats", "--json", str(sharded)]).stdout)
    assert [row["name"] for row in stats["tensors"]] == ["w0", "w1"]
    torch.save({}, sharded / "optimizer.pt")
    assert "passed over optimizer.pt" in inspect(f"{sharded}/")


def test_a_model_in_several_files_beside_checkpoints_is_one_of_many(sharded: Path) -> None:
    save(sharded / "epoch_1.ckpt", {"w": np.zeros(1)})
    assert len(document(sharded)["checkpoints"]) == 2


def test_a_cache_of_a_model_is_that_model(sharded: Path) -> None:
    """Which lies in folders below."""
    snapshots = sharded.parent / "models--a--b" / "snapshots"
    snapshots.mkdir(parents=True)
    sharded.rename(snapshots / "0123")
    assert inspect(snapshots.parent).splitlines()[-1] == "2 tensors, 6 elements, 24 B"
    assert len(document(snapshots.parent, "-r")["checkpoints"]) == 1


def test_links_are_followed_whatever_it_is_called(tmp_path: Path) -> None:
    path = save(tmp_path / "x.ckpt", {"w": np.zeros(1)}, layout="packed")
    (path / "COMMIT").rename(path / "it")
    (path / "COMMIT").symlink_to("it")
    for command in ("inspect", "stats"):
        for more in ([], ["--from", "ckptfmt"]):
            asked = CliRunner().invoke(cli, [command, str(path), "--follow-links", *more])
            assert asked.exit_code == 0, asked.output
            assert "--follow-links" in CliRunner().invoke(cli, [command, str(path), *more]).stderr


def test_a_long_key_does_not_push_the_columns_away(tmp_path: Path) -> None:
    path = save(tmp_path / "x.ckpt", {"k" * 500: np.zeros(1), "short": np.zeros(1)})
    lines = inspect(path).splitlines()
    assert "└── short  float64  [1]  8 B  raw" in lines
    assert f"├── '{'k' * 99}... (500 characters)  float64  [1]  8 B  raw" in lines


def test_a_flat_list_by_a_column(tmp_path: Path) -> None:
    """Of ours and of other formats; numbers with the greatest first, and tied tensors once."""
    tied = np.zeros((30, 4), np.float32)
    tree = {"b": {"w": tied, 3: np.zeros(9)}, "a": np.zeros(100_000, np.int8), "tied": tied, "n": 1}
    ckptfmt.save(tmp_path / "x.ckpt", tree, compression={"a": "zstd"}, durable=False)

    def names(*options: str, path: str = "x.ckpt") -> list[str]:
        result = CliRunner().invoke(cli, ["inspect", str(tmp_path / path), *options])
        assert result.exit_code == 0, result.output
        lines = result.stdout.splitlines()
        first = next(at for at, line in enumerate(lines) if line.startswith("name "))
        return [line.split()[0] for line in lines[first + 1 : -1]]

    assert names("--sort", "size") == ["a", "b/w", "b/3"]
    assert names("--sort", "stored") == ["b/w", "b/3", "a"]
    assert names("--sort", "name") == ["a", "b/3", "b/w"]
    assert names("--sort", "dtype") == ["b/w", "b/3", "a"]
    assert names("--sort", "shape") == ["b/3", "b/w", "a"]
    assert names("--bars", "-s", "b/**") == ["b/w", "b/3"]
    save_file({"small": np.zeros(3), "large": np.zeros(70)}, tmp_path / "y.safetensors")
    assert names("--bars", path="y.safetensors") == ["large", "small"]
    wrong = CliRunner().invoke(cli, ["inspect", str(tmp_path / "x.ckpt"), "--sort", "sise"])
    assert wrong.exit_code == 2
    assert "--sort: there is no column 'sise'; did you mean 'size'?" in wrong.stderr


def test_bars_are_in_proportion(tmp_path: Path) -> None:
    tree = {"whole": np.zeros(960, np.int8), "half": np.zeros(480, np.int8), "bit": np.zeros(1, np.int8)}
    ckptfmt.save(tmp_path / "x.ckpt", {**tree, "none": np.zeros(0, np.int8)}, durable=False)
    result = CliRunner().invoke(cli, ["inspect", str(tmp_path / "x.ckpt"), "--bars"])
    bars = {line.split()[0]: line.count("█") for line in result.stdout.splitlines() if " int8 " in line}
    assert bars == {"whole": 24, "half": 12, "bit": 0, "none": 0}
    assert "▏" in next(line for line in result.stdout.splitlines() if line.startswith("bit "))
