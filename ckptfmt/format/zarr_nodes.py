"""Node documents (SPEC.md section 5): the zarr.json texts that let stock Zarr readers open the tensors. Pure, and
without zarr."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .arrays import ArraySpec
from .manifest import FORMAT
from .names import parents

DOCUMENT = "zarr.json"
_FILL = {
    "bool": False,
    "float16": 0.0,
    "float32": 0.0,
    "float64": 0.0,
    "complex64": [0.0, 0.0],
    "complex128": [0.0, 0.0],
}


def node_documents(names: Sequence[str], specs: Sequence[ArraySpec]) -> Iterator[tuple[str, bytes]]:
    """(key relative to the hierarchy's root, canonical text) of every node: root first, then in C-string order.
    [ZARR-001] [PACK-004]"""
    texts: dict[int, bytes] = {}  # specs are shared, so most documents are made once
    root = {"ckptfmt": {"format": list(FORMAT)}}  # [ZARR-014]
    if names == ("",):
        document = _array(specs[0])
        document["attributes"] = {"ckptfmt": root["ckptfmt"] | document["attributes"].get("ckptfmt", {})}
        yield DOCUMENT, _text(document)
        return
    yield DOCUMENT, _text(_group(root))
    nodes: dict[str, ArraySpec | None] = dict.fromkeys(parents(names))
    nodes.update(zip(names, specs, strict=True))
    group = _text(_group({}))
    for name in sorted(nodes, key=lambda name: f"{name}/{DOCUMENT}"):
        spec = nodes[name]
        if spec is None:
            yield f"{name}/{DOCUMENT}", group
            continue
        text = texts.get(id(spec))
        if text is None:
            text = texts[id(spec)] = _text(_array(spec))
        yield f"{name}/{DOCUMENT}", text


def _text(document: dict[str, Any]) -> bytes:
    import json  # here, as opening a checkpoint needs no node document [ZARR-015]

    return json.dumps(document, separators=(",", ":")).encode()


def _group(attributes: dict[str, Any]) -> dict[str, Any]:
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def _array(spec: ArraySpec) -> dict[str, Any]:
    """[ZARR-012] [ZARR-013]"""
    logical = {} if spec.dtype.is_core else {"ckptfmt": {"dtype": spec.dtype.name, "shape": list(spec.shape)}}
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(spec.storage_shape),
        "data_type": spec.dtype.storage,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(spec.grid)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": _FILL.get(spec.dtype.storage, 0),
        "codecs": spec.codec.chain,
        "attributes": logical,
    }
