"""Earlier versions of the format itself: their manifests as those of today (SPEC.md annex B). Reading is pure.

Each step of `STEPS` turns the manifest document of one version into that of the next, so a version is read by the
steps from it on. Chunks, digests and commit records mean the same in all of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgpack

from .._version import __version__
from ..errors import CkptError, fault
from ..format import manifest as manifests
from ..format import tree as trees
from ..format.manifest import FORMAT, Manifest
from ..format.tags import NATIVE
from ..format.tree import Tree
from ..frameworks.adapter import kept
from ..reading.tensor import Tensor

if TYPE_CHECKING:
    from .keep import Keeper

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
    document = manifests.unpack(raw, memory)
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


def upgrade(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    durable: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> tuple[tuple[int, int], Any]:
    """Save the checkpoint at `src` to `dst` in the format version of today; gives the version that it had and the
    `SaveReport`. [FMT-004]

    Tree, schema, metadata, layout and stored chunks stay, and no chunk is read where `ckptfmt.migrate` would not
    either. `dst` may be `src`, with `overwrite=True`. `storage_options` are for whichever of them is a URL. Raises
    what `ckptfmt.open` and `ckptfmt.save` raise.
    """
    from ..reading.checkpoint import Checkpoint
    from ..storage import options_at
    from ..writing import writer
    from .apply import further_keys
    from .keep import keeper

    with Checkpoint(src, storage_options=options_at(src, storage_options)) as checkpoint:
        manifest = checkpoint.manifest
        record = {
            "operation": "upgrade",
            "generator": f"ckptfmt {__version__}",
            "source": bytes.fromhex(checkpoint.manifest_sha256),
            "format": list(checkpoint.format),
        }
        keeps = keeper(checkpoint, checkpoint.layout, manifest.digest)
        tensors = [_kept(keeps, tensor) for tensor in checkpoint.handles]
        report = writer.save(
            dst,
            _as_it_is(manifest.tree, tensors),
            layout=checkpoint.layout,
            overwrite=overwrite,
            schema=checkpoint.schema,
            metadata=_as_it_is(manifest.metadata, []),
            durable=durable,
            digest=manifest.digest,
            storage_options=options_at(dst, storage_options),
            extra=further_keys(checkpoint, record),
        )
        return checkpoint.format, report


def _kept(keeps: Keeper | None, tensor: Tensor) -> Any:
    """A tensor to save: as it is stored, where that can be."""
    return (keeps and keeps.keep(tensor, tensor.index)) or tensor


def _as_it_is(node: Any, tensors: list[Any]) -> Tree:
    """The tree of a node to be saved again: all tags stay, whether this program knows them or not."""
    names = {name for _, name, _ in trees.tags(node)} - NATIVE
    return trees.decode(node, tensors.__getitem__, restores={name: kept(name) for name in names})


def _from_0_9(old: Document) -> Document:
    """Version 0.9 kept tensors as rows, dicts as pairs and chains with each tensor; it knew one digest. [FMT-005]"""
    if old["version"] != "0.9":
        raise ValueError(f"`version` is {old['version']!r}")
    rows = old["tensors"]
    chains: list[Any] = []
    for row in rows:
        if row["codecs"] not in chains:
            chains.append(row["codecs"])
    chunks = [chunk for row in rows for chunk in row["chunks"]]
    has_offsets = old["layout"] == "file"
    if any((offset is not None) != has_offsets for offset, _, _ in chunks):
        raise ValueError("a chunk has an offset in layout `file` only")
    tensors = {
        "name": [row["name"] for row in rows],
        "dtype": [row["dtype"] for row in rows],
        "shape": [row["shape"] for row in rows],
        "grid": [row["grid"] for row in rows],
        "codec": [chains.index(row["codecs"]) for row in rows],
    }
    table = {
        "tensor": None,
        "chunk": None,
        "offset": _column([offset for offset, _, _ in chunks]) if has_offsets else None,
        "length": _column([length for _, length, _ in chunks]),
        "digest": b"".join(digest for _, _, digest in chunks),
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
        "parts": [{"object": "" if has_offsets else None, "size": None, "frame": None, "chunks": table}],
    }
    known = {"version", "layout", "creator", "block", "schema", "user", "tree", "tensors"}
    return new | {key: value for key, value in old.items() if key not in known | new.keys()}  # [MAN-003]


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
