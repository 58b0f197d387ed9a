"""What targets cannot hold is named and refused; options, publication, memory and the command line of conversion."""

from __future__ import annotations

import json
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.cli.app import cli
from ckptfmt.conversion import open_source, table
from ckptfmt.conversion.fit import fit, nest
from ckptfmt.conversion.source import LazyArray, slabs, unflatten
from ckptfmt.format.names import path_text
from ckptfmt.frameworks.target import flatten
from ckptfmt.testing.equality import assert_same_tree

MATRIX = np.arange(12, dtype=np.float32).reshape(3, 4)


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def saved(folder: Path, tree: Any, **options: Any) -> Path:
    path = folder / "source.ckpt"
    ckptfmt.save(path, tree, durable=False, **options)
    return path


LOSSES: dict[str, tuple[str, Any, set[tuple[str, str]]]] = {
    "aliases": ("npz", {"a": MATRIX, "b": MATRIX}, {("alias", "b")}),
    "a dtype": ("npz", {"a": np.zeros(2, ml_dtypes.bfloat16)}, {("dtype", "a")}),
    "a wide dtype": ("safetensors", {"a": np.zeros((2, 3), np.complex128)}, {("dtype", "a")}),
    "a list": ("safetensors", {"a": [MATRIX]}, {("nesting", "a")}),
    "lists and keys at many places": (
        "safetensors",
        {"a": [MATRIX, (MATRIX + 1,)], "b": {"c.d": MATRIX + 2, "e": {0: MATRIX + 3}}, "f": {"g": MATRIX + 4}},
        {("nesting", "a"), ("nesting", "a/1"), ("nesting", "b"), ("nesting", "b/e")},
    ),
    "a period": ("safetensors", {"a.b": {"c": MATRIX}}, {("nesting", "")}),
    "an int key": ("safetensors", {0: MATRIX}, {("nesting", "")}),
    "an int key of a hierarchy": ("hdf5", {"a": {0: MATRIX}}, {("nesting", "a/0")}),
    "a tuple of a hierarchy": ("flax", {"a": (MATRIX,)}, {("nesting", "a")}),
    "an empty container": ("safetensors", {"a": {"b": MATRIX}, "c": {}}, {("nesting", "c")}),
    "a tree that is a leaf": ("hdf5", MATRIX, {("nesting", "")}),
    "a leaf alone that is left out": ("torch", np.str_("x"), {("value", "")}),
    "a number": ("safetensors", {"a": MATRIX, "n": 3}, {("value", "n")}),
    "a huge number": ("npz", {"n": 1 << 70}, {("value", "n")}),
    "a string": ("hdf5", {"s": "x"}, {("value", "s")}),
    "a NumPy scalar": ("torch", {"s": np.float32(2)}, {("value", "s")}),
    "metadata": ("npz", {"a": MATRIX}, {("metadata", "")}),
}


@pytest.mark.parametrize("what", LOSSES)
def test_losses(tmp_path: Path, what: str) -> None:
    target_format, tree, expected = LOSSES[what]
    if target_format == "torch":
        pytest.importorskip("torch")
    source = saved(tmp_path, tree, metadata={"step": 3} if what == "metadata" else None)
    with pytest.raises(ckptfmt.InputError) as raised:
        ckptfmt.convert(source, tmp_path / "target", target_format=target_format)
    assert raised.value.code == "lossy"
    assert {(loss.kind, loss.path) for loss in raised.value.report} == expected
    assert [path.name for path in tmp_path.iterdir()] == ["source.ckpt"]
    report = ckptfmt.convert(source, tmp_path / "target", target_format=target_format, allow_loss=True, durable=False)
    assert report.verified
    assert {(loss.kind, loss.path) for loss in report.losses} == expected


def test_bits_of_a_dtype_without_a_place_are_kept(tmp_path: Path) -> None:
    wide = np.array([1 + 2j, -0.0, np.nan], np.complex128)
    small = np.array([1, 2.5], ml_dtypes.bfloat16)
    source = saved(tmp_path, {"wide": wide, "small": small, "four": np.array([-8, 7], ml_dtypes.int4)})
    ckptfmt.convert(source, tmp_path / "x.safetensors", allow_loss=True)
    with safetensors.safe_open(tmp_path / "x.safetensors", "np") as file:
        assert file.get_tensor("wide").tobytes() == wide.tobytes()
        assert file.get_tensor("wide").shape == (3, 16)
        assert file.get_slice("small").get_dtype() == "BF16"
        assert file.get_tensor("four").tolist() == [8, 7]


def test_nested_dicts_without_periods_lose_nothing(tmp_path: Path) -> None:
    tree = {"a": {"b": MATRIX, "c": {"d": MATRIX[0].copy()}}}
    assert not ckptfmt.convert(saved(tmp_path, tree), tmp_path / "x.safetensors").losses
    ckptfmt.convert(tmp_path / "x.safetensors", tmp_path / "flat.ckpt")
    assert set(ckptfmt.load(tmp_path / "flat.ckpt")) == {"a.b", "a.c.d"}
    ckptfmt.convert(tmp_path / "x.safetensors", tmp_path / "nested.ckpt", nest=True)
    assert_same_tree(ckptfmt.load(tmp_path / "nested.ckpt"), tree)


def test_names_that_collide(tmp_path: Path) -> None:
    source = saved(tmp_path, {"a.b": MATRIX, "a": {"b": MATRIX + 1}})
    with pytest.raises(ckptfmt.InputError) as raised:
        ckptfmt.convert(source, tmp_path / "x.safetensors", allow_loss=True)
    assert raised.value.code == "name-collision"
    safetensors.numpy.save_file({"a": MATRIX, "a.b": MATRIX}, tmp_path / "y.safetensors")
    with pytest.raises(ckptfmt.InputError) as raised:
        ckptfmt.convert(tmp_path / "y.safetensors", tmp_path / "y.ckpt", nest=True)
    assert raised.value.code == "name-collision"
    assert raised.value.path == str(tmp_path / "y.safetensors")
    assert raised.value.advice == "Rename one, or leave out nest="
    source = tmp_path / "ints.ckpt"
    ckptfmt.save(source, {0: MATRIX, "0": MATRIX})
    with pytest.raises(ckptfmt.InputError) as raised:
        ckptfmt.convert(source, tmp_path / "x.h5", allow_loss=True)
    assert raised.value.code == "name-collision"


def test_keys_that_hdf5_cannot_have(tmp_path: Path) -> None:
    for key in ("a/b", "", ".", "..", "\0"):
        ckptfmt.save(tmp_path / "source.ckpt", {key: MATRIX}, overwrite=True)
        with pytest.raises(ckptfmt.InputError) as raised:
            ckptfmt.convert(tmp_path / "source.ckpt", tmp_path / "x.h5", allow_loss=True)
        assert raised.value.code == "unsupported-key"


# ---- pure parts

names = st.text("ab", min_size=1, max_size=2)
flat_trees = st.recursive(st.just(0), lambda inner: st.dictionaries(names, inner, min_size=1, max_size=3), max_leaves=8)


@given(flat_trees.filter(lambda tree: isinstance(tree, dict)))
def test_nest_undoes_joining(tree: Any) -> None:
    joined = {".".join(map(str, path)): leaf for path, leaf in flatten(tree)}
    assert nest(joined, ".") == tree


lists = st.recursive(
    st.integers(),
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(names, inner, min_size=1),
    max_leaves=8,
)


@given(lists)
def test_unflatten_undoes_flatten(tree: Any) -> None:
    assert unflatten(dict(flatten(tree))) == tree


def test_unflatten_refuses_a_leaf_above_another() -> None:
    with pytest.raises(ValueError, match="above"):
        unflatten({("a",): 1, ("a", "b"): 2})


@given(
    shape=st.lists(st.integers(0, 6), max_size=4).map(tuple),
    rows=st.none() | st.integers(1, 4),
    size=st.integers(1, 300),
)
def test_slabs_cover_a_tensor_in_order(shape: tuple[int, ...], rows: int | None, size: int) -> None:
    whole = np.arange(int(np.prod(shape)), dtype=np.int64).reshape(shape)
    reads: list[int] = []

    def read(index: Any) -> Any:
        part = whole[index]
        reads.append(part.nbytes)
        return part

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ckptfmt.conversion.source.SLAB", size)
        tensor = LazyArray(shape, whole.dtype, read, rows)
        parts = [tensor[index].reshape(-1) for index in slabs(tensor)]
    assert np.concatenate([np.empty(0, np.int64), *parts]).tolist() == whole.reshape(-1).tolist()
    row = 8 * int(np.prod(shape[1:])) * (rows or 1)
    assert max(reads) <= max(size, 8, row + size if rows else 0)


def test_ordered_dicts_lose_their_name_alone() -> None:
    holds = table.writer_of(table.FORMATS["flax"]).HOLDS
    fitted = fit(OrderedDict(a=OrderedDict(b=MATRIX)), None, holds)
    assert not fitted.losses
    assert type(fitted.tree["a"]) is dict


# ---- publication


def test_targets_are_replaced_only_when_asked(tmp_path: Path) -> None:
    source = saved(tmp_path, {"a": MATRIX})
    for target in (tmp_path / "x.safetensors", tmp_path / "x.ckpt", tmp_path / "x.npz"):
        target.write_bytes(b"precious")
        with pytest.raises(ckptfmt.ExistsError):
            ckptfmt.convert(source, target)
        assert target.read_bytes() == b"precious"
        ckptfmt.convert(source, target, overwrite=True)
        with open_source(str(target)) as opened:
            assert opened.tree["a"][()].tolist() == MATRIX.tolist()
    assert len(list(tmp_path.iterdir())) == 4


def test_what_is_written_is_compared_before_it_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ckptfmt.conversion import copying as module

    source = saved(tmp_path, {"a": MATRIX, "b": MATRIX + 1})
    honest = module.elements

    def flip(tensor: Any) -> Any:
        return (bytes(byte ^ 1 for byte in part) for part in honest(tensor))

    monkeypatch.setattr(module, "elements", flip)
    with pytest.raises(ckptfmt.CorruptError) as raised:
        ckptfmt.convert(source, tmp_path / "x.safetensors")
    assert (raised.value.code, raised.value.tensor) == ("not-equal", "a")
    assert [path.name for path in tmp_path.iterdir()] == ["source.ckpt"]
    assert not ckptfmt.convert(source, tmp_path / "x.safetensors", verify=False).verified
    assert not ckptfmt.diff(source, tmp_path / "x.safetensors").equal


@pytest.mark.parametrize("size", [5_000, 500_000])
@pytest.mark.parametrize("verify", [True, False])
def test_a_damaged_source_is_not_converted(tmp_path: Path, size: int, verify: bool) -> None:
    for layout in ("file", "loose"):
        source = tmp_path / layout
        ckptfmt.save(source, {"a": np.arange(size)}, layout=layout, durable=False)
        file = source if layout == "file" else source / "tensors/a/c/0"
        data = bytearray(file.read_bytes())
        data[20_000] ^= 1
        file.write_bytes(data)
        for target in ("x.safetensors", "x.ckpt", "x.npz"):
            with pytest.raises(ckptfmt.CorruptError) as raised:
                ckptfmt.convert(source, tmp_path / target, verify=verify)
            assert raised.value.code == "block-digest"
            assert not (tmp_path / target).exists()


def test_layouts_and_compression_of_the_target(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"a": np.zeros(100_000)}, tmp_path / "x.safetensors")
    ckptfmt.convert(tmp_path / "x.safetensors", tmp_path / "x", layout="loose", compression="zstd", metadata={"k": 1})
    with ckptfmt.open(tmp_path / "x") as checkpoint:
        assert (checkpoint.layout, checkpoint["a"].codec, checkpoint.metadata) == ("loose", "zstd", {"k": 1})
    ckptfmt.convert(tmp_path / "x", tmp_path / "y.ckpt", digest="sha256")
    assert ckptfmt.diff(tmp_path / "x", tmp_path / "y.ckpt").equal
    with pytest.raises(ckptfmt.InputError, match="layout") as raised:
        ckptfmt.convert(tmp_path / "x", tmp_path / "z.npz", layout="loose")
    assert raised.value.code == "bad-option"


def test_progress_counts_bytes_written_and_compared(tmp_path: Path) -> None:
    source = saved(tmp_path, {"a": MATRIX, "b": np.zeros(3)})
    for target in ("x.safetensors", "x.npz", "x.msgpack", "x.h5", "x.ckpt"):
        calls: list[tuple[int, int]] = []
        ckptfmt.convert(source, tmp_path / target, progress=lambda *call: calls.append(call))
        assert calls[-1] == (144, 144)
        assert sorted(calls) == calls
    with pytest.raises(ckptfmt.MissingError):
        ckptfmt.convert(tmp_path / "absent", tmp_path / "y.ckpt")


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = saved(tmp_path, {"a": MATRIX})
    (tmp_path / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    for package, extra, call in (
        ("h5py", "hdf5", lambda: ckptfmt.convert(tmp_path / "x.h5", tmp_path / "y.ckpt")),
        ("torch", "torch", lambda: ckptfmt.convert(source, tmp_path / "y.pt")),
    ):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(ckptfmt.UnsupportedError, match=f"pip install 'ckptfmt.{extra}.'") as raised:
            call()
        assert raised.value.code == "missing-package"


def test_unknown_formats(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"some text")
    for options in ({}, {"source_format": "word"}, {"target_format": "word"}, {"target_format": "gguf"}):
        with pytest.raises(ckptfmt.InputError) as raised:
            ckptfmt.convert(tmp_path / "x", tmp_path / "y", **options)
        assert raised.value.code == "unknown-format"


def test_the_message_is_short_where_the_losses_are_many(tmp_path: Path) -> None:
    source = saved(tmp_path, {"a": MATRIX, **{f"n{i}": i for i in range(50)}})
    with pytest.raises(ckptfmt.InputError, match="and 42 more"):
        ckptfmt.convert(source, tmp_path / "x.safetensors")


# ---- command line


def test_the_command(tmp_path: Path) -> None:
    source = saved(tmp_path, {"a": MATRIX, "n": 3})
    refused = run("convert", source, tmp_path / "x.safetensors")
    assert refused.exit_code == 2
    assert "value of 'n'" in refused.stderr
    assert refused.stderr.endswith("[lossy]\n")
    done = run("convert", "--allow-loss", source, tmp_path / "x.safetensors")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert lines[0].endswith("safetensors from ckptfmt: 2 tensors, 56 B, every one compared")
    assert lines[1:] == ["  value of 'n': int becomes a tensor without axes"]
    assert run("convert", tmp_path / "x.safetensors", tmp_path / "y", "--layout", "loose", "-q").stdout == ""
    assert ckptfmt.open(tmp_path / "y").layout == "loose"
    document = json.loads(run("convert", "--json", "--no-verify", "-f", tmp_path / "y", tmp_path / "x.npz").stdout)
    assert document["verified"] is False
    assert (document["target_format"], document["tensors"], document["losses"]) == ("npz", 2, [])


def test_the_command_lists_formats_and_wants_two_paths(tmp_path: Path) -> None:
    listed = run("convert", "--formats")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(table.FORMATS)
    rows = json.loads(run("convert", "--formats", "--json").stdout)["formats"]
    assert {row["name"] for row in rows if row["writable"]} >= {
        "ckptfmt",
        "safetensors",
        "torch",
        "npz",
        "hdf5",
        "flax",
    }
    assert run("convert", tmp_path).exit_code == 2


def test_path_texts_of_losses_are_those_of_the_source(tmp_path: Path) -> None:
    source = saved(tmp_path, {"a": {"b": [1, MATRIX]}})
    report = ckptfmt.convert(source, tmp_path / "x.npz", allow_loss=True)
    assert {loss.path for loss in report.losses} == {"a/b", path_text(("a", "b", 0))}
