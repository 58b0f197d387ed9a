"""What the tests of conversions share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import ckptfmt

CORE = [
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
]


def imported(source: Path, **options: Any) -> tuple[Any, Any]:
    """The tree and the metadata of a source after its conversion."""
    target = source.parent / "imported.ckpt"
    report = ckptfmt.convert(source, target, overwrite=True, durable=False, **options)
    assert report.verified
    with ckptfmt.open(target) as checkpoint:
        assert checkpoint.verify().ok
        return checkpoint.load(), checkpoint.metadata


def exported(tree: Any, target: Path, metadata: Any = None, **options: Any) -> ckptfmt.ConvertReport:
    source = target.parent / "exported.ckpt"
    ckptfmt.save(source, tree, metadata=metadata, overwrite=True, durable=False)
    return ckptfmt.convert(source, target, durable=False, **options)


def one_of_each(dtypes: list[str]) -> dict[str, Any]:
    arrays = {name: (np.arange(6) % 2).astype(name).reshape(2, 3) for name in dtypes}
    return {**arrays, "scalar": np.array(7.5), "empty": np.zeros((0, 3), np.float32)}


def in_order(tree: Any, like: Any) -> Any:
    """The same dicts with their keys in the order of another tree."""
    return {key: in_order(tree[key], item) for key, item in like.items()} if isinstance(like, dict) else tree
