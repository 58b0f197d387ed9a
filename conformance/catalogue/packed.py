"""Layout `packed`: several packs, tables with names, part manifests and placement. SPEC.md sections 7 to 9."""

from __future__ import annotations

import struct
from typing import Any

from ..build import Checkpoint
from ..cases import flatten
from ..model import tensor
from ..recipes import Mutation
from . import edit, fault, remove, valid
from .dtypes import slice_case

TREE = {"x": tensor("int32", (5, 4), "x", grid=(2, 2)), "y": tensor("float64", (3,), "y"), "step": 3}


def packed(**options: Any) -> Checkpoint:
    return Checkpoint(TREE, layout="packed", **options)


def _even(row: int) -> int:
    return row % 2


valid("packed-one-part", "One pack with every chunk.", "LAY-002 LAY-004 CHK-003 CLS-003", packed())
valid("packed-two-parts", "Chunks dealt to two packs in turn.", "LAY-004 CHK-003 CHK-004 CHK-008", packed(parts=_even))
valid("packed-part-manifests", "Tables as part manifests.", "CHK-006 MAN-002", packed(parts=_even, inline=False))
valid("packed-three-parts", "Three packs.", "LAY-004 CHK-008", packed(parts=lambda row: row // 3, inline=False))
valid(
    "packed-no-tensors",
    "No tensors: one pack with the root's node document.",
    "LAY-004 LAY-005",
    Checkpoint({"a": 1}, layout="packed"),
)
valid("packed-xxh3", "With xxh3-128 digests.", "FRM-003 BLK-002", packed(parts=_even, digest="xxh3-128"))
slice_case(
    "packed-slice",
    "A slice over chunks of two packs.",
    "CHK-008 READ-003",
    packed(parts=_even),
    ["x"],
    [(1, 5, 2), (1, 4, 1)],
)
for _name, _checkpoint in {"inline": packed(parts=_even), "part-manifests": packed(parts=_even, inline=False)}.items():
    valid(
        f"packed-verify-{_name}",
        f"A whole verification finds nothing: tables {_name.replace('-', ' ')}.",
        "BLK-007 FRM-003 CHK-006",
        _checkpoint,
        {"op": "verify"},
        {"damage": []},
        needs=("reader", "verify"),
    )


def _dead(number: int) -> list[tuple[str, bytes]]:
    """What the second pack, that of an earlier step, has besides: all that it once was."""
    root = b'{"zarr_format":3,"node_type":"group","attributes":{"ckptfmt":{"format":[1,0]}}}'
    gone = b'{"zarr_format":3,"node_type":"group"}'
    documents = [("tensors/zarr.json", root), ("tensors/gone/zarr.json", gone)]
    return [*documents, ("tensors/y/c/0", bytes(24)), ("tensors/gone/c", bytes(100))] if number else []


valid(
    "packed-dead-members",
    "A pack that an earlier checkpoint has, too, with members of that one: an older chunk, and a node that is gone.",
    "LAY-009 FRM-003 PACK-006",
    packed(parts=lambda row: int(row < 6), inline=False, dead=_dead),
)
valid(
    "packed-verify-dead-members",
    "A whole verification finds nothing: what is no chunk of this checkpoint is of the frame.",
    "LAY-009 FRM-003 BLK-007",
    packed(parts=lambda row: int(row < 6), inline=False, dead=_dead),
    {"op": "verify"},
    {"damage": []},
    needs=("reader", "verify"),
)


def _placement(tensors: list[int], chunks: list[int], counts: list[int], parts: list[int], steps: list[int]) -> Any:
    n = len(tensors)
    columns = {
        "tensor": ("I", tensors),
        "chunk": ("Q", chunks),
        "count": ("Q", counts),
        "part": ("I", parts),
        "step": ("I", steps),
    }
    return {key: struct.pack(f"<{n}{code}", *values) for key, (code, values) in columns.items()}


def _joined(document: dict[str, Any]) -> None:
    document["placement"] = _placement([0, 0, 1], [0, 3, 0], [3, 3, 1], [0, 1, 2], [0, 0, 0])


def _stepped(document: dict[str, Any]) -> None:
    document["placement"] = _placement([0, 1], [0, 0], [6, 1], [0, 6], [1, 0])


valid(
    "packed-placement-runs",
    "Placement rows for runs of chunks.",
    "CHK-008",
    packed(parts=lambda row: row // 3, edit=_joined),
)
valid(
    "packed-placement-steps",
    "A placement row whose chunks lie in part after part.",
    "CHK-008",
    packed(parts=lambda row: row, edit=_stepped),
)


def _stepped_whole(document: dict[str, Any]) -> None:
    document["placement"] = _placement([0, 1], [0, 0], [6, 1], [0, 0], [1, 0])


valid(
    "packed-placement-steps-all-parts",
    "A placement row that steps through every part.",
    "CHK-008",
    packed(parts=lambda row: row % 6, edit=_stepped_whole),
)

BASE = "packed-two-parts"
BAD: dict[str, tuple[str, str, str, list[dict[str, Any]]]] = {
    "placement-missing": ("No placement.", "MAN-002", "bad-manifest", remove("/placement")),
    "placement-short": (
        "A chunk that no placement row covers.",
        "CHK-008 CHK-004",
        "bad-manifest",
        edit("/placement", _placement([0], [0], [6], [0], [0])),
    ),
    "placement-twice": (
        "A chunk that two placement rows cover.",
        "CHK-008",
        "bad-manifest",
        edit("/placement", _placement([0, 0, 1], [0, 5, 0], [6, 1, 1], [0, 0, 0], [0, 0, 0])),
    ),
    "placement-count-0": (
        "A placement row of no chunks.",
        "CHK-008",
        "bad-manifest",
        edit("/placement", _placement([0, 0, 1], [0, 6, 0], [6, 0, 1], [0, 0, 0], [0, 0, 0])),
    ),
    "placement-part-beyond": (
        "A placement row that names a part that is not there.",
        "CHK-008",
        "bad-manifest",
        edit("/placement", _placement([0, 1], [0, 0], [6, 1], [0, 2], [0, 0])),
    ),
    "placement-step-beyond": (
        "A placement row that steps beyond the last part.",
        "CHK-008",
        "bad-manifest",
        edit("/placement", _placement([0, 1], [0, 0], [6, 1], [0, 0], [1, 0])),
    ),
    "placement-unsorted": (
        "Placement rows that are not sorted.",
        "CHK-008",
        "bad-manifest",
        edit("/placement", _placement([1, 0], [0, 0], [1, 6], [0, 0], [0, 0])),
    ),
    "placement-ragged": (
        "Placement columns of other lengths.",
        "CHK-008",
        "bad-manifest",
        edit("/placement/step", bytes(4)),
    ),
    "placement-disagrees": (
        "A placement that does not agree with the tables.",
        "CHK-008",
        "bad-manifest",
        edit("/placement", _placement([0, 1], [0, 0], [6, 1], [0, 0], [0, 0])),
    ),
    "rows-unsorted": (
        "Rows of a table that are not sorted.",
        "CHK-003",
        "bad-manifest",
        edit("/parts/0/chunks/chunk", struct.pack("<4Q", 2, 0, 4, 0)),
    ),
    "rows-repeated": (
        "A row that stands twice.",
        "CHK-003 CHK-004",
        "bad-manifest",
        edit("/parts/0/chunks/chunk", struct.pack("<4Q", 0, 0, 4, 0)),
    ),
    "row-tensor-beyond": (
        "A row of a tensor that is not there.",
        "CHK-004",
        "bad-manifest",
        edit("/parts/0/chunks/tensor", struct.pack("<4I", 0, 0, 0, 2)),
    ),
    "row-chunk-beyond": (
        "A row of a chunk that is not there.",
        "CHK-004",
        "bad-manifest",
        edit("/parts/0/chunks/chunk", struct.pack("<4Q", 0, 2, 40, 0)),
    ),
    "row-chunk-next": (
        "A row of the chunk after a tensor's last, as if it were the first of the next tensor.",
        "CHK-004",
        "bad-manifest",
        [
            *edit("/parts/0/chunks/tensor", struct.pack("<4I", 0, 0, 0, 0)),
            *edit("/parts/0/chunks/chunk", struct.pack("<4Q", 0, 2, 4, 6)),
        ],
    ),
    "tensor-nil": (
        "Of `tensor` and `chunk` one is nil.",
        "CHK-002",
        "bad-manifest",
        edit("/parts/0/chunks/tensor", None),
    ),
    "extent-beyond": (
        "An extent beyond its pack.",
        "CHK-005",
        "bad-extent",
        edit("/parts/0/chunks/offset", struct.pack("<4Q", 1 << 30, 0, 64, 128)),
    ),
    "object-nil": ("A part without an object.", "CHK-002 MAN-002", "bad-manifest", edit("/parts/0/object", None)),
    "object-upwards": (
        "An object outside the checkpoint.",
        "CHK-007 SEC-003",
        "bad-manifest",
        edit("/parts/0/object", "../x.zip"),
    ),
    "object-absolute": (
        "An absolute object.",
        "CHK-007 SEC-003",
        "bad-manifest",
        edit("/parts/0/object", "/etc/passwd"),
    ),
    "object-shared": (
        "Two parts with one object.",
        "LAY-004",
        "bad-manifest",
        edit("/parts/1/object", "packs/00000.zip"),
    ),
    "size-nil": ("A part without a size.", "MAN-002", "bad-manifest", edit("/parts/0/size", None)),
    "frame-nil": ("A part without a frame digest.", "MAN-002", "bad-manifest", edit("/parts/0/frame", None)),
    "frame-short": ("A frame digest of another size.", "MAN-002", "bad-manifest", edit("/parts/0/frame", bytes(16))),
    "parts-none": ("No parts.", "LAY-004", "bad-manifest", edit("/parts", [])),
}
for _name, (_title, _spec, _codes, _steps) in BAD.items():
    fault(f"packed-{_name}", _title, f"{_spec} ERR-001", BASE, _steps, _codes)

# In these no table is looked at when the checkpoint is opened: what is wrong is wrong by the placement alone.
UNLOADED = "packed-part-manifests"
for _name, _title, _rows in (
    ("part-beyond", "names a part that is not there", _placement([0, 1], [0, 0], [6, 1], [0, 2], [0, 0])),
    ("step-beyond", "steps beyond the last part", _placement([0, 1], [0, 0], [6, 1], [0, 0], [1, 0])),
    ("last-missing", "leaves out the last chunk", _placement([0], [0], [6], [0], [0])),
    ("last-missing-of-tensor", "ends within a tensor", _placement([0], [0], [5], [0], [0])),
    (
        "run-repeated",
        "has a run twice, and another not at all",
        _placement([0, 0, 1], [0, 0, 0], [3, 3, 1], [0, 0, 1], [0, 0, 0]),
    ),
    (
        "tensor-beyond",
        "names a tensor that is not there",
        _placement([0, 1, 2], [0, 0, 0], [6, 1, 1], [0, 0, 0], [0, 0, 0]),
    ),
    ("count-beyond", "has a run longer than its tensor", _placement([0], [0], [7], [0], [0])),
):
    fault(
        f"packed-unloaded-{_name}",
        f"A placement that {_title}, before any part manifest is read.",
        "CHK-008 CHK-004",
        UNLOADED,
        edit("/placement", _rows),
        "bad-manifest",
    )


for _name, _last, _expect in (("2-62-chunks", 2**61, "bad-manifest"), ("many-chunks", 2**60, {"accept": True})):
    _columns = [("dtype", "int8", "int8"), ("shape", [2**61], [_last]), ("grid", [1], [1])]
    _steps = [edit(f"/tensors/{key}/{i}", value)[0] for key, *values in _columns for i, value in enumerate(values)]
    fault(
        f"packed-unloaded-{_name}",
        f"Two tensors of {2**61:,} and {_last:,} chunks, before any part manifest is read.",
        "LIM-006 CHK-006",
        UNLOADED,
        [*_steps, *edit("/placement", _placement([0, 1], [0, 0], [2**61, _last], [0, 0], [0, 0]))],
        _expect,
    )


fault(
    "packed-unloaded-object-longest",
    "An object whose name has 65,000 characters, which is not looked for before a chunk in it is wanted.",
    "NAME-006 CHK-006",
    UNLOADED,
    edit("/parts/1/object", "a/" * 32_499 + "aa"),
    {"accept": True},
)


def _table(checkpoint: Checkpoint, rows: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Steps that give part 1 a table of these (tensor, chunk), each at the place of its first chunk."""
    built = Mutation(flatten(checkpoint.build())).original["parts"][1]["chunks"]
    count, width = len(rows), len(built["digest"]) * 8 // len(built["length"])
    new = {
        "tensor": struct.pack(f"<{count}I", *(tensor for tensor, _ in rows)),
        "chunk": struct.pack(f"<{count}Q", *(chunk for _, chunk in rows)),
        "offset": built["offset"][: 8 * count],
        "length": built["length"][: 8 * count],
        "digest": built["digest"][: width * count],
    }
    return edit("/parts/1/chunks", new)


for _name, _title, _rows in (
    ("lacks-a-chunk", "A part that does not list a chunk that is placed in it.", [(0, 1), (0, 3)]),
    ("has-another-chunk", "A part that lists a chunk that is placed elsewhere.", [(0, 1), (0, 3), (0, 4)]),
):
    fault(
        f"packed-part-{_name}",
        _title,
        "CHK-008 CHK-004",
        BASE,
        _table(packed(parts=_even), _rows),
        "bad-manifest",
    )
