"""Files of MLX, as tests/data/make_mlx.py made them with the library itself: safetensors whose metadata may be null,
.npz with bfloat16, and GGUF."""

from __future__ import annotations

import shutil
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import ckptfmt
from ckptfmt.testing.equality import assert_same_tree
from tests.conversions import imported

DATA = Path(__file__).parent / "data/mlx"
KINDS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float16", "float32", "complex64")


@pytest.mark.parametrize("name", ["kinds.safetensors", "kinds.npz"])
def test_tensors_of_every_dtype(tmp_path: Path, name: str) -> None:
    shutil.copy(DATA / name, tmp_path)
    expected = {kind: np.arange(4).astype(kind) for kind in KINDS}
    expected |= {"bool_": np.arange(4).astype(bool), "bfloat16": np.arange(4).astype(ml_dtypes.bfloat16)}
    tree, metadata = imported(tmp_path / name)
    assert_same_tree({key: tree[key] for key in expected}, expected)
    assert (tree.keys(), metadata) == (expected.keys(), None)


def test_a_quantised_layer_is_three_tensors(tmp_path: Path) -> None:
    shutil.copy(DATA / "quantised.safetensors", tmp_path)
    tree, metadata = imported(tmp_path / "quantised.safetensors")
    assert metadata == {"format": "mlx"}
    assert tree["a.weight"].dtype == np.uint32
    packed = tree["a.weight"].view(np.uint8).reshape(1, 2, 16)
    elements = np.stack([packed & 15, packed >> 4], axis=-1).reshape(1, 2, 32)
    found = elements * tree["a.scales"][..., None] + tree["a.biases"][..., None]
    np.testing.assert_allclose(found.reshape(1, 64), (np.arange(64) % 16 * 0.5 - 1).reshape(1, 64), atol=1e-6)
    ckptfmt.convert(tmp_path / "imported.ckpt", tmp_path / "back.safetensors", durable=False)
    assert_same_tree(imported(tmp_path / "back.safetensors")[0], tree)


def test_gguf_of_mlx_goes_back_byte_by_byte(tmp_path: Path) -> None:
    ckptfmt.convert(DATA / "pairs.gguf", tmp_path / "x.ckpt", durable=False)
    with ckptfmt.open(tmp_path / "x.ckpt") as checkpoint:
        assert checkpoint.metadata["gguf.metadata"] == {"general.architecture": "llama", "k": [1, 2], "s": 3}
        assert_same_tree(checkpoint["w"][...], np.arange(4, dtype="f4"))
    ckptfmt.convert(tmp_path / "x.ckpt", tmp_path / "x.gguf", durable=False)
    data = (DATA / "pairs.gguf").read_bytes()
    assert (tmp_path / "x.gguf").read_bytes() == data + bytes(-len(data) % 32)  # the last tensor is padded, too
