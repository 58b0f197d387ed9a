"""The tree (section 2): from nodes to values of Python, checking every rule that binds readers."""

import struct
from dataclasses import dataclass
from typing import Any

from faults import Fault, need
from manifest import Tensor, dtype_of

DEPTH = 256  # [TREE-012]
Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Scalar:
    dtype: str
    data: bytes  # one storage element


class Tree:
    """Decodes the nodes of one manifest. Aliases become one and the same `Tensor` [TREE-010].

    `paths` holds for each tensor met where it stands first, `tags` each tag met: its child is given [TAG-001].
    """

    def __init__(self, tensors: list[Tensor]) -> None:
        self.tensors = tensors
        self.paths: dict[int, Path] = {}
        self.tags: list[str] = []

    def plain(self, node: Any, depth: int = 0) -> Any:
        """The value of a node without tensors [TREE-014]."""
        return self.value(node, None, depth)

    def value(self, node: Any, path: Path | None = (), depth: int = 0) -> Any:
        """The value of the node at `path`; None where there may be no tensors."""
        if node is None or type(node) in (bool, int, float, str, bytes):
            return node
        need(type(node) is list and node and type(node[0]) is str, "TREE-001", f"{type(node).__name__} is no node")
        match node:
            case ["int", bytes(data)]:
                return _int(data)
            case ["complex", bytes(data)]:
                need(len(data) == 16, "TREE-005", f"a complex of {len(data)} bytes")
                return complex(*struct.unpack("<2d", data))
            case ["scalar", str(dtype), bytes(data)]:
                need(len(data) == dtype_of(dtype).size, "TREE-005", f"a scalar {dtype} of {len(data)} bytes")
                need(dtype != "bool" or data[0] < 2, "TREE-005", f"a scalar bool {data[0]}")
                return Scalar(dtype, data)
            case ["tensor", int(index)] if type(index) is int:
                need(path is not None, "TREE-014", "a tensor in metadata or in the param of a tag")
                need(0 <= index < len(self.tensors), "TREE-009", f"tensor {index} of {len(self.tensors)}")
                self.paths.setdefault(index, path or ())
                return self.tensors[index]
        need(depth < DEPTH, "TREE-012", f"containers are nested deeper than {DEPTH}")
        match node:
            case ["dict", list(keys), list(nodes)]:
                need(len(keys) == len(nodes), "TREE-006", f"{len(keys)} keys and {len(nodes)} values")
                names = [_key(key) for key in keys]
                need(len(set(names)) == len(names), "TREE-006", "a dict repeats a key")
                return dict(zip(names, self._items(names, nodes, path, depth), strict=True))
            case ["list", list(nodes)]:
                return self._items(range(len(nodes)), nodes, path, depth)
            case ["tuple", list(nodes)]:
                return tuple(self._items(range(len(nodes)), nodes, path, depth))
            case ["tag", str(name), param, child]:
                self.plain(param, depth + 1)
                if name not in self.tags:
                    self.tags.append(name)
                return self.value(child, path, depth + 1)
        raise Fault("bad-manifest", f"an array of {len(node)} that begins with {node[0]!r} is no node [TREE-001]")

    def _items(self, keys: Any, nodes: list[Any], path: Path | None, depth: int) -> list[Any]:
        values = []
        for key, node in zip(keys, nodes, strict=True):
            values.append(self.value(node, None if path is None else (*path, key), depth + 1))
        return values


def _int(data: bytes) -> int:
    need(data, "TREE-003", "an int without bytes")
    return int.from_bytes(data, "big", signed=True)


def _key(node: Any) -> str | int:
    if type(node) is str or type(node) is int:
        return node
    match node:
        case ["int", bytes(data)]:
            return _int(data)
    raise Fault("bad-manifest", f"{type(node).__name__} as key [TREE-007]")
