"""Checkpoints of Megatron in its form `torch_dist`: sharded tensors become whole, and what is common comes along."""

from __future__ import annotations

import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from conversions import imported

import ckptfmt
from ckptfmt.conversion import open_source
from ckptfmt.testing import assert_same_tree

DATA = Path(__file__).parent / "data/megatron"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA, tmp_path / "iter_0000007"))


def test_shards_of_two_processes(source: Path) -> None:
    tree, _ = imported(source)
    first, second = (np.arange(8, dtype="f4").reshape(4, 2) + 100 * rank for rank in (0, 1))
    expected = {
        "model.rows": np.arange(24, dtype="f4").reshape(4, 6),
        "model.same": np.ones(3, ml_dtypes.bfloat16),
        "model.layers.w": np.array([[0, 0], [1, 1]], "f4"),
        "model.fc1": np.concatenate([first[:2], second[:2], first[2:], second[2:]]),
        "model.extra_state/shard_0_2": [{"a": 0}],
        "model.extra_state/shard_1_2": [{"a": 1}],
        "common": {
            "iteration": 7,
            "args": {"hidden": 4},
            "optimizer": {"param_groups": [{"lr": 0.1, "params": [0]}]},
            "rng": [np.arange(3)],
        },
    }
    assert set(tree) == set(expected)
    for name, value in expected.items():
        assert_same_tree({name: tree[name]}, {name: value})


def test_the_run_is_found(source: Path) -> None:
    (source.parent / "latest_checkpointed_iteration.txt").write_text("7")
    with open_source(str(source.parent)) as opened:
        assert opened.place[:2] == (str(source), "torch-dcp")
    shutil.copytree(source, source.parent / "iter_0000008")
    with pytest.raises(ckptfmt.InputError, match=r"iter_0000007 .*, iter_0000008 "):
        open_source(str(source.parent))


def test_without_what_megatron_has_beside_it_is_a_directory_as_any_other(source: Path) -> None:
    (source / "metadata.json").unlink()
    assert "common" not in imported(source)[0]


def test_what_is_common_must_be_sound(source: Path) -> None:
    raw = (source / "common.pt").read_bytes()
    for changed in (b"", raw[:500], b"x" * 900):
        (source / "common.pt").write_bytes(changed)
        with pytest.raises(ckptfmt.CorruptError) as raised:
            imported(source)
        assert raised.value.code == "bad-source"
    (source / "common.pt").unlink()
    (source.parent / "away.pt").write_bytes(raw)
    (source / "common.pt").symlink_to(source.parent / "away.pt")
    with pytest.raises(ckptfmt.UnsupportedError, match="leads out"):
        imported(source)


def test_a_shard_that_is_missing(source: Path) -> None:
    (source / "__1_1.distcp").unlink()
    with pytest.raises(ckptfmt.CkptError) as raised:
        imported(source)
    assert raised.value.code == "not-found"
