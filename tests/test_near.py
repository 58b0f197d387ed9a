"""Near names: what is suggested, and that looking for it costs little."""

from __future__ import annotations

import pickle
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ckptfmt
from ckptfmt.near import did_you_mean, near, near_pattern

NAMES = ["model/wte", "model/wpe", "model/ln_f/weight", "optimizer/lr", "optimizer/betas/0", "rng"]
BIG = [
    f"model.layers.{i}.{part}.weight" for i in range(12_500) for part in ("q", "k", "v", "o", "up", "down", "ln", "x")
]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("model/wtf", ["model/wte"]),
        ("model/wxe", ["model/wte", "model/wpe"]),
        ("wte", ["model/wte"]),
        ("WTE", ["model/wte"]),
        ("model.wte", ["model/wte"]),
        ("module/model/wte", ["model/wte", "model/wpe"]),
        ("ln_f/wieght", ["model/ln_f/weight"]),
        ("betas/0", ["optimizer/betas/0"]),
        ("zzz", []),
        ("", []),
        ("/", []),
    ],
)
def test_what_is_near(wanted: str, expected: list[str]) -> None:
    assert near(wanted, NAMES) == expected
    assert near(wanted, []) == []


def test_the_words() -> None:
    assert did_you_mean("wte", NAMES) == "; did you mean 'model/wte'?"
    assert did_you_mean("model/wxe", NAMES[:2]) == "; did you mean 'model/wte' or 'model/wpe'?"
    assert did_you_mean("zzz", NAMES) == ""


def matches(pattern: str, names: list[str]) -> bool:
    return any(re.fullmatch(pattern.replace(".", r"\.").replace("*", ".*"), name) for name in names)


@pytest.mark.parametrize(
    "look",
    [
        lambda: near("model.layers.77.q.wieght", BIG),
        lambda: near("x" * 100_000, BIG),
        lambda: near("q.weight", [name + "y" * 100_000 for name in BIG[:100]] * 100),
        lambda: near_pattern("model.layers.*.qq.wieght", re.compile(r"\*"), BIG, matches),
        lambda: near_pattern("*" * 1000 + "zzz", re.compile(r"\*+"), BIG, matches),
        lambda: near("a/" * 50_000, ["a/" * 50_000 + "b"] * 100),
    ],
)
def test_the_time_is_bounded(look: Callable[[], object]) -> None:
    start = time.process_time()
    look()
    assert time.process_time() - start < 5, "it takes 0.2 s to 0.7 s where nothing else runs"


def test_errors_of_lookups(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "c.ckpt", {"model": {"wte": np.zeros(2), "0": 1}}, durable=False)
    with ckptfmt.open(tmp_path / "c.ckpt") as checkpoint:
        with pytest.raises(ckptfmt.SelectionError) as caught:
            checkpoint["model/wtf"]
        assert "there is no 'model/wtf' in the tree; did you mean 'model/wte'? See" in str(caught.value)
        assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
        with pytest.raises(ckptfmt.SelectionError, match=re.escape("did you mean \"model/'0'\"")):
            checkpoint["model", 0]
        with pytest.raises(ckptfmt.SelectionError, match=re.escape("matches nothing; did you mean 'model/*'?")):
            checkpoint.load(select="modle/*")
        assert checkpoint.load(select="model/'0'") == {"model": {"0": 1}}


def test_nobody_pays_for_a_hint_that_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ckptfmt.save(tmp_path / "c.ckpt", {"a": 1}, durable=False)
    monkeypatch.setattr("ckptfmt.near.did_you_mean", None)
    with ckptfmt.open(tmp_path / "c.ckpt") as checkpoint:
        assert "b" not in checkpoint
        with pytest.raises(ckptfmt.SelectionError):
            checkpoint["b"]


def test_compression_by_label(tmp_path: Path) -> None:
    tree = {"0": np.zeros(1000), 0: np.zeros(1000)}
    ckptfmt.save(tmp_path / "c.ckpt", tree, compression={"'0'": "zstd"}, durable=False)
    with ckptfmt.open(tmp_path / "c.ckpt") as checkpoint:
        assert [checkpoint["0",].codec, checkpoint[0,].codec] == ["zstd", "raw"]
