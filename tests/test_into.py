"""Loading into a target: all differences at once and before anything is written; then every kind of target array is
filled. [READ-006]"""

from __future__ import annotations

import tracemalloc
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
from damage import LAYOUTS, flipped, small_chunks, zones
from hypothesis import given
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.testing import assert_same_tree, equal_trees
from ckptfmt.testing.strategies import arrays

Scratch = Callable[[], AbstractContextManager[str]]


class Point(NamedTuple):
    x: Any
    y: Any


each_layout = pytest.mark.parametrize("layout", LAYOUTS)


def saved(folder: Path, tree: Any, **options: Any) -> Path:
    path = folder / "model.ckpt"
    ckptfmt.save(path, tree, durable=False, **options)
    return path


def refusal(path: Path, target: Any, **options: Any) -> ckptfmt.MatchReport:
    """The report with which a target is refused, untouched."""
    before = [leaf.tobytes() for leaf in leaves(target)]
    with pytest.raises(ckptfmt.MismatchError) as caught:
        ckptfmt.load(path, into=target, **options)
    error = caught.value
    assert (error.code, error.path) == ("mismatch", str(path))
    assert str(error.report) in str(error)
    assert [leaf.tobytes() for leaf in leaves(target)] == before
    assert isinstance(error.report, ckptfmt.MatchReport)
    return error.report


def leaves(tree: Any) -> list[np.ndarray[Any, Any]]:
    items = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list | tuple) else None
    if items is None:
        return [tree] if isinstance(tree, np.ndarray) else []
    return [leaf for item in items for leaf in leaves(item)]


# ---- what does not fit

STORED = {
    "a": np.arange(3.0),
    "b": [np.arange(4, dtype=np.int32), np.arange(2, dtype=np.uint8)],
    "c": {"d": np.zeros((2, 2)), "step": 3},
    "e": np.ones(1),
}


def test_all_differences_are_told_at_once(tmp_path: Path) -> None:
    path = saved(tmp_path, STORED)
    readonly = np.zeros(1)
    readonly.flags.writeable = False
    target = {
        "a": np.zeros(4),
        "b": [np.zeros(4, np.int64), None],
        "c": {"d": np.zeros((2, 2)), "step": np.zeros(1)},
        "e": readonly,
        "x": np.zeros(1),
    }
    report = refusal(path, target)
    assert report.missing == ("x",)
    assert report.unexpected == ()
    assert report.shape == (("a", (3,), (4,)),)
    assert report.dtype == (("b/0", np.dtype(np.int32), np.dtype(np.int64)),)
    assert report.kind == (("b/1", "tensor", "NoneType"), ("c/step", "int", "tensor"))
    assert report.readonly == ("e",)
    assert not report.ok
    for text in (
        "x",
        "a (found (3,), expected (4,))",
        "b/0 (found int32, expected int64)",
        "read-only in the target: e (like= makes new ones)",
    ):
        assert text in str(report)
    with ckptfmt.open(path) as checkpoint:
        assert checkpoint.match(target) == report
        assert checkpoint.match(STORED).ok
        assert str(checkpoint.match(STORED)) == "target and checkpoint match"
        assert checkpoint.bytes_read == 0


def test_missing_and_unexpected(tmp_path: Path) -> None:
    path = saved(tmp_path, STORED)
    report = refusal(path, {"a": np.zeros(3), "y": {"z": 1}})
    assert report.missing == ("y/z",)
    assert report.unexpected == ("b/0", "b/1", "c/d", "c/step", "e")
    target = {"a": np.zeros(3), "y": {"z": 1}, "w": np.full(2, 7.0)}
    result = ckptfmt.load(path, into=target, strict=False)
    assert_same_tree(result, {"a": np.arange(3.0), "y": {"z": 1}, "w": np.full(2, 7.0)})
    assert result["a"] is target["a"]


@pytest.mark.parametrize(
    "target",
    [{"a": np.zeros(4)}, {"a": np.zeros(3, np.float32)}, {"a": 1}, {"c": {"step": np.zeros(1)}}],
    ids=["shape", "dtype", "kind", "kind of a plain value"],
)
def test_strict_false_forgives_no_other_difference(tmp_path: Path, target: Any) -> None:
    refusal(saved(tmp_path, STORED), target, strict=False)


@pytest.mark.parametrize("into", [True, False], ids=["into", "like"])
def test_tensors_of_other_shapes_are_passed_over_if_that_is_asked_for(tmp_path: Path, into: bool) -> None:
    stored = {"body": np.arange(6.0), "head": {"w": np.ones((10, 3)), "b": np.ones(10)}, "step": 7}
    ckptfmt.save(tmp_path / "x.ckpt", stored, durable=False)
    head = {"w": np.full((4, 3), 2.0), "b": np.full(4, 3.0)}
    target = {"body": np.zeros(6), "head": dict(head), "step": 0}
    told: list[ckptfmt.MatchReport] = []
    how: Any = {"into" if into else "like": target}
    found = ckptfmt.load(tmp_path / "x.ckpt", **how, mismatched="skip", on_match=told.append)
    np.testing.assert_array_equal(found["body"], stored["body"])
    assert found["step"] == 7
    assert found["head"]["w"] is head["w"]
    assert (head["w"] == 2).all()
    assert (head["b"] == 3).all()
    assert told[0].ok
    assert told[0].skipped == (("head/w", (10, 3), (4, 3)), ("head/b", (10,), (4,)))
    assert "passed over, of another shape: head/w (found (10, 3), expected (4, 3))" in str(told[0])


def test_only_shapes_are_passed_over(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "x.ckpt", {"a": np.ones(3), "b": np.ones(2)}, durable=False)
    for target in ({"a": np.ones(3, np.int8), "b": np.ones(1)}, {"a": 1, "b": np.ones(1)}, {"b": np.ones(1)}):
        with pytest.raises(ckptfmt.MismatchError):
            ckptfmt.load(tmp_path / "x.ckpt", into=target, mismatched="skip")
    with pytest.raises(ckptfmt.MismatchError, match="mismatched='skip'"):
        ckptfmt.load(tmp_path / "x.ckpt", into={"a": np.ones(3), "b": np.ones(1)})
    with pytest.raises(ckptfmt.MismatchError, match="nothing of the target is in the checkpoint"):
        ckptfmt.load(
            tmp_path / "x.ckpt", into={"a": np.ones(1), "b": np.ones(1), "c": 1}, mismatched="skip", strict=False
        )
    with pytest.raises(ckptfmt.InputError, match="bad-option"):
        ckptfmt.load(tmp_path / "x.ckpt", into={}, mismatched="leave")  # type: ignore[arg-type]


def test_empty_containers_are_neither_missing_nor_unexpected(tmp_path: Path) -> None:
    stored = {"w": np.ones(1), "state": {}, "list": [], "deep": {"x": ()}}
    path = saved(tmp_path, stored)
    for target in ({"w": np.zeros(1)}, {"w": np.zeros(1), "other": {"y": []}, "none": ()}):
        reports: list[Any] = []
        ckptfmt.load(path, into=target, on_match=reports.append)
        assert reports[0].ok
        found = ckptfmt.load(path, like=target)
        assert (found["w"] == 1).all()
        assert found.keys() == target.keys()
        with ckptfmt.open(path) as checkpoint:
            assert checkpoint.match(target).ok
    assert refusal(path, {"w": np.zeros(1), "state": {"a": 1}}).missing == ("state/a",)
    assert refusal(path, {"w": np.zeros(1), "none": None}).missing == ("none",)  # which is a value


def test_many_differences_are_shortened(tmp_path: Path) -> None:
    path = saved(tmp_path, {str(i): np.zeros(1) for i in range(100)})
    report = refusal(path, {})
    assert len(report.unexpected) == 100
    assert "and 92 more" in str(report)


def test_keys_of_another_type_do_not_match(tmp_path: Path) -> None:
    path = saved(tmp_path, {0: np.zeros(1), "a": [np.zeros(1)]})
    report = refusal(path, {"0": np.zeros(1), "a": {"0": np.zeros(1)}})
    assert (report.missing, report.unexpected) == (("'0'", "a/'0'"), ("0", "a/0"))


def test_into_and_mmap_exclude_each_other(tmp_path: Path) -> None:
    path = saved(tmp_path, np.zeros(1))
    with pytest.raises(ckptfmt.InputError) as caught:
        ckptfmt.load(path, into=np.zeros(1), mmap=True)
    assert caught.value.code == "bad-option"


# ---- what fits


@given(data=st.data(), array=arrays(), compression=st.sampled_from([None, "zstd"]), layout=st.sampled_from(LAYOUTS))
def test_any_array_into_any_memory(
    scratch: Scratch, data: st.DataObject, array: Any, compression: str | None, layout: str
) -> None:
    chunk = data.draw(st.sampled_from([1, 100, 1 << 20]), label="bytes of a chunk")
    order = data.draw(st.sampled_from(["plain", "strided", "reversed", "transposed", "big-endian"]), label="memory")
    dtype = array.dtype.newbyteorder("=")
    target = np.zeros(array.shape, dtype)
    if order == "strided":
        target = np.zeros([2 * n for n in array.shape], dtype)[..., *(slice(None, None, 2),) * array.ndim]
    elif order == "reversed":
        target = np.zeros(array.shape, dtype)[..., *(slice(None, None, -1),) * array.ndim]
    elif order == "transposed":
        target = np.zeros(array.shape[::-1], dtype).T
    elif order == "big-endian":
        target = np.zeros(array.shape, dtype.newbyteorder(">"))
    with scratch() as folder, small_chunks(chunk=chunk):
        path = saved(Path(folder), {"x": array}, compression=compression, layout=layout)
        result = ckptfmt.load(path, into={"x": target})
    assert result["x"] is target
    assert equal_trees(target, array)


@each_layout
def test_a_whole_tree(tmp_path: Path, layout: str) -> None:
    path = saved(tmp_path, STORED, layout=layout)
    target = {
        "a": np.zeros(3),
        "b": [np.zeros(4, np.int32), np.zeros(2, np.uint8)],
        "c": {"d": np.zeros((2, 2)), "step": None},
        "e": np.zeros(1),
    }
    result = ckptfmt.load(path, into=target)
    assert_same_tree(result, STORED)
    assert all(one is other for one, other in zip(leaves(result), leaves(target), strict=True))
    assert target["c"] == {"d": target["c"]["d"], "step": None}, "plain values are returned, not put into the target"  # type: ignore[index, call-overload]


def test_part_of_a_tree(tmp_path: Path) -> None:
    path = saved(tmp_path, STORED)
    target = {"c": {"d": np.ones((2, 2)), "step": 0}}
    assert_same_tree(ckptfmt.load(path, into=target, select="c"), {"c": STORED["c"]})
    report = refusal(path, {"a": np.zeros(3)}, select="c")
    assert (report.missing, report.unexpected) == ((), ("c/d", "c/step"))


@pytest.mark.parametrize("how", ["into", "like"])
def test_what_is_not_selected_is_left_and_not_missing(tmp_path: Path, how: str) -> None:
    path = saved(tmp_path, {"a": np.ones(2), "b": np.ones(2), "n": [1, 2, 3], "m": {"x": 5}})
    other = np.zeros(3)
    target = {"a": np.zeros(2), "b": other, "c": other, "n": [0], "m": None, "list": [np.zeros(1), {"z": 1}]}
    reports: list[Any] = []
    options: dict[str, Any] = {how: target, "on_match": reports.append}
    found = ckptfmt.load(path, select="a", **options)
    assert reports[0].ok
    assert (found["a"] == 1).all()
    assert found["b"] is found["c"] is other
    assert (other == 0).all()
    assert (found["n"], found["m"], found["list"]) == ([0], None, target["list"])
    found = ckptfmt.load(path, select=["a", "n"], **options)
    assert found["n"] == [1, 2, 3]
    with pytest.raises(ckptfmt.MismatchError) as caught:
        ckptfmt.load(path, select=["a", "[bc]", "b", "c"], **options)
    assert caught.value.report == ckptfmt.MatchReport(missing=("c",), shape=(("b", (2,), (3,)),))
    for strict in (True, False):
        with pytest.raises(ckptfmt.SelectionError) as nothing:
            ckptfmt.load(path, select="c", strict=strict, **options)
        assert nothing.value.code == "no-match"
    with ckptfmt.open(path) as checkpoint:
        assert checkpoint.match(target, select="a").ok


def test_a_list_is_taken_whole_only_where_all_of_it_is_selected(tmp_path: Path) -> None:
    path = saved(tmp_path, {"n": [1, 2, 3]})
    assert ckptfmt.load(path, into={"n": [0, 0]}, select="n/0")["n"] == [1, 0]
    assert ckptfmt.load(path, into={"n": [0, 0]}, select=["n/0", "n/1"])["n"] == [1, 2]
    assert ckptfmt.load(path, into={"n": None}, select="n/0")["n"][0] == 1


def test_a_tree_that_is_one_tensor(tmp_path: Path) -> None:
    target = np.zeros(3)
    assert ckptfmt.load(saved(tmp_path, np.arange(3.0)), into=target) is target
    assert target.tolist() == [0, 1, 2]


@each_layout
def test_aliases_into_separate_arrays(tmp_path: Path, layout: str) -> None:
    tied = np.arange(3.0)
    path = saved(tmp_path, {"a": tied, "b": tied, "c": [tied]}, layout=layout)
    target = {"a": np.zeros(3), "b": np.zeros(6)[::2], "c": [np.zeros(3, ">f8")]}
    result = ckptfmt.load(path, into=target)
    assert len({id(leaf) for leaf in leaves(result)}) == 3
    assert all(leaf.tolist() == [0, 1, 2] for leaf in leaves(target))


def test_aliases_into_arrays_of_different_precision(tmp_path: Path) -> None:
    tied = np.array([1.0, 1 / 3])
    path = saved(tmp_path, {"a": tied, "b": tied})
    for order in (["a", "b"], ["b", "a"]):
        target = {key: np.zeros(2, {"a": np.float16, "b": np.float64}[key]) for key in order}
        ckptfmt.load(path, into=target, cast=True)
        assert target["b"].tolist() == [1.0, 1 / 3]
        assert target["a"].tolist() == tied.astype(np.float16).tolist()


def test_aliases_of_the_target(tmp_path: Path) -> None:
    shared = np.zeros(3)
    ckptfmt.load(saved(tmp_path, {"a": np.arange(3.0), "b": np.arange(3.0)}), into={"a": shared, "b": shared})
    assert shared.tolist() == [0, 1, 2]


@pytest.mark.parametrize("order", ["=", ">"])
def test_datetimes(tmp_path: Path, order: str) -> None:
    times = np.array(["2020-01-01", "NaT", "1969-12-31"], "M8[s]")
    path = saved(tmp_path, {"t": times, "d": times - times[0]})
    target = {"t": np.zeros(3, f"{order}M8[s]"), "d": np.zeros(6, f"{order}m8[s]")[::2]}
    ckptfmt.load(path, into=target)
    assert equal_trees(target, {"t": times, "d": times - times[0]})
    for dtype in ("M8[ms]", "m8[s]", "i8"):
        report = refusal(path, {"t": np.zeros(3, dtype), "d": target["d"]}, cast=True)
        assert report.dtype[0][0] == "t"


# ---- casts


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        (np.array([True, False]), np.int8),
        (np.array([1, 2], np.int64), np.int32),
        (np.array([1, 2], np.uint8), np.float64),
        (np.array([1.5, 2.5]), np.float32),
        (np.array([1.5, 2.5]), ml_dtypes.bfloat16),
        (np.array([1.5, 2.5], ml_dtypes.bfloat16), np.float32),
        (np.array([1, -2, 3], ml_dtypes.int4), np.int16),
        (np.array([1, 2], np.float16), np.complex64),
    ],
    ids=lambda value: str(getattr(value, "dtype", np.dtype(value) if isinstance(value, type) else value)),
)
def test_casts_are_asked_for(tmp_path: Path, stored: Any, wanted: Any) -> None:
    path = saved(tmp_path, {"x": stored})
    target = {"x": np.zeros(stored.shape, wanted)}
    assert refusal(path, target).dtype == (("x", stored.dtype, np.dtype(wanted)),)
    ckptfmt.load(path, into=target, cast=True)
    assert equal_trees(target["x"], stored.astype(wanted))


@pytest.mark.parametrize(("stored", "wanted"), [(1.5, "i8"), (1, "?"), (1j, "f8"), (1, "M8[s]"), (True, "S1")])
def test_casts_to_a_narrower_kind_are_refused(tmp_path: Path, stored: Any, wanted: str) -> None:
    path = saved(tmp_path, {"x": np.array([stored])})
    assert refusal(path, {"x": np.zeros(1, wanted)}, cast=True).dtype[0][0] == "x"


# ---- damage


@each_layout
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_damage_is_raised(tmp_path: Path, layout: str, compression: str | None) -> None:
    tree = {name: np.arange(1000) for name in "abc"}
    path = saved(tmp_path, tree, layout=layout, compression=compression)
    (zone,) = [zone for zone in zones(path) if zone.tensor == ("b",)]
    with flipped(zone.file, zone.start + 30, 5):
        target = {name: np.zeros(1000, np.int64) for name in "abc"}
        with pytest.raises(ckptfmt.CorruptError) as caught:
            ckptfmt.load(path, into=target)
        assert (caught.value.code, caught.value.tensor) == ("block-digest", "b")
        del target["b"]
        assert equal_trees(ckptfmt.load(path, into=target, select=["a", "c"]), {"a": tree["a"], "c": tree["c"]})


def test_a_tied_target_is_filled_once(tmp_path: Path) -> None:
    tied = np.arange(1000.0)
    ckptfmt.save(tmp_path / "x.ckpt", {"a": tied, "b": tied}, durable=False)
    target = np.zeros(1000)
    with ckptfmt.open(tmp_path / "x.ckpt") as checkpoint:
        checkpoint.load(into={"a": target, "b": target})
        assert checkpoint.bytes_read == tied.nbytes
    assert np.array_equal(target, tied)


@each_layout
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_one_memory_for_different_values_is_refused(tmp_path: Path, layout: str, compression: str | None) -> None:
    """It could hold only one of them. Equal values that were saved apart may come together."""
    tree = {"a": np.arange(6.0), "b": np.arange(6.0), "c": np.arange(6.0) + 1}
    path = saved(tmp_path, tree, layout=layout, compression=compression)
    one = np.zeros(6)
    report = refusal(path, {"a": one, "b": one, "c": one})
    assert report == ckptfmt.MatchReport(shared=(("a", "c"),))
    assert "a and c" in str(report)
    assert refusal(path, {"a": one, "b": np.zeros(6), "c": one}, strict=False) == report
    found = ckptfmt.load(path, into={"a": one, "b": one}, select=["a", "b"])
    assert found["a"] is found["b"] is one
    assert (one == np.arange(6.0)).all()


@each_layout
@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize(
    ("seen", "refused"),
    [
        (lambda m: {"a": m, "b": m.reshape(3, 4)}, ("a", "b")),
        (lambda m: {"a": m, "b": m[::-1]}, ("a", "b")),
        (lambda m: {"a": m, "b": m.view(np.int64)}, ("a", "b")),
        (lambda m: {"a": m[:8], "b": m[5:]}, ("a", "b")),
        (lambda m: {"a": m[:3], "b": m[::2], "c": m[3:]}, ("a", "b", "c")),
        (lambda m: {"a": m.reshape(3, 4).T, "b": m[11:].reshape(())}, ("a", "b")),
        (lambda m: {"b": np.lib.stride_tricks.as_strided(m, (5,), (0,))}, ("b", "b")),
        (lambda m: {"b": np.lib.stride_tricks.as_strided(m, (4, 4), (16, 16))}, ("b", "b")),
        (lambda m: {"a": m.reshape(3, 4)[:, :2], "b": m.reshape(3, 4)[:, 2:]}, None),
        (lambda m: {"a": m[::2], "b": m[1::2]}, None),
        (lambda m: {"a": m[:6], "b": m[6:], "c": m[:0], "d": m[3:3]}, None),
        (lambda m: {"b": m.reshape(2, 1, 6).T}, None),
    ],
)
def test_views_of_one_memory_are_refused_where_values_differ(
    tmp_path: Path, layout: str, compression: str | None, seen: Any, refused: tuple[str, ...] | None
) -> None:
    """However they see it. What was stored of such views fits into them again."""
    memory = np.arange(12.0)
    views = {name: np.array(view) for name, view in seen(memory).items()}
    tree = {}
    for name, view in views.items():
        tree[name] = np.arange(view.size).astype(view.dtype).reshape(view.shape)
        tree[name] += 100 * len(tree)
    path = saved(tmp_path, tree, layout=layout, compression=compression)
    target = np.zeros(12)
    if refused is None:
        assert equal_trees(ckptfmt.load(path, into=seen(target)), tree)
    else:
        assert refusal(path, seen(target)) == ckptfmt.MatchReport(shared=tuple(pairwise(refused)))
        assert not target.any()
    ckptfmt.save(path, seen(memory), layout=layout, compression=compression, overwrite=True, durable=False)
    ckptfmt.load(path, into=seen(target))
    assert all(np.array_equal(view, views[name]) for name, view in seen(target).items())


def test_columns_of_one_array_take_no_memory_to_be_told_apart(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tree = {f"c{n}": rng.random((1000, 512)) for n in range(4)}
    path = saved(tmp_path, tree)
    target = np.zeros((1000, 2048))
    columns = {name: target[:, 512 * n : 512 * (n + 1)] for n, name in enumerate(tree)}
    tracemalloc.start()
    try:
        ckptfmt.load(path, into=columns, max_bytes_in_flight=1 << 20)
        assert tracemalloc.get_traced_memory()[1] < target.nbytes
    finally:
        tracemalloc.stop()
    assert equal_trees(columns, tree)


@st.composite
def some_views(draw: st.DrawFn) -> list[tuple[int, list[tuple[int, int]]]]:
    """Offsets, and sides with strides, of views of 24 elements."""
    views = []
    for _ in range(draw(st.integers(1, 3))):
        sides = draw(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 5)), max_size=2))
        reach = sum((side - 1) * stride for side, stride in sides)
        if reach < 24:
            views.append((draw(st.integers(0, 23 - reach)), sides))
    return views


@given(data=st.data())
def test_any_views_of_one_memory(scratch: Scratch, data: Any) -> None:
    """They get what is stored for each of them, or nothing."""
    places = data.draw(some_views())

    def seen(memory: Any) -> dict[str, Any]:
        return {
            f"v{n}": np.lib.stride_tricks.as_strided(memory[at:], [s for s, _ in sides], [8 * k for _, k in sides])
            for n, (at, sides) in enumerate(places)
        }

    source, target = data.draw(arrays(st.just(np.dtype(np.int64)), st.just((24,)))) % 3, np.full(24, -1)
    tree = {name: np.array(view) for name, view in seen(source).items()}
    for name in data.draw(st.lists(st.sampled_from(sorted(tree)), max_size=1)) if tree else ():
        tree[name] = np.zeros_like(tree[name])
    filled = np.full(24, -1)
    for name, view in seen(filled).items():
        view[...] = tree[name]
    fits = all(np.array_equal(view, tree[name]) for name, view in seen(filled).items())
    with scratch() as folder:
        ckptfmt.save(f"{folder}/x.ckpt", tree, durable=False)
        try:
            ckptfmt.load(f"{folder}/x.ckpt", into=seen(target))
        except ckptfmt.MismatchError:
            assert not fits
            assert (target == -1).all()
        else:
            assert fits
            assert np.array_equal(target, filled)


NOTHING_MIGRATED: dict[str, Any] = {
    "schema": "2",
    "source_schema": ("s", "1"),
    "migrations": {"ckptfmt_migration": 1, "schema": "s", "from": "1", "to": "2", "rest": "keep", "rules": []},
}
HISTORY = {"losses": [1.0, 2.0], "best": {"acc": 0.5, "at": (3, None)}, "seen": [[1], [2, 3]], "w": np.arange(3.0)}


@pytest.mark.parametrize(
    "blank",
    [
        {"losses": [], "best": {}, "seen": []},
        {"losses": None, "best": None, "seen": None},
        {"losses": (), "best": [], "seen": [[], None]},
        {"losses": [0.0, 0.0], "best": {"acc": None, "at": ()}, "seen": [[5], []]},
    ],
)
@pytest.mark.parametrize("migrated", [False, True])
def test_plain_values_go_where_a_target_has_nothing_yet(tmp_path: Path, blank: Any, migrated: bool) -> None:
    w = np.zeros(3)
    options = NOTHING_MIGRATED if migrated else {}
    found = ckptfmt.load(saved(tmp_path, HISTORY), into={**blank, "w": w}, **options)
    assert found["w"] is w
    assert_same_tree(found, HISTORY)


@pytest.mark.parametrize("blank", [{}, None, []])
def test_tensors_go_nowhere_where_nothing_is(tmp_path: Path, blank: Any) -> None:
    tree = {"history": {"losses": [1.0], "weights": [np.ones(2)]}, "w": np.ones(3)}
    report = refusal(saved(tmp_path, tree), {"history": blank, "w": np.zeros(3)})
    assert report.unexpected == ("history/losses/0", "history/weights/0")


LISTS = [
    ([1.0, 2.0], [0.1, 0.2, 0.3]),
    ([1.0, 2.0, 3.0], [0.1]),
    ((1, "a"), (1, "b", None)),
    ([], [1, 2]),
    ([[1, 2], [3]], [[5], [6]]),
    ([{"epoch": 1}], [{"epoch": 0}, {"epoch": 5, "loss": 2.0}]),
    (deque([1, 2], 5), deque([7, 8, 9], 5)),
    ({"deep": [{"seen": [1]}]}, {"deep": [{"seen": [2, 3]}]}),
    (Point([1, 2, 3], 4), Point([0], 0)),
]
EMPTY = [
    (deque([1, 2]), deque()),
    (SimpleNamespace(seen=[1, (2, 3)]), SimpleNamespace(seen=[])),
]  # which like= asks for


@pytest.mark.parametrize(
    ("how", "there", "here"),
    [*(("into", *lists) for lists in (*LISTS, *EMPTY)), *(("like", *lists) for lists in LISTS)],
    ids=str,
)
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("migrated", [False, True])
def test_a_list_of_plain_values_is_one_value(
    tmp_path: Path, there: Any, here: Any, strict: bool, how: str, migrated: bool
) -> None:
    """Of another length it is the stored one, whole: two lists never become one."""
    path = saved(tmp_path, {"x": there, "w": np.ones(2)})
    reports: list[Any] = []
    options = {how: {"x": here, "w": np.zeros(2)}, "strict": strict, **(NOTHING_MIGRATED if migrated else {})}
    found = ckptfmt.load(path, **options, on_match=reports.append)
    assert found["x"] == there
    assert type(found["x"]) is type(here)
    assert reports[0].ok


def test_a_list_of_another_kind_stays_of_the_targets(tmp_path: Path) -> None:
    path = saved(tmp_path, {"x": (1, 2), "w": np.ones(2)})
    assert ckptfmt.load(path, into={"x": [0, 0, 0], "w": np.zeros(2)})["x"] == [1, 2]


def test_lists_with_tensors_and_names_differ_one_by_one(tmp_path: Path) -> None:
    """What is filled in place is not replaced; a dict's keys are names."""
    path = saved(tmp_path, {"x": [np.ones(1), 5], "d": {"a": 1}, "n": {0: "a"}, "r": [Point(1, 2)]})
    target = {"x": [np.zeros(1), 6, 7], "d": {"a": 0, "b": 2}, "n": {0: "", 1: "b"}, "r": [Point(0, 0), Point(8, 9)]}
    assert refusal(path, target).missing == ("x/2", "d/b", "n/1", "r/1/x", "r/1/y")
    found = ckptfmt.load(path, into=target, strict=False)
    assert found["x"][1:] == [5, 7]
    assert (found["x"][0] == 1).all()
    assert found["d"] == {"a": 1, "b": 2}
    assert found["n"] == {0: "a", 1: "b"}
    assert found["r"] == [Point(1, 2), Point(8, 9)]
    assert refusal(saved(tmp_path, {"x": [np.ones(1)]}, overwrite=True), {"x": [5, 6]}).missing == ("x/1",)


def nested(depth: int) -> st.SearchStrategy[Any]:
    """Lists of plain values, all at one depth, so that none is a value where the other has a list."""
    values: st.SearchStrategy[Any] = st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab", max_size=2)
    for _ in range(depth):
        values = st.lists(values, max_size=3)
    return values


@given(st.data())
def test_lists_of_plain_values_are_those_that_are_stored(scratch: Scratch, data: Any) -> None:
    depth = data.draw(st.integers(1, 3))
    there, here = data.draw(nested(depth)), data.draw(nested(depth))
    with scratch() as folder:
        path = saved(Path(folder), {"x": there, "w": np.ones(1)})
        for strict in (True, False):
            assert ckptfmt.load(path, into={"x": here, "w": np.zeros(1)}, strict=strict)["x"] == there


def test_times_that_come_as_numbers_are_told_once(tmp_path: Path) -> None:
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    when = np.array(["2024-02-29"], "M8[D]")
    tree = {
        "when": when,
        "deep": [{"last": np.array([5], "m8[s]")}],
        "one": np.datetime64("2024"),
        "w": np.ones(1, "f4"),
    }
    path = saved(tmp_path, tree)
    for options in ({}, NOTHING_MIGRATED):
        for framework in ("torch", "jax"):
            with pytest.warns(ckptfmt.UnknownTagWarning) as told, jax.enable_x64(True):
                found = ckptfmt.load(path, framework=framework, **options)
            assert str(found["when"].dtype).endswith("int64")
            (one,) = told
            places = "when, deep/0/last" if options else "when, deep/0/last, one"
            assert f"{framework} has no datetime64 and timedelta64: read as int64: {places}." in str(one.message)
            ckptfmt.load(path, framework=framework, select="w", **options)
        for framework in (None, "numpy"):
            assert_same_tree(ckptfmt.load(path, framework=framework, **options), tree)
    assert torch.is_tensor(ckptfmt.load(path, framework="torch", select="w")["w"])
