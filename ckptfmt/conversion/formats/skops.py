"""Archives of skops (.skops): `schema.json` says what an object of scikit-learn is made of, arrays are .npy members.

Objects become dicts of their attributes, which is a loss; classes and functions are left out. Nothing is looked up.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import fault
from ...format.dtypes import Array
from ...format.names import Path, path_label
from ...format.tree import MAX_DEPTH, Tree
from ..archive import Archive
from ..claims import check_at_once, json_document, shown
from ..entries import JSON
from ..npy_members import npy_member
from ..npy_records import fields_of
from ..probe import Probe
from ..shards import distinct
from ..source import Loss, OpenedSource, SourceTensor, mapped_file, plain_text

SCHEMA = "schema.json"
_LEFT: Any = object()
_KEYS = {"str": str, "int": int}  # of dicts, whose keys stand as text in JSON
_CALLED = {"TypeNode", "FunctionNode", "OperatorFuncNode", "MethodNode", "PartialNode"}


def looks_like(probe: Probe) -> bool:
    if not probe.head.startswith(b"PK\3\4"):
        return False
    archive = Archive(mapped_file(probe.path))
    return SCHEMA in archive.members and b'"__loader__"' in archive.head(SCHEMA, 4096)


def read(path: str) -> OpenedSource:
    archive = Archive(mapped_file(path))
    if archive.members[SCHEMA].file_size > JSON:
        raise fault("limit-exceeded", f"{SCHEMA!r} is larger than {JSON:,} bytes")
    check_at_once(archive.members[SCHEMA].file_size, archive.data.size, f"{SCHEMA!r}")
    reader = _SkopsReader(archive)
    tree = reader.value(json_document(b"".join(archive.pieces(SCHEMA)), distinct), ())
    if tree is _LEFT:
        raise fault("unsupported-source", f"the file is one object: {reader.losses[-1].message}")
    return OpenedSource(tree, None, tuple(reader.losses))


class _SkopsReader:
    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.losses: list[Loss] = []
        self.arrays: dict[str, SourceTensor] = {}  # by member: one array may stand at several places

    def lose(self, path: Path, message: str, kind: str = "value") -> None:
        self.losses.append(Loss(kind, path_label(path), message))

    def value(self, node: dict[str, Any], path: Path) -> Any:
        """What a node of the schema stands for."""
        if len(path) > MAX_DEPTH:
            raise fault("too-deep", f"containers nested deeper than {MAX_DEPTH} below {path_label(path[:8])!r}")
        loader = node["__loader__"]
        match loader:
            case "JsonNode":
                return json_document(node["content"].encode(), distinct)
            case "DictNode":
                return self.items(node, path)
            case "ListNode" | "TupleNode" | "SetNode":
                return self.sequence(node, path)
            case "NdArrayNode" | "SparseMatrixNode":
                return self.stored(node, path)
            case "BytesNode" | "BytearrayNode":
                check_at_once(self.archive.members[node["file"]].file_size, self.archive.data.size, path_label(path))
                return b"".join(self.archive.pieces(node["file"]))
            case "DTypeNode":
                self.lose(path, "a dtype becomes its name")
                return str(self.value(node["content"], path).dtype)
            case "SliceNode":
                self.lose(path, "a slice becomes a dict of its parts")
                return dict(node["content"])
        return self.object(node, path, loader)

    def object(self, node: dict[str, Any], path: Path, loader: str) -> Any:
        """An object of a class, by its attributes, and what it was made with where it has that."""
        name = f"{node['__module__']}.{node['__class__']}"[:200]
        content = node.get("content")
        if loader in _CALLED or not isinstance(content, dict | None):
            self.lose(path, f"{name} is left out: it is neither a tensor nor plain data")
            return _LEFT
        if content is None or "__loader__" in content:
            self.lose(path, f"a {name} becomes a dict of its attributes")
            plain = {} if content is None else self.value(content, path)
            if "__reduce__" in node and isinstance(plain, dict) and "arguments" not in plain:
                plain["arguments"] = self.value(node["__reduce__"]["args"], (*path, "arguments"))
            return plain
        self.lose(path, f"a {name} becomes a dict of its parts")
        parts = {key: self.value(item, (*path, key)) for key, item in content.items()}
        return {key: part for key, part in parts.items() if part is not _LEFT}

    def items(self, node: dict[str, Any], path: Path) -> Tree:
        kinds, content = node["key_types"]["content"], node["content"]
        found: dict[Any, Any] = {}
        for (text, item), kind in zip(content.items(), kinds, strict=True):
            make = _KEYS.get(kind["__class__"])
            if make is None:
                self.lose((*path, text), f"a key of type {shown(kind['__class__'])} becomes a string", "nesting")
            key = (make or str)(text)
            plain = self.value(item, (*path, key))
            if plain is not _LEFT:
                found[key] = plain
        return found

    def sequence(self, node: dict[str, Any], path: Path) -> Tree:
        items = [self.value(item, (*path, i)) for i, item in enumerate(node["content"])]
        items = [None if item is _LEFT else item for item in items]  # what follows keeps its place
        if node["__loader__"] == "SetNode":
            self.lose(path, "a set becomes a list")
        return tuple(items) if node["__loader__"] == "TupleNode" else items

    def stored(self, node: dict[str, Any], path: Path) -> Tree:
        """An array in a member of its own, a sparse matrix in an archive of arrays, or an array of objects."""
        if node["type"] == "json":
            self.lose(path, "an array of objects becomes a list of them, in C order")
            return self.sequence({"__loader__": "ListNode", "content": node["content"]}, path)
        file = node["file"]
        if node["type"] == "numpy":
            if file not in self.arrays:
                self.arrays[file] = npy_member(self.archive, file, path_label(path), with_fields=True)
            return self.plain(self.arrays[file], path)
        self.lose(path, f"a {node['__class__']} becomes a dict of its parts")
        inner = Archive(self.bytes_of(file))
        return {
            name.removesuffix(".npy"): self.plain(npy_member(inner, name, path_label(path)), path)
            for name in inner.members
        }

    def bytes_of(self, member: str) -> Array:
        """All bytes of a member."""
        if self.archive.is_stored(member):
            return self.archive.stored(member)
        check_at_once(self.archive.members[member].file_size, self.archive.data.size, f"member {member!r}")
        return np.frombuffer(b"".join(self.archive.pieces(member)), np.uint8)

    def plain(self, tensor: SourceTensor, path: Path) -> Tree:
        """An array, or what a tree has for text and records."""
        if tensor.dtype.kind in "SU":
            self.lose(path, "a NumPy array of text becomes nested lists")
            return plain_text(tensor[()])
        if tensor.dtype.names:
            self.lose(path, "an array of records becomes a dict of their fields")
            return fields_of(tensor)
        return tensor
