"""Weights in one file or in several with an index, as `save_pretrained` writes them, and the folder around them."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from click.testing import CliRunner
from conversions import in_order
from hypothesis import given
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.conversion.sharding import Shards, bytes_of
from ckptfmt.testing import assert_same_tree

W = np.arange(100, dtype=np.float32)
TREE = {"b": W, "a": W + 1, "of": {"int": np.arange(5), "none": np.zeros((0, 3))}, "last": W + 2}
FLAT = {"b": W, "a": W + 1, "of.int": np.arange(5), "of.none": np.zeros((0, 3)), "last": W + 2}
PARTS = [f"model-0000{number}-of-00003.safetensors" for number in (1, 2, 3)]
INDEX = "model.safetensors.index.json"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    ckptfmt.save(tmp_path / "x.ckpt", TREE, metadata={"step": 3, "name": "x"}, durable=False)
    return tmp_path / "x.ckpt"


def sharded(source: Path, target: Path | str, size: int | str | None = 440, **options: Any) -> ckptfmt.ConvertReport:
    options = {"target_format": "safetensors", "durable": False, **options}
    return ckptfmt.convert(source, target, max_shard_size=size, **options)


def same(found: Any, expected: Any) -> None:
    """The same trees, whatever the order of their dicts."""
    assert found.keys() == expected.keys()
    assert_same_tree(in_order(found, expected), expected)


def in_folder(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_several_files_and_their_index(source: Path, tmp_path: Path) -> None:
    report = sharded(source, tmp_path / "model")
    assert (report.losses, report.verified, report.target) == ((), True, str(tmp_path / "model" / INDEX))
    assert in_folder(tmp_path / "model") == [*PARTS, INDEX]
    index = json.loads((tmp_path / "model" / INDEX).read_text())
    assert index["metadata"]["total_size"] == 3 * 400 + 40
    assert index["weight_map"] == {
        "b": PARTS[0], "a": PARTS[1], "of.int": PARTS[1], "of.none": PARTS[1], "last": PARTS[2]
    }  # fmt: skip
    for name in PARTS:
        with safetensors.safe_open(tmp_path / "model" / name, "numpy") as file:
            assert file.metadata() == {"format": "pt"}
            for key in file.keys():  # noqa: SIM118
                assert_same_tree(file.get_tensor(key), FLAT[key])
    ckptfmt.convert(tmp_path / "model", tmp_path / "back.ckpt")
    with ckptfmt.open(tmp_path / "back.ckpt") as back:
        assert back.metadata == {"step": 3, "name": "x"}
        same(back.load(), FLAT)


@given(
    sizes=st.dictionaries(st.text(max_size=3), st.integers(0, 50), max_size=12),
    limit=st.integers(1, 60),
)
def test_divided_as_hugging_face_divides(sizes: dict[str, int], limit: int) -> None:
    hub = pytest.importorskip("huggingface_hub")
    found = Shards("", "model", ".safetensors", limit).divided(sizes)
    expected = hub.split_state_dict_into_shards_factory(
        sizes, get_storage_size=int, filename_pattern="model{suffix}.safetensors", max_shard_size=limit
    )
    if sizes:
        assert found == expected.filename_to_tensors
    else:
        assert found == {"model.safetensors": []}


@pytest.mark.parametrize("text", ["5GB", "5 gb", "1.5MB", "10KB", " 2TB"])
def test_sizes_as_hugging_face_writes_them(text: str) -> None:
    hub = pytest.importorskip("huggingface_hub.serialization._base")
    assert bytes_of(text) == hub.parse_size_to_int(text)


def test_other_sizes() -> None:
    assert [bytes_of(size) for size in (7, "7", "2KiB", "1.5 MiB", "1GIB")] == [7, 7, 2048, 3 << 19, 1 << 30]
    for size in ("", "GB", "5 bananas", "-1GB", 0, -1, True, "0KB", None, 1.5, "1e3", "5GBs"):
        with pytest.raises(ckptfmt.InputError, match="no size") as raised:
            bytes_of(size)  # type: ignore[arg-type]
        assert raised.value.code == "bad-option"


@pytest.mark.parametrize(
    ("target", "size", "files"),
    [
        ("new", "1MB", ["model.safetensors"]),
        ("new/", None, ["model.safetensors"]),
        (f"new/{INDEX}", None, ["model-00001-of-00001.safetensors", INDEX]),
        ("new/w.safetensors.index.json", "1MB", ["w-00001-of-00001.safetensors", "w.safetensors.index.json"]),
        ("new/w.safetensors", 4000, ["w.safetensors"]),
        ("new/w.safetensors", 800, [*(f"w-0000{n}-of-00002.safetensors" for n in (1, 2)), "w.safetensors.index.json"]),
        ("new/.safetensors.index.json", "1MB", ["model-00001-of-00001.safetensors", INDEX]),
    ],
)
def test_what_a_target_means(source: Path, tmp_path: Path, target: str, size: Any, files: list[str]) -> None:
    report = sharded(source, f"{tmp_path}/{target}", size)
    assert in_folder(tmp_path / "new") == files
    assert Path(report.target) == tmp_path / "new" / files[-1]
    ckptfmt.convert(tmp_path / "new", tmp_path / "back.ckpt")
    same(ckptfmt.load(tmp_path / "back.ckpt"), FLAT)


def test_an_index_is_told_by_its_name(source: Path, tmp_path: Path) -> None:
    report = ckptfmt.convert(source, tmp_path / "new" / INDEX)
    assert report.target_format == "safetensors"
    with pytest.raises(ckptfmt.InputError, match="not written as several files") as raised:
        ckptfmt.convert(source, tmp_path / "new" / "pytorch_model.bin.index.json")
    assert raised.value.code == "bad-option"
    with pytest.raises(ckptfmt.InputError, match="target_format='safetensors'"):
        ckptfmt.convert(source, tmp_path / "a folder", max_shard_size="5GB")


def test_an_open_file_is_one_file(source: Path) -> None:
    for format in ("safetensors", "npz"):
        with pytest.raises(ckptfmt.InputError, match="for files at paths") as raised:
            ckptfmt.convert(source, io.BytesIO(), target_format=format, max_shard_size="5GB")
        assert raised.value.code == "bad-option"
    ckptfmt.convert(source, written := io.BytesIO(), target_format="safetensors")
    same(safetensors.numpy.load(written.getvalue()), FLAT)


def test_a_folder_of_others_keeps_what_it_has(source: Path, tmp_path: Path) -> None:
    """And of its weights what was before goes, when the new ones are there."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.fp16.safetensors", "model-00001-of-00002.bin", "model.safetensors.md"):
        (folder / name).write_text(name)
    others = in_folder(folder)
    seen = []
    for size in (440, "1MB", 440, 440, 800, 440, "1MB", "1MB"):
        sharded(source, folder, size, overwrite=True)
        seen.append(sorted(set(os.listdir(folder)) - set(others)))
        with ckptfmt.conversion.open_source(str(folder), "safetensors") as found:
            same({name: np.array(leaf) for name, leaf in found.tree.items()}, FLAT)
    whole, three = ["model.safetensors"], [*PARTS, INDEX]
    two = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", INDEX]
    assert seen == [three, whole, three, three, two, three, whole, whole]
    assert all((folder / name).read_text() == name for name in others)


def test_weights_that_are_there_are_not_replaced_unasked(source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    sharded(source, folder)
    before = {name: (folder / name).read_bytes() for name in os.listdir(folder)}
    for size in (440, "1MB"):
        with pytest.raises(ckptfmt.CkptError, match="there are weights in this folder already") as raised:
            sharded(source, folder, size)
        assert (raised.value.code, raised.value.path) == ("exists", str(folder))
    assert {name: (folder / name).read_bytes() for name in os.listdir(folder)} == before
    ckptfmt.save(tmp_path / "packed", TREE, layout="packed")
    with pytest.raises(ckptfmt.CkptError, match="a checkpoint of its own"):
        sharded(source, tmp_path / "packed", overwrite=True)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ckptfmt.CkptError) as raised:
        sharded(source, tmp_path / "file")
    assert raised.value.code == "exists"


def test_the_folder_where_we_are(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which stays the same folder, empty or not."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for overwrite in (False, True):
        sharded(source, INDEX, overwrite=overwrite)
        assert in_folder(Path()) == in_folder(tmp_path / "here") == [*PARTS, INDEX]


@pytest.mark.parametrize("taken", [PARTS[0], PARTS[2], INDEX])
def test_another_writer_was_first(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    honest = ckptfmt.conversion.converter.compare

    def late(*arguments: Any, **more: Any) -> None:
        honest(*arguments, **more)
        (folder / taken).write_text("theirs")

    monkeypatch.setattr(ckptfmt.conversion.converter, "compare", late)
    with pytest.raises(ckptfmt.CkptError, match="another writer") as raised:
        sharded(source, folder)
    assert (raised.value.code, raised.value.path) == ("exists", str(folder))
    assert in_folder(folder) == [taken]
    assert (folder / taken).read_text() == "theirs"


def test_mlx_reads_every_file(tmp_path: Path) -> None:
    mlx = pytest.importorskip("mlx.core")
    ckptfmt.save(tmp_path / "x.ckpt", {"a": W, "b": {"c": W + 1}, "tied": W})
    sharded(tmp_path / "x.ckpt", tmp_path / "model")
    found: dict[str, Any] = {}
    for path in (tmp_path / "model").glob("*.safetensors"):
        found |= mlx.load(str(path))
    assert {name: np.array(array).tolist() for name, array in found.items()} == {"a": list(W), "b.c": list(W + 1)}


@pytest.mark.parametrize("index", ["{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": "../../x"}}'])
def test_an_old_index_that_nobody_can_read_is_replaced(source: Path, tmp_path: Path, index: str) -> None:
    folder = tmp_path / "model"
    sharded(source, folder)
    (tmp_path / "x").write_text("precious")
    (folder / INDEX).write_text(index)
    sharded(source, folder, overwrite=True)
    assert in_folder(folder) == [*PARTS, INDEX]
    assert (tmp_path / "x").read_text() == "precious"


def test_aliases_are_written_once_and_come_back(tmp_path: Path) -> None:
    """As `safetensors.torch.save_model` says it: under the first name, with the others in the metadata."""
    tree = {"b": W, "of": {"a": W, "c": W + 1}, "z": W, "half": W.astype(ml_dtypes.bfloat16)}
    ckptfmt.save(tmp_path / "x.ckpt", tree, metadata={"note": "x", "of.a": "taken"})
    with pytest.raises(ckptfmt.InputError, match="its name is taken"):
        ckptfmt.convert(tmp_path / "x.ckpt", tmp_path / "x.safetensors")
    for number, options in enumerate(({}, {"max_shard_size": 600}, {"max_shard_size": "1MB"})):
        target = tmp_path / str(number) / "x.safetensors"
        target.parent.mkdir()
        report = ckptfmt.convert(tmp_path / "x.ckpt", target, allow_loss="metadata", **options)
        assert [loss.kind for loss in report.losses] == ["metadata"]
        assert (report.tensors, report.bytes) == (5, 4 * 400 + 200)
        files = sorted(target.parent.glob("*.safetensors"))
        assert len(files) == (2 if number == 1 else 1)
        names = [name for file in files for name in safetensors.numpy.load_file(file)]
        assert sorted(names) == ["b", "half", "of.c"]
        if number != 1:
            with safetensors.safe_open(target, "numpy") as file:
                found = file.metadata()
                assert (found["of.a"], found["z"], found["note"]) == ("b", "b", "x")
        back = tmp_path / f"{number}.ckpt"
        assert ckptfmt.convert(target.parent, back, nest=True).losses == ()
        with ckptfmt.open(back) as checkpoint:
            assert checkpoint.metadata == {"note": "x"}
            assert checkpoint["of/a"].name == checkpoint["z"].name == checkpoint["b"].name
            same(checkpoint.load(), tree)


@pytest.mark.parametrize("name", ["format", "ckptfmt.json", "ckptfmt.schema"])
def test_an_alias_whose_name_means_something_else(tmp_path: Path, name: str) -> None:
    ckptfmt.save(tmp_path / "x.ckpt", {"a": W, name: W})
    with pytest.raises(ckptfmt.InputError) as raised:
        ckptfmt.convert(tmp_path / "x.ckpt", tmp_path / "x.safetensors", allow_loss=True)
    assert (raised.value.code, raised.value.tensor) == ("unsupported-key", name)


ABOUT = [
    '{"keys": [], "added": [], "aliases": ["b"]}',
    '{"keys": [], "added": [], "aliases": ["a"]}',
    '{"keys": [], "added": [], "aliases": [["a"]]}',
    '{"keys": [], "added": [], "aliases": {"lost": 3}}',
    '{"keys": [], "added": [], "aliases": 7}',
    '["keys"]',
    "3",
]


@pytest.mark.parametrize("about", ABOUT)
def test_metadata_that_lie_about_aliases_are_metadata(tmp_path: Path, about: str) -> None:
    strings = {"ckptfmt.json": about, "a": "a", "b": "c", "lost": "nowhere"}
    safetensors.numpy.save_file({"a": W}, tmp_path / "x.safetensors", strings)
    ckptfmt.convert(tmp_path / "x.safetensors", tmp_path / "x.ckpt")
    with ckptfmt.open(tmp_path / "x.ckpt") as checkpoint:
        assert checkpoint.metadata == strings
        assert_same_tree(dict(checkpoint.load()), {"a": W})


METADATA = [None, {}, {"format": "pt"}, {"format": "np", "a": "b"}, {"a": "b"}, {"n": [1]}, 3]


@pytest.mark.parametrize("metadata", METADATA, ids=str)
def test_metadata_of_several_files(tmp_path: Path, metadata: Any) -> None:
    schema = ("model", "1") if metadata else None
    expected = {"format": "pt"} if not metadata else {"metadata": 3} if metadata == 3 else metadata
    ckptfmt.save(tmp_path / "x.ckpt", TREE, metadata=metadata, schema=schema)
    for size in (440, "1MB"):
        sharded(tmp_path / "x.ckpt", tmp_path / f"m{size}", size, allow_loss="metadata")
        ckptfmt.convert(tmp_path / f"m{size}", tmp_path / f"{size}.ckpt")
        with ckptfmt.open(tmp_path / f"{size}.ckpt") as back:
            assert (back.metadata, back.schema) == (expected, schema)


def test_a_source_that_changes_leaves_what_was_there(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sharded(source, tmp_path / "model")
    before = {name: (tmp_path / "model" / name).read_bytes() for name in os.listdir(tmp_path / "model")}
    ckptfmt.save(tmp_path / "other.ckpt", {"b": W * 2, "c": W * 3}, durable=False)

    def differ(*_: Any, **__: Any) -> None:
        raise ckptfmt.errors.fault("not-equal", "it differs")

    monkeypatch.setattr(ckptfmt.conversion.converter, "compare", differ)
    for target in (tmp_path / "model", tmp_path / "new"):
        with pytest.raises(ckptfmt.CorruptError):
            sharded(tmp_path / "other.ckpt", target, overwrite=True)
    assert {name: (tmp_path / "model" / name).read_bytes() for name in os.listdir(tmp_path / "model")} == before
    assert in_folder(tmp_path) == ["model", "other.ckpt", "x.ckpt"]


def test_the_command(source: Path, tmp_path: Path) -> None:
    arguments = ["convert", "--max-shard-size", "440", str(source), str(tmp_path / "model" / INDEX)]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert in_folder(tmp_path / "model") == [*PARTS, INDEX]
    result = CliRunner().invoke(cli, ["convert", "--max-shard-size", "x", str(source), str(tmp_path / "y.safetensors")])
    assert result.exit_code == 2
    assert "no size" in result.output
    (tmp_path / "steps").mkdir()
    source.rename(tmp_path / "steps" / "x.ckpt")
    arguments = ["convert", "--each", "--to", "safetensors", "--max-shard-size", "440"]
    result = CliRunner().invoke(cli, [*arguments, str(tmp_path / "steps"), str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "x.safetensors.index.json" in in_folder(tmp_path / "out")
