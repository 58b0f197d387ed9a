"""Earlier versions of the format itself: their manifests as those of today (SPEC.md annex B). Reading is pure.

Each step of `STEPS` turns the manifest document of one version into that of the next, so a version is read by the
steps from it on. Chunks, digests and commit records mean the same in all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from ..errors import CkptError, fault
from . import manifest as manifests
from .documents import unpack
from .manifest import FORMAT, Manifest

Document = dict[str, Any]


def decode_older(raw: bytes, version: tuple[int, int], memory: int | None = None) -> Manifest:
    """The manifest of an earlier major version; raises `older-format` and what `manifest.decode` raises. [FMT-003]"""
    if version not in STEPS:
        known = ", ".join(f"{major}.{minor}" for major, minor in STEPS)
        raise fault(
            "older-format",
            "a format version that is not read any more",
            found=".".join(map(str, version)),
            expected=f"{known} or {FORMAT[0]}.x",
        )
    document = unpack(raw, memory)
    step = version
    while step in STEPS:
        change, step = STEPS[step]
        try:
            document = change(document)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
            if isinstance(error, CkptError):
                raise
            raise fault("bad-manifest", f"no manifest of version {version[0]}.{version[1]}: {error!r:.80}") from error
    return manifests.decode(msgpack.packb(document))._replace(format=version)


def _from_0_9(old: Document) -> Document:
    """Version 0.9 kept tensors as rows, dicts as pairs and chains with each tensor; it knew one digest. [FMT-005]"""
    if old["version"] != "0.9":
        raise ValueError(f"`version` is {old['version']!r}")
    rows = old["tensors"]
    chains: list[Any] = []
    for row in rows:
        if row["codecs"] not in chains:
            chains.append(row["codecs"])
    has_offsets = old["layout"] == "file"
    tensors = {
        "name": [row["name"] for row in rows],
        "dtype": [row["dtype"] for row in rows],
        "shape": [row["shape"] for row in rows],
        "grid": [row["grid"] for row in rows],
        "codec": [chains.index(row["codecs"]) for row in rows],
    }
    new = {
        "format": [1, 0],
        "layout": old["layout"],
        "requires": [],
        "generator": old["creator"],
        "digest": "xxh3-128",
        "block": old["block"],
        "schema": _schema(old["schema"], tensors),
        "metadata": _node(old["user"]),
        "tree": _node(old["tree"]),
        "codecs": chains,
        "tensors": tensors,
        "parts": [
            {"object": "" if has_offsets else None, "size": None, "frame": None, "chunks": _table(rows, has_offsets)}
        ],
    }
    known = {"version", "layout", "creator", "block", "schema", "user", "tree", "tensors"}
    return new | {key: value for key, value in old.items() if key not in known | new.keys()}  # [MAN-003]


def _table(rows: list[Any], has_offsets: bool) -> Document:
    """The chunk table, which stood with each tensor."""
    chunks = [chunk for row in rows for chunk in row["chunks"]]
    if any((offset is not None) != has_offsets for offset, _, _ in chunks):
        raise ValueError("a chunk has an offset in layout `file` only")
    return {
        "tensor": None,
        "chunk": None,
        "offset": _column([offset for offset, _, _ in chunks]) if has_offsets else None,
        "length": _column([length for _, length, _ in chunks]),
        "digest": b"".join(digest for _, _, digest in chunks),
    }


def _column(values: list[int]) -> bytes:
    return b"".join(value.to_bytes(8, "little") for value in values)


def _schema(old: Any, tensors: Document) -> Document | None:
    if old is None:
        return None
    if type(old) is not list:
        raise TypeError("`schema` is nil or an array")
    identity, version = old
    rows = zip(tensors["name"], tensors["dtype"], tensors["shape"], strict=True)
    return {"id": identity, "version": version, "fingerprint": manifests.fingerprint_of(rows)}


def _node(old: Any) -> Any:
    """A tree node: dicts were pairs of key and node."""
    match old:
        case ["dict", pairs]:
            return ["dict", [key for key, _ in pairs], [_node(node) for _, node in pairs]]
        case ["list" | "tuple" as kind, items]:
            return [kind, [_node(item) for item in items]]
        case ["tag", name, param, child]:
            return ["tag", name, _node(param), _node(child)]
    return old


# version: (what makes the next version of its manifest, that version)
STEPS: dict[tuple[int, int], tuple[Callable[[Document], Document], tuple[int, int]]] = {
    (0, 9): (_from_0_9, (1, 0)),
}
