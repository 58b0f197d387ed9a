"""What a rank has to save: its tree, and the boxes of tensors that it holds. Pure.

Ranks need not have the same tree: dicts are joined, everything else must be equal. So that thousands of ranks with the
same tree do not all send it, a rank first says the digest of its outline.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgpack
import numpy as np

from ..errors import fault
from ..format.codecs import Codec
from ..format.dtypes import Array, dtype_of
from ..format.grid import Shape
from ..format.names import path_label
from ..format.node import Node
from ..frameworks.sources import Sharded, Source, whole
from ..writing.request import Request


@dataclass(frozen=True)
class Outline:
    """A rank's tree, in which tensors are named, and what the tensors are: (name, dtype, shape, codec chain)."""

    node: Node
    tensors: tuple[tuple[str, str, Shape, Codec], ...]

    @cached_property
    def raw(self) -> bytes:
        rows = [[name, dtype, list(shape), codec.name, codec.options] for name, dtype, shape, codec in self.tensors]
        return bytes(msgpack.packb([self.node, rows]))

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.raw).digest()

    @classmethod
    def decode(cls, raw: bytes) -> Outline:
        node, rows = msgpack.unpackb(raw, strict_map_key=False)
        tensors = (
            (name, dtype, tuple(shape), Codec(codec, tuple((key, value) for key, value in options)))
            for name, dtype, shape, codec, options in rows
        )
        return cls(node, tuple(tensors))


@dataclass(frozen=True, slots=True)
class Boxes:
    """Parts of tensors: `tensor` (k,), first element `start` and `extent` (k, rank of the tensors at most), padded with
    0; integers of any dtype. Rank 0 has those of all ranks in memory, so they travel in the narrowest."""

    tensor: Array
    start: Array
    extent: Array

    def encode(self) -> list[Any]:
        return [self.start.shape[1], *map(encode_column, (self.tensor, self.start, self.extent))]

    @classmethod
    def decode(cls, document: list[Any]) -> Boxes:
        axes, *columns = document
        tensor, start, extent = map(decode_column, columns)
        shape = (len(tensor), axes)
        return cls(tensor, start.reshape(shape), extent.reshape(shape))


def encode_column(column: Array) -> list[Any]:
    """The name of the narrowest dtype for integers that are not negative, and their little-endian bytes."""
    dtype = np.min_scalar_type(int(column.max(initial=0))).newbyteorder("<")
    return [dtype.str, column.astype(dtype).tobytes()]


def decode_column(document: list[Any]) -> Array:
    dtype, data = document
    return np.frombuffer(data, dtype)


def outline_of(request: Request) -> Outline:
    """The outline of a rank's tree."""
    encoded = request.encoded
    tensors = []
    for source, name, codec in zip(encoded.sources, request.names, request.codecs, strict=True):
        dtype = dtype_of(source.dtype)
        assert dtype is not None  # the encoder refused others
        tensors.append((name, dtype.name, tuple(source.shape), codec))
    return Outline(_renamed(encoded.node, request.names), tuple(tensors))


def boxes_of(sources: list[Source]) -> Boxes:
    """What of its tensors a rank holds, without empty shards."""
    found = []
    for index, source in enumerate(sources):
        regions = [shard.region for shard in source.shards] if isinstance(source, Sharded) else [whole(source.shape)]
        found += [(index, region) for region in regions if all(axis.start < axis.stop for axis in region)]
    axes = max((len(source.shape) for source in sources), default=0)
    start, extent = np.zeros((len(found), axes), np.int64), np.zeros((len(found), axes), np.int64)
    for row, (_, region) in enumerate(found):
        start[row, : len(region)] = [axis.start for axis in region]
        extent[row, : len(region)] = [axis.stop - axis.start for axis in region]
    return Boxes(np.array([index for index, _ in found], np.int64), start, extent)


def joined(outlines: dict[int, Outline]) -> tuple[Node, list[tuple[str, str, Shape, Codec]]]:
    """The tree of all ranks, with tensors by their index, and the tensors in that order. `outlines` by the first rank
    that has each; raises `ranks-differ`."""
    tensors: dict[str, tuple[int, tuple[str, str, Shape, Codec]]] = {}
    for rank, outline in outlines.items():
        for tensor in outline.tensors:
            first, known = tensors.setdefault(tensor[0], (rank, tensor))
            if known != tensor:
                raise fault(
                    "ranks-differ",
                    f"ranks {first} and {rank} differ in tensor {tensor[0]!r}",
                    tensor=tensor[0],
                    found=f"{_told(tensor)} on rank {rank}",
                    expected=f"{_told(known)} as on rank {first}",
                )
    nodes = [(rank, outline.node) for rank, outline in outlines.items()]
    order: dict[str, int] = {}
    node = _numbered(_join(nodes, ()), order)
    return node, [tensors[name][1] for name in order]


def _told(tensor: tuple[str, str, Shape, Codec]) -> str:
    _, dtype, shape, codec = tensor
    return f"{dtype} {shape} {codec.name}{dict(codec.options) or ''}"


def _join(nodes: list[tuple[int, Node]], path: tuple[Any, ...]) -> Node:
    (first, node), *others = nodes
    bits = msgpack.packb(node)  # as 1, 1.0 and True are equal in Python, and NaN is not
    if all(msgpack.packb(other) == bits for _, other in others):
        return node
    kinds = {n[0] if type(n) is list else None for _, n in nodes}
    if kinds == {"dict"}:
        items: dict[Any, list[tuple[int, Node]]] = {}
        for rank, (_, keys, values) in nodes:
            for key, value in zip(keys, values, strict=True):
                hashable = tuple(key) if type(key) is list else key
                items.setdefault(hashable, []).append((rank, value))
        keys = [list(key) if type(key) is tuple else key for key in items]
        return ["dict", keys, [_join(found, (*path, key)) for key, found in items.items()]]
    if kinds <= {"list", "tuple"} and len(kinds) == 1 and len({len(n[1]) for _, n in nodes}) == 1:
        columns = zip(*(n[1] for _, n in nodes), strict=True)
        ranks = [rank for rank, _ in nodes]
        return [node[0], [_join(list(zip(ranks, c, strict=True)), (*path, i)) for i, c in enumerate(columns)]]
    if kinds == {"tag"} and len({repr(n[1:3]) for _, n in nodes}) == 1:
        return [*node[:3], _join([(rank, n[3]) for rank, n in nodes], path)]
    second, different = next((rank, other) for rank, other in others if msgpack.packb(other) != bits)
    text = path_label(path)
    raise fault(
        "ranks-differ",
        f"ranks {first} and {second} hold different values at {text!r}",
        tensor=text,
        found=_shown(different),
        expected=f"{_shown(node)} as on rank {first}",
    )


def refuse_different_metadata(nodes: list[Node]) -> None:
    """Refuse metadata of a rank that are not those of rank 0; raises `ranks-differ`, with the path."""
    for rank, node in enumerate(nodes):
        found, expected, path = _different(node, nodes[0], ())
        if msgpack.packb(found) != msgpack.packb(expected):
            where = f" at {path_label(path)!r}" if path else ""
            raise fault(
                "ranks-differ",
                f"ranks 0 and {rank} differ in metadata={where}",
                found=f"{_shown(found)} on rank {rank}",
                expected=f"{_shown(expected)} as on rank 0",
                ranks=[rank],
            )


def _different(node: Node, other: Node, path: tuple[Any, ...]) -> tuple[Node, Node, tuple[Any, ...]]:
    """The innermost nodes that hold all in which two differ, and their path."""
    if type(node) is type(other) is list and node[0] == other[0] == "dict" and node[1] == other[1]:
        pairs = zip(node[1], node[2], other[2], strict=True)
        differing = [(key, *both) for key, *both in pairs if msgpack.packb(both[0]) != msgpack.packb(both[1])]
        if len(differing) == 1:
            key, first, second = differing[0]
            return _different(first, second, (*path, tuple(key) if type(key) is list else key))
    return node, other, path


def _shown(node: Node) -> str:
    return repr(node)[:80]


def _renamed(node: Node, names: Sequence[str]) -> Node:
    """The node with names in place of tensor indices."""
    return _mapped(node, lambda index: names[index])


def _numbered(node: Node, order: dict[str, int]) -> Node:
    """The node with indices in place of names, in the order of a depth-first walk. [TREE-016]"""
    return _mapped(node, lambda name: order.setdefault(name, len(order)))


def _mapped(node: Node, tensor: Any) -> Node:
    if type(node) is not list:
        return node
    match node[0]:
        case "tensor":
            return ["tensor", tensor(node[1])]
        case "dict":
            return ["dict", node[1], [_mapped(item, tensor) for item in node[2]]]
        case "list" | "tuple":
            return [node[0], [_mapped(item, tensor) for item in node[1]]]
        case "tag":
            return [*node[:3], _mapped(node[3], tensor)]
    return node
