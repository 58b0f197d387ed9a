"""Whether leaves are the same, bit by bit, read in parts."""

from __future__ import annotations

import struct
from typing import Any, TypeGuard

import numpy as np

from ..format.dtypes import Array, dtype_of
from ..format.names import Path
from ..format.tree import Tree
from ..frameworks.target import flatten
from .source import Advance, LazyArray, Seen, Tensor, is_tensor, slabs, truths, walk

PIECE = 1 << 18  # bytes compared at once: they stay in the processor's cache


def same_leaf(found: Any, expected: Any, advance: Advance, seen: Seen | None = None) -> bool:
    """Whether two leaves are the same in kind, dtype, shape and bits; `advance` is told the bytes of tensors. With
    `seen`, the digests of `expected` as it was read before, it is not read again where these say enough."""
    if is_tensor(found) and is_tensor(expected):
        return same_tensor(found, expected, advance, seen)
    if is_tensor(found) or is_tensor(expected) or type(found) is not type(expected):
        return False
    return bool(plain_bits(found) == plain_bits(expected))


def plain_bits(leaf: Any) -> Any:
    """Something that is equal for plain leaves of one type exactly if they are the same."""
    if isinstance(leaf, np.generic):
        return leaf.dtype.str, leaf.tobytes()
    if isinstance(leaf, float):
        return struct.pack("<d", leaf)
    if isinstance(leaf, complex):
        return struct.pack("<dd", leaf.real, leaf.imag)
    return leaf


def plain_leaves(tree: Tree) -> Any:
    """Something that is equal for plain trees exactly if they are the same, but for the order of dicts."""
    return {path: (type(leaf), plain_bits(leaf)) for path, leaf in flatten(tree)}


def sequences(tree: Tree) -> dict[Path, type]:
    """Where lists and tuples are."""
    return {path: type(node) for path, node in walk(tree) if type(node) in (list, tuple)}


def same_tensor(found: Tensor, expected: Tensor, advance: Advance, seen: Seen | None = None) -> bool:
    """Whether two tensors have the same dtype, but for byte order, the same shape and the same bits."""
    if found.shape != expected.shape or found.dtype.newbyteorder("=") != expected.dtype.newbyteorder("="):
        return False
    if isinstance(found, LazyArray) and found.stored is not None and is_plain(expected):
        if not found.stored.matches(expected, seen):
            return False
        found.stored.check()  # that what is stored has the digests that it says
        advance(expected.nbytes)
        return True
    if isinstance(expected, LazyArray) and expected.stored is not None and is_plain(found):
        if not expected.stored.matches(found):
            expected.stored.check()  # raises, if it is the source that is damaged
            return False
        advance(found.nbytes)
        return True
    for index in slabs(coarser(found, expected)):
        one, other = bits(found[index]), bits(expected[index])
        if not all(np.array_equal(one[at : at + PIECE], other[at : at + PIECE]) for at in range(0, one.size, PIECE)):
            return False
        advance(one.size)
    return True


def lies_plain(leaf: Any) -> bool:
    """Whether comparing a leaf needs no decoding."""
    return isinstance(leaf, np.ndarray) or (isinstance(leaf, LazyArray) and leaf.stored is not None)


def is_plain(tensor: Tensor) -> TypeGuard[Array]:
    """Whether a tensor's memory is its elements, little-endian in C order."""
    if not isinstance(tensor, np.ndarray) or not tensor.flags.c_contiguous:
        return False
    return tensor.dtype.itemsize == 1 or tensor.dtype.newbyteorder("<") == tensor.dtype


def coarser(one: Tensor, other: Tensor) -> Tensor:
    """The tensor whose rows are decoded together in larger numbers."""
    rows = [tensor.rows or 1 if isinstance(tensor, LazyArray) else 0 for tensor in (one, other)]
    return one if rows[0] > rows[1] else other


def bits(part: Array) -> Array:
    """The bytes of an array's elements in C order, in this machine's byte order; unused high bits are 0, and every
    true bool is 1. [DTYPE-005]"""
    native = np.ascontiguousarray(truths(part), part.dtype.newbyteorder("=")).reshape(-1).view(np.uint8)
    row = dtype_of(part.dtype)
    return native & np.uint8((1 << row.bits) - 1) if row is not None and row.bits < 8 else native
