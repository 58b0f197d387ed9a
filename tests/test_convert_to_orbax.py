"""Directories of Orbax that conversions write: Orbax restores them, and so does this package."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from conversions import CORE, imported, in_order, one_of_each
from hypothesis import given, settings
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.conversion import orbax_trees
from ckptfmt.testing import assert_same_tree, strategies

ocp = pytest.importorskip("orbax.checkpoint")
pytestmark = pytest.mark.filterwarnings("ignore")

MATRIX = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(autouse=True)
def quiet() -> None:
    logging.getLogger("absl").setLevel(logging.ERROR)


def written(folder: Path, tree: Any, metadata: Any = None, **options: Any) -> ckptfmt.ConvertReport:
    ckptfmt.save(folder / "x.ckpt", tree, metadata=metadata, overwrite=True, durable=False)
    options = {"target_format": "orbax", "durable": False, **options}
    return ckptfmt.convert(folder / "x.ckpt", folder / "orbax", **options)


def restored(folder: Path) -> Any:
    with ocp.PyTreeCheckpointer() as checkpointer:
        return checkpointer.restore(folder / "orbax")


def test_orbax_restores_it(tmp_path: Path) -> None:
    values = {"none": None, "flag": True, "n": -(1 << 63), "large": (1 << 64) - 1, "x": 0.5, "text": "é", "empty": {}}
    tree = {"params": {"w": MATRIX, "b.c": MATRIX[0].astype(ml_dtypes.bfloat16)}, "layers": [MATRIX + 1, 2], **values}
    assert written(tmp_path, tree, durable=True).losses == ()
    assert_same_tree(in_order(restored(tmp_path), tree), tree)
    assert_same_tree(in_order(imported(tmp_path / "orbax")[0], tree), tree)
    like = {"params": {"w": np.zeros((2, 3), np.float32), "b.c": np.zeros(3, ml_dtypes.bfloat16)}}
    with ocp.PyTreeCheckpointer() as checkpointer:
        part = checkpointer.restore(tmp_path / "orbax", args=ocp.args.PyTreeRestore(like, partial_restore=True))
    assert_same_tree(in_order(part["params"], tree["params"]), tree["params"])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["imported.ckpt", "orbax", "x.ckpt"]


def test_a_standard_checkpointer_restores_it_into_a_state_of_jax(tmp_path: Path) -> None:
    jax = pytest.importorskip("jax")
    optax = pytest.importorskip("optax")
    params = {"w": jax.numpy.ones((2, 3)), "b": jax.numpy.zeros(3)}
    state = {"params": params, "opt": optax.adam(0.1).init(params), "rng": jax.random.key(7)}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "first", state)
    assert ckptfmt.convert(tmp_path / "first", tmp_path / "x.ckpt").losses == ()
    assert ckptfmt.convert(tmp_path / "x.ckpt", tmp_path / "second", target_format="orbax").losses == ()
    with ocp.StandardCheckpointer() as checkpointer:
        again = checkpointer.restore(
            tmp_path / "second", jax.tree.map(jax.numpy.zeros_like, {**state, "rng": 0}) | {"rng": state["rng"]}
        )
    assert jax.tree.structure(again) == jax.tree.structure(state)
    data = jax.random.key_data
    assert np.array_equal(data(again.pop("rng")), data(state.pop("rng")))
    assert all(map(np.array_equal, jax.tree.leaves(again), jax.tree.leaves(state)))


def test_elements_of_every_kind(tmp_path: Path) -> None:
    names = [*CORE, "complex64", "complex128", *sorted(orbax_trees.DTYPES)]
    tree = one_of_each(names)
    del tree["empty"]
    assert written(tmp_path, tree).losses == ()
    assert_same_tree(in_order(restored(tmp_path), tree), tree)


def test_metadata_of_the_tree(tmp_path: Path) -> None:
    said = {"orbax.tree_metadata": {"about": ["x", 1, None]}}
    assert written(tmp_path, {"w": MATRIX}, said).losses == ()
    assert imported(tmp_path / "orbax")[1] == said
    report = written(tmp_path, {"w": MATRIX}, {"orbax.tree_metadata": {"raw": b"x"}}, overwrite=True, allow_loss=True)
    assert [loss.kind for loss in report.losses] == ["metadata"]


LOST = {
    "a tuple": ({"a": (MATRIX, 1)}, ("nesting", "a", "a tuple becomes a list")),
    "no elements": (
        {"a": [np.zeros((0, 3)), 1]},
        ("value", "a/0", "an array without elements, which Orbax refuses, becomes None"),
    ),
    "int keys": ({"a": {1: MATRIX}}, ("nesting", "a/1", "an int key becomes a string")),
    "a complex number": ({"a": 1j}, ("value", "a", "complex becomes a tensor without axes")),
    "a vast int": ({"a": 1 << 70, "w": MATRIX}, ("value", "a", "int is left out")),
    "bytes": ({"a": b"x", "w": MATRIX}, ("value", "a", "bytes is left out")),
    "uint4": ({"a": MATRIX.astype(ml_dtypes.uint4)}, ("dtype", "a", "uint4 becomes uint8 with the same bits")),
    "an alias": ({"a": MATRIX, "b": MATRIX}, ("alias", "b", "a second copy of 'a'")),
}


@pytest.mark.parametrize("what", LOST)
def test_what_is_lost_is_named_first(tmp_path: Path, what: str) -> None:
    tree, loss = LOST[what]
    with pytest.raises(ckptfmt.InputError, match=loss[2]) as raised:
        written(tmp_path, tree)
    assert raised.value.code == "lossy"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["x.ckpt"]
    report = written(tmp_path, tree, allow_loss=True)
    assert [tuple(found) for found in report.losses] == [loss]
    restored(tmp_path)


REFUSED = {
    "two names in one": ({"a.b": MATRIX, "a": {"b": MATRIX + 1}}, "name-collision"),
    "a slash more": ({"a/": MATRIX, "a": MATRIX + 1}, "name-collision"),
    "text below text": ({"a": "x", "a/b": "y"}, "name-collision"),
    "nothing": ({}, "unsupported-leaf"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_orbax_would_lose_is_refused(tmp_path: Path, what: str) -> None:
    tree, code = REFUSED[what]
    with pytest.raises(ckptfmt.InputError) as raised:
        written(tmp_path, tree, allow_loss=True)
    assert raised.value.code == code
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["x.ckpt"]


@pytest.mark.parametrize("name", ["", "a/", "/", "..", "d", "manifest.ocdbt", "_METADATA", "\0", "é", "x" * 3000])
def test_names(tmp_path: Path, name: str) -> None:
    tree = {name: MATRIX, "z": "text"}
    assert written(tmp_path, tree).losses == ()
    assert_same_tree(in_order(restored(tmp_path), tree), tree)


@pytest.mark.parametrize("tree", [MATRIX, 5, [MATRIX, None]], ids=["an array", "a number", "a list"])
def test_a_tree_that_is_no_dict(tmp_path: Path, tree: Any) -> None:
    assert written(tmp_path, tree).losses == ()
    assert_same_tree(restored(tmp_path), tree)
    assert_same_tree(imported(tmp_path / "orbax")[0], tree)


def test_any_tree_comes_back_or_its_losses_are_named(scratch: Callable[[], Any]) -> None:
    @settings(max_examples=max(10, settings().max_examples // 5))
    @given(tree=strategies.trees(max_leaves=6), verify=st.booleans())
    def check(tree: Any, verify: bool) -> None:
        with scratch() as folder:
            try:
                report = written(Path(folder), tree, allow_loss=True, verify=verify)
            except ckptfmt.InputError as error:
                assert error.code in ("name-collision", "unsupported-key", "unsupported-leaf")
                return
            found = ckptfmt.diff(f"{folder}/x.ckpt", f"{folder}/orbax")
            assert report.losses or not (found.changed or found.added or found.removed)

    check()
