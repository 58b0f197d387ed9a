"""States of a computation: any tree. What a copy of one is, its size, its form, and its bytes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

import msgpack
import numpy as np

from ..format.digests import DIGEST, digest_named
from ..format.dtypes import Array
from ..format.node import Node
from ..format.tree import Tree
from ..frameworks.sources import Source, whole
from ..writing.encoder import EncodedTree, encode

copied = copy.deepcopy  # arrays with their order in memory, generators with their state, whatever class there is


class Form(NamedTuple):
    """What all states of a run have in common: containers, and shapes and dtypes of tensors; not plain values."""

    node: Any
    tensors: tuple[tuple[str, tuple[int, ...]], ...]


def form_of(encoded: EncodedTree) -> Form:
    tensors = tuple((source.dtype.str, tuple(source.shape)) for source in encoded.sources)
    return Form(_bare(encoded.node), tensors)


def _bare(node: Node) -> Any:
    kind = node[0] if type(node) is list else None
    if kind in ("list", "tuple"):
        return (kind, *map(_bare, node[1]))
    if kind == "dict":
        return (kind, *((str(key), _bare(item)) for key, item in zip(node[1], node[2], strict=True)))
    if kind == "tag":
        return (kind, node[1], _bare(node[3])) if "tensor" in str(node[3]) else (kind, node[1])
    return (kind, node[1]) if kind == "tensor" else None


def size_of(encoded: EncodedTree) -> int:
    """Bytes of the tensors."""
    return sum(int(np.prod(source.shape, dtype=np.int64)) * source.dtype.itemsize for source in encoded.sources)


def fingerprint(tree: Tree) -> bytes:
    """A digest of every bit of a tree: of two states that are not equal to the bit it is another one."""
    encoded = encode(tree)
    hasher = digest_named(DIGEST).stream()
    hasher.update(msgpack.packb(encoded.node))
    for source in encoded.sources:
        hasher.update(f"{source.dtype.str}{tuple(source.shape)}".encode())
        array = np.ascontiguousarray(_elements(source))
        if array.size:
            hasher.update(array.reshape(-1).view(np.uint8).data)
    return hasher.digest()


def _elements(source: Source) -> Array:
    return source if isinstance(source, np.ndarray) else source[whole(source.shape)]


def template_of(tree: Tree) -> Tree:
    """The same tree with arrays of no memory, from which `load(like=)` makes one."""
    arrays = list(_arrays(tree))  # which live as long as their ids are used
    stand_ins = {id(array): _stand_in(array) for array in arrays}
    return copy.deepcopy(tree, stand_ins)  # which takes them for copies that it made


def _stand_in(array: Array) -> Array:
    return np.broadcast_to(np.zeros((), array.dtype), array.shape)


def _arrays(tree: Tree) -> Iterator[Array]:
    """The arrays that stand in a tree themselves."""
    yield from (source for source in encode(tree).sources if type(source) is np.ndarray)


def orders_of(tree: Tree) -> list[list[int] | None]:
    """The order in memory of each array, as its axes from the outermost on; None where that is as in C. A sum over an
    array of another order may be another one in its last bit."""
    return [_order(array) for array in _arrays(tree)]


def _order(array: Array) -> list[int] | None:
    if array.flags.c_contiguous:
        return None
    return sorted(range(array.ndim), key=lambda axis: -abs(array.strides[axis]))


def reordered(tree: Tree, orders: list[list[int] | None]) -> Tree:
    """A tree that was loaded, its arrays in these orders in memory."""
    if not any(orders):
        return tree
    arrays = list(_arrays(tree))
    return copy.deepcopy(tree, {id(a): _in_order(a, order) for a, order in zip(arrays, orders, strict=True)})


def _in_order(array: Array, order: list[int] | None) -> Array:
    if order is None:
        return array
    back = np.argsort(order)
    return np.ascontiguousarray(array.transpose(order)).transpose(back)


def bytes_of(tree: Tree) -> int:
    """Bytes of the tensors of a tree."""
    return size_of(encode(tree))
