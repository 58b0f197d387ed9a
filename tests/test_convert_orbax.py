"""What Orbax keeps beside arrays of numbers: random keys, Python's numbers, text, empty containers, items; and what it
loses itself. Against checkpoints that Orbax wrote and restored."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import foreign_writers
import ml_dtypes
import numpy as np
import pytest
from conversions import imported
from foreign_writers import ORBAX_KINDS, ORBAX_TREES
from inside import inside

import ckptfmt
from ckptfmt.conversion import open_source
from ckptfmt.frameworks.target import flatten, rebuild
from ckptfmt.testing.equality import assert_same_tree

pytest.importorskip("orbax.checkpoint")


def run_writers(*arguments: object) -> None:
    command = [sys.executable, "-W", "ignore", foreign_writers.__file__, *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders that Orbax wrote, by the name of their writer."""
    path = tmp_path_factory.mktemp("orbax")
    run_writers("orbax-all", path)
    return path


def refused(path: Path, target: Path, code: str, *words: str) -> None:
    for verify in (True, False):
        with pytest.raises(ckptfmt.CkptError) as raised:
            ckptfmt.convert(path, target / "x.ckpt", allow_loss=True, verify=verify)
        assert raised.value.code == code
        assert all(word in str(raised.value) for word in words), raised.value
        assert not (target / "x.ckpt").exists()


# ---- kinds of leaves


@pytest.mark.parametrize("name", ORBAX_KINDS)
def test_kinds_of_leaves(folder: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(folder / "orbax-kinds" / name, tmp_path / "x")
    tree, metadata = imported(tmp_path / "x")
    values = {"int": 3, "float": 2.5, "bool": True, "large": 1 << 63, "narrow": np.float32(3), "array": np.array(4.0)}
    for key, value in values.items():
        assert_same_tree(tree["values"][key], value)
    assert tree["text"] == {"a": "x", "b/c": "y", "é": ["ü"]}
    zeros = tree["empty"].pop("zeros")
    assert tree["empty"] == {"none": None, "dict": {}, "list": [], "tuple": ()}
    assert_same_tree(zeros, np.zeros((4, 4), np.float32))
    assert_same_tree(tree["small"]["int4"], np.array([-8, 7], ml_dtypes.int4))
    assert_same_tree(tree["small"]["float8"], np.array([1.5, -2], ml_dtypes.float8_e4m3fn))
    assert metadata == {"orbax.tree_metadata": {"said": "of the tree"}}


def test_random_keys_are_keys(folder: Path, tmp_path: Path) -> None:
    """They come as the adapter for JAX saves them, so that it restores them; what cannot hold their tag says so."""
    for path, places in (("ocdbt-zarr2", ["keys/rng", "keys/many/0"]), ("plain-zarr2", ["keys/rng"])):
        ckptfmt.convert(folder / "orbax-kinds" / path, tmp_path / "x.ckpt", overwrite=True)
        with ckptfmt.open(tmp_path / "x.ckpt") as checkpoint:
            tree = str(inside(checkpoint).manifest.tree)
        assert "jax.key" in tree
        assert "rbg" in tree
        with open_source(str(folder / "orbax-kinds" / path)) as source:
            assert source.ours is not None
            found = {"/".join(map(str, place)): tags for place, tags in source.ours.tags.items()}
        assert found["keys/rng"] == [("jax.key", "rbg")]
        assert set(places) <= set(found)
    with pytest.raises(ckptfmt.InputError, match="nesting") as raised:
        ckptfmt.convert(folder / "orbax-kinds" / "ocdbt-zarr2", tmp_path / "x.npz")
    assert {loss.path for loss in raised.value.report if "jax.key" in loss.message} == {"keys/rng", "keys/many/0"}


def test_keys_that_orbax_stores_under_one_name(folder: Path, tmp_path: Path) -> None:
    refused(folder / "orbax-kinds" / "dotted", tmp_path, "bad-source", "'a/b'", "'a.b'")
    ckptfmt.convert(folder / "orbax-kinds" / "dots", tmp_path / "x.ckpt")
    expected = {"a.b": np.array([1, 2], np.int32), "a": {"c": np.array([8, 9], np.int32)}}
    found = ckptfmt.load(tmp_path / "x.ckpt")
    assert_same_tree({key: found[key] for key in expected}, expected)


def test_a_name_that_stands_twice(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "orbax-kinds" / "dots", tmp_path / "x")
    text = (tmp_path / "x/_METADATA").read_text()
    entry = text[text.index('{"(') + 1 : text.index("}}, ") + 2]
    (tmp_path / "x/_METADATA").write_text(text.replace(entry, f"{entry}, {entry}", 1))
    refused(tmp_path / "x", tmp_path, "bad-source", "twice")


# ---- items


def test_items_of_a_step(folder: Path, tmp_path: Path) -> None:
    step = folder / "orbax-kinds" / "run/5"
    with pytest.raises(ckptfmt.InputError) as raised:
        ckptfmt.convert(step, tmp_path / "x.ckpt")
    assert [(loss.kind, loss.path) for loss in raised.value.report] == [("metadata", "random")]
    ckptfmt.convert(step, tmp_path / "x.ckpt", allow_loss=True)
    with ckptfmt.open(tmp_path / "x.ckpt") as checkpoint:
        assert set(checkpoint.tree) == {"state", "ema"}
        assert checkpoint["state/w"][()].tolist() == [1, 1]
        assert checkpoint["ema/w"][()].tolist() == [0, 0]
        assert checkpoint.metadata == {
            "orbax.metrics": {"loss": 1.5},
            "orbax.custom_metadata": {"said": "of the step"},
            "orbax.items": {"about": {"name": "x"}},
        }
        assert "rbg" in str(inside(checkpoint).manifest.tree)


def test_one_item_is_the_tree(folder: Path, tmp_path: Path) -> None:
    for path, metadata in (("single/5", None), ("v1", {"orbax.custom_metadata": {"said": "of it"}})):
        ckptfmt.convert(folder / "orbax-kinds" / path, tmp_path / "x.ckpt", overwrite=True)
        with ckptfmt.open(tmp_path / "x.ckpt") as checkpoint:
            assert (set(checkpoint.tree), checkpoint.metadata) == ({"w"}, metadata)


def test_a_folder_of_checkpoints_names_them(folder: Path, tmp_path: Path) -> None:
    for name in ("dots", "dotted"):
        shutil.copytree(folder / "orbax-kinds" / name, tmp_path / "run" / name)
    refused(tmp_path / "run", tmp_path, "ambiguous-source", "dots (orbax), dotted (orbax)")
    shutil.copytree(folder / "orbax-kinds/single/5/default", tmp_path / "old/default")  # before a step said what it is
    assert set(imported(tmp_path / "old")[0]) == {"w"}


def test_an_item_that_is_gone_is_named(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "orbax-kinds" / "run/5", tmp_path / "5")
    shutil.rmtree(tmp_path / "5/ema")
    with open_source(str(tmp_path / "5")) as source:
        assert ("missing", "ema") in {(loss.kind, loss.path) for loss in source.losses}


def test_what_a_save_has_not_finished(folder: Path, tmp_path: Path) -> None:
    (unfinished,) = (folder / "orbax-lost").glob("unfinished*")
    refused(unfinished, tmp_path, "temporary", "not finished")
    shutil.copytree(unfinished, tmp_path / "step.orbax-checkpoint-tmp-12/state")
    refused(tmp_path / "step.orbax-checkpoint-tmp-12/state", tmp_path, "temporary")
    shutil.copytree(unfinished, tmp_path / "renamed")  # its own record says that it was not committed
    refused(tmp_path / "renamed", tmp_path, "temporary")


# ---- what is lost


def test_each_lost_file_is_found_as_orbax_finds_it(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "lost").mkdir()
    cases: dict[str, tuple[Path, Any]] = {}
    for kind in [*ORBAX_KINDS, "plain-zarr3"]:
        source = folder / "orbax-lost" / kind
        whole = imported(Path(shutil.copytree(source, tmp_path / kind)))[0]
        assert_same_tree({"w": whole["w"]}, {"w": np.arange(8, dtype=np.float32)})
        for file in (path.relative_to(source) for path in sorted(source.rglob("*")) if path.is_file()):
            name = f"{kind}-{len(cases)}"
            shutil.copytree(source, tmp_path / "lost" / name)
            (tmp_path / "lost" / name / file).unlink()
            cases[name] = file, whole
    run_writers("orbax-restore", tmp_path / "lost")
    restored = pickle.loads((tmp_path / "lost/restored.pickle").read_bytes())
    found: Counter[str] = Counter()
    for name, (file, whole) in cases.items():
        if not isinstance(restored[name], str) or file.name == "_sharding":
            assert_same_tree(imported(tmp_path / "lost" / name)[0], whole)
        else:
            refused(tmp_path / "lost" / name, tmp_path, "bad-source")
            found[name.partition("-")[0]] += 1
    assert found["ocdbt"] >= 4, found
    assert found["plain"] >= 20, found


def test_chunks_that_older_checkpoints_lack(folder: Path, tmp_path: Path) -> None:
    """Before Orbax said that it stores all of them, one that is not there is the fill value, where there is one."""
    ts = pytest.importorskip("tensorstore")
    for kind, chunk, has_fill in (("plain-zarr2", "w/1", False), ("plain-zarr3", "w/c/1", True)):
        path = Path(shutil.copytree(folder / "orbax-lost" / kind, tmp_path / kind))
        document = json.loads((path / "_METADATA").read_text())
        assert document.pop("store_array_data_equal_to_fill_value") is True
        (path / "_METADATA").write_text(json.dumps(document))
        (path / chunk).unlink()
        store = {"driver": "file", "path": f"{path}/w/"}
        array = ts.open({"driver": "zarr3" if has_fill else "zarr", "kvstore": store}, open=True).result()
        assert (array.fill_value is not None) is has_fill
        if has_fill:
            assert_same_tree(imported(path)[0]["w"], array.read().result())
        else:
            refused(path, tmp_path, "bad-source", "'w'", "missing")


# ---- any tree


def test_any_tree_is_what_orbax_restores(folder: Path) -> None:
    root = folder / "orbax-trees"
    restored = pickle.loads((root / "restored.pickle").read_bytes())
    compared = 0
    for name, expected in restored.items():
        try:
            with open_source(str(root / name)) as source:
                assert not source.losses
                tags = source.ours.tags if source.ours is not None else {}
                tree = rebuild(source.tree, lambda path, leaf: as_orbax(leaf, tags.get(path)))
        except ckptfmt.CkptError as error:
            assert isinstance(expected, str) or has_collision(expected), (name, error)
            continue
        assert_same_tree(numbers(tree), numbers(expected))
        compared += 1
    assert compared > ORBAX_TREES // 2


def as_orbax(leaf: Any, tags: Any) -> Any:
    """A leaf as Orbax gives it back: keys by their generator, scalars as Python's numbers."""
    value = np.asarray(leaf[()]) if hasattr(leaf, "read") else leaf
    if tags:
        return {f"key of {tags[0][1]}": value}
    return value.item() if isinstance(value, np.generic) else value


def numbers(tree: Any) -> Any:
    """Keys as dicts, and dicts in the order of their keys."""
    if isinstance(tree, dict):
        return {key: numbers(tree[key]) for key in sorted(tree)}
    if isinstance(tree, tuple) and len(tree) == 2 and isinstance(tree[0], str) and tree[0].startswith("key of"):
        return {tree[0]: tree[1]}
    return [numbers(item) for item in tree] if isinstance(tree, list) else tree


def has_collision(tree: Any) -> bool:
    names = [".".join(map(str, path)) for path, _ in flatten(tree)]
    return len(set(names)) < len(names)
