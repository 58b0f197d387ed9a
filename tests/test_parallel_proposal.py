"""What ranks propose: trees are joined where dicts differ, and everything else must be equal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt.errors import CkptError
from ckptfmt.format import tree as trees
from ckptfmt.frameworks.sources import Shard, Sharded
from ckptfmt.parallel.proposal import Outline, boxes_of, joined, outline_of
from ckptfmt.testing import assert_same_tree
from ckptfmt.testing.strategies import trees as any_trees
from ckptfmt.writing.encoder import encode
from ckptfmt.writing.request import request


def outline(tree: Any, **options: Any) -> Outline:
    settings = {"compression": None, "schema": None, "metadata": None, "digest": "xxh3-128"}
    return outline_of(request(tree, **(settings | options)))


def join(*given_trees: Any) -> Any:
    """The tree that ranks with these trees save together; of tensors the names."""
    node, tensors = joined(dict(enumerate(map(outline, given_trees))))
    return trees.decode(node, lambda index: np.array(tensors[index][0]))


@given(any_trees())
def test_equal_trees_are_one(tree: Any) -> None:
    """And the outline of a tree travels."""
    one = outline(tree)
    again = Outline.decode(one.raw)
    assert again.raw == one.raw
    assert again.digest == one.digest
    node, tensors = joined({0: one, 3: again})
    encoded = encode(tree)
    assert repr(node) == repr(encoded.node)
    assert tuple(tensors) == one.tensors


@st.composite
def split_trees(draw: st.DrawFn) -> list[Any]:
    """What each of some ranks has of a tree of dicts."""
    count = draw(st.integers(1, 4))
    leaves = st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)

    def split(depth: int) -> list[Any]:
        if depth == 0 or draw(st.booleans()):
            return [draw(leaves)] * count
        shares: list[dict[Any, Any]] = [{} for _ in range(count)]
        for key in draw(st.lists(st.text(max_size=2) | st.integers(-2, 1 << 70), max_size=3, unique=True)):
            parts = split(depth - 1)
            for rank in draw(st.sets(st.integers(0, count - 1), min_size=1)):
                shares[rank][key] = parts[rank]
        return shares

    return split(3)


@given(split_trees())
def test_dicts_are_joined(shares: list[Any]) -> None:
    def merged(values: list[Any]) -> Any:
        if not all(isinstance(value, dict) for value in values):
            return values[0]
        keys = dict.fromkeys(key for value in values for key in value)
        return {key: merged([value[key] for value in values if key in value]) for key in keys}

    assert_same_tree(join(*shares), merged(shares))


def test_tensors_are_numbered_as_they_are_met() -> None:  # [TREE-016]
    one = {"b": np.zeros(1), "d": {"x": np.zeros(2)}}
    two = {"a": np.zeros(3), "b": np.zeros(1), "d": {"w": np.zeros(4), "x": np.zeros(2)}}
    node, tensors = joined({0: outline(one), 1: outline(two)})
    assert [name for name, *_ in tensors] == ["b", "d/x", "d/w", "a"]
    assert node == ["dict", ["b", "d", "a"], [
        ["tensor", 0], ["dict", ["x", "w"], [["tensor", 1], ["tensor", 2]]], ["tensor", 3]
    ]]  # fmt: skip


def test_containers_in_lists_are_joined() -> None:
    assert join([{"a": 1}, ({"b": 2}, 3)], [{"c": 4}, ({"d": 5}, 3)]) == [{"a": 1, "c": 4}, ({"b": 2, "d": 5}, 3)]


@pytest.mark.parametrize(
    ("one", "other", "where"),
    [
        (1, 2, ""),
        ({"a": 1}, {"a": 1.0}, "a"),
        ({"a": float("nan")}, {"a": -float("nan")}, "a"),
        ({"a": {}}, {"a": []}, "a"),
        ({"a": [1]}, {"a": (1,)}, "a"),
        ({"a": [[1], [2]]}, {"a": [[1], [2, 3]]}, "a/1"),
        ({"a": {"b": [None, {"c": "x"}]}}, {"a": {"b": [None, {"c": "y"}]}}, "a/b/1/c"),
        ({"a": 1 << 70}, {"a": 1 << 71}, "a"),
        ({"a": b"x"}, {"a": "x"}, "a"),
        ({"a": np.float32(1)}, {"a": np.float64(1)}, "a"),
        ({"a": np.zeros(2)}, {"a": None}, "a"),
        ({"a": 1j}, {"a": 2j}, "a"),
    ],
)
def test_values_that_differ_are_named(one: Any, other: Any, where: str) -> None:
    with pytest.raises(CkptError) as caught:
        join({"same": 1, "x": one}, {"same": 1, "x": one}, {"x": other})
    assert caught.value.code == "ranks-differ"
    assert caught.value.tensor == f"x/{where}".rstrip("/")
    assert "ranks 0 and 2" in caught.value.message


def test_nan_equals_itself() -> None:
    assert_same_tree(join({"a": float("nan")}, {"a": float("nan")}), {"a": float("nan")})


@pytest.mark.parametrize(
    ("options", "other"),
    [({}, np.zeros(3)), ({}, np.zeros((2, 1))), ({}, np.zeros(2, np.float32)), ({"compression": "zstd"}, np.zeros(2))],
)
def test_tensors_that_differ_are_named(options: dict[str, Any], other: Any) -> None:
    with pytest.raises(CkptError) as caught:
        joined({0: outline({"w": np.zeros(2)}), 5: outline({"w": other}, **options)})
    assert (caught.value.code, caught.value.tensor) == ("ranks-differ", "w")
    assert "ranks 0 and 5" in caught.value.message


def test_boxes_of_what_is_held() -> None:
    array = np.zeros((6, 2), np.int8)
    held = [((0, 0), array[:2]), ((4, 1), array[:2, :1]), ((2, 0), array[:0])]
    sharded = Sharded(array.shape, array.dtype, tuple(Shard(*one) for one in held))
    boxes = boxes_of([np.zeros(3), np.zeros((0, 4)), sharded, np.zeros(()), Sharded((3,), np.dtype(np.int8), ())])
    assert boxes.tensor.tolist() == [0, 2, 2, 3]
    assert boxes.start.tolist() == [[0, 0], [0, 0], [4, 1], [0, 0]]
    assert boxes.extent.tolist() == [[3, 0], [2, 2], [2, 1], [0, 0]]
    nothing = boxes_of([])
    assert (nothing.tensor.shape, nothing.start.shape) == ((0,), (0, 0))
