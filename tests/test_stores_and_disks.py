"""What reads one checkpoint and makes another, from a store to a disk, from a disk to a store, and between stores: the
options are for whichever of the two is a URL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from migrations import document
from stores import Store, endpoint, proxy, s3_store, store

import ckptfmt
from ckptfmt.testing import assert_same_tree

__all__ = ["endpoint", "proxy", "s3_store", "store"]  # fixtures

TREE = {"a": np.arange(70_000, dtype=np.float32), "b": np.arange(6, dtype=np.int16).reshape(2, 3)}
RENAME = document({"from": "a", "to": "c"}, rest="keep")
WAYS: dict[str, Callable[..., Any]] = {
    "repair": ckptfmt.repair,
    "upgrade": ckptfmt.upgrade,
    "convert": ckptfmt.convert,
    "migrate": lambda src, dst, **more: ckptfmt.migrate(src, dst, RENAME, schema="2", **more),
}


@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
@pytest.mark.parametrize("way", WAYS)
def test_from_and_to(store: Store, tmp_path: Path, way: str, layout: str) -> None:
    def at(path: Any) -> dict[str, Any]:
        return {"storage_options": store.options} if "://" in str(path) else {}

    first, second, third = store.url, tmp_path / "y", store.at("z").url
    ckptfmt.save(first, TREE, layout=layout, schema=("s", "1"), **at(first))
    expected = {"c": TREE["a"], "b": TREE["b"]} if way == "migrate" else TREE
    WAYS[way](first, second, storage_options=store.options)
    WAYS[way](first, third, storage_options=store.options)
    for made in (second, third):
        assert_same_tree(ckptfmt.load(made, **at(made)), expected)
        assert ckptfmt.verify(made, **at(made)).ok
    ckptfmt.save(tmp_path / "x", TREE, layout=layout, schema=("s", "1"))
    WAYS[way](tmp_path / "x", store.at("w").url, storage_options=store.options)
    assert_same_tree(ckptfmt.load(store.at("w").url, storage_options=store.options), expected)
