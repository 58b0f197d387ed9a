"""The tree: SPEC.md section 2."""

import itertools
import re
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from .faults import Fault, need
from .manifest import DTYPES, Tensor

Path = tuple[str | int, ...]


def label(key: str | int) -> str:
    """A key in the label of a path: between quotes where it could be mistaken [BLK-009]."""
    mistaken = isinstance(key, str) and (not key or "/" in key or re.fullmatch("-?[0-9]+", key))
    return f"'{key}'" if mistaken else str(key)


class Scalar(NamedTuple):
    dtype: str
    data: bytes  # one storage element


class Tree:
    """Turns nodes into values. `paths` has for each tensor met where it stands first, `tags` each tag met: its child is
    given [TAG-001]. Nodes of one index give one and the same `Tensor` [TREE-010]."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors, self.paths, self.tags = tensors, dict[int, Path](), list[str]()

    def value(self, node: Any, path: Path | None = (), depth: int = 0) -> Any:
        """The value of the node at `path`, which is None where there may be no tensors [TREE-014]."""

        def item(key: str | int, child: Any) -> Any:
            return self.value(child, None if path is None else (*path, key), depth + 1)

        match node:
            case None | bool() | int() | float() | str() | bytes():
                return node
            case ["int", bytes(data)]:
                need(data, "an int without bytes [TREE-003]")
                return int.from_bytes(data, "big", signed=True)
            case ["complex", bytes(data)]:
                need(len(data) == 16, f"a complex of {len(data)} bytes [TREE-005]")
                return complex(*struct.unpack("<2d", data))
            case ["scalar", str(dtype), bytes(data)]:
                need(dtype in DTYPES, f"dtype {dtype!r} [DTYPE-001]", "unknown-dtype")
                need(len(data) == DTYPES[dtype].size, f"a scalar {dtype} of {len(data)} bytes [TREE-005]")
                need(dtype != "bool" or data[0] < 2, f"a scalar bool {data[0]} [TREE-005]")
                return Scalar(dtype, data)
            case ["tensor", int(index)] if type(index) is int:
                need(path is not None, "a tensor in metadata or in the param of a tag [TREE-014]")
                need(0 <= index < len(self.tensors), f"tensor {index} of {len(self.tensors)} [TREE-009]")
                self.paths.setdefault(index, path or ())
                return self.tensors[index]
        need(depth < 256, "containers are nested too deeply [TREE-012]")
        match node:
            case ["dict", list(keys), list(nodes)]:
                need(len(keys) == len(nodes), f"{len(keys)} keys and {len(nodes)} values [TREE-006]")
                fine = all(type(key) in (str, int) or (type(key) is list and key[:1] == ["int"]) for key in keys)
                need(fine, "a key is neither str nor int [TREE-007]")
                names = [self.value(key) for key in keys]
                need(len(set(names)) == len(names), "a dict repeats a key [TREE-006]")
                return dict(zip(names, map(item, names, nodes), strict=True))
            case ["list", list(nodes)]:
                return list(map(item, itertools.count(), nodes))
            case ["tuple", list(nodes)]:
                return tuple(map(item, itertools.count(), nodes))
            case ["tag", str(name), param, child]:
                self.value(param, None, depth + 1)
                self.tags += [] if name in self.tags else [name]
                return self.value(child, path, depth + 1)
        raise Fault("bad-manifest", "a map, or an array of another form, is no node [TREE-001]")
