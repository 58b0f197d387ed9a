"""Earlier versions of the format: read by those that know them, refused by name by all others, and upgraded.
SPEC.md annex B."""

from __future__ import annotations

import math
import struct
from typing import Any

from ..build import Checkpoint
from ..cases import INPUT, Case
from ..model import Tensor, tensor
from . import FORMAT, SINCE, Entry, add, edit, fault, remove, valid, value_of

TREE = {
    "model": {
        "w": tensor("bfloat16", (2, 3), "w"),
        "e": Tensor("int32", (4, 3), struct.pack("<12i", *range(12)), grid=(3, 2)),
        7: (None, 2**70),
    },
    "list": [{"b": tensor("int4", (3,), "b")}, {}],
}


def _node(node: Any) -> Any:
    match node:
        case ["dict", keys, nodes]:
            return ["dict", [[key, _node(one)] for key, one in zip(keys, nodes, strict=True)]]
        case ["list" | "tuple" as kind, nodes]:
            return [kind, [_node(one) for one in nodes]]
    return node


def _manifest(manifest: dict[str, Any]) -> None:
    """A manifest of 1.0, made one of 0.9. [FMT-005]"""
    new, columns, table = dict(manifest), manifest["tensors"], manifest["parts"][0]["chunks"]
    lengths = struct.unpack(f"<{len(table['length']) // 8}Q", table["length"])
    offsets = struct.unpack(f"<{len(lengths)}Q", table["offset"]) if table["offset"] else [None] * len(lengths)
    sizes = [-(-length // manifest["block"]) * 16 for length in lengths]
    digests = [table["digest"][sum(sizes[:row]) : sum(sizes[: row + 1])] for row in range(len(sizes))]
    rows = list(map(list, zip(offsets, lengths, digests, strict=True)))
    tensors = []
    for name, dtype, shape, grid, codec in zip(*columns.values(), strict=True):
        stored = Tensor(dtype, tuple(shape), b"").storage_shape
        count = math.prod(-(-side // step) for side, step in zip(stored, grid, strict=True))
        chunks, rows = rows[:count], rows[count:]
        row = {"name": name, "dtype": dtype, "shape": shape, "grid": grid, "codecs": manifest["codecs"][codec]}
        tensors.append({**row, "chunks": chunks})
    manifest.clear()
    schema = new["schema"] and [new["schema"]["id"], new["schema"]["version"]]
    manifest |= {"version": "0.9", "layout": new["layout"], "creator": new["generator"], "block": new["block"]}
    manifest |= {"schema": schema, "user": _node(new["metadata"]), "tree": _node(new["tree"]), "tensors": tensors}


def old(tree: Any, **options: Any) -> Checkpoint:
    def document(member: str, text: bytes) -> bytes:
        return text.replace(b'"format":[1,0]', b'"format":[0,9]') if member == "tensors/zarr.json" else text

    return Checkpoint(tree, digest="xxh3-128", version=(0, 9), edit=_manifest, document=document, **options)


def upgraded(identity: str, title: str, source: Checkpoint, was: list[int], schema: dict[str, str] | None) -> None:
    tree, metadata = source.values()
    expect = {"tree": tree, "metadata": metadata, "schema": schema, "was": was}
    features = ["upgrade", *source.features(), *(["format:0.9"] if was == [0, 9] else [])]
    spec, operation = ["FMT-004", "MIG-017", "MIG-019"], {"op": "upgrade"}
    case = Case(identity, title, spec, "must", features, SINCE, FORMAT, {"path": INPUT}, operation, expect)
    add(Entry(case, source.build()))


SCHEMA = {"id": "my/schema", "version": "7"}
OPTIONS: dict[str, Any] = {"metadata": {"step": 3, "note": ["ü"]}, "schema": tuple(SCHEMA.values())}
NEEDS = ("reader", "format:0.9")
for _layout in ("file", "loose"):
    _made = old(TREE, layout=_layout, **OPTIONS)
    valid(f"format-0-9-{_layout}", f"Version 0.9, layout {_layout}.", "FMT-003 FMT-005", _made, needs=NEEDS)
    upgraded(f"upgrade-0-9-{_layout}", f"From 0.9 to this version, layout {_layout}.", _made, [0, 9], SCHEMA)
    _new = Checkpoint(TREE, layout=_layout, **OPTIONS)
    upgraded(f"upgrade-1-0-{_layout}", f"From this version to itself, layout {_layout}.", _new, [1, 0], SCHEMA)
upgraded("upgrade-no-schema", "From 0.9, without schema and metadata.", old({"a": TREE["list"]}), [0, 9], None)
valid(
    "format-0-9-list",
    "Schema and metadata of version 0.9.",
    "FMT-005",
    old(TREE, layout="loose", **OPTIONS),
    {"op": "list"},
    {"tree": value_of(TREE), "metadata": value_of(OPTIONS["metadata"]), "schema": SCHEMA},
    needs=NEEDS,
)
valid(
    "format-0-9-slice",
    "A slice of a tensor of several chunks, version 0.9.",
    "FMT-005 READ-003",
    old(TREE),
    {"op": "read_slice", "path": ["model", "e"], "slices": [[2, 4, 1], [1, 3, 1]]},
    {"value": Tensor("int32", (2, 2), struct.pack("<4i", 7, 8, 10, 11)).value(None)},
    needs=NEEDS,
)
valid(
    "format-0-9-verify",
    "A whole verification of version 0.9.",
    "FMT-005 BLK-007",
    old(TREE),
    {"op": "verify"},
    {"damage": []},
    needs=(*NEEDS, "verify"),
)
fault(
    "format-0-9-damaged",
    "A flipped bit in a chunk of version 0.9: the other tensors can be read.",
    "FMT-005 BLK-004 BLK-005",
    "format-0-9-loose",
    [{"do": "flip_bit", "at": {"object": "tensors/model/w/c/0/0", "offset": 3}, "bit": 5}],
    {"error": {"any_of": ["block-digest"], "tensor": "model/w", "chunk": 0, "block": 0}},
    {"op": "read", "path": []},
    still=[("model", "e"), ("list",)],
)
for _version in ("0.1", "0.10", "0.999"):
    fault(
        f"format-{_version.replace('.', '-')}",
        f"Version {_version}, which nobody knows, is refused by name.",
        "FMT-003 VER-002",
        "tree-base-loose",
        [{"do": "reseal", "version": _version}],
        "older-format",
    )
BAD: dict[str, tuple[str, list[dict[str, Any]]]] = {
    **{
        f"without-{key}": (f"A manifest of 0.9 without `{key}`.", remove(f"/{key}"))
        for key in ("version", "layout", "creator", "block", "schema", "user", "tree", "tensors")
    },
    **{
        f"row-without-{key}": (f"A tensor of 0.9 without `{key}`.", remove(f"/tensors/0/{key}"))
        for key in ("name", "dtype", "shape", "grid", "codecs", "chunks")
    },
    "other-version": ("`version` of another manifest.", edit("/version", "1.0")),
    "schema-map": ("A schema as in 1.0.", edit("/schema", {"id": "a", "version": "b"})),
    "dict-as-today": ("A dict as in 1.0.", edit("/tree", ["dict", ["a"], [1]])),
    "dict-of-three": ("A dict whose pairs are three.", edit("/tree", ["dict", [["a", 1, 2]]])),
    "block": ("A block size that is none.", edit("/block", 5)),
    "chunk-missing": ("A tensor without its chunks.", edit("/tensors/0/chunks", [])),
    "chunk-offset": ("An offset in layout loose.", edit("/tensors/0/chunks/0/0", 0)),
    "chunk-length": ("A negative length.", edit("/tensors/0/chunks/0/1", -1)),
    "chunk-digests": ("A digest that is missing.", edit("/tensors/0/chunks/0/2", b"")),
}
for _name, (_title, _steps) in BAD.items():
    _codes = "bad-manifest bad-extent" if "chunk" in _name else "bad-manifest"
    fault(f"format-0-9-bad-{_name}", _title, "FMT-005 ERR-001", "format-0-9-loose", _steps, _codes)
