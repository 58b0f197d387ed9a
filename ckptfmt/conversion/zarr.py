"""Plain Zarr groups and arrays of format 2 and 3, in a directory, read through zarr-python.

There is nothing to write: `tensors/` of a checkpoint in layout `loose` is such a group.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import fault
from ..names import Path, path_text
from ..tree import MAX_DEPTH, Tree
from .probe import Probe
from .source import LazyArray, Source, parsing

ATTRIBUTES = "zarr.attributes"  # metadata: attributes by path text


def looks_like(probe: Probe) -> bool:
    return bool(probe.entries & {"zarr.json", ".zgroup", ".zarray"}) and "COMMIT" not in probe.entries


def read(path: str) -> Source:
    import zarr

    attributes: dict[str, Tree] = {}
    with parsing(path):
        tree = _tree(zarr.open(path, mode="r"), (), attributes, path)
    return Source(tree, {ATTRIBUTES: attributes} if attributes else None)


def _tree(node: Any, path: Path, attributes: dict[str, Tree], file: str) -> Any:
    import zarr

    if len(path) > MAX_DEPTH:
        raise fault("too-deep", f"groups nested deeper than {MAX_DEPTH}")
    if len(node.attrs):
        attributes[path_text(path)] = node.attrs.asdict()
    if isinstance(node, zarr.Group):
        return {name: _tree(item, (*path, name), attributes, file) for name, item in sorted(node.members())}
    where = path_text(path)
    if node.dtype.kind in "OUSVT" and node.dtype.names is None and node.dtype.kind != "V":
        raise fault("unsupported-source", f"{where!r} has the dtype {node.dtype}", tensor=where)

    def part(index: tuple[slice, ...]) -> Any:
        with parsing(file):
            return np.asarray(node[index if node.shape else ()])

    return LazyArray(node.shape, node.dtype, part, node.chunks[0] if node.chunks else 1)
