"""Walking an open checkpoint: what iterating gives, finds the tensor again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from migrations import document

import ckptfmt
from ckptfmt.format.names import path_text
from ckptfmt.testing import strategies

ONE = np.ones(1, np.float32)
ADDRESS = re.compile("0x[0-9A-F]+", re.IGNORECASE)


@contextmanager
def opened(folder: Path, tree: Any) -> Iterator[list[Any]]:
    """As it is, and seen through a migration that changes nothing, and as tensors of NumPy's adapter."""
    ckptfmt.save(folder / "c.ckpt", tree, schema=("s", "1"), overwrite=True, durable=False)
    path, same = folder / "c.ckpt", {"schema": "2", "migrations": document(rest="keep")}
    with (
        ckptfmt.open(path) as one,
        ckptfmt.open(path, **same) as view,
        ckptfmt.open(path, framework="numpy") as seen,
        ckptfmt.open(path, framework="numpy", **same) as both,
    ):
        yield [one, view, seen, both]


@pytest.mark.parametrize(
    ("tree", "names"),
    [
        ({"a/b": ONE, "a": {"b": ONE + 1}}, [("a/b",), ("a", "b")]),
        ({0: ONE, "0": ONE + 1}, [(0,), ("0",)]),
        ({"a": {"0": ONE, 0: ONE + 1, 1: ONE}}, [("a", "0"), ("a", 0), "a/1"]),
        ({"a/b": {"c": ONE}, "a": {"b/c": ONE + 1, "d": ONE}}, [("a/b", "c"), ("a", "b/c"), "a/d"]),
        ({"w": ONE, "step": 3}, ["w"]),
        (ONE, [""]),
        ({}, []),
    ],
    ids=str,
)
def test_names_that_find_each_tensor(tmp_path: Path, tree: Any, names: list[Any]) -> None:
    with opened(tmp_path, tree) as checkpoints:
        for checkpoint in checkpoints:
            assert list(checkpoint) == checkpoint.keys() == names
            assert [checkpoint[name] for name in checkpoint] == checkpoint.values()
            assert checkpoint.items() == list(zip(names, checkpoint.values(), strict=True))
            assert all(name in checkpoint for name in checkpoint)
            assert len(checkpoint) == len({id(tensor) for tensor in checkpoint.values()})


@given(tree=strategies.trees())
def test_any_tree(scratch: Any, tree: Any) -> None:
    with scratch() as folder:
        ckptfmt.save(f"{folder}/c.ckpt", tree, durable=False)
        with ckptfmt.open(f"{folder}/c.ckpt") as checkpoint:
            for name, tensor in checkpoint.items():
                assert checkpoint[name] is tensor


def test_get(tmp_path: Path) -> None:
    with opened(tmp_path, {"a": {"w": ONE}, "0": 1, 0: 2, "none": None}) as checkpoints:
        for checkpoint in checkpoints:
            assert checkpoint.get("a/w") is checkpoint["a/w"]
            assert checkpoint.get("none", 5) is None
            assert checkpoint.get("nothing") is None
            assert checkpoint.get("nothing", 5) == 5
            assert checkpoint.get(("0",)) == 1
            with pytest.raises(ckptfmt.SelectionError, match=r"'0' fits 2 paths"):
                checkpoint.get("0")


def test_an_ambiguous_text_names_the_exact_paths(tmp_path: Path) -> None:
    with opened(tmp_path, {"a/b": ONE, "a": {"b": ONE + 1}}) as checkpoints:
        for checkpoint in checkpoints:
            with pytest.raises(ckptfmt.SelectionError, match=r"Give an exact one: \[\('a/b',\)\] or \[\('a', 'b'\)\]"):
                checkpoint["a/b"]
            assert checkpoint["a/b",] is checkpoint.values()[0]
            assert checkpoint["a", "b"] is checkpoint.values()[1]


def outcome(look: Any) -> Any:
    """What a lookup gives: a tensor's path, a value, or the code of its error."""
    try:
        found = look()
    except ckptfmt.CkptError as error:
        return error.code
    return ("tensor", found.path) if isinstance(found, ckptfmt.Tensor) else ("value", ADDRESS.sub("", repr(found)))


LONG = 1 << 9000  # whose path text has hexadecimal digits


@pytest.mark.parametrize("paged", [False, True])
@given(tree=strategies.trees())
@example(tree={"a": [{1, 2}, {"b": range(3)}], "f": Fraction(1, 2)})
@example(tree={"a": {hex(LONG): 1, LONG: 2, -LONG: 3, "b": 4}})
def test_one_that_is_looked_up_alone(scratch: Any, tree: Any, paged: bool) -> None:
    """Without a look at the rest of the tree it is what a look at all of it finds; so is what is not there."""
    with scratch() as folder:
        ckptfmt.save(f"{folder}/c.ckpt", tree, paged=paged, durable=False)
        with ckptfmt.open(f"{folder}/c.ckpt") as known:
            paths = [found[:end] for found in list(known.leaves)[:8] for end in range(len(found) + 1)]
            asked: list[Any] = [
                *paths,
                *map(path_text, paths),
                *((*found, 0) for found in paths),
                "",
                "x/y",
                ("x", 0),
                (),
                "0",
                0,
            ]
            names = list(known)
            expected = [(outcome(lambda p=p: known[p]), p in known) for p in asked]
        with ckptfmt.open(f"{folder}/c.ckpt") as fresh:
            assert list(fresh) == names
        for path, (found, is_there) in zip(asked, expected, strict=True):
            with ckptfmt.open(f"{folder}/c.ckpt") as fresh:
                assert outcome(lambda p=path, c=fresh: c[p]) == found
                assert (path in fresh) == is_there


def test_one_is_the_same_object_however_it_was_found(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "c.ckpt", {"a": [ONE, 5], "b": ONE})
    with ckptfmt.open(tmp_path / "c.ckpt") as checkpoint:
        first = checkpoint["a/0"]
        assert checkpoint["b"] is first
        assert first.path == ("a", 0)
        assert all(tensor is first for tensor in checkpoint.values())
        assert checkpoint["a"][0] is first
