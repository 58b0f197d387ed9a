"""Loading checkpoints at another version of their schema: as NumPy arrays, for a framework, into a target, mapped."""

from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from migrations import W, X, document, refusal, saved
from peers import peer

import ckptfmt
from ckptfmt import OMITTED, UnknownTagWarning

torch = peer("torch")

RULES = document(
    {"from": "qk", "with": [{"op": "split", "axis": 0, "sizes": [2, 2]}], "to": ["q", "k"]},
    {"from": "w", "to": "weight"},
    {"from": "tied", "to": "head"},
    {"from": "w", "with": [{"op": "copy"}], "to": "ema"},
    rest="keep",
)
QK = np.arange(12, dtype=np.float32).reshape(4, 3)


def checkpoint(folder: Path) -> Path:
    half = torch.arange(6, dtype=torch.bfloat16)
    return saved(folder, {"qk": QK, "w": W, "tied": W, "half": half, "step": 7, "list": [X, 1]})


def test_numpy(tmp_path: Path) -> None:
    tree = ckptfmt.load(checkpoint(tmp_path), schema="2", migrations=RULES)
    assert sorted(tree) == ["ema", "half", "head", "k", "list", "q", "step", "weight"]
    np.testing.assert_array_equal(tree["q"], QK[:2])
    np.testing.assert_array_equal(tree["k"], QK[2:])
    np.testing.assert_array_equal(tree["weight"], W)
    assert tree["head"] is tree["weight"]
    assert not np.shares_memory(tree["ema"], tree["weight"])
    np.testing.assert_array_equal(tree["ema"], W)
    assert tree["step"] == 7
    assert all(tree[name].flags.writeable for name in ("q", "weight", "ema", "half"))


def test_torch(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        told.append((done, total))

    path = checkpoint(tmp_path)
    tree = ckptfmt.load(path, schema="2", migrations=RULES, framework="torch", progress=progress)
    torch.testing.assert_close(tree["k"], torch.from_numpy(QK[2:]), rtol=0, atol=0)
    torch.testing.assert_close(tree["half"], torch.arange(6, dtype=torch.bfloat16), rtol=0, atol=0)
    assert tree["head"] is tree["weight"]
    assert tree["ema"] is not tree["weight"]
    assert type(tree["list"][0]) is torch.Tensor
    assert told[-1][0] == told[-1][1] > 0


@pytest.mark.parametrize("mmap", [False, True])
def test_part_of_it(tmp_path: Path, mmap: bool) -> None:
    path = checkpoint(tmp_path)
    tree = ckptfmt.load(path, schema="2", migrations=RULES, select=["q", "k", "weight", "list/0"], mmap=mmap)
    assert sorted(tree) == ["k", "list", "q", "weight"]
    assert tree["list"][1] is OMITTED
    np.testing.assert_array_equal(tree["weight"], W)
    np.testing.assert_array_equal(tree["q"], QK[:2])
    refusal("no-match", ckptfmt.load, path, schema="2", migrations=RULES, select="w")


@pytest.mark.parametrize("framework", ["numpy", "torch"])
def test_into(tmp_path: Path, framework: str) -> None:
    path = checkpoint(tmp_path)
    arrays: dict[str, Any] = {
        "q": np.zeros((2, 3), np.float32),
        "k": np.zeros((2, 3), np.float32),
        "ema": np.zeros_like(W),
    }
    arrays |= {"weight": np.zeros_like(W), "head": np.zeros_like(W), "list": [np.zeros_like(X), 0], "step": 0}
    target = {name: torch.from_numpy(a) if isinstance(a, np.ndarray) and framework == "torch" else a
              for name, a in arrays.items()}  # fmt: skip
    target["half"] = torch.zeros(6, dtype=torch.bfloat16)
    tree = ckptfmt.load(path, schema="2", migrations=RULES, into=target)
    assert tree["step"] == 7
    assert tree["q"] is target["q"]
    np.testing.assert_array_equal(arrays["q"], QK[:2])
    np.testing.assert_array_equal(arrays["k"], QK[2:])
    for name in ("weight", "head", "ema"):
        np.testing.assert_array_equal(arrays[name], W)
    np.testing.assert_array_equal(arrays["list"][0], X)
    torch.testing.assert_close(tree["half"], torch.arange(6, dtype=torch.bfloat16), rtol=0, atol=0)


def test_into_what_does_not_fit_writes_nothing(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    target = {"q": np.zeros((2, 3), np.float32), "weight": np.zeros((3, 2), np.float32)}
    error = refusal("mismatch", ckptfmt.load, path, schema="2", migrations=RULES, into=target)
    assert "weight" in str(error)
    assert "k" in error.report.unexpected
    assert not target["q"].any()
    del target["weight"]
    ckptfmt.load(path, schema="2", migrations=RULES, into=target, strict=False)
    np.testing.assert_array_equal(target["q"], QK[:2])
    wide = {"k": np.zeros((2, 3), np.float64)}
    ckptfmt.load(path, schema="2", migrations=RULES, into=wide, strict=False, cast=True)
    np.testing.assert_array_equal(wide["k"], QK[2:])
    with ckptfmt.open(path, schema="2", migrations=RULES) as view:
        assert view.match({"q": np.zeros((2, 3), np.float32)}).missing == ()


def test_into_a_module(tmp_path: Path) -> None:
    module = torch.nn.Linear(3, 2)
    path = saved(tmp_path, {"kernel": W.T.copy(), "bias": np.ones(2, np.float32)})
    turned = {"from": "kernel", "with": [{"op": "rearrange", "pattern": "i o -> o i"}], "to": "weight"}
    ckptfmt.load(path, schema="2", migrations=document(turned, rest="keep"), into=module)
    np.testing.assert_array_equal(module.weight.detach().numpy(), W)


def test_like(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    like = {"q": torch.empty((2, 3), dtype=torch.float64), "head": torch.empty((2, 3)), "weight": torch.empty((2, 3))}
    tree = ckptfmt.load(path, schema="2", migrations=RULES, like=like, strict=False, cast=True)
    torch.testing.assert_close(tree["q"], torch.from_numpy(QK[:2].astype(np.float64)), rtol=0, atol=0)
    assert tree["head"] is tree["weight"]


def test_damage_is_found_unless_it_is_not_looked_for(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    raw = bytearray(path.read_bytes())
    raw[raw.index(QK.tobytes())] ^= 1
    path.write_bytes(raw)
    assert refusal("block-digest", ckptfmt.load, path, schema="2", migrations=RULES).tensor == "qk"
    target = {"q": np.zeros((2, 3), np.float32)}
    refusal("block-digest", ckptfmt.load, path, schema="2", migrations=RULES, into=target, strict=False)
    tree = ckptfmt.load(path, schema="2", migrations=RULES, verify=False)
    assert tree["q"].tobytes() != QK[:2].tobytes()


def test_tags_without_tensors_stay(tmp_path: Path) -> None:
    """[MIG-021]"""
    tree = {"w": W, "size": torch.Size([1, 2]), "dtype": torch.bfloat16, "when": np.array(["2024-02-29"], "M8[D]")}
    path, made = saved(tmp_path, tree), document({"from": "size", "to": "shape"}, {"from": "w", "to": "v"}, rest="keep")
    with pytest.warns(UnknownTagWarning, match="int64: when"):
        found = ckptfmt.load(path, schema="2", migrations=made, framework="torch")
    assert type(found["shape"]) is torch.Size
    assert found["dtype"] is torch.bfloat16
    assert found["when"].dtype is torch.int64
    plain = ckptfmt.load(path, schema="2", migrations=made)
    assert plain["shape"] == (1, 2)
    assert plain["when"][0] == np.datetime64("2024-02-29")
    ckptfmt.migrate(path, tmp_path / "dst", made, schema="2")
    with pytest.warns(UnknownTagWarning, match="int64: when"):
        written = ckptfmt.load(tmp_path / "dst", framework="torch")
    assert type(written["shape"]) is torch.Size
    assert written["dtype"] is torch.bfloat16


def test_a_tag_that_is_left_out_is_told(tmp_path: Path) -> None:
    """[MIG-021] A tag over tensors that get other names gives way to its child."""
    Pair = namedtuple("Pair", "one two")
    path = saved(tmp_path, {"pair": Pair(W, X)})
    made = document({"from": "pair/one", "to": "pair/first"}, rest="keep")
    with pytest.warns(UnknownTagWarning, match="Pair"):
        found = ckptfmt.load(path, schema="2", migrations=made)
    assert sorted(found["pair"]) == ["first", "two"]


def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    path = checkpoint(tmp_path)
    assert "requires schema=" in str(refusal("bad-option", ckptfmt.load, path, migrations=RULES))
    refusal("bad-option", ckptfmt.load, path, schema="2", migrations=RULES, into={}, mmap=True)
    said = str(refusal("bad-option", ckptfmt.load, path, schema="2", migrations_=RULES))
    assert "no option 'migrations_'; did you mean 'migrations'?" in said
