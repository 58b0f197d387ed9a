"""What independent readers of one text took for different things, until a sentence settled it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

from ..build import Checkpoint
from ..model import Tensor, pattern, tensor
from ..packing import pack
from . import chunk, edit, fault, place, valid, verified

READ_X = {"op": "read", "path": ["x"]}
RESEAL: dict[str, Any] = {"do": "reseal"}

# ---- section 7: a NaN in 32 bits [MAN-010]

valid("manifest-float64", "A float in 64 bits.", "MAN-012", Checkpoint({"x": 0.5}), READ_X)
for _name, _bits, _wide in (
    ("quiet", "7fc00000", "7ff8000000000000"),
    ("signalling", "7fa00001", "7ffc000020000000"),
    ("negative", "ffc12345", "fff82468a0000000"),
):
    fault(
        f"manifest-float32-nan-{_name}",
        f"A {_name} NaN as msgpack float 32: sign and payload stay, and it becomes quiet.",
        "MAN-010 MAN-012",
        "manifest-float64",
        [{"do": "edit_manifest", "pointer": "/tree/2/0", "msgpack": f"ca{_bits}"}, RESEAL],
        {"value": {"type": "float", "bits": _wide}},
        READ_X,
    )

# ---- section 7: how large sizes and lengths may be [MAN-011], and when a bound of the reader's is met [LIM-009]

for _name, _title, _base, _pointer in (
    ("size", "The size of a pack", "packed-two-parts", "/parts/1/size"),
    ("part-length", "The length of a part manifest", "packed-part-manifests", "/parts/1/chunks/length"),
):
    fault(
        f"packed-{_name}-2-63",
        f"{_title} is 2⁶³.",
        "MAN-011 READ-008",
        _base,
        edit(_pointer, 1 << 63),
        "bad-manifest",
    )
fault(
    "packed-part-length-beyond-bounds",
    "A part manifest of 2⁴⁰ bytes, as is said: the checkpoint opens, and what lies in other parts is given.",
    "LIM-009 CHK-006",
    "packed-part-manifests",
    edit("/parts/1/chunks/length", 1 << 40),
    {"error": {"any_of": ["limit-exceeded", "manifest-digest"]}},
    READ_X,
    still=[["y"]],
)

# ---- what shows when a part manifest is loaded, and not before [READ-009]

_Y = tensor("float64", (3,), "y")
_TREE = {"x": tensor("int32", (5, 4), "x", grid=(2, 2)), "y": _Y, "step": 3}


def _tables(change: Callable[[dict[str, Any]], bytes]) -> Checkpoint:
    """Two part manifests, of which the second is changed before its length and sha256 are taken."""

    def packed(item: Any) -> bytes:
        is_second = len(item.get("length", b"")) == 8 * 3
        return change(dict(item)) if is_second else pack(item)

    return Checkpoint(_TREE, layout="packed", parts=lambda row: row % 2, inline=False, pack=packed)


def _with(**columns: Any) -> Callable[[dict[str, Any]], bytes]:
    return lambda table: pack(table | columns)


for _name, _title, _spec, _change, _code in (
    ("rows-unsorted", "rows that are not sorted", "CHK-003", _with(chunk=struct.pack("<3Q", 3, 1, 5)), "bad-manifest"),
    (
        "offset-beyond",
        "a chunk beyond its pack",
        "CHK-005",
        _with(offset=struct.pack("<3Q", 64, 128, 1 << 40)),
        "bad-extent",
    ),
    ("offset-nil", "no offsets", "CHK-011", _with(offset=None), "bad-manifest"),
    ("chunk-nil", "the column `tensor` alone", "CHK-011", _with(chunk=None), "bad-manifest"),
    ("digest-short", "no digests", "CHK-001", _with(digest=b""), "bad-manifest"),
    ("bytes-after", "a byte after the map", "MAN-001", lambda table: pack(table) + b"\xc0", "bad-manifest"),
    ("no-map", "an array in place of the map", "MAN-001", lambda table: pack([table]), "bad-manifest"),
):
    valid(
        f"packed-loaded-{_name}",
        f"A part manifest with {_title}: what lies in that part is refused, when it is wanted, and no more.",
        f"READ-009 CHK-006 {_spec}",
        _tables(_change),
        READ_X,
        {"error": {"any_of": [_code]}, "still_readable": [{"path": ["y"], "value": _Y.value(None)}]},
    )
valid(
    "packed-loaded-path",
    "A part manifest with the key `path`, which says nothing in it.",
    "READ-009 CHK-009 MAN-003",
    _tables(_with(path="x")),
)

# ---- rules on ZIP headers bind writers [READ-010]

_ZIP = {"x": tensor("int32", (5,), "x"), "y": [1, None]}
valid("zip-plain", "A file of one tensor.", "PACK-001", Checkpoint(_ZIP))
for _name, _title, _at, _hex in (
    ("header-signature", "A local header without its signature", {"object": "", "offset": 0}, "00000000"),
    ("header-encrypted", "A local header that says `encrypted`", {"object": "", "offset": 6}, "0900"),
    ("header-deflated", "A local header that says `deflated`", {"object": "", "offset": 8}, "0800"),
    ("end-gone", "Zeros in place of the end record, but for its comment", place("directory", -22), "00" * 22),
):
    fault(
        f"zip-{_name}",
        f"{_title}: found by a whole verification, and no reason to refuse anything.",
        "READ-010 CLS-002 PACK-006",
        "zip-plain",
        [{"do": "overwrite", "at": _at, "hex": _hex}],
        {"value": Checkpoint(_ZIP).values()[0]},
        {"op": "read", "path": []},
    )

# ---- where a fault lies [BLK-004]

_TIED = Tensor("uint8", (5000,), pattern(5000, "tied"))
_ALIASED = {"a": {"first": _TIED}, "b": [_TIED], "c": tensor("int32", (4, 4), "c", grid=(2, 2))}
valid("alias-two-blocks", "Aliases of two blocks.", "TREE-010", Checkpoint(_ALIASED, layout="loose"))
_DAMAGED = [{"do": "flip_bit", "at": chunk(["a", "first"], 0, 4096), "bit": 0}]
_WHERE = {"tensor": "a/first", "chunk": 0, "block": 1, "object": "tensors/a/first/c/0"}
for _name, _path in (("first", ["a", "first"]), ("second", ["b", {"int": "0"}])):
    fault(
        f"alias-damaged-{_name}",
        "Whichever alias is read, damage is told of the tensor by the path at which it stands first.",
        "BLK-004 TREE-010",
        "alias-two-blocks",
        _DAMAGED,
        {"error": {"any_of": ["block-digest"], **_WHERE}},
        {"op": "read", "path": _path},
        still=[["c"]],
    )
verified(
    "alias-damaged-verify",
    "A whole verification tells damage of aliases once, by the path at which the tensor stands first.",
    "BLK-007 TREE-010",
    "alias-two-blocks",
    _DAMAGED,
    {"code": "block-digest", "tensor": "a/first", "chunk": 0, "block": 1},
)
for _name, _title, _steps, _code in (
    ("missing", "missing", [{"do": "remove_object", "object": "tensors/c/c/1/0"}], "missing-object"),
    ("short", "too short", [{"do": "truncate", "at": {"object": "tensors/c/c/1/0", "offset": 9}}], "short-object"),
):
    fault(
        f"object-{_name}-place",
        f"An object that is {_title}, as the error names it.",
        "READ-005 BLK-004",
        "alias-two-blocks",
        _steps,
        {"error": {"any_of": [_code], "tensor": "c", "chunk": 2, "object": "tensors/c/c/1/0"}},
        {"op": "read", "path": ["c"]},
        still=[["a"], ["b"]],
    )

# ---- section 15: an earlier version whose record is damaged, too [VER-004]

fault(
    "format-0-9-record-damaged",
    "A record of 0.9 whose crc32 is wrong, for a reader of that version.",
    "VER-004 COM-001",
    "format-0-9-loose",
    [{"do": "flip_bit", "at": place("record", -2), "bit": 0}],
    "bad-record",
)
fault(
    "version-0-5-record-damaged",
    "A record of an earlier version that nobody reads, whose crc32 is wrong.",
    "VER-004 COM-001",
    "tree-base-loose",
    [{**RESEAL, "version": "0.5"}, {"do": "flip_bit", "at": place("record", -2), "bit": 0}],
    "older-format bad-record",
)

# ---- section 12: a slice of what is no tensor

valid("slice-plain", "A tensor beside an int.", "READ-003", Checkpoint({"x": tensor("int8", (4,)), "n": 3}))
for _name, _key, _code in (("an-int", "n", "bad-index"), ("nothing", "m", "no-such-path")):
    fault(
        f"slice-of-{_name}",
        f"A slice where {_name.replace('-', ' ')} stands.",
        "READ-003 ERR-001",
        "slice-plain",
        [],
        _code,
        {"op": "read_slice", "path": [_key], "slices": [[0, 1, 1]]},
    )
