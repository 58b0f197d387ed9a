"""What is said to help where a target and a checkpoint differ, helps."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ckptfmt

W = np.ones((2, 3), np.float32)


def refusal(folder: Path, tree: Any, target: Any, **options: Any) -> str:
    ckptfmt.save(folder / "c.ckpt", tree, overwrite=True, durable=False)
    before = [value.copy() for value in target.values() if isinstance(value, np.ndarray)]
    with pytest.raises(ckptfmt.MismatchError) as caught:
        ckptfmt.load(folder / "c.ckpt", into=target, **options)
    after = [value for value in target.values() if isinstance(value, np.ndarray)]
    assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True))
    return str(caught.value)


def zeros(*names: str) -> dict[str, Any]:
    return {name: np.zeros_like(W) for name in names}


def ones(*names: str) -> dict[str, Any]:
    return {name: W + number for number, name in enumerate(names)}


@pytest.mark.parametrize(
    ("tree", "target", "words"),
    [
        (ones("module.w", "module.b"), zeros("w", "b"), "All names differ by the prefix 'module.'"),
        (ones("_orig_mod.w", "_orig_mod.b"), zeros("w", "b"), "All names differ by the prefix '_orig_mod.'"),
        (ones("a._orig_mod.w", "a._orig_mod.b"), zeros("a.w", "a.b"), "All names differ by '_orig_mod.' in them"),
        (ones("_orig_mod.a.w", "a._orig_mod.b"), zeros("a.w", "a.b"), "All names differ by '_orig_mod.'"),
        (ones("model.w", "other.x"), zeros("w"), "All names differ by the prefix 'model.'"),
        ({"model": ones("w", "b"), "step": 1}, zeros("w", "b"), "All names differ by the prefix 'model/'"),
        ({"a": {"module.w": W}, "step": 1}, zeros("w"), "All names differ by the prefix 'a/module.'"),
        ({"a": ones("module.w")}, {"a": zeros("w")}, "All names differ by the prefix 'module.'"),
        (ones("w", "b"), zeros("module.w", "module.b"), "the target has: add_prefix='module.'"),
        (ones("w", "b"), {"model": zeros("w", "b")}, "the target has: add_prefix='model/'"),
        (ones("base.w", "ema.w"), zeros("w"), "by the prefix 'base.' or 'ema.'"),
        (ones("module.w", "module.b"), zeros("w", "b", "c"), "2 of 3 missing names differ by the prefix 'module.'"),
    ],
    ids=str,
)
def test_prefixes_are_named_and_what_is_said_helps(tmp_path: Path, tree: Any, target: Any, words: str) -> None:
    text = refusal(tmp_path, tree, target)
    assert words in text
    assert "strict=False" not in text
    option, value = re.findall(r"(prefix|strip_prefix|add_prefix)='([^']*)' (?:takes|loads|puts)", text)[0]
    report = []
    lenient = words.startswith("2 of 3")
    ckptfmt.load(tmp_path / "c.ckpt", into=target, **{option: value}, strict=not lenient, on_match=report.append)
    assert report[0].ok or lenient


def test_wrappers_in_the_middle_of_the_target(tmp_path: Path) -> None:
    text = refusal(tmp_path, ones("a.w", "a.b"), zeros("a._orig_mod.w", "a._orig_mod.b"))
    assert "by '_orig_mod.' in them, which the target has: load into the module that is wrapped" in text
    assert "add_prefix" not in text


def test_what_no_option_strips_is_for_a_migration(tmp_path: Path) -> None:
    text = refusal(tmp_path, ones("a.module.w", "a.module.b"), zeros("a.w", "a.b"))
    assert "All names differ by 'module.' in them" in text
    assert "a migration renames them" in text
    assert "strip_prefix" not in text


def test_names_that_have_nothing_in_common(tmp_path: Path) -> None:
    text = refusal(tmp_path, ones("a", "b"), zeros("x", "y"))
    assert "No name of the target is in the checkpoint" in text
    assert "strict=False" not in text


def test_prefixes_of_a_few_names(tmp_path: Path) -> None:
    text = refusal(tmp_path, ones("a", "head.w"), zeros("a", "w"))
    assert "The missing names differ by the prefix 'head.'" in text
    assert "All names" not in text
    several = refusal(tmp_path, ones("a", "head.w", "x"), zeros("a", "w", "b", "c", "d"))
    assert "1 of 4 missing names differ by the prefix 'head.'" in several
    assert "allow what is missing and unexpected: strict=False" in several


def test_what_is_missing_beside_what_matches(tmp_path: Path) -> None:
    assert "strict=False" in refusal(tmp_path, ones("a", "b"), zeros("a", "y"))
    assert "select= takes a part" in refusal(tmp_path, ones("a", "b"), zeros("a"))


@pytest.mark.parametrize("tree", [ones("module.a", "module.b"), ones("x"), {"model": ones("a")}], ids=str)
def test_a_lenient_load_that_matches_nothing_is_an_error(tmp_path: Path, tree: Any) -> None:
    text = refusal(tmp_path, tree, zeros("a", "b"), strict=False)
    assert "nothing of the target is in the checkpoint" in text
    assert "strict=False" not in text
    with pytest.raises(ckptfmt.MismatchError, match="nothing of the target"):
        ckptfmt.load(tmp_path / "c.ckpt", like=zeros("a", "b"), strict=False)


def test_a_lenient_load_of_something(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "c.ckpt", ones("a", "b"))
    target = zeros("a", "x")
    ckptfmt.load(tmp_path / "c.ckpt", into=target, strict=False)
    assert (target["a"] == 1).all()
    with pytest.raises(ckptfmt.SelectionError, match="matches nothing"):
        ckptfmt.load(tmp_path / "c.ckpt", into={}, select="nothing", strict=False)


@pytest.mark.parametrize(
    ("found", "expected", "words"),
    [
        ((3, 5), (5, 3), "w is transposed: a migration (docs/migrations.md) with `rearrange`"),
        ((2, 3, 4), (4, 2, 3), "w has its axes in another order"),
        ((10, 4), (16, 4), "w has 10 along its first axis, not 16 (another vocabulary"),
        ((12, 2, 3), (2, 3), "w looks like 12 of what is expected: a migration (docs/migrations.md) with `unstack`"),
        ((2, 3), (12, 2, 3), "w looks like one of 12 in the target: a migration (docs/migrations.md) with `stack`"),
        ((2, 3), (7, 5), "No option changes a shape"),
    ],
    ids=str,
)
def test_shapes(tmp_path: Path, found: Any, expected: Any, words: str) -> None:
    text = refusal(tmp_path, {"w": np.zeros(found)}, {"w": np.zeros(expected)})
    assert words in text
    assert all(option not in text for option in ("strict=", "cast=", "select="))


def test_each_kind_of_shape_is_told_once(tmp_path: Path) -> None:
    tree = {f"{number}": np.zeros((4, 2)) for number in range(9)}
    text = refusal(tmp_path, tree, {name: np.zeros((5, 2)) for name in tree})
    assert text.count("first axis") == 1


def test_dtypes(tmp_path: Path) -> None:
    assert "cast=True takes" in refusal(tmp_path, {"w": np.zeros(2, np.float64)}, {"w": np.zeros(2, np.float32)})
    text = refusal(tmp_path, {"w": np.zeros(2, np.float64)}, {"w": np.zeros(2, np.int32)})
    assert "cast=True" not in text
    assert "Give the target the dtypes of the checkpoint" in text


def test_kinds_and_memory(tmp_path: Path) -> None:
    assert "another kind" in refusal(tmp_path, {"w": 1, "x": W}, {"w": np.zeros(1), "x": W.copy()})
    one = np.zeros(2)
    assert "memory of its own" in refusal(tmp_path, {"a": np.ones(2), "b": np.zeros(2)}, {"a": one, "b": one})


def test_many_names_take_little_time(tmp_path: Path) -> None:
    names = [f"layers.{number}.{part}.weight" for number in range(5000) for part in "abcd"]
    start = time.process_time()
    text = refusal(tmp_path, dict.fromkeys((f"net.{name}" for name in names), W), dict.fromkeys(names, W.copy()))
    assert "All names differ by the prefix 'net.'" in text
    assert time.process_time() - start < 20
