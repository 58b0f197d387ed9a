"""Conversions from and to checkpoints on object stores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from conversions import CORE
from safetensors.numpy import load_file, save_file
from stores import Store, endpoint, open_, proxy, s3_store, save, store

import ckptfmt
from ckptfmt.conversion import convert, convert_each
from ckptfmt.conversion.comparison import diff
from ckptfmt.testing import assert_same_tree

__all__ = ["endpoint", "proxy", "s3_store", "store"]  # fixtures

TREE = {"a": np.arange(70_000, dtype=np.float32), "b": np.arange(6, dtype=np.int16).reshape(2, 3)}


def test_to_a_store(store: Store, tmp_path: Path) -> None:
    """It is read back and compared there, with the same options."""
    save_file(TREE, tmp_path / "x.safetensors")
    report = convert(tmp_path / "x.safetensors", store.url, storage_options=store.options)
    assert (report.tensors, report.target_format, report.verified) == (2, "ckptfmt", True)
    assert_same_tree(ckptfmt.load(store.url, storage_options=store.options), TREE)


@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_from_a_store(store: Store, tmp_path: Path, layout: str, compression: str | None) -> None:
    save(store, TREE, layout=layout, compression=compression)
    convert(store.url, tmp_path / "x.safetensors", storage_options=store.options)
    assert_same_tree(load_file(tmp_path / "x.safetensors"), TREE)
    report = diff(store.url, tmp_path / "x.safetensors", storage_options=store.options)
    assert (report.equal, report.same) == (True, 2)


def test_from_store_to_store_keeps_what_this_format_has(store: Store) -> None:
    tied = np.arange(5.0)
    tree = {"x": tied, "y": [tied, None, 1.5], "core": CORE}
    save(store, tree, schema=("llama", "3"), metadata={"step": 7})
    convert(store.url, store.at("copy").url, layout="packed", storage_options=store.options)
    with open_(store.at("copy")) as found:
        assert (found.schema, found.metadata) == (("llama", "3"), {"step": 7})
        loaded = found.load()
    assert_same_tree(loaded, tree)
    assert loaded["x"] is loaded["y"][0]
    assert diff(store.url, store.at("copy").url, storage_options=store.options).equal


def test_other_formats_lie_on_disks_alone(store: Store, tmp_path: Path) -> None:
    save(store, TREE)
    ckptfmt.save(tmp_path / "x.ckpt", TREE)
    for source, target, more in (
        (store.url, store.at("y.safetensors").url, {}),
        (tmp_path / "x.ckpt", store.at("y.npz").url, {}),
        (store.url, tmp_path / "y.ckpt", {"source_format": "safetensors"}),
    ):
        with pytest.raises(ckptfmt.InputError, match="on disks alone") as caught:
            convert(source, target, storage_options=store.options, **more)  # type: ignore[arg-type]
        assert caught.value.code == "bad-option"
    for pair in ((store.url, tmp_path / "out"), (tmp_path, store.url)):
        with pytest.raises(ckptfmt.InputError, match="on disks alone"):
            convert_each(*pair)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.ckpt"]
