"""Packs and part manifests of layout `packed` that are missing, damaged or elsewhere. SPEC.md sections 7 to 9."""

from __future__ import annotations

from typing import Any

from . import edit, fault, place, verified
from .packed import BASE

READ_X = {"op": "read", "path": ["x"]}
fault(
    "packed-pack-missing",
    "A missing pack damages the tensors in it, and no other.",
    "READ-005 LAY-004",
    "packed-three-parts",
    [{"do": "remove_object", "object": "packs/00001.zip"}],
    {"error": {"any_of": ["missing-object"], "tensor": "x"}},
    READ_X,
    still=[["y"]],
)
fault(
    "packed-pack-short",
    "A pack that breaks off before a chunk.",
    "READ-005 LIM-003",
    "packed-two-parts",
    [{"do": "truncate", "at": {"object": "packs/00001.zip", "offset": 64}}],
    {"error": {"any_of": ["short-object", "bad-extent"], "tensor": "x"}},
    READ_X,
    still=[["y"]],
)
fault(
    "packed-bit",
    "A flipped bit in a chunk of the second pack.",
    "BLK-004 BLK-005",
    BASE,
    [{"do": "flip_bit", "at": place({"tensor": ["x"], "chunk": 1}, 3), "bit": 0}],
    {"error": {"any_of": ["block-digest"], "tensor": "x", "chunk": 1, "block": 0, "object": "packs/00001.zip"}},
    READ_X,
    still=[["y"]],
)
fault(
    "packed-part-manifest-missing",
    "A part manifest that is missing, when one of its chunks is needed.",
    "CHK-006",
    "packed-part-manifests",
    [{"do": "remove_object", "object": "parts/00001.msgpack"}],
    {"error": {"any_of": ["missing-object"]}},
    READ_X,
    still=[["y"]],
)
fault(
    "packed-part-manifest-bit",
    "A flipped bit in a part manifest.",
    "CHK-006",
    "packed-part-manifests",
    [{"do": "flip_bit", "at": {"object": "parts/00001.msgpack", "offset": 30}, "bit": 0}],
    {"error": {"any_of": ["manifest-digest"]}},
    READ_X,
    still=[["y"]],
)
fault(
    "packed-part-manifest-upwards",
    "A part manifest outside the checkpoint.",
    "CHK-007 SEC-003",
    "packed-part-manifests",
    edit("/parts/0/chunks/path", "../parts/00000.msgpack"),
    "bad-manifest",
)
for _name, _title, _key, _item in (
    ("sha256-short", "A part manifest whose sha256 has 31 bytes.", "sha256", bytes(31)),
    ("sha256-long", "A part manifest whose sha256 has 33 bytes.", "sha256", bytes(33)),
    ("length-negative", "A part manifest of a negative length.", "length", -1),
    ("length-bool", "A part manifest whose length is a bool.", "length", True),
    ("length-huge", "A part manifest of 2⁶⁴ − 1 bytes.", "length", (1 << 64) - 1),
    ("path-nil", "A part manifest without a path.", "path", None),
):
    fault(
        f"packed-part-manifest-{_name}",
        _title,
        "CHK-006 MAN-002" + (" MAN-011" if _name == "length-huge" else ""),
        "packed-part-manifests",
        edit(f"/parts/1/chunks/{_key}", _item),
        "bad-manifest",
    )
for _name, _object, _base in (
    ("pack", "packs/00001.zip", BASE),
    ("part-manifest", "parts/00001.msgpack", "packed-part-manifests"),
):
    fault(
        f"packed-linked-{_name}",
        f"A {_name.replace('-', ' ')} that is a symbolic link.",
        "CHK-007 SEC-003",
        _base,
        [{"do": "link_object", "object": _object, "target": "outside/object"}],
        {"error": {"any_of": ["linked-object"]}},
        READ_X,
        generated=True,
        still=[["y"]],
    )
for _name, _base, _pointer, _path in (
    ("shared", "packed-part-manifests", "/parts/1/chunks/path", "parts/00000.msgpack"),
    ("of-a-pack", "packed-part-manifests", "/parts/1/chunks/path", "packs/00001.zip"),
):
    fault(
        f"packed-part-manifest-{_name}",
        f"The path of a part manifest is {'that of another' if _name == 'shared' else 'that of a pack'}.",
        "CHK-009",
        _base,
        edit(_pointer, _path),
        "bad-manifest",
    )
fault(
    "packed-table-with-path",
    "A chunk table that has the key `path` too: a reference, which lacks its keys.",
    "CHK-009",
    BASE,
    edit("/parts/1/chunks/path", 5),
    "bad-manifest",
)
for _layout in ("file", "loose"):
    fault(
        f"{_layout}-table-with-path",
        f"A chunk table with the key `path` in layout {_layout}, which has no part manifests.",
        "CHK-009 CHK-002",
        f"digest-sha256-{_layout}",
        edit("/parts/0/chunks/path", "parts/00000.msgpack"),
        "bad-manifest",
    )
VERIFIED: dict[str, tuple[str, str, str, list[dict[str, Any]], list[dict[str, Any]]]] = {
    "frame": (
        "the frame of a pack",
        "FRM-003 FRM-006",
        BASE,
        [{"do": "flip_bit", "at": {"object": "packs/00001.zip", "offset": 0}, "bit": 0}],
        [{"code": "frame-digest"}],
    ),
    "record-frame": (
        "a record whose frame digest is not that of no bytes",
        "FRM-003 FRM-005 BLK-007",
        BASE,
        [{"do": "reseal", "frame": "0" * 64}],
        [{"code": "frame-digest"}],
    ),
    "dead-member": (
        "a member of a pack that is no chunk of this checkpoint",
        "LAY-009 FRM-003",
        "packed-verify-dead-members",
        [{"do": "flip_bit", "at": {"object": "packs/00001.zip", "offset": 330}, "bit": 0}],
        [{"code": "frame-digest"}],
    ),
    "pack-longer": (
        "a pack longer than its size",
        "LAY-004 LAY-007",
        BASE,
        [{"do": "append", "object": "packs/00001.zip", "hex": "00"}],
        [{"code": "bad-extent"}],
    ),
    "part-manifest": (
        "a part manifest",
        "CHK-006 BLK-007",
        "packed-part-manifests",
        [{"do": "flip_bit", "at": {"object": "parts/00001.msgpack", "offset": 30}, "bit": 0}],
        [{"code": "manifest-digest"}],
    ),
    "part-manifest-and-frame": (
        "a part manifest, and not the changed frame of its pack, as nobody knows where its chunks are",
        "FRM-007",
        "packed-part-manifests",
        [
            {"do": "flip_bit", "at": {"object": "parts/00001.msgpack", "offset": 30}, "bit": 0},
            {"do": "flip_bit", "at": {"object": "packs/00001.zip", "offset": 0}, "bit": 0},
        ],
        [{"code": "manifest-digest"}],
    ),
    "part-manifest-and-pack-longer": (
        "a part manifest, and that its pack is longer than its size, which is known without it",
        "LAY-007 FRM-007",
        "packed-part-manifests",
        [
            {"do": "flip_bit", "at": {"object": "parts/00001.msgpack", "offset": 30}, "bit": 0},
            {"do": "append", "object": "packs/00001.zip", "hex": "00"},
        ],
        [{"code": "manifest-digest"}, {"code": "bad-extent"}],
    ),
    "block": (
        "a block of the second pack",
        "BLK-007",
        BASE,
        [{"do": "flip_bit", "at": place({"tensor": ["x"], "chunk": 1}, 3), "bit": 0}],
        [{"code": "block-digest", "tensor": "x", "chunk": 1}],
    ),
}
for _name, (_title, _spec, _base, _steps, _found) in VERIFIED.items():
    verified(
        f"packed-verify-{_name}-changed",
        f"A whole verification reports {_title}.",
        _spec,
        _base,
        _steps,
        *_found,
    )
