"""Pages in layouts `packed` and `loose`, whose object is `pages.bin`. SPEC.md sections 7.1 and 8."""

from __future__ import annotations

from typing import Any

from ..build import Checkpoint
from ..model import tensor
from . import chunk, edit, fault, msgpack, remove, valid, verified
from .page_damage import flip
from .page_faults import RESEAL, Steps, column, u32, u64
from .pages import ODD, SMALL, TREE

READ_L = {"op": "read", "path": ["layers", {"int": "0"}, "w"]}


def _dealt(row: int) -> int:
    return row % 2


def built(layout: str, tree: Any = TREE, **more: Any) -> Checkpoint:
    more = {"paged": SMALL, **({"parts": _dealt} if layout == "packed" else {}), **more}
    return Checkpoint(tree, layout=layout, **more)


for _layout in ("packed", "loose"):
    _rules = "PAGE-001 PAGE-002" + (" PAGE-017" if _layout == "packed" else "")
    valid(f"pages-{_layout}-base", f"Pages of tensors and of the tree in layout {_layout}.", _rules, built(_layout))
    valid(
        f"pages-{_layout}-metadata",
        f"Metadata and a schema beside pages in layout {_layout}.",
        f"{_rules} SCH-001",
        built(_layout, metadata={"a": 1}, schema=("llama", "3"), digest="xxh3-128"),
    )
    valid(f"pages-{_layout}-odd-keys", f"Odd keys in pages in layout {_layout}.", "PAGE-008", built(_layout, ODD))
    valid(
        f"pages-{_layout}-root-tensor",
        f"A tree that is one tensor, in pages in layout {_layout}.",
        "PAGE-005 NAME-005",
        built(_layout, tensor("float32", (3,), "x")),
    )
    valid(
        f"pages-{_layout}-no-tensors",
        f"Pages of the tree alone in layout {_layout}.",
        "PAGE-004",
        built(_layout, {"l": list(range(200))}),
    )
    valid(f"pages-{_layout}-none", f"No pages in layout {_layout}.", "PAGE-002", built(_layout, {"a": 1}))
    valid(
        f"pages-{_layout}-read",
        f"One tensor, through a page in layout {_layout}.",
        "PAGE-003 PAGE-015",
        built(_layout),
        READ_L,
    )
    for _name, _tree in {"base": TREE, "odd-keys": ODD, "root-tensor": tensor("float32", (3,), "x"), "none": 1}.items():
        valid(
            f"pages-{_layout}-verify-{_name}",
            f"A whole verification of pages in layout {_layout} finds nothing: {_name.replace('-', ' ')}.",
            "BLK-007 PAGE-002" + (" FRM-003" if _layout == "packed" else " FRM-002"),
            built(_layout, _tree),
            {"op": "verify"},
            {"damage": []},
            needs=("reader", "verify"),
        )
    fault(
        f"pages-{_layout}-offset",
        f"A first page that is not said to begin `pages.bin`, in layout {_layout}.",
        "PAGE-002",
        f"pages-{_layout}-base",
        edit("/pages/offset", 1),
        "bad-extent",
    )
    fault(
        f"pages-{_layout}-placement",
        f"A `placement` beside pages in layout {_layout}.",
        "PAGE-001",
        f"pages-{_layout}-base",
        edit("/placement", dict.fromkeys(("tensor", "chunk", "count", "part", "step"), b"")),
        "bad-manifest",
    )
    fault(
        f"pages-{_layout}-1-0",
        f"Pages in layout {_layout} of version 1.0.",
        "PAGE-001",
        f"pages-{_layout}-base",
        [
            {"do": "edit_manifest", "pointer": "/format", "msgpack": msgpack([1, 0])},
            {"do": "reseal", "version": "1.0"},
        ],
        "bad-manifest",
    )
    fault(
        f"pages-{_layout}-damaged",
        f"A damaged page in layout {_layout}: what is in it is refused, and nothing else.",
        "PAGE-003 PAGE-014",
        f"pages-{_layout}-base",
        [flip(1)],
        "manifest-digest",
        READ_L,
        still=(["w"], ["big"], ["step"]),
    )
    fault(
        f"pages-{_layout}-missing",
        f"No `pages.bin` in layout {_layout}: what stands in the manifest is there.",
        "PAGE-002 PAGE-014",
        f"pages-{_layout}-base",
        [{"do": "remove_object", "object": "pages.bin"}],
        "missing-object",
        READ_L,
    )
    fault(
        f"pages-{_layout}-cut",
        f"A `pages.bin` that ends within its first page, in layout {_layout}.",
        "PAGE-003",
        f"pages-{_layout}-base",
        [{"do": "truncate", "at": {"object": "pages.bin", "offset": 20}}],
        "short-object manifest-digest",
        READ_L,
    )
    fault(
        f"pages-{_layout}-link",
        f"A `pages.bin` that is a symbolic link, in layout {_layout}.",
        "CHK-007",
        f"pages-{_layout}-base",
        [{"do": "link_object", "object": "pages.bin", "target": "outside"}],
        "linked-object",
        READ_L,
        generated=True,
    )
    verified(
        f"pages-{_layout}-verify-damaged",
        f"A whole verification reports a damaged page of layout {_layout}, and a block of a tensor in another.",
        "PAGE-009 BLK-007",
        f"pages-{_layout}-base",
        [flip(1), {"do": "flip_bit", "at": chunk(["big"], 1, 4500), "bit": 1}],
        {"code": "manifest-digest"},
        {"code": "block-digest", "tensor": "big", "chunk": 1, "block": 1},
    )
    verified(
        f"pages-{_layout}-verify-longer",
        f"A whole verification reports a `pages.bin` that goes on after its pages, in layout {_layout}.",
        "PAGE-002 BLK-007",
        f"pages-{_layout}-base",
        [{"do": "append", "object": "pages.bin", "hex": "00"}],
        {"code": "bad-extent"},
    )
    fault(
        f"pages-{_layout}-unknown-feature",
        f"What a paged manifest in layout {_layout} requires is told before all else.",
        "MAN-006",
        f"pages-{_layout}-base",
        edit("/requires", ["pages", "no-such-feature"]),
        "unknown-feature",
        lacks=("pages",),
    )

# ---- what layout `packed` has besides

PACKED: dict[str, tuple[str, str, Steps]] = {
    "no-parts": ("without parts", "PAGE-001", edit("/parts", [])),
    "table": ("with a part that has a table", "PAGE-017", edit("/parts/0/chunks", {"length": b""})),
    "no-chunks": ("with a part without the key `chunks`", "PAGE-017 MAN-002", remove("/parts/0/chunks")),
    "no-frame": ("with a part without a frame", "PAGE-017 MAN-002", remove("/parts/0/frame")),
    "size": ("with a part of a size that is no number", "PAGE-017 MAN-002", edit("/parts/0/size", "1")),
    "object": ("with a part whose object is `pages.bin`", "PAGE-017", edit("/parts/0/object", "pages.bin")),
    "objects": ("with two parts of one object", "LAY-004", edit("/parts/0/object", "packs/00001.zip")),
    "path": ("with a part whose object leads out of it", "CHK-007", edit("/parts/0/object", "../00001.zip")),
}
for _name, (_title, _spec, _steps) in PACKED.items():
    fault(
        f"pages-packed-parts-{_name}",
        f"A paged manifest in layout packed {_title}.",
        _spec,
        "pages-packed-base",
        _steps,
        "bad-manifest",
    )
for _name, _title, _spec, _steps in (
    ("size-negative", "of a negative size", "PAGE-017 MAN-002", edit("/parts/0/size", -1)),
    ("size-bool", "whose size is a bool", "PAGE-017 MAN-002", edit("/parts/0/size", True)),
    ("size-2-63", "of 2⁶³ bytes", "PAGE-017 MAN-011", edit("/parts/0/size", 1 << 63)),
    ("frame-short", "whose frame is too short", "PAGE-017 FRM-006", edit("/parts/0/frame", bytes(31))),
):
    fault(
        f"pages-packed-parts-{_name}",
        f"A paged manifest in layout packed with a part {_title}.",
        _spec,
        "pages-packed-root-tensor",
        _steps,
        "bad-manifest",
    )
fault(
    "pages-loose-parts",
    "A paged manifest in layout loose with a part.",
    "PAGE-001",
    "pages-loose-base",
    edit("/parts", [{"object": "packs/00000.zip", "size": 0, "frame": bytes(32), "chunks": None}]),
    "bad-manifest",
)
COLUMNS: dict[str, tuple[str, str, Steps]] = {
    "no-part": ("that does not say in which parts its chunks are", "PAGE-017", [column("/part", None)]),
    "part-nil": ("with a `part` that is nil", "PAGE-017", [{**column("/part", 0), "msgpack": "c0"}]),
    "part-fewer": ("with fewer parts than chunks", "PAGE-017", [column("/part", u32(0, 1))]),
    "part-odd": ("with parts that end within one", "PAGE-017", [column("/part", bytes(11))]),
    "part-beyond": ("with a part that is not there", "PAGE-017", [column("/part", u32(0, 2, 0))]),
    "no-offset": ("without offsets", "CHK-002 CHK-011", [{**column("/chunks/offset", 0), "msgpack": "c0"}]),
}
for _name, (_title, _spec, _steps) in COLUMNS.items():
    fault(
        f"pages-packed-{_name}",
        f"A page of tensors in layout packed {_title}: what is in it is refused, and nothing else.",
        f"{_spec} PAGE-009",
        "pages-packed-base",
        [*_steps, RESEAL],
        "bad-manifest",
        READ_L,
        still=(["w"], ["big"], ["step"]),
    )
for _name, (_title, _steps) in {
    "extent-beyond": ("a chunk beyond its pack", [column("/chunks/offset", u64(1 << 40, 1 << 41, 1 << 42))]),
    "extent-overlap": (
        "two chunks that overlap in a pack",
        [column("/chunks/offset", u64(0, 1, 1)), column("/part", u32(0, 0, 0))],
    ),
}.items():
    fault(
        f"pages-packed-{_name}",
        f"A page of tensors in layout packed with {_title}.",
        "CHK-005 PAGE-009",
        "pages-packed-base",
        [*_steps, RESEAL],
        "bad-extent",
        READ_L,
        still=(["w"], ["big"], ["step"]),
    )
fault(
    "pages-loose-offset-there",
    "A page of tensors in layout loose with offsets.",
    "CHK-011 PAGE-009",
    "pages-loose-base",
    [column("/chunks/offset", bytes(24)), RESEAL],
    "bad-manifest",
    READ_L,
    still=(["w"], ["big"], ["step"]),
)
VERIFIED: dict[str, tuple[str, str, Steps, list[str]]] = {
    "pack-longer": (
        "a pack longer than its size",
        "LAY-007",
        [{"do": "append", "object": "packs/00001.zip", "hex": "00"}],
        ["bad-extent"],
    ),
    "frame": (
        "the changed frame of a pack",
        "FRM-003",
        [{"do": "flip_bit", "at": {"object": "packs/00001.zip", "offset": 0}, "bit": 0}],
        ["frame-digest"],
    ),
    "page-and-frame": (
        "a damaged page, and not the changed frame of a pack, as nobody knows where its chunks are",
        "FRM-007",
        [flip(1), {"do": "flip_bit", "at": {"object": "packs/00001.zip", "offset": 0}, "bit": 0}],
        ["manifest-digest"],
    ),
    "page-and-pack-longer": (
        "a damaged page, and a pack longer than its size, which is known without any page",
        "LAY-007 FRM-007",
        [flip(1), {"do": "append", "object": "packs/00001.zip", "hex": "00"}],
        ["manifest-digest", "bad-extent"],
    ),
}
for _name, (_title, _spec, _steps, _codes) in VERIFIED.items():
    verified(
        f"pages-packed-verify-{_name}",
        f"A whole verification of a paged checkpoint in layout packed reports {_title}.",
        _spec,
        "pages-packed-base",
        _steps,
        *[{"code": code} for code in _codes],
    )
verified(
    "pages-loose-verify-page-and-frame",
    "A whole verification reports a damaged page, and not a changed node document, as nobody knows which there are.",
    "FRM-007",
    "pages-loose-base",
    [flip(1), {"do": "flip_bit", "at": {"object": "tensors/zarr.json", "offset": 5}, "bit": 0}],
    {"code": "manifest-digest"},
)
