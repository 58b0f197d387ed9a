"""`diff`: added, removed, renamed and changed leaves, of any two sources."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
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
from ckptfmt import Change
from ckptfmt.cli.app import cli
from ckptfmt.testing.equality import equal_trees
from ckptfmt.testing.strategies import plain_leaves, trees

MATRIX = np.arange(12, dtype=np.float32).reshape(3, 4)


def run(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def compared(folder: Path, a: Any, b: Any, **options: Any) -> ckptfmt.DiffReport:
    for name, tree in (("a", a), ("b", b)):
        ckptfmt.save(folder / f"{name}.ckpt", tree, overwrite=True, durable=False, **options)
    return ckptfmt.diff(folder / "a.ckpt", folder / "b.ckpt")


def change(folder: Path, a: Any, b: Any) -> Change:
    report = compared(folder, {"x": a}, {"x": b})
    (found,) = report.changed
    assert found.path == "x"
    assert not report.equal
    return found


def test_every_kind(tmp_path: Path) -> None:
    a = {"same": MATRIX, "gone": MATRIX + 1, "old": MATRIX + 2, "shape": MATRIX, "n": 1, "kind": 1, "k": [1, "x"]}
    b = {"same": MATRIX, "come": MATRIX + 3, "new": MATRIX + 2, "shape": MATRIX.T, "n": 2, "kind": "1", "k": (1, "x")}
    report = compared(tmp_path, a, b)
    assert report.added == ("come",)
    assert report.removed == ("gone",)
    assert report.renamed == (("old", "new"),)
    assert report.changed == (
        Change("shape", "shape", "[3, 4]", "[4, 3]"),
        Change("n", "value", "1", "2"),
        Change("kind", "type", "int", "str"),
    )
    assert report.same == 3
    assert not report.metadata


def test_values(tmp_path: Path) -> None:
    b = MATRIX.copy()
    b[1, 1], b[2, 3] = 5.5, 22
    found = change(tmp_path, MATRIX, b)
    norm, moved = (pytest.approx(np.linalg.norm(x.astype(np.float64))) for x in (MATRIX, b - MATRIX))
    assert found == Change("x", "values", None, None, 12, 2, 11.0, 0.5, 0, norm, moved)


def test_values_of_two_dtypes(tmp_path: Path) -> None:
    found = change(tmp_path, np.array([1, 1.001, -0.0], np.float32), np.array([1, 1.001, 0.0], ml_dtypes.bfloat16))
    assert (found.kind, found.before, found.after, found.different) == ("dtype", "float32", "bfloat16", 1)
    assert found.max_difference == pytest.approx(0.001, rel=1e-3)


NUMBERS: list[tuple[Any, Any, int, float, float]] = [
    ([1.0, math.nan], [1.0, 2.0], 1, 0.0, 0.0),
    ([2**60, 1], [2**60 + 1, 1], 1, 1.0, 2.0**-60),
    ([-(2**63)], [2**63 - 1], 1, 2.0**64, 2.0),
    ([0.0], [-0.0], 1, 0.0, 0.0),
    ([math.inf], [1.0], 1, math.inf, math.inf),
    ([math.inf], [-math.inf], 1, math.inf, math.inf),
    ([True, False], [True, True], 1, 1.0, 1.0),
    ([3, 4], [3, -4], 1, 8.0, 2.0),
    ([1 + 1j], [1 - 1j], 1, 2.0, math.sqrt(2)),
]


@pytest.mark.parametrize(("a", "b", "different", "absolute", "relative"), NUMBERS)
def test_numbers(tmp_path: Path, a: Any, b: Any, different: int, absolute: float, relative: float) -> None:
    found = change(tmp_path, np.array(a), np.array(b))
    assert found.different == different
    assert found.max_difference is not None
    assert found.max_relative is not None
    np.testing.assert_allclose([found.max_difference, found.max_relative], [absolute, relative])


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.complex64, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
def test_nans_are_counted_and_the_others_measured(tmp_path: Path, dtype: Any) -> None:
    a, b = np.arange(8).astype(dtype), np.arange(8).astype(dtype)
    a[1], b[2], a[3], b[3] = math.nan, math.nan, math.nan, math.nan  # the last is the same on both sides
    b[4] = 6
    found = change(tmp_path, a, b)
    assert (found.different, found.nan) == (3, 2)
    assert (found.max_difference, found.max_relative) == (2.0, pytest.approx(1 / 3))
    (line,) = [x for x in run("diff", tmp_path / "a.ckpt", tmp_path / "b.ckpt").stdout.splitlines() if x[0] == "~"]
    expected = "3 of 8 elements differ, of which 2 NaN on either side, the others by at most 2, relative 0.333333"
    assert line == f"~ x: values, {expected}"


def test_nans_of_two_dtypes(tmp_path: Path) -> None:
    a = np.array([math.nan, math.nan, 1, 2], np.float32)
    found = change(tmp_path, a, np.array([math.nan, 0, math.nan, 2.5], np.float64))
    assert (found.kind, found.different, found.nan, found.max_difference) == ("dtype", 3, 2, 0.5)


def test_nans_alone_have_no_distance(tmp_path: Path) -> None:
    compared(tmp_path, {"x": np.array([1.0, 2.0])}, {"x": np.array([1.0, math.nan])})
    line = run("diff", tmp_path / "a.ckpt", tmp_path / "b.ckpt").stdout.splitlines()[0]
    assert line == "~ x: values, 1 of 2 elements differ, of which 1 NaN on either side"


def test_nan_payloads_differ_in_bits_by_no_distance(tmp_path: Path) -> None:
    payloads = np.array([0x7FF8000000000001, 0x7FF8000000000002], np.uint64).view(np.float64)
    found = change(tmp_path, payloads[:1].copy(), payloads[1:].copy())
    assert (found.different, found.nan, found.max_difference, found.max_relative) == (1, 1, 0.0, 0.0)


RELATIVE: list[tuple[Any, Any, float | None]] = [
    ([3.0, 4.0], [3.0, 9.0], 1.0),
    ([0.0, 0.0], [1.0, 0.0], math.inf),
    ([0.0], [-0.0], 0.0),
    ([3.0, 4.0, math.nan, math.inf], [3.0, 5.0, 1.0, 1.0], 0.2),  # of what is finite on both sides
    ([1e200, 0.0], [1e200, 5e199], 0.5),
    ([3 + 4j], [0j], 1.0),
    ([2**60, 0], [2**60, 2**59], 0.5),
]


@pytest.mark.parametrize(("a", "b", "expected"), RELATIVE)
def test_relative_change(tmp_path: Path, a: Any, b: Any, expected: float) -> None:
    assert change(tmp_path, np.array(a), np.array(b)).relative_change == pytest.approx(expected)


def test_relative_change_is_of_all_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of those that are alike."""
    monkeypatch.setattr("ckptfmt.conversion.source.SLAB", 1 << 10)
    a = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    b = a.copy()
    b[50] *= 3
    wanted = np.linalg.norm((b - a).astype(np.float64)) / np.linalg.norm(a.astype(np.float64))
    assert change(tmp_path, a, b).relative_change == pytest.approx(wanted, rel=1e-6)


def test_what_has_no_relative_change(tmp_path: Path) -> None:
    assert change(tmp_path, np.ones(2), np.ones(3)).relative_change is None
    assert change(tmp_path, np.array(["2020"], "M8[D]"), np.array(["2021"], "M8[D]")).relative_change is None


def test_dates_have_no_distance(tmp_path: Path) -> None:
    found = change(tmp_path, np.array(["2020-01-01"], "M8[D]"), np.array(["2020-01-02"], "M8[D]"))
    assert (found.kind, found.different, found.max_difference) == ("values", 1, None)


def test_packed_elements(tmp_path: Path) -> None:
    found = change(tmp_path, np.array([1, 2, 3], ml_dtypes.int4), np.array([1, -2, 3], ml_dtypes.int4))
    assert (found.different, found.max_difference) == (1, 4.0)


def test_swapped_tensors_are_changed_and_moved_ones_renamed(tmp_path: Path) -> None:
    report = compared(tmp_path, {"a": MATRIX, "b": MATRIX + 1}, {"a": MATRIX + 1, "b": MATRIX})
    assert [found.path for found in report.changed] == ["a", "b"]
    report = compared(tmp_path, {"a": MATRIX, "b": MATRIX.copy()}, {"c": MATRIX, "d": MATRIX.copy()})
    assert report.renamed == (("a", "c"), ("b", "d"))
    assert not report.added
    assert not report.removed


def test_between_formats(tmp_path: Path) -> None:
    safetensors.numpy.save_file({"a": MATRIX, "b": MATRIX[0]}, tmp_path / "x.safetensors")
    np.savez_compressed(tmp_path / "y.npz", a=MATRIX, b=MATRIX[0])
    ckptfmt.save(tmp_path / "z", {"a": MATRIX, "b": MATRIX[0].astype(">f4")}, layout="loose", compression="zstd")
    paths = [tmp_path / name for name in ("x.safetensors", "y.npz", "z")]
    for a in paths:
        for b in paths:
            assert ckptfmt.diff(a, b).equal


def test_metadata(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "a.ckpt", {}, metadata={"step": 1, "x": [1]})
    ckptfmt.save(tmp_path / "b.ckpt", {}, metadata={"x": [1], "step": 1})
    ckptfmt.save(tmp_path / "c.ckpt", {}, metadata={"step": 1.0, "x": [1]})
    assert ckptfmt.diff(tmp_path / "a.ckpt", tmp_path / "b.ckpt").equal
    report = ckptfmt.diff(tmp_path / "a.ckpt", tmp_path / "c.ckpt")
    assert report.metadata
    assert not report.equal
    assert report.metadata_changes == (Change("step", "type", "int", "float"),)


def test_what_of_the_metadata_differs_is_named(tmp_path: Path) -> None:
    """Each entry, with what it was and is; one that has none at all differs in the whole."""
    before = {"run": {"step": 1, "host": "a"}, "same": [1, 2], "gone": "x" * 300, "nan": math.nan}
    after = {"run": {"step": 2, "host": "a"}, "same": [1, 2], "new\x1b[31m": None, "nan": math.nan}
    for name, metadata in (("a", before), ("b", after), ("c", None)):
        ckptfmt.save(tmp_path / f"{name}.ckpt", {}, metadata=metadata)
    report = ckptfmt.diff(tmp_path / "a.ckpt", tmp_path / "b.ckpt")
    assert [(one.path, one.kind, one.before, one.after) for one in report.metadata_changes] == [
        ("run/step", "value", "1", "2"),
        ("gone", "removed", f"'{'x' * 119}…", None),
        ("'new\\x1b[31m'", "added", None, "None"),
    ]
    result = run("diff", tmp_path / "a.ckpt", tmp_path / "b.ckpt")
    assert result.stdout.splitlines()[:3] == [
        "~ metadata run/step: value 1 -> 2",
        f"~ metadata gone: removed '{'x' * 119}…",
        "~ metadata 'new\\x1b[31m': added None",
    ]
    document = json.loads(run("diff", "--json", tmp_path / "a.ckpt", tmp_path / "b.ckpt").stdout)
    assert [one["path"] for one in document["metadata_changes"]][:2] == ["run/step", "gone"]
    assert ckptfmt.diff(tmp_path / "a.ckpt", tmp_path / "c.ckpt").metadata
    assert ckptfmt.diff(tmp_path / "c.ckpt", tmp_path / "c.ckpt").metadata_changes == ()


def test_keys_are_typed(tmp_path: Path) -> None:
    report = compared(tmp_path, {0: 1}, {"0": 1})
    assert (report.removed, report.added) == (("0",), ("'0'",))


def test_large_tensors_are_compared_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ckptfmt.conversion.source.SLAB", 1 << 12)
    a = np.arange(100_000.0).reshape(100, 1000)
    b = a.copy()
    b[99, 999] += 1
    b[0, 1] = 3
    assert compared(tmp_path, {"x": a}, {"x": b}).changed == (
        Change("x", "values", None, None, 100_000, 2, 2.0, 2 / 3, 0, pytest.approx(np.linalg.norm(a)), 5**0.5),
    )


@given(tree=trees(), metadata=trees(tensors=False))
def test_a_checkpoint_equals_itself(scratch: Callable[[], Any], tree: Any, metadata: Any) -> None:
    with scratch() as folder:
        ckptfmt.save(f"{folder}/a", tree, metadata=metadata, durable=False)
        ckptfmt.save(f"{folder}/b", tree, metadata=metadata, layout="loose", durable=False, compression="gzip")
        assert ckptfmt.diff(f"{folder}/a", f"{folder}/b").equal


@given(pair=st.tuples(plain_leaves(), plain_leaves()))
def test_plain_values_are_equal_bit_by_bit(scratch: Callable[[], Any], pair: Any) -> None:
    with scratch() as folder:
        report = compared(Path(folder), [pair[0]], [pair[1]])
        assert report.equal == equal_trees(*pair)


# ---- command line


def test_the_command(tmp_path: Path) -> None:
    a = {"same": MATRIX, "gone": 1, "old": MATRIX + 1, "w": MATRIX}
    compared(tmp_path, a, {"same": MATRIX, "new": MATRIX + 1, "w": MATRIX * 2, "come\x1b[31m": 2})
    result = run("diff", tmp_path / "a.ckpt", tmp_path / "b.ckpt")
    assert result.exit_code == 3
    assert result.stdout.splitlines() == [
        "- gone",
        "+ 'come\\x1b[31m'",
        "= old -> new",
        "~ w: values, 11 of 12 elements differ, by at most 11, relative 0.5",
        "1 value equal",
    ]
    document = json.loads(run("diff", "--json", tmp_path / "a.ckpt", tmp_path / "b.ckpt").stdout)
    assert document["renamed"] == [["old", "new"]]
    assert document["changed"][0]["max_relative"] == 0.5
    assert (document["equal"], document["same"]) == (False, 1)
    assert run("diff", "-q", tmp_path / "a.ckpt", tmp_path / "b.ckpt").stdout == ""


def test_the_command_when_equal_or_wrong(tmp_path: Path) -> None:
    compared(tmp_path, {"a": MATRIX, "b": 1}, {"a": MATRIX, "b": 1})
    result = run("diff", tmp_path / "a.ckpt", tmp_path / "b.ckpt")
    assert (result.exit_code, result.stdout) == (0, "equal: 2 values\n")
    assert run("diff", tmp_path / "a.ckpt", tmp_path / "absent").exit_code == 2
    data = bytearray((tmp_path / "b.ckpt").read_bytes())
    data[data.index(MATRIX.tobytes())] ^= 1
    (tmp_path / "b.ckpt").write_bytes(data)
    assert run("diff", tmp_path / "a.ckpt", tmp_path / "b.ckpt").exit_code == 1


def test_figures_that_json_lacks(tmp_path: Path) -> None:
    compared(tmp_path, {"a": np.array([math.inf])}, {"a": np.array([1.0])})
    document = json.loads(run("diff", "--json", tmp_path / "a.ckpt", tmp_path / "b.ckpt").stdout)
    assert document["changed"][0]["max_difference"] == {"$float": "inf"}


class Mystery:
    """What no reader of pickles knows."""

    def __init__(self, value: int) -> None:
        self.value = value


def test_what_reading_leaves_out_is_told(tmp_path: Path) -> None:
    """It is not compared, and does not count; nobody is told that it was the same."""
    torch = pytest.importorskip("torch")
    for name, value in (("a.pt", 1), ("b.pt", 2)):
        torch.save({"w": torch.ones(2), "odd": Mystery(value)}, tmp_path / name)
    report = ckptfmt.diff(tmp_path / "a.pt", tmp_path / "b.pt")
    assert report.equal
    assert [(loss.kind, loss.path) for loss in report.not_compared] == [("value", "odd")]
    assert ckptfmt.diff(tmp_path / "a.pt", tmp_path / "a.pt").not_compared == report.not_compared
    shown = CliRunner().invoke(cli, ["diff", str(tmp_path / "a.pt"), str(tmp_path / "b.pt")])
    assert shown.exit_code == 0
    assert "equal: 1 value\nnot compared: value of 'odd': " in shown.output
    document = json.loads(CliRunner().invoke(cli, ["diff", "--json", *map(str, tmp_path.glob("?.pt"))]).output)
    assert [loss["path"] for loss in document["not_compared"]] == ["odd"]
    ckptfmt.save(tmp_path / "c.ckpt", {"w": np.ones(2, "f4")})
    assert ckptfmt.diff(tmp_path / "c.ckpt", tmp_path / "c.ckpt").not_compared == ()
