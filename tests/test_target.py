"""Matching a target tree with a checkpoint's leaves, without any file (SPEC.md section 12)."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given

from ckptfmt.frameworks.adapter import slot
from ckptfmt.frameworks.target import MatchReport, flatten, match, rebuild
from ckptfmt.testing import assert_same_tree
from ckptfmt.testing.strategies import trees


class Stored(NamedTuple):
    """Stands for a tensor that has not been read."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def stored(dtype: Any, *shape: int) -> Stored:
    return Stored(shape, np.dtype(dtype))


def compare(target: Any, leaves: dict[Any, Any], cast: bool = False) -> MatchReport:
    wanted = dict(flatten(target))
    slots = {path: slot(leaf) for path, leaf in wanted.items()}
    return match(wanted, slots, leaves, lambda leaf: isinstance(leaf, Stored), cast)


def test_everything_fits() -> None:
    target = {"a": [np.zeros((2, 3), np.float32), 5], "b": np.zeros((), ">i8")}
    report = compare(target, {("a", 0): stored("f4", 2, 3), ("a", 1): "text", ("b",): stored("i8")})
    assert report.ok
    assert str(report) == "target and checkpoint match"


def test_every_difference_is_in_the_report() -> None:  # [READ-006]
    read_only = np.zeros(1)
    read_only.flags.writeable = False
    target = {
        "shape": np.zeros(3),
        "dtype": np.zeros(3),
        "both": np.zeros((2, 2), np.int8),
        "kind": np.zeros(3),
        "plain": 5,
        "readonly": read_only,
        "gone": {"x": 1},
    }
    leaves = {
        ("shape",): stored("f8", 4),
        ("dtype",): stored("f4", 3),
        ("both",): stored("u1", 4),
        ("kind",): None,
        ("plain",): stored("f8"),
        ("readonly",): stored("f8", 1),
        ("new", 0): stored("f8"),
    }
    report = compare(target, leaves)
    assert not report.ok
    assert report.missing == ("gone/x",)
    assert report.unexpected == ("new/0",)
    assert report.shape == (("shape", (4,), (3,)), ("both", (4,), (2, 2)))
    assert [(path, str(found), str(wanted)) for path, found, wanted in report.dtype] == [
        ("dtype", "float32", "float64"),
        ("both", "uint8", "int8"),
    ]
    assert report.kind == (("kind", "NoneType", "tensor"), ("plain", "tensor", "int"))
    assert report.readonly == ("readonly",)
    for name in ("gone/x", "new/0", "shape", "dtype", "both", "kind", "plain", "readonly"):
        assert name in str(report)
    assert "found float32, expected float64" in str(report)


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(MatchReport) if field.compare])
def test_any_difference_is_one(field: str) -> None:
    assert MatchReport().ok
    difference: Any = {field: (("x", "y", "z"),)}
    assert not MatchReport(**difference).ok


def test_long_reports_are_shortened() -> None:
    report = compare({f"k{i:02}": 0 for i in range(20)}, {})
    assert "k07" in str(report)
    assert "k08" not in str(report)
    assert "12 more" in str(report)
    assert len(report.missing) == 20


def test_int_and_str_keys_differ() -> None:  # [TREE-006]
    report = compare({0: 1}, {("0",): 1})
    assert (report.missing, report.unexpected) == (("0",), ("'0'",))


CASTS = [
    ("f8", "f4", True),
    ("f4", "f8", True),
    ("f4", ml_dtypes.bfloat16, True),
    (ml_dtypes.float8_e4m3fn, "f2", True),
    ("i8", "i1", True),
    ("i4", "u4", True),
    ("i4", "f4", True),
    ("?", "i1", True),
    ("?", "c8", True),
    ("f4", "c8", True),
    ("c16", "c8", True),
    (ml_dtypes.int4, "i8", True),
    ("f4", "i4", False),
    ("c8", "f8", False),
    ("i4", "?", False),
    ("f4", "?", False),
    ("M8[s]", "i8", False),
    ("i8", "M8[s]", False),
    ("M8[s]", "M8[ms]", False),
]


@pytest.mark.parametrize(("found", "wanted", "allowed"), CASTS)
def test_casts_keep_the_kind_of_number(found: Any, wanted: Any, allowed: bool) -> None:
    target, leaves = {"a": np.zeros(2, wanted)}, {("a",): stored(found, 2)}
    assert not compare(target, leaves).ok  # [READ-006]: only where it is asked for
    assert compare(target, leaves, cast=True).ok is allowed


@given(trees())
def test_rebuilding_with_the_leaves_gives_the_tree(tree: Any) -> None:
    leaves = dict(flatten(tree))
    assert_same_tree(rebuild(tree, lambda path, _: leaves[path]), tree)


def test_leaves() -> None:
    tree = {"a": [1, {}], 0: OrderedDict(x=(2, ())), "b": None}
    assert list(flatten(tree)) == [(("a", 0), 1), (("a", 1), {}), ((0, "x", 0), 2), ((0, "x", 1), ()), (("b",), None)]
    assert list(flatten(5)) == [((), 5)]
    assert rebuild(tree, lambda path, leaf: path)["a"] == [("a", 0), ("a", 1)]
