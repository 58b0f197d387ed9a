"""Attributes of HDF5 as plain values in metadata, by path text of what they belong to, and back."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..format.dtypes import Array
from ..format.names import path_text
from ..format.tree import Tree
from .equality import same_plain
from .fit import KeptMetadata, dtype_name, keys_of
from .source import is_tensor, walk

ATTRIBUTES = "hdf5.attributes"  # metadata: attributes by path text
DTYPE = "dtype"  # the attribute by which Keras tells what opaque bytes are
OPAQUE = "bfloat16"  # what is stored so
MOST = 64_512  # bytes of an attribute, beside what its header takes of 64 KiB
STRING = 16  # bytes that one takes in an array of them


def plain(value: Any) -> Tree:
    """An attribute's value as plain values; raises TypeError, and ValueError for text that is not UTF-8."""
    if isinstance(value, np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        value.encode()
    if isinstance(value, bool | int | float | complex | str | bytes):
        return value
    raise TypeError


def kept(metadata: Tree, tree: Tree) -> KeptMetadata:
    """Of metadata the attributes that the groups and datasets of a tree can have."""
    found = keys_of(metadata, {ATTRIBUTES})
    if found.value is None:
        return found
    attributes: dict[str, dict[str, Tree]] = {}
    lost = [*found.lost]
    holders = _holders(tree)
    said = found.value[ATTRIBUTES]
    if not isinstance(said, dict) or not all(isinstance(named, dict) for named in said.values()):
        return KeptMetadata(None, (*lost, f"{ATTRIBUTES!r} is left out: it is no dict of dicts"))
    for place, named in said.items():
        holder = holders.get(place)
        for name, value in named.items():
            if is_opaque(holder) and (name, value) == (DTYPE, OPAQUE):  # as it is written in any case
                continue
            why = "nothing stands there" if holder is None else _why_not(holder, name, value)
            if why is None:
                attributes.setdefault(place, {})[name] = value
            else:
                lost.append(f"the attribute {name!r} of {place!r} is left out: {why}")
    return KeptMetadata({ATTRIBUTES: attributes} if attributes else None, tuple(lost))


def _holders(tree: Tree) -> dict[str, Any]:
    """Groups and datasets by path text; a dataset at the first of its places, where it is read."""
    seen: set[int] = set()
    found: dict[str, Any] = {}
    for path, item in walk(tree):
        if not is_tensor(item) or id(item) not in seen:
            seen.add(id(item))
            found[path_text(path)] = item
    return found


def is_opaque(item: Any) -> bool:
    """Whether a tensor is stored as opaque bytes with an attribute, as Keras does."""
    return is_tensor(item) and dtype_name(item.dtype) == OPAQUE


def _why_not(holder: Any, name: Any, value: Tree) -> str | None:
    if not isinstance(name, str) or not name or "\0" in name:
        return "HDF5 has no such names"
    if is_opaque(holder) and name == DTYPE:
        return f"the values are {OPAQUE}"
    return "HDF5 has no such values" if stored(value) is None else None


def stored(value: Tree) -> str | np.bytes_ | Array | None:
    """What h5py writes for a plain value and gives back as that; None if there is none. Text in arrays is objects."""
    if isinstance(value, str):
        return value if "\0" not in value else None
    if isinstance(value, bytes):
        return np.bytes_(value) if 0 < len(value) <= MOST and value[-1] else None
    is_text = isinstance(value, list) and _is_text(value)
    try:
        found = np.array(value, dtype=object if is_text else None)
    except (ValueError, OverflowError):  # lists of different lengths, say
        return None
    if (found.dtype.kind not in "biufcS" and not is_text) or not same_plain(found.tolist(), value):
        return None
    return found if found.size * (STRING if is_text else found.dtype.itemsize) <= MOST else None


def _is_text(value: list[Any]) -> bool:
    """Whether nested lists hold text alone, and some."""
    return bool(value) and all(_is_text(item) if isinstance(item, list) else _is_one(item) for item in value)


def _is_one(item: Any) -> bool:
    return isinstance(item, str) and "\0" not in item


def write(h5py: Any, item: Any, named: dict[str, Tree]) -> None:
    """Give a group or dataset attributes that were `kept`."""
    for name, value in named.items():
        found = stored(value)
        is_text = isinstance(found, np.ndarray) and found.dtype == object
        item.attrs.create(name, found, dtype=h5py.string_dtype() if is_text else None)
