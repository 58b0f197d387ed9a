"""When two trees are the same: in type, value, order and aliases, floats and arrays bit by bit.

This is what saving and loading keep. Byte order and strides of an array are no part of its value, nor are the unused
high bits of sub-byte elements.
"""

from __future__ import annotations

import struct
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from ..format.dtypes import Array, dtype_of
from ..format.names import Key, Path, path_label
from ..format.tree import Tree
from ..frameworks.values import parts_of


def equal_trees(found: Tree, expected: Tree) -> bool:
    """Tell whether two trees are the same: in type, value, order and aliases, floats and arrays bit by bit."""
    return first_difference(found, expected) is None


def assert_same_tree(found: Tree, expected: Tree) -> None:
    """Raise AssertionError, which names the first difference, if two trees are not the same."""
    difference = first_difference(found, expected)
    if difference is not None:
        raise AssertionError(difference)


def first_difference(found: Tree, expected: Tree) -> str | None:
    """Describe what differs first between two trees, in words; None if they are the same."""
    return _Comparison().difference(found, expected, ())


class _Comparison:
    """Compares two trees leaf by leaf, and remembers at which path each array was first met in either."""

    def __init__(self) -> None:
        self.first_found: dict[Any, Path] = {}
        self.first_expected: dict[Any, Path] = {}

    def difference(self, found: Tree, expected: Tree, path: Path) -> str | None:
        if type(found) is not type(expected):
            return f"{path_label(path)!r}: a {type(found).__name__}, not a {type(expected).__name__}"
        parts, others = parts_of(found), parts_of(expected)
        if parts is not None and others is not None:  # what a save sees of the values of other classes
            if parts[:2] != others[:2]:
                return f"{path_label(path)!r}: {parts.tag} {parts.param}, not {others.tag} {others.param}"
            return self.difference(parts.child, others.child, path)
        if is_dataclass(expected) and not isinstance(expected, type):
            return self.difference(_fields(found), _fields(expected), path)
        if isinstance(expected, dict):
            if [(type(key), key) for key in found] != [(type(key), key) for key in expected]:
                return f"{path_label(path)!r}: the keys {list(found)}, not {list(expected)}"
            pairs: Any = ((key, found[key], expected[key]) for key in expected)
        elif isinstance(expected, list | tuple):
            if len(found) != len(expected):
                return f"{path_label(path)!r}: {len(found)} items, not {len(expected)}"
            pairs = ((i, *pair) for i, pair in enumerate(zip(found, expected, strict=True)))
        else:
            return self.leaf_difference(found, expected, path)
        differences = (self.difference(one, other, (*path, key)) for key, one, other in pairs)
        return next((difference for difference in differences if difference is not None), None)

    def leaf_difference(self, found: Any, expected: Any, path: Path) -> str | None:
        if _bits(found) != _bits(expected):
            return f"{path_label(path)!r}: {found!r}, not {expected!r}"
        if isinstance(expected, np.ndarray) and expected.nbytes:
            first = self.first_found.setdefault(_memory(found), path)
            other = self.first_expected.setdefault(_memory(expected), path)
            if first != other:
                return f"{path_label(path)!r}: an alias of {path_label(first)!r}, not of {path_label(other)!r}"
        return None


def _fields(value: Any) -> dict[Key, Any]:
    """The fields of a dataclass, which itself compares them as arrays cannot be."""
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _memory(array: Array) -> Any:
    """Equal for arrays that see the same memory in the same way: aliases. [TREE-011]"""
    return array.__array_interface__["data"][0], array.dtype, array.shape, array.strides


def _bits(leaf: Any) -> Any:
    """Something that is equal for leaves of one type exactly if they are the same."""
    if isinstance(leaf, float) and not isinstance(leaf, np.generic):
        return struct.pack("<d", leaf)
    if isinstance(leaf, complex) and not isinstance(leaf, np.generic):
        return struct.pack("<dd", leaf.real, leaf.imag)
    if isinstance(leaf, np.str_ | np.bytes_) or not isinstance(leaf, np.ndarray | np.generic):
        return leaf
    array = np.asarray(leaf)
    native = array.astype(array.dtype.newbyteorder("="))
    row = dtype_of(native.dtype)
    if row is not None and row.bits < 8:
        native = native.view(np.uint8) & np.uint8((1 << row.bits) - 1)
        return row.name, native.shape, native.tobytes()
    return native.dtype.name, native.dtype.str, native.shape, native.tobytes()
