"""Whether leaves are the same, bit by bit, read in parts."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any, NamedTuple, TypeGuard

import numpy as np

from ..format.dtypes import Array, dtype_of
from ..format.names import Path
from ..format.tree import Tree
from ..frameworks.target import flatten
from ..frameworks.values import parts_of
from .checked import lying
from .source import Advance, DigestedPart, LazyArray, SourceTensor, is_tensor, slabs, truths

PIECE = 1 << 18  # bytes compared at once: they stay in the processor's cache


class Pair(NamedTuple):
    """What stands at one path of two trees; `ABSENT` where a tree has nothing there, or a container where the other has
    a leaf."""

    path: Path
    one: Any
    other: Any


ABSENT: Any = object()
_EXACT = (int, str, bytes, bool, type(None))  # of which equal ones are the same


def unlike(one: Tree, other: Tree, path: Path = ()) -> Iterator[Pair]:
    """What stands at the same typed paths of two trees, whatever the order of dicts, but for plain values that are the
    same, of which there may be very many. Where the other tree has a list or a tuple, it must be one in both."""
    is_same_kind = type(other) not in (list, tuple) or type(one) is type(other)
    if not (_is_container(one) and _is_container(other) and is_same_kind):
        if type(one) is not type(other) or type(one) not in _EXACT or one != other:
            is_mixed = _is_container(one) or _is_container(other)
            yield Pair(path, ABSENT if is_mixed else one, other)
        return
    if isinstance(one, dict) or isinstance(other, dict):
        items = [tree if isinstance(tree, dict) else dict(enumerate(tree)) for tree in (one, other)]
        both = ((key, items[0].get(key, ABSENT), items[1].get(key, ABSENT)) for key in {**items[1], **items[0]})
    else:
        both = ((i, *pair) for i, pair in enumerate(zip_longest(one, other, fillvalue=ABSENT)))
    for key, first, second in both:
        if type(first) is not type(second) or type(first) not in _EXACT or first != second:
            yield from unlike(first, second, (*path, key))


def _is_container(tree: Tree) -> bool:
    return isinstance(tree, dict | list | tuple) and bool(tree)


def same_leaf(found: Any, expected: Any, advance: Advance, seen: DigestedPart | None = None) -> bool:
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
    parts = None if type(leaf) in _EXACT else parts_of(leaf)
    return leaf if parts is None else (parts.tag, plain_leaves(parts.param), plain_leaves(parts.child))


def plain_leaves(tree: Tree) -> Any:
    """Something that is equal for plain trees exactly if they are the same, but for the order of dicts."""
    return {path: (type(leaf), plain_bits(leaf)) for path, leaf in flatten(tree)}


def same_plain(one: Tree, other: Tree) -> bool:
    """Whether two trees of plain values are the same, but for the order of dicts."""
    pairs = unlike(one, other)
    return all(
        (pair.one is not ABSENT and pair.other is not ABSENT) and same_leaf(pair.one, pair.other, lambda _: None)
        for pair in pairs
    )


def same_tensor(
    found: SourceTensor, expected: SourceTensor, advance: Advance, seen: DigestedPart | None = None
) -> bool:
    """Whether two tensors have the same dtype, but for byte order, the same shape and the same bits."""
    if found.shape != expected.shape or found.dtype.newbyteorder("=") != expected.dtype.newbyteorder("="):
        return False
    found, expected = lying(found), lying(expected)
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


def is_plain(tensor: SourceTensor) -> TypeGuard[Array]:
    """Whether a tensor's memory is its elements, little-endian in C order."""
    if not isinstance(tensor, np.ndarray) or not tensor.flags.c_contiguous:
        return False
    return tensor.dtype.itemsize == 1 or tensor.dtype.newbyteorder("<") == tensor.dtype


def coarser(one: SourceTensor, other: SourceTensor) -> SourceTensor:
    """The tensor whose rows are decoded together in larger numbers."""
    rows = [tensor.rows or 1 if isinstance(tensor, LazyArray) else 0 for tensor in (one, other)]
    return one if rows[0] > rows[1] else other


def bits(part: Array) -> Array:
    """The bytes of an array's elements in C order, in this machine's byte order; unused high bits are 0, and every
    true bool is 1. [DTYPE-005]"""
    native = np.ascontiguousarray(truths(part), part.dtype.newbyteorder("=")).reshape(-1).view(np.uint8)
    row = dtype_of(part.dtype)
    return native & np.uint8((1 << row.bits) - 1) if row is not None and row.bits < 8 else native
