"""Node documents (SPEC.md section 5): the zarr.json texts that let stock Zarr readers open the tensors. Pure, and
without zarr."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .arrays import WHOLE, XOR, ArraySpec
from .grid import Shape
from .manifest import FORMAT
from .names import parents

DOCUMENT = "zarr.json"
DIFFERENCES = "xor"  # the hierarchy of what is to be combined with a patch's base
_BITS = {size: f"uint{8 * size}" for size in (1, 2, 4, 8)}  # types of differences, by the bytes of an element
_FILL = {
    "bool": False,
    "float16": 0.0,
    "float32": 0.0,
    "float64": 0.0,
    "complex64": [0.0, 0.0],
    "complex128": [0.0, 0.0],
}


def node_documents(
    names: Sequence[str], specs: Sequence[ArraySpec], version: tuple[int, int] | None = FORMAT
) -> Iterator[tuple[str, bytes]]:
    """(key relative to the hierarchy's root, canonical text) of every node: root first, then in C-string order.
    [ZARR-001] [PACK-004]"""
    if names == ("",):
        yield DOCUMENT, node_document("", specs[0], version)
        return
    yield DOCUMENT, node_document("", None, version)
    texts: dict[int, bytes] = {}  # specs are shared, so most documents are made once
    nodes: dict[str, ArraySpec | None] = dict.fromkeys(parents(names))
    nodes.update(zip(names, specs, strict=True))
    for name in sorted(nodes, key=lambda name: f"{name}/{DOCUMENT}"):
        spec = nodes[name]
        text = texts.get(id(spec))
        if text is None:
            text = texts[id(spec)] = node_document(name, spec)
        yield f"{name}/{DOCUMENT}", text


def node_members(
    names: Sequence[str], specs: Sequence[ArraySpec], version: tuple[int, int] = FORMAT
) -> Iterator[tuple[str, bytes]]:
    """The same with the names of their members in a pack."""
    return ((f"tensors/{key}", text) for key, text in node_documents(names, specs, version))


def patch_members(
    names: Sequence[str], specs: Sequence[ArraySpec], version: tuple[int, int]
) -> Iterator[tuple[str, bytes]]:
    """The same of a patch: differences stand apart, as nobody is to take them for elements. [PATCH-010]"""
    for root, form, said in (("tensors", WHOLE, version), (DIFFERENCES, XOR, None)):
        own = [(name, spec) for name, spec in zip(names, specs, strict=True) if spec.form == form]
        if own or form == WHOLE:
            documents = node_documents(tuple(name for name, _ in own), tuple(spec for _, spec in own), said)
            yield from ((f"{root}/{key}", text) for key, text in documents)


def node_document(name: str, spec: ArraySpec | None, version: tuple[int, int] | None = FORMAT) -> bytes:
    """The canonical text of a node: an array, or a group if it has no `spec`. The root, whose name is empty, says the
    `version` of the format, if there is one. [ZARR-014]"""
    document = _group() if spec is None else _array(spec)
    if not name and version is not None:
        logical = document["attributes"].get("ckptfmt", {})
        document["attributes"] = {"ckptfmt": {"format": list(version), **logical}}
    return _text(document)


def stack_document(spec: ArraySpec, rows: int, together: int, names: Sequence[str]) -> bytes:
    """That of a stack of `rows` tensors of one spec, `together` of them in a chunk. [STACK-002]"""
    logical = {"dtype": spec.dtype.name, "shape": list(spec.shape), "names": list(names)}
    shape, grid = (rows, *spec.storage_shape), (together, *spec.grid)
    return _text(_array_of(spec, shape, grid, {"ckptfmt": logical}))


def group_document() -> bytes:
    """That of a group."""
    return _text(_group())


def _text(document: dict[str, Any]) -> bytes:
    import json  # here, as opening a checkpoint needs no node document [ZARR-015]

    return json.dumps(document, separators=(",", ":")).encode()


def _group() -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": {}}


def _array(spec: ArraySpec) -> dict[str, Any]:
    """[ZARR-012] [ZARR-013] [PATCH-010]"""
    is_itself = spec.dtype.is_core and spec.form == WHOLE
    logical = {} if is_itself else {"ckptfmt": {"dtype": spec.dtype.name, "shape": list(spec.shape)}}
    return _array_of(spec, spec.storage_shape, spec.grid, logical)


def _array_of(spec: ArraySpec, shape: Shape, grid: Shape, attributes: dict[str, Any]) -> dict[str, Any]:
    data_type = spec.dtype.storage if spec.form == WHOLE else _BITS.get(spec.dtype.stored.itemsize, spec.dtype.storage)
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": data_type,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(grid)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": _FILL.get(data_type, 0),
        "codecs": spec.codec.chain,
        "attributes": attributes,
    }
