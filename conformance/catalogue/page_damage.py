"""Pages of tensors that lie, pages that are damaged, and what is read of the others. SPEC.md section 7.1."""

from __future__ import annotations

import struct
from typing import Any

from ..cases import flatten
from ..packing import pack
from ..recipes import Mutation
from . import ENTRIES, edit, fault, verified
from .page_faults import ALL, RESEAL, SOON_OR_LATE, Steps, column, page, u32, u64

READ_W = {"op": "read", "path": ["w"]}
READ_L = {"op": "read", "path": ["layers", {"int": "0"}, "w"]}
_BASE = Mutation(flatten(ENTRIES["pages-base"].files or {}))

# ---- pages of tensors: page 1 of `pages-base` has layers/0/b, layers/0/w and layers/1/b

OTHERS: tuple[list[Any], ...] = (["w"], ["big"], ["opt", 0], ["step"])
COLUMNS: dict[str, tuple[str, str, Steps]] = {
    "no-name": ("without names", "PAGE-004", [column("/name", None)]),
    "name-text": ("with names that are a text", "PAGE-004", [column("/name", "layers/0/b\nlayers/0/w\nlayers/1/b\n")]),
    "name-no-ascii": (
        "with a name that is not ASCII",
        "NAME-006",
        [column("/name", "layers/0/b\nlayers/0/ü\nlayers/1/b\n".encode())],
    ),
    "name-illegal": ("with an illegal name", "NAME-006", [column("/name", b"layers/0/b\nlayers/0/w w\nlayers/1/b\n")]),
    "name-reserved": ("with a reserved name", "NAME-006", [column("/name", b"layers/0/b\nlayers/__w\nlayers/1/b\n")]),
    "name-empty": ("with an empty name", "NAME-006 PAGE-005", [column("/name", b"layers/0/b\n\nlayers/1/b\n")]),
    "name-no-end": (
        "whose last name has no line feed",
        "PAGE-004",
        [column("/name", b"layers/0/b\nlayers/0/w\nlayers/1/b")],
    ),
    "name-fewer": ("with fewer names than are said", "PAGE-004", [column("/name", b"layers/0/b\nlayers/0/w\n")]),
    "name-more": (
        "with more names than are said",
        "PAGE-004",
        [column("/name", b"layers/0/b\nlayers/0/w\nlayers/0/x\nlayers/1/b\n")],
    ),
    "name-unsorted": (
        "whose names are not in order",
        "PAGE-005",
        [column("/name", b"layers/0/b\nlayers/1/b\nlayers/0/w\n")],
    ),
    "name-repeated": ("that repeats a name", "PAGE-005", [column("/name", b"layers/0/b\nlayers/0/w\nlayers/0/w\n")]),
    "name-first": (
        "whose first name is not the one that is said",
        "PAGE-005",
        [column("/name", b"layers/0/a\nlayers/0/w\nlayers/1/b\n")],
    ),
    "name-beyond": (
        "with a name of the next page",
        "PAGE-005",
        [column("/name", b"layers/0/b\nlayers/0/w\nlayers/1/w\n")],
    ),
    "name-past": ("with a name beyond the next page", "PAGE-005", [column("/name", b"layers/0/b\nlayers/0/w\nzz\n")]),
    "no-kinds": ("without kinds", "PAGE-004", [column("/kinds", None)]),
    "kinds-array": ("with kinds that are an array", "PAGE-004", [column("/kinds", [])]),
    "kinds-no-grid": ("with kinds without a grid", "PAGE-004 MAN-002", [column("/kinds/grid", None)]),
    "kinds-lengths": ("with columns of kinds that differ in length", "PAGE-004 MAN-007", [column("/kinds/codec", [0])]),
    "kinds-codec": ("with a codec chain that is not there", "MAN-002", [column("/kinds/codec", [0, 7])]),
    "kinds-grid": ("with a grid that does not fit", "ZARR-002", [column("/kinds/grid", [[], [3]])]),
    "kinds-rank": ("with a grid of another rank", "MAN-008", [column("/kinds/grid", [[], []])]),
    "no-kind": ("that does not say of what kind a tensor is", "PAGE-004", [column("/kind", None)]),
    "kind-beyond": ("with a kind that is not there", "PAGE-004", [column("/kind", u32(0, 2, 0))]),
    "kind-fewer": ("with fewer kinds than names", "PAGE-004", [column("/kind", u32(0, 1))]),
    "kind-odd": ("with a column of kinds that ends within one", "PAGE-004", [column("/kind", bytes(11))]),
    "kind-array": ("with a column of kinds that is no bin", "PAGE-004", [column("/kind", [0, 1, 0])]),
    "no-chunks": ("without a chunk table", "PAGE-004", [column("/chunks", None)]),
    "chunks-nil": ("with a chunk table that is nil", "PAGE-004", [{**column("/chunks", 0), "msgpack": "c0"}]),
    "chunks-named": (
        "with a chunk table that names its chunks",
        "CHK-002",
        [column("/chunks/tensor", u32(3, 4, 5)), column("/chunks/chunk", u64(0, 0, 0))],
    ),
    "chunks-no-offset": (
        "with a chunk table without offsets",
        "CHK-002",
        [{**column("/chunks/offset", 0), "msgpack": "c0"}],
    ),
    "chunks-fewer": ("with a chunk table of fewer rows", "CHK-001", [column("/chunks/length", u64(2, 4))]),
    "chunks-digest": ("with a digest too few", "CHK-001", [column("/chunks/digest", bytes(64))]),
    "chunks-other": (
        "with other chunks than are said",
        "PAGE-004",
        [{"do": "edit_bin", "pointer": "/tensors/chunks", "offset": 8, "hex": "04"}],
    ),
    "two-items": ("with bytes after it", "PAGE-013 MAN-001", [page(1, pack({"later": bytes(300)}) + b"\x80")]),
    "no-map": ("that is no map", "PAGE-013 MAN-001", [page(1, ["list", []])]),
    "repeats-key": ("that repeats a key", "PAGE-013 MAN-001", [page(1, b"\x82\xa4name\xc4\0\xa4name\xc4\0")]),
    "int-key": ("with a key that is no text", "PAGE-013 MAN-001", [page(1, b"\x81\0\0")]),
}
for _name, (_title, _spec, _steps) in COLUMNS.items():
    fault(
        f"pages-tensors-{_name}",
        f"A page of tensors {_title}: what is in it is refused, and nothing else.",
        f"{_spec} PAGE-009",
        "pages-base",
        [*_steps, RESEAL],
        "bad-manifest",
        READ_L,
        still=OTHERS,
    )
_FIRST = _BASE.page(0)["name"].decode().split("\n")
fault(
    "pages-tensors-name-empty-first",
    "A page of tensors with the empty name beside others; the manifest shows it, too.",
    "NAME-006 PAGE-014",
    "pages-base",
    [
        column("/name", "\n".join(["", *_FIRST[1:]]).encode(), 0),
        {"do": "edit_manifest", "pointer": "/tensors/first/0", "msgpack": pack("").hex()},
        RESEAL,
    ],
    SOON_OR_LATE,
    {"op": "read", "path": ["big"]},
)
fault(
    "pages-tensors-name-empty-alone",
    "The empty name alone in its page, but not in the checkpoint.",
    "NAME-006 PAGE-014",
    "pages-one-each",
    [
        column("/name", b"\n", 0),
        {"do": "edit_manifest", "pointer": "/tensors/first/0", "msgpack": pack("").hex()},
        RESEAL,
    ],
    SOON_OR_LATE,
    {"op": "read", "path": ["a"]},
)
CODES: dict[str, tuple[str, str, str, Steps]] = {
    "dtype": (
        "with a dtype that nobody knows",
        "DTYPE-001",
        "unknown-dtype",
        [column("/kinds/dtype", ["bfloat16", "float7"])],
    ),
    "rank": (
        "with a tensor of 65 axes",
        "LIM-002",
        "limit-exceeded",
        [column("/kinds/shape", [[], [1] * 65]), column("/kinds/grid", [[], [1] * 65])],
    ),
    "length": (
        "with a raw chunk of another length",
        "CHK-005 ZARR-007",
        "bad-extent",
        [{"do": "edit_bin", "pointer": "/chunks/length", "offset": 8, "hex": "05", "page": 1}],
    ),
    "overlap": ("with two chunks that overlap", "CHK-005", "bad-extent", [column("/chunks/offset", u64(64, 66, 68))]),
    "beyond": (
        "with a chunk that reaches into the pages",
        "CHK-005 PAGE-002",
        "bad-extent",
        [column("/chunks/offset", u64(64, 1 << 40, 128))],
    ),
    "sha256": (
        "whose sha256 is another",
        "PAGE-003",
        "manifest-digest",
        [{"do": "edit_bin", "pointer": "/pages/sha256", "offset": 32, "hex": "00" * 32}],
    ),
}
for _name, (_title, _spec, _code, _steps) in CODES.items():
    fault(
        f"pages-tensors-{_name}",
        f"A page of tensors {_title}: what is in it is refused, and nothing else.",
        f"{_spec} PAGE-009",
        "pages-base",
        [*_steps, RESEAL],
        _code,
        READ_L,
        still=OTHERS,
    )

# ---- damage


def flip(number: int, offset: int = 5) -> dict[str, Any]:
    return {"do": "flip_bit", "at": {"region": {"page": number}, "offset": offset}, "bit": 0}


fault(
    "pages-damaged-tensors",
    "A flipped bit in a page of tensors: what is in it is refused, and nothing else.",
    "PAGE-003 PAGE-009",
    "pages-base",
    [flip(4)],
    "manifest-digest",
    READ_W,
    still=(["big"], ["layers", 0, "w"], ["opt", 0], ["empty"], ["step"], ["text"], ["list", 3]),
)
fault(
    "pages-damaged-tree",
    "A flipped bit in a page of the tree: what is in it is refused, and nothing else.",
    "PAGE-003 PAGE-009",
    "pages-nodes",
    [flip(3)],
    "manifest-digest",
    {"op": "read", "path": ["s"]},
    still=(["t"], ["l", 3]),
)
fault(
    "pages-damaged-whole",
    "A flipped bit in a page: the whole tree is not given.",
    "PAGE-003",
    "pages-base",
    [flip(2)],
    "manifest-digest",
    ALL,
)
fault(
    "pages-damaged-stack",
    "A flipped bit in a row of a stack: other rows are given.",
    "BLK-004 BLK-005 STACK-003",
    "pages-base",
    [
        {
            "do": "flip_bit",
            "at": {"region": {"tensor": ["layers", {"int": "1"}, "w"], "chunk": 0}, "offset": 1},
            "bit": 3,
        }
    ],
    {"error": {"any_of": ["block-digest"], "tensor": "layers/1/w", "chunk": 0, "block": 0}},
    {"op": "read", "path": ["layers", {"int": "1"}, "w"]},
    still=(["layers", 0, "w"], ["layers", 2, "w"], ["w"]),
)
DIGEST_OF_TIED = _BASE.page(3)["chunks"]["digest"][-32:]
(OFFSET_OF_TIED,) = struct.unpack("<Q", _BASE.page(3)["chunks"]["offset"][-8:])
FOUND: dict[str, tuple[str, str, str, Steps, list[str]]] = {
    "tensors": ("a damaged page of tensors", "PAGE-009 BLK-007 FRM-007", "pages-base", [flip(1)], ["manifest-digest"]),
    "tree": ("a damaged page of the tree", "PAGE-009 BLK-007", "pages-nodes", [flip(3)], ["manifest-digest"]),
    "pages": ("two damaged pages", "PAGE-009 BLK-007", "pages-nodes", [flip(0), flip(2)], ["manifest-digest"] * 2),
    "plain-keys-false": (
        "`plain_keys` that is false, though all keys are plain",
        "PAGE-008 PAGE-009",
        "pages-nodes",
        edit("/plain_keys", False),
        ["bad-manifest"],
    ),
    "plain-keys-true": (
        "`plain_keys` that is true, though a key is not plain",
        "PAGE-008 PAGE-009",
        "pages-odd-keys",
        edit("/plain_keys", True),
        ["bad-manifest"],
    ),
    "name": (
        "a name that is not that of its path",
        "PAGE-005 PAGE-009",
        "pages-nodes",
        [column("/name", b"u\n", 0), *edit("/tensors/first", ["u"])],
        ["bad-manifest"],
    ),
    "name-escape": (
        "a name with an escape that the key does not need",
        "PAGE-005 NAME-002",
        "pages-nodes",
        [column("/name", b"~74\n", 0), *edit("/tensors/first", ["~74"])],
        ["bad-manifest"],
    ),
    "name-no-escape": (
        "a name with an escape that is none",
        "PAGE-005",
        "pages-nodes",
        [column("/name", b"~zz\n", 0), *edit("/tensors/first", ["~zz"])],
        ["bad-manifest"],
    ),
    "name-digits": (
        "a name of more digits than an int key may have",
        "PAGE-005",
        "pages-nodes",
        [column("/name", b"9" * 5000 + b"\n", 0), *edit("/tensors/first", ["9" * 5000])],
        ["bad-manifest"],
    ),
    "fingerprint": (
        "a fingerprint that is not that of the tensors",
        "SCH-002 PAGE-009",
        "pages-xxh3-128",
        edit("/schema/fingerprint", bytes(32)),
        ["bad-manifest"],
    ),
    "overlap": (
        "chunks of different pages that overlap",
        "CHK-005 PAGE-009 FRM-007",
        "pages-base",
        [column("/chunks/offset", u64(OFFSET_OF_TIED), 4), column("/chunks/digest", DIGEST_OF_TIED, 4)],
        ["bad-extent"],
    ),
    "tensors-and-frame": (
        "a damaged page of tensors, and not the changed node document, as nobody knows where chunks are",
        "FRM-007",
        "pages-base",
        [flip(1), {"do": "flip_bit", "at": {"object": "", "offset": 60}, "bit": 0}],
        ["manifest-digest"],
    ),
    "tree-and-frame": (
        "a damaged page of the tree, and a changed node document",
        "FRM-004 PAGE-009",
        "pages-nodes",
        [flip(3), {"do": "flip_bit", "at": {"object": "", "offset": 60}, "bit": 0}],
        ["manifest-digest", "frame-digest"],
    ),
    "frame": (
        "a changed node document",
        "FRM-001 FRM-004",
        "pages-base",
        [{"do": "flip_bit", "at": {"object": "", "offset": 60}, "bit": 0}],
        ["frame-digest"],
    ),
}
for _name, (_title, _spec, _base, _steps, _codes) in FOUND.items():
    verified(
        f"pages-verify-{_name}",
        f"A whole verification reports {_title}, and nothing else.",
        _spec,
        _base,
        [*_steps, RESEAL] if "flip" not in str(_steps) else _steps,
        *[{"code": code} for code in _codes],
    )
verified(
    "pages-verify-page-and-block",
    "A whole verification reports a damaged page, and a block of a tensor in another.",
    "PAGE-009 BLK-007",
    "pages-base",
    [flip(1), {"do": "flip_bit", "at": {"region": {"tensor": ["big"], "chunk": 0}, "offset": 4500}, "bit": 1}],
    {"code": "manifest-digest"},
    {"code": "block-digest", "tensor": "big", "chunk": 0, "block": 1},
)
