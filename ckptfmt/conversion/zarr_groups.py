"""Zarr 3 groups that are written: dicts are groups, tensors arrays, plain values that JSON has attributes.

The attribute `ckptfmt.values` of a group names the attributes that were values of the tree, which they become again.
Elements that zarr-python lacks are written as the unsigned integers of their width, and named as zarr-extensions and
TensorStore name them.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from ..errors import fault
from ..format.dtypes import dtype_of
from ..format.names import Path, path_text
from ..format.tree import Tree
from ..packages import package
from ..storage import COMMIT, MANIFEST
from .fit import KeptMetadata, keys_of
from .source import Advance, SourceTensor, is_tensor, slabs, truths, walk

ATTRIBUTES = "zarr.attributes"  # metadata: attributes by path text
DIMENSIONS = "zarr.dimension_names"  # metadata: names of axes by path text
VALUES = "ckptfmt.values"  # an attribute: the names of others that are values of the tree
DOCUMENT = "zarr.json"
LONGEST = 255  # bytes of a file's name
_RESERVED = {DOCUMENT, COMMIT, MANIFEST}


def check_name(name: str, _: Collection[str]) -> None:
    """Refuse names that no node can have, or no folder; raises `unsupported-key`."""
    is_odd = not name.strip(".") or "/" in name or "\0" in name or name.startswith("__") or name in _RESERVED
    if is_odd or len(name.encode()) > LONGEST:
        raise fault("unsupported-key", f"a Zarr group has no nodes with the name {name[:80]!r}")


def fits(value: Any) -> bool:
    """Whether JSON gives a value back as it is."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(type(key) is str and fits(item) for key, item in value.items())
    if type(value) is list:
        return all(map(fits, value))
    if type(value) is int:
        return -(1 << 63) <= value < 1 << 64
    return type(value) in (type(None), bool, str)


def kept(metadata: Tree, tree: Tree) -> KeptMetadata:
    """Of metadata the attributes of groups and arrays of a tree, and the names of axes."""
    found = keys_of(metadata, {ATTRIBUTES, DIMENSIONS})
    holders = {path_text(path): item for path, item in walk(tree) if is_tensor(item) or isinstance(item, dict)}
    lost, value = [*found.lost], dict[str, Any]()
    for key, why_not in ((ATTRIBUTES, _no_attributes), (DIMENSIONS, _no_dimensions)):
        said = (found.value or {}).get(key, {})
        if not isinstance(said, dict):
            lost.append(f"{key!r} is left out: it is no dict")
            continue
        for place, named in said.items():
            why = "nothing stands there" if place not in holders else why_not(holders[place], named)
            if why is None:
                value.setdefault(key, {})[place] = named
            else:
                lost.append(f"{key!r} of {place!r} are left out: {why}")
    return KeptMetadata(value or None, tuple(lost))


def _no_attributes(holder: Any, named: Any) -> str | None:
    if not isinstance(named, dict) or not named or not fits(named):
        return "they are no dict that JSON can say"
    if VALUES in named or (isinstance(holder, dict) and holder.keys() & named.keys()):
        return "an attribute has the name of a value"
    return None


def _no_dimensions(holder: Any, named: Any) -> str | None:
    is_list = type(named) is list and all(type(name) in (str, type(None)) for name in named) and any(named)
    return None if is_list and is_tensor(holder) and len(named) == len(holder.shape) else "they do not name its axes"


def values_of(attributes: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the attributes of a group those that were values of a tree, and the others."""
    names = attributes.get(VALUES)
    if type(names) is not list or not all(type(name) is str and name in attributes for name in names):
        return {}, dict(attributes)
    rest = {name: value for name, value in attributes.items() if name != VALUES and name not in names}
    return {name: attributes[name] for name in names if name != VALUES}, rest


class GroupWriter:
    """Writes a tree into a folder. `advance` is told bytes of tensors."""

    def __init__(self, metadata: Tree, advance: Advance) -> None:
        self.zarr = package("zarr", "writing a Zarr group")
        self.attributes = (metadata or {}).get(ATTRIBUTES, {})
        self.dimensions = (metadata or {}).get(DIMENSIONS, {})
        self.advance = advance

    def group(self, folder: str, tree: dict[str, Any], path: Path) -> None:
        nodes = {name: item for name, item in tree.items() if isinstance(item, dict) or is_tensor(item)}
        values = {name: item for name, item in tree.items() if name not in nodes}
        attributes = {**self.attributes.get(path_text(path), {}), **values}
        if values:
            attributes[VALUES] = [*values]
        self.zarr.create_group(folder, zarr_format=3, attributes=attributes)
        for name, item in nodes.items():
            write = self.group if isinstance(item, dict) else self.array
            write(os.path.join(folder, name), item, (*path, name))

    def array(self, folder: str, tensor: SourceTensor, path: Path) -> None:
        """Write an array, whose chunks are the parts in which the tensor is read."""
        row = dtype_of(tensor.dtype)
        assert row is not None  # what `HOLDS` does not name was replaced by its bits
        stored = row.numpy if row.is_core else np.dtype(f"uint{8 * row.numpy.itemsize}")
        indices, place = list(slabs(tensor)), path_text(path)
        sides = [axis.stop - axis.start for axis in indices[0]]
        array = self.zarr.create_array(
            folder,
            shape=tensor.shape,
            chunks=tuple(max(1, side) for side in (*sides, *tensor.shape[len(sides) :])),
            dtype=stored,
            fill_value=0,
            zarr_format=3,
            attributes=self.attributes.get(place),
            dimension_names=self.dimensions.get(place),
            config={"write_empty_chunks": True},
        )
        for index in indices:
            part = truths(tensor[index])
            array[index or ...] = np.ascontiguousarray(part, row.numpy).view(stored).reshape(part.shape)
            self.advance(part.nbytes)
        if not row.is_core:
            _rename(os.path.join(folder, DOCUMENT), row.name)


def _rename(path: str, data_type: str) -> None:
    """Say in the document of an array of integers what their bits mean."""
    with open(path, "r+", encoding="utf-8") as file:
        document = {**json.load(file), "data_type": data_type}
        file.seek(0)
        json.dump(document, file, indent=2)
        file.truncate()
