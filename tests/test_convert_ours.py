"""What only a checkpoint of this format holds: from one to another it comes along, elsewhere its loss is told."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from inside import inside

import ckptfmt
from ckptfmt.frameworks.adapter import Tagged

Pair = namedtuple("Pair", "one two")
W = np.arange(6, dtype=np.float32)


def source(folder: Path, **more: Any) -> Path:
    tree = {
        "size": torch.Size([1, 2]),
        "dtype": torch.bfloat16,
        "parameter": torch.nn.Parameter(torch.from_numpy(W.copy()), requires_grad=False),
        "pair": Pair(W, 2),
        "odd": Tagged("my.thing", "p", {"w": W}, lambda child: child),
        "plain": [1, (2, W)],
    }
    ckptfmt.save(
        folder / "source.ckpt", tree, schema=("net", "3"), metadata={"step": 1}, extra={"note": ["kept"]}, **more
    )
    return folder / "source.ckpt"


def tags(path: Path) -> Any:
    with ckptfmt.open(path) as checkpoint:
        return (
            inside(checkpoint).manifest.tree,
            checkpoint.schema,
            inside(checkpoint).manifest.unknown,
            checkpoint.metadata,
        )


@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_everything_comes_along(tmp_path: Path, layout: str, compression: str | None) -> None:
    path = source(tmp_path, compression=compression)
    report = ckptfmt.convert(path, tmp_path / "target", layout=layout)
    assert not report.losses
    assert tags(tmp_path / "target") == tags(path)
    assert ckptfmt.diff(path, tmp_path / "target").equal


def test_what_the_caller_says_counts(tmp_path: Path) -> None:
    ckptfmt.convert(source(tmp_path), tmp_path / "target", schema=("net", "4"), metadata=None)
    _, schema, _, metadata = tags(tmp_path / "target")
    assert schema == ckptfmt.Schema("net", "4")
    assert metadata is None


def test_losses_elsewhere(tmp_path: Path) -> None:
    path = source(tmp_path)
    with pytest.raises(ckptfmt.InputError) as raised:
        ckptfmt.convert(path, tmp_path / "x.npz")
    assert raised.value.code == "lossy"
    report = ckptfmt.convert(path, tmp_path / "x.npz", allow_loss=True)
    told = {(loss.kind, loss.path, loss.message) for loss in report.losses}
    assert ("metadata", "", "the schema net 3 is left out") in told
    assert not any("torch.Parameter" in message for _, _, message in told)
    for place, name in (
        ("size", "torch.Size"),
        ("dtype", "torch.dtype"),
        ("odd", "my.thing"),
    ):
        assert ("value", place, f"the tag {name} is left out") in told


def test_names_that_are_split_are_another_schema(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "flat.ckpt", {"a.b": W}, schema=("net", "3"))
    with pytest.raises(ckptfmt.InputError, match="schema net 3"):
        ckptfmt.convert(tmp_path / "flat.ckpt", tmp_path / "x.ckpt", nest=True)
    ckptfmt.convert(tmp_path / "flat.ckpt", tmp_path / "x.ckpt", nest=True, allow_loss=True)
    with ckptfmt.open(tmp_path / "x.ckpt") as checkpoint:
        assert checkpoint.schema is None
        assert [*checkpoint] == ["a/b"]


def test_differences_of_schema_and_tags(tmp_path: Path) -> None:
    ckptfmt.save(tmp_path / "a", {"size": torch.Size([1, 2])}, schema=("net", "3"))
    ckptfmt.save(tmp_path / "b", {"size": (1, 2)}, schema=("net", "4"))
    report = ckptfmt.diff(tmp_path / "a", tmp_path / "b")
    assert [(one.path, one.kind, one.before, one.after) for one in report.changed] == [
        ("", "schema", "net 3", "net 4"),
        ("size", "tag", "torch.Size", "none"),
    ]
    assert report.same == 2
    assert not report.equal
