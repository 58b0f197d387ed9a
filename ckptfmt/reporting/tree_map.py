"""A tree of names by bytes, small enough to be drawn: the largest parts are opened first, small ones are one."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from ..manager.listing import natural
from .layers import parts
from .words import cut

NODES = 4000  # of a whole tree
CHILDREN = 200  # of one node
SEGMENT = 80  # characters of a part of a name


@dataclass(slots=True)
class MapNode:
    """A part of the tree: bytes by dtype, how many tensors, its parts, and the tensor that stands there."""

    bytes: int = 0
    tensors: int = 0
    dtypes: dict[str, int] = field(default_factory=dict)
    below: dict[str, MapNode] = field(default_factory=dict)
    name: str = ""  # of the tensor

    def add(self, size: int, dtype: str) -> None:
        self.bytes += size
        self.tensors += 1
        self.dtypes[dtype] = self.dtypes.get(dtype, 0) + size


def tree_map(tensors: Iterable[tuple[str, str, int]]) -> dict[str, Any]:
    """The drawing of tensors, each with its label, dtype and bytes."""
    root = MapNode()
    for label, dtype, size in tensors:
        node = root
        node.add(size, dtype)
        for part in parts(label):
            node = node.below.setdefault(part, MapNode())
            node.add(size, dtype)
        node.name = label
    drawn = _drawn("", root)
    room, order = NODES, 0
    waiting: list[tuple[int, int, MapNode, dict[str, Any]]] = [(-root.bytes, order, root, drawn)]
    while waiting and room > 0:
        *_, node, into = heapq.heappop(waiting)
        children = sorted(node.below.items(), key=lambda item: -item[1].bytes)
        shown = children[:CHILDREN]
        room -= len(shown)
        into["parts"] = []
        for name, child in sorted(shown, key=lambda item: natural(item[0])):
            into["parts"].append(_drawn(name, child))
            if child.below:
                order += 1
                heapq.heappush(waiting, (-child.bytes, order, child, into["parts"][-1]))
        if len(children) > CHILDREN:
            rest = MapNode()
            for _, child in children[CHILDREN:]:
                rest.bytes += child.bytes
                rest.tensors += child.tensors
                for dtype, size in child.dtypes.items():
                    rest.dtypes[dtype] = rest.dtypes.get(dtype, 0) + size
            into["parts"].append(_drawn(f"{len(children) - CHILDREN:,} more", rest))
    return drawn


def _drawn(name: str, node: MapNode) -> dict[str, Any]:
    """A node for the page, which joins those with one part alone."""
    while len(node.below) == 1 and not node.name:
        (only, child), *_ = node.below.items()
        name, node.below, node.name = f"{name}.{only}" if name else only, child.below, child.name
    dtype = max(node.dtypes, key=node.dtypes.__getitem__, default="")
    found: dict[str, Any] = {"name": cut(name, SEGMENT), "bytes": node.bytes, "tensors": node.tensors, "dtype": dtype}
    if node.name and not node.below:
        found["tensor"] = cut(node.name)
    return found
