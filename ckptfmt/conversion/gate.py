"""The gate behind every source. What a reader gave is looked at before anything is done with it: its depth and number
of leaves, its keys and strings, the shapes of its tensors and their bytes. And nothing but a `CkptError` with a code
comes out of it later, when tensors are decoded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

from ..errors import fault
from ..format.dtypes import Array
from ..format.limits import FACTOR, VALUES
from ..format.names import MAX_INTEGER_BITS, Path, path_label
from ..format.tree import Tree
from .claims import MAX_AXES, MAX_SIDE, allowing_more, allowing_values, check_at_once, patience, shown
from .source import (
    LEAVES,
    SMALL,
    LazyArray,
    LeadingSlices,
    OpenedSource,
    SourceTensor,
    is_tensor,
    nbytes,
    parsing,
    walk,
)

FEW = 1 << 16  # leaves and containers that any source may have; more only if it has twice as many bytes
_CONTAINER, _LEAF = 480, 32  # bytes of memory that one takes on its way through a conversion
_ARRAY, _LAZY = 1500, 2000  # and a tensor, beside its elements

RENAME = "Rename the key where the file is made"
_TEXTS, _CONTAINERS = (str, dict), (dict, list, tuple)


def admit(source: OpenedSource, size: int, path: str, max_expansion: int) -> None:
    """Check an open source of `size` bytes, and let nothing but a `CkptError` out of its tensors. Raises what
    `check_tree` does."""
    check_tree(source.tree, size, path, max_expansion)
    check_tree(source.metadata, size, path, max_expansion)
    guarded: dict[int, LazyArray] = {}  # aliases stay one
    source.tree = _replaced(source.tree, lambda leaf: guarded.setdefault(id(leaf), _guarded(leaf, path)))


def check_tree(tree: Tree, size: int, path: str, max_expansion: int) -> None:
    """Refuse a tree that no source of `size` bytes can honestly stand for, or that nothing can be made of: too deep
    (`too-deep`), too many leaves, tensors far larger than the source (`limit-exceeded`), keys that are neither str nor
    int (`unsupported-key`), strings that are no text and shapes that are none (`bad-source`)."""
    times = patience()
    total, most, memory = 0, min(LEAVES, times * (FEW + size // 2)), times * (VALUES + FACTOR * size)
    room = max(SMALL, size * max_expansion)
    for count, (where, leaf) in enumerate(walk(tree)):
        memory -= _CONTAINER if isinstance(leaf, _CONTAINERS) else _LEAF
        if count > most or memory < 0:
            message = f"{count:,} leaves and containers or more, in {size:,} bytes"
            raise fault("limit-exceeded", f"{message}; {allowing_values()}", path=path)
        if is_tensor(leaf):
            memory -= _LAZY if isinstance(leaf, LazyArray) else _ARRAY
            _check_shape(leaf, where, path)
            total += nbytes(leaf)
            if total > room:
                raise _vast(
                    where, path, sum(nbytes(leaf) for _, leaf in walk(tree) if is_tensor(leaf)), size, max_expansion
                )
            if isinstance(leaf, LazyArray):
                check_at_once(leaf.decoded_at_once, size, f"a part of {path_label(where)!r}")
        elif isinstance(leaf, _TEXTS):
            _check_texts(leaf, where, path)


def _vast(where: Path, path: str, total: int, size: int, max_expansion: int) -> Exception:
    message = f"the tensors are more than {max_expansion:,} times as large as the source, which has {size:,} bytes"
    place = {"path": path, "tensor": path_label(where), "found": f"{total:,} bytes"}
    return fault("limit-exceeded", f"{message}; {allowing_more(-(-total // max(1, size)))}", **place)


def _check_shape(tensor: SourceTensor, where: Path, path: str) -> None:
    shape = tensor.shape
    if len(shape) > MAX_AXES or any(type(side) is not int or not 0 <= side < MAX_SIDE for side in shape):
        raise fault("bad-source", f"the shape {shown(shape)} is none", path=path, tensor=path_label(where))
    if prod(side or 1 for side in shape) * tensor.dtype.itemsize >= MAX_SIDE:  # also of an empty one
        message = f"there is no array of the shape {shown(shape)}, as its sides are too large together"
        raise fault("bad-source", message, path=path, tensor=path_label(where))


def _check_texts(leaf: Any, where: Path, path: str) -> None:
    """Check the text of a leaf, or all keys of a dict."""
    for text in leaf if isinstance(leaf, dict) else (leaf,):
        if type(text) is str:
            if not text.isascii() and text.encode(errors="replace").decode() != text:
                raise fault("bad-source", f"{shown(text)} below {path_label(where)!r} is no text", path=path)
        elif type(text) is int and text.bit_length() > MAX_INTEGER_BITS:
            message = f"an int key of {text.bit_length():,} bits below {path_label(where)!r}"
            raise fault("unsupported-key", message, path=path, expected=f"at most {MAX_INTEGER_BITS:,}", advice=RENAME)
        elif isinstance(leaf, dict) and type(text) is not int:
            message = f"the dict at {path_label(where)!r} has the key {shown(text)} of type {type(text).__name__}"
            raise fault("unsupported-key", message, path=path, advice=RENAME)


def _guarded(leaf: LazyArray, path: str) -> LazyArray:
    def guarded(read: Callable[..., Array]) -> Callable[..., Array]:
        def guard(*index: LeadingSlices) -> Array:
            with parsing(path):
                return read(*index)

        return guard

    mapped = None if leaf.mapped is None else guarded(leaf.mapped)
    return replace(leaf, read=guarded(leaf.read), mapped=mapped)


def _replaced(tree: Tree, guard: Callable[[LazyArray], LazyArray]) -> Tree:
    """A checked tree with other decoded tensors, whose dicts and lists stay the same objects."""
    if isinstance(tree, LazyArray):
        return guard(tree)
    if isinstance(tree, dict):
        tree.update([(key, _replaced(item, guard)) for key, item in tree.items() if isinstance(item, _OTHERS)])
    elif type(tree) is list:
        tree[:] = [_replaced(item, guard) if isinstance(item, _OTHERS) else item for item in tree]
    elif type(tree) is tuple:
        tree = tuple(_replaced(item, guard) for item in tree)
    return tree


_OTHERS = (*_CONTAINERS, LazyArray)
