"""Laws of migrations, over generated trees and documents: backwards undoes forwards bit by bit, lazy reads are what an
eager program computes, a chain planned at once is its steps one after another."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.format.casts import cast
from ckptfmt.format.dtypes import DTYPES
from ckptfmt.migration.casts import is_castable, is_exact
from ckptfmt.testing.equality import assert_same_tree
from ckptfmt.testing.strategies import basic_indices, filled

Scratch = Callable[[], AbstractContextManager[str]]
DTYPE_NAMES = [name for name in DTYPES if name != "bool"]
FLOATS = ("float16", "bfloat16", "float32", "float64")
PAIRS = [(one, other) for one in DTYPES for other in DTYPES if one != other and is_castable(one, other)]
WIDER = [pair for pair in PAIRS if is_exact(*pair)]


class Case(NamedTuple):
    """A rule, the tensors that it takes, and those that it gives: computed eagerly, with NumPy alone."""

    rule: dict[str, Any]
    before: dict[str, Any]
    after: dict[str, Any]


def bits_of(name: str, shape: tuple[int, ...], seed: int) -> Any:
    return filled(DTYPES[name].numpy, shape, seed)


seeds = st.integers(1, 2**32 - 1)
shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
solid = st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple)


@st.composite
def moves(draw: st.DrawFn, name: str) -> Case:
    array = bits_of(draw(st.sampled_from(DTYPE_NAMES)), draw(shapes), draw(seeds))
    return Case({"from": name, "to": f"moved/{name}"}, {name: array}, {f"moved/{name}": array})


@st.composite
def added(draw: st.DrawFn, name: str) -> Case:
    """copy, alias and fill beside what `rest` keeps."""
    array = bits_of("float32", draw(shapes), draw(seeds))
    operator = draw(st.sampled_from([{"op": "copy"}, {"op": "alias"}, {"op": "fill", "value": 2.5}]))
    new = np.full(array.shape, 2.5, np.float32) if operator["op"] == "fill" else array
    return Case(
        {"from": name, "with": [operator], "to": f"new/{name}"}, {name: array}, {name: array, f"new/{name}": new}
    )


@st.composite
def casts(draw: st.DrawFn, name: str) -> Case:
    source, target = draw(st.sampled_from(WIDER))
    array = bits_of(source, draw(shapes), draw(seeds))
    step = {"op": "cast", "from": source, "dtype": target}
    return Case(
        {"from": name, "with": [step], "to": name}, {name: array}, {name: cast(array, DTYPES[target].numpy).values}
    )


@st.composite
def negations(draw: st.DrawFn, name: str) -> Case:
    kind = draw(st.sampled_from(FLOATS))
    array = bits_of(kind, draw(shapes), draw(seeds))
    bits = array.view(f"u{array.dtype.itemsize}")
    flipped = np.array(bits ^ bits.dtype.type(1 << (8 * array.dtype.itemsize - 1))).view(array.dtype)
    return Case({"from": name, "with": [{"op": "neg"}], "to": name}, {name: array}, {name: flipped})


@st.composite
def pads(draw: st.DrawFn, name: str) -> Case:
    shape = draw(solid)
    array = bits_of("int16", shape, draw(seeds))
    axis = draw(st.integers(0, len(shape) - 1))
    before, after = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    step = {"op": "pad", "axis": axis, "before": before, "after": after, "value": 7}
    widths = [(before, after) if number == axis else (0, 0) for number in range(len(shape))]
    padded = np.pad(array, widths, constant_values=7)
    return Case({"from": name, "with": [step], "to": name}, {name: array}, {name: padded})


@st.composite
def rearrangements(draw: st.DrawFn, name: str) -> Case:
    """Any axes split in any way, put into any order and joined in any way."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    letters = "abcde"[: len(sizes)]
    order = draw(st.permutations(range(len(sizes))))

    def grouped(axes: list[int]) -> tuple[str, tuple[int, ...]]:
        groups: list[list[int]] = []
        for axis in axes:
            if groups and draw(st.booleans()):
                groups[-1].append(axis)
            else:
                groups.append([axis])
        text = " ".join(f"({' '.join(letters[a] for a in g)})" if len(g) > 1 else letters[g[0]] for g in groups)
        return text, tuple(math.prod(sizes[a] for a in g) for g in groups)

    left, shape = grouped(list(range(len(sizes))))
    right, result = grouped(list(order))
    array = bits_of(draw(st.sampled_from(["int8", "bfloat16", "int4"])), shape, draw(seeds))
    step = {"op": "rearrange", "pattern": f"{left} -> {right}", "axes": dict(zip(letters, sizes, strict=True))}
    after = array.reshape(sizes).transpose(order).reshape(result)
    return Case({"from": name, "with": [step], "to": name}, {name: array}, {name: after})


@st.composite
def stacks(draw: st.DrawFn, name: str) -> Case:
    count, shape = draw(st.integers(1, 12)), draw(shapes)
    arrays = [bits_of("float16", shape, draw(seeds)) for _ in range(count)]
    axis = draw(st.integers(0, len(shape)))
    rule = {"from": f"{name}.{{e:int}}", "with": [{"op": "stack", "axis": axis}], "to": name}
    return Case(rule, {f"{name}.{e}": array for e, array in enumerate(arrays)}, {name: np.stack(arrays, axis)})


@st.composite
def unstacks(draw: st.DrawFn, name: str) -> Case:
    shape = draw(solid)
    array = bits_of("complex64", shape, draw(seeds))
    axis = draw(st.integers(0, len(shape) - 1))
    rule = {"from": name, "with": [{"op": "unstack", "axis": axis}], "to": f"{name}.x{{e:int}}"}
    parts = {f"{name}.x{e}": np.array(np.take(array, e, axis)) for e in range(shape[axis])}
    return Case(rule, {name: array}, parts)


@st.composite
def splits(draw: st.DrawFn, name: str) -> Case:
    """Cut, one part turned around, and joined again in another order of axes."""
    shape = draw(solid)
    axis = draw(st.integers(0, len(shape) - 1))
    sizes = draw(st.lists(st.integers(0, 3), min_size=1, max_size=4))
    array = bits_of("float64", (*shape[:axis], sum(sizes), *shape[axis + 1 :]), draw(seeds))
    step = {"op": "split", "axis": axis, "sizes": sizes}
    parts = np.split(array, np.cumsum(sizes)[:-1], axis)
    targets = [f"{name}-{number}" for number in range(len(sizes))]
    return Case({"from": name, "with": [step], "to": targets}, {name: array}, dict(zip(targets, parts, strict=True)))


@st.composite
def concatenations(draw: st.DrawFn, name: str) -> Case:
    case = draw(splits(name))
    (array,) = case.before.values()
    step = {**case.rule["with"][0], "op": "concat"}
    return Case({"from": case.rule["to"], "with": [step], "to": name}, case.after, {name: array})


KINDS = (moves, added, casts, negations, pads, rearrangements, stacks, unstacks, splits, concatenations)


@st.composite
def documents(draw: st.DrawFn, start: str = "1", end: str = "2") -> tuple[dict[str, Any], Any, Any]:
    """An exact document, a tree, and what it becomes."""
    cases = [draw(draw(st.sampled_from(KINDS))(f"t{number}")) for number in range(draw(st.integers(1, 5)))]
    document = {
        "ckptfmt_migration": 1,
        "schema": "s",
        "from": start,
        "to": end,
        "rest": "keep",
        "rules": [case.rule for case in cases],
    }
    before = {name: array for case in cases for name, array in case.before.items()}
    after = {name: array for case in cases for name, array in case.after.items()}
    return document, {**before, "step": 3}, {**after, "step": 3}


def flat(tree: Any, path: str = "") -> dict[str, Any]:
    """Leaves by path text, in the order of the texts."""
    if isinstance(tree, dict):
        found = {k: v for key, item in tree.items() for k, v in flat(item, f"{path}/{key}").items()}
        return dict(sorted(found.items()))
    return {path.lstrip("/"): np.array(tree) if isinstance(tree, np.ndarray) else tree}  # aliases apart


@given(documents())
def test_forwards_is_right_and_backwards_undoes_it(scratch: Scratch, made: tuple[Any, Any, Any]) -> None:  # [MIG-014]
    document, tree, expected = made
    with scratch() as folder:
        ckptfmt.save(f"{folder}/1", tree, schema=("s", "1"), durable=False)
        report = ckptfmt.migrate(f"{folder}/1", f"{folder}/2", document, schema="2", durable=False)
        assert str(report.plan.loss) == "exact"
        assert_same_tree(flat(ckptfmt.load(f"{folder}/2")), flat(expected))
        ckptfmt.migrate(f"{folder}/2", f"{folder}/3", document, schema="1", down=True, durable=False)
        assert_same_tree(flat(ckptfmt.load(f"{folder}/3")), flat(tree))


@given(documents(), st.data())
def test_lazy_is_eager(scratch: Scratch, made: tuple[Any, Any, Any], data: st.DataObject) -> None:
    document, tree, expected = made
    whole = flat(expected)
    with scratch() as folder:
        ckptfmt.save(f"{folder}/1", tree, schema=("s", "1"), durable=False)
        with ckptfmt.open(f"{folder}/1", schema="2", migrations=document) as view:
            assert {*view, "step"} == {*whole}
            assert_same_tree(flat(view.load()), whole)
            for name in view:
                index = data.draw(basic_indices(whole[name].shape))
                expected_part = np.asarray(whole[name][index])
                assert_same_tree(np.asarray(view[name][index]), np.array(expected_part))


@given(st.data())
def test_a_chain_at_once_is_its_steps_one_after_another(scratch: Scratch, data: st.DataObject) -> None:
    first, tree, between = data.draw(documents("1", "2"))
    arrays = {name: array for name, array in flat(between).items() if name != "step"}
    rules = []
    for number, (name, array) in enumerate(arrays.items()):
        if array.ndim and data.draw(st.booleans()):
            cut = data.draw(st.integers(0, array.shape[0]))
            step = {"op": "split", "axis": 0, "sizes": [cut, array.shape[0] - cut]}
            rules.append({"from": name, "with": [step], "to": [f"z{number}/0", f"z{number}/1"]})
    second = {**first, "from": "2", "to": "3", "rules": rules}
    with scratch() as folder:
        ckptfmt.save(f"{folder}/1", tree, schema=("s", "1"), durable=False)
        ckptfmt.migrate(f"{folder}/1", f"{folder}/2", first, schema="2", durable=False)
        ckptfmt.migrate(f"{folder}/2", f"{folder}/stepwise", second, schema="3", durable=False)
        ckptfmt.migrate(f"{folder}/1", f"{folder}/at-once", [first, second], schema="3", durable=False)
        assert_same_tree(ckptfmt.load(f"{folder}/at-once"), ckptfmt.load(f"{folder}/stepwise"))


@pytest.mark.parametrize(("source", "target"), WIDER, ids=str)
def test_exact_casts_keep_every_bit_pattern(source: str, target: str) -> None:
    one, other = DTYPES[source].numpy, DTYPES[target].numpy
    size = one.itemsize
    count = 1 << min(16, 8 * size)
    low = np.arange(count, dtype=f"u{min(size, 8)}")
    high = low << low.dtype.type(8 * size - 16) if size > 2 else low
    for bits in (low, high, ~high):
        back = cast(cast(bits.view(one), other).values, one).values
        np.testing.assert_array_equal(back.view(bits.dtype), bits)
