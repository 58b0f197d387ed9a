"""Pages that lie or are damaged, and what is read of the others. SPEC.md section 7.1."""

from __future__ import annotations

import struct
from typing import Any

from ..cases import flatten
from ..packing import Literal, pack
from ..recipes import Mutation
from . import ENTRIES, edit, fault, msgpack, remove, value_of, verified

ALL = {"op": "read", "path": []}
RESEAL: dict[str, Any] = {"do": "reseal"}
Steps = list[dict[str, Any]]


def node(pointer: str, item: Any) -> dict[str, Any]:
    """A step that puts another node into the tree of the manifest."""
    return {"do": "edit_manifest", "pointer": f"/tree{pointer}", "msgpack": msgpack(item)}


def page(number: int, item: Any) -> dict[str, Any]:
    """A step that makes another page."""
    raw = item if isinstance(item, bytes) else pack(item)
    return {"do": "replace_manifest", "hex": raw.hex(), "page": number}


def column(pointer: str, item: Any, number: int = 1) -> dict[str, Any]:
    """A step that puts another item into a page of tensors; None takes it away."""
    raw = "" if item is None else msgpack(item)
    return {"do": "edit_manifest", "pointer": pointer, "msgpack": raw, "page": number}


def u32(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def u64(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)


SOON_OR_LATE = {"error": {"any_of": ["bad-manifest"], "at_opening": True}}  # [PAGE-014]

# ---- references: the pages of `pages-nodes` are one of tensors, two that are joined at `l`, and one at `s`

L, S, T = "/2/0", "/2/1", "/2/2"


def counted(*counts: Any) -> dict[str, Any]:
    """A step that gives what is joined other counts."""
    return node(L, ["joined", [["page", 1], ["page", 2]], list(counts)])


REFERENCES: dict[str, tuple[str, str, Steps]] = {
    "beyond": ("a page that is not there", "PAGE-006", [node(S, ["page", 4])]),
    "of-tensors": ("a page of tensors", "PAGE-006", [node(S, ["page", 0])]),
    "negative": ("a page of a negative number", "PAGE-006", [node(S, ["page", -1])]),
    "float": ("a page of no integer number", "PAGE-006", [node(S, ["page", 3.0])]),
    "bool": (
        "a page of the number `true`",
        "PAGE-006",
        [node(S, ["page", True]), node(L, ["joined", [["page", 2]], [26]])],
    ),
    "text": ("a page of a name", "PAGE-006", [node(S, ["page", "3"])]),
    "no-number": ("a page without a number", "PAGE-006", [node(S, ["page"])]),
    "further-item": ("a page with a further item", "PAGE-006", [node(S, ["page", 3, 0])]),
    "twice": ("a page that is referred to twice", "PAGE-006", [node(T, ["list", [["tensor", 0], ["page", 3]]])]),
    "never": ("a page that is referred to nowhere", "PAGE-006", [node(S, "x")]),
    "self": ("a page that refers to itself", "PAGE-006", [page(3, ["list", [["page", 3]]])]),
    "forward": ("a page that refers to a later one", "PAGE-006", [page(1, ["list", [["page", 3]]]), node(S, 1)]),
    "circle": (
        "two pages that refer to each other, and are referred to nowhere else",
        "PAGE-006",
        [page(2, ["list", [["page", 3]]]), page(3, ["list", [["page", 2]]]), node(L, ["page", 1]), node(S, 1)],
    ),
    "to-page": (
        "a page that is nothing but a reference",
        "PAGE-006",
        [page(3, ["page", 2]), node(L, ["joined", [["page", 1]], [64]])],
    ),
    "to-joined": (
        "a page that is a joined node",
        "PAGE-006",
        [page(3, ["joined", [["page", 2]], [26]]), node(L, ["joined", [["page", 1]], [64]])],
    ),
    "in-param": (
        "a reference in the param of a tag",
        "PAGE-007 TREE-014",
        [node(T, ["tag", "example.org/x", ["page", 3], ["tensor", 0]]), node(S, 1)],
    ),
    "joined-in-param": (
        "a joined node in the param of a tag",
        "PAGE-007",
        [node(T, ["tag", "example.org/x", ["joined", [["list", []]], [0]], ["tensor", 0]])],
    ),
    "joined-nothing": ("a joined node of nothing", "PAGE-007", [node(S, ["list", [["page", 3], ["joined", [], []]]])]),
    "joined-no-array": (
        "a joined node without an array",
        "PAGE-007",
        [node(S, ["list", [["page", 3], ["joined", 5, []]]])],
    ),
    "joined-further-item": (
        "a joined node with a further item",
        "PAGE-007",
        [node(L, ["joined", [["page", 1], ["page", 2]], [64, 26], 0])],
    ),
    "joined-kinds": ("a list joined with a tuple", "PAGE-007", [page(2, ["tuple", [1]]), counted(64, 1)]),
    "joined-dict-list": ("a list joined with a dict", "PAGE-007", [page(2, ["dict", [1], [1]]), counted(64, 1)]),
    "joined-leaf": ("a list joined with a page of a leaf", "PAGE-007", [page(2, 7), counted(64, 1)]),
    "joined-inline-leaf": (
        "a list joined with a leaf",
        "PAGE-007",
        [node(L, ["joined", [["page", 1], ["page", 2], 7], [64, 26, 1]])],
    ),
    "joined-tag": (
        "a list joined with a tagged one",
        "PAGE-007",
        [page(2, ["tag", "example.org/x", None, ["list", []]]), counted(64, 0)],
    ),
    "joined-leaves": ("leaves that are joined", "PAGE-007", [page(1, "a"), page(2, "b"), counted(1, 1)]),
    "joined-tensors": (
        "tensors that are joined",
        "PAGE-007",
        [node(T, ["joined", [["tensor", 0]], [0]])],
    ),
    "joined-joined": (
        "a joined node of a joined node",
        "PAGE-007",
        [node(L, ["joined", [["joined", [["page", 1], ["page", 2]], [64, 26]]], [90]])],
    ),
    "joined-deep": (
        "joined nodes in joined nodes, hundreds deep",
        "PAGE-007",
        [node(S, ["list", [["page", 3], Literal(b"\x93\xa6joined\x91" * 490 + pack(["list", []]) + b"\x91\0" * 490)]])],
    ),
    "joined-no-counts": ("a joined node without counts", "PAGE-007", [node(L, ["joined", [["page", 1], ["page", 2]]])]),
    "joined-fewer-counts": ("a joined node with a count too few", "PAGE-007", [counted(64)]),
    "joined-more-counts": ("a joined node with a count too many", "PAGE-007", [counted(64, 26, 0)]),
    "joined-other-counts": ("a joined node with counts of other pages", "PAGE-007", [counted(26, 64)]),
    "joined-count-less": ("a joined node that counts an item less", "PAGE-007", [counted(64, 25)]),
    "joined-inline-count-less": (
        "a joined node that counts an item less of what stands in it",
        "PAGE-007",
        [node(L, ["joined", [["page", 1], ["page", 2], ["list", [7, 8]]], [64, 26, 1]])],
    ),
    "joined-inline-count-more": (
        "a joined node that counts an item more of what stands in it",
        "PAGE-007",
        [node(L, ["joined", [["list", []], ["page", 1], ["page", 2]], [1, 64, 26]])],
    ),
    "joined-inline-kinds": (
        "a page of a list joined with a tuple that stands there",
        "PAGE-007",
        [node(L, ["joined", [["page", 1], ["page", 2], ["tuple", [7]]], [64, 26, 1]])],
    ),
    "joined-count-float": ("a joined node with a count that is no integer", "PAGE-007", [counted(64, 26.0)]),
    "joined-count-negative": ("a joined node with a negative count", "PAGE-007", [counted(64, -26)]),
    "joined-count-bool": (
        "a joined node with a count that is `true`",
        "PAGE-007",
        [page(2, ["list", [1]]), node(L, ["joined", [["page", 1], ["page", 2]], [64, True]])],
    ),
    "joined-repeats": (
        "a key in two dicts that are joined",
        "PAGE-007 TREE-006",
        [page(1, ["dict", ["a"], [1]]), page(2, ["dict", ["a"], [2]]), counted(1, 1)],
    ),
    "joined-repeats-int": (
        "a key in two dicts that are joined, in two forms",
        "PAGE-007 TREE-006",
        [page(1, ["dict", [5], [1]]), page(2, ["dict", [["int", b"\5"]], [2]]), counted(1, 1)],
    ),
    "joined-other-length": (
        "dicts that are joined, each with other numbers of keys and values, which make up for each other",
        "PAGE-007 TREE-006",
        [page(1, ["dict", ["a"], []]), page(2, ["dict", ["b"], [1, 2]]), counted(0, 2)],
    ),
    "node-map": ("a page that is a map", "TREE-001 PAGE-013", [page(3, {})]),
    "node-form": ("a page that is no node", "TREE-001 PAGE-013", [page(3, ["list", 5])]),
    "node-empty": ("a page that is an empty array", "TREE-001", [page(3, [])]),
    "node-key": ("a page with a key that is nil", "TREE-007", [page(3, ["dict", [None], [1]])]),
    "node-too-deep": (
        "a page with lists that are nested one deeper than is allowed",
        "TREE-012 PAGE-007",
        [page(3, b"\x92\xa4list\x91" * 255 + pack(["list", []]))],
    ),
    "node-tensor": ("a page with a tensor that is not there", "TREE-009", [page(3, ["tensor", 1])]),
    "two-items": ("a page of two items", "PAGE-013 MAN-001", [page(3, b"\1\1")]),
    "cut-off": ("a page that ends within an item", "PAGE-013 MAN-001", [page(3, b"\x92\1")]),
    "extension": ("a page with an extension type", "PAGE-013 MAN-001", [page(3, b"\x92\xa4list\x91\xd4\5\0")]),
    "unused-tensor": ("a tensor that stands nowhere in the tree", "TREE-009 PAGE-009", [node(T, 1)]),
    "tensor-beyond": (
        "a tensor that is not there",
        "TREE-009 PAGE-009",
        [node(T, ["list", [["tensor", 0], ["tensor", 1]]])],
    ),
}
for _name, (_title, _spec, _steps) in REFERENCES.items():
    fault(
        f"pages-tree-{_name}",
        f"The tree of a paged manifest has {_title}.",
        f"{_spec if 'PAGE-009' in _spec else f'{_spec} PAGE-009'} PAGE-014",
        "pages-nodes",
        [*_steps, RESEAL],
        SOON_OR_LATE,
        ALL,
    )
    if _name in ("never", "twice", "joined-kinds", "unused-tensor"):
        verified(
            f"pages-verify-tree-{_name}",
            f"A whole verification tells that the tree of a paged manifest has {_title}.",
            f"{_spec} PAGE-009 BLK-007",
            "pages-nodes",
            [*_steps, RESEAL],
            {"code": "bad-manifest"},
        )
fault(
    "pages-tree-doubling",
    "Forty pages, each of which refers twice to the one before: they would stand for 2⁴⁰ nodes.",
    "PAGE-016 PAGE-006",
    "pages-many",
    [
        page(0, ["list", []]),
        *(page(number, ["list", [["page", number - 1]] * 2]) for number in range(1, 40)),
        {"do": "edit_manifest", "pointer": "/tree", "msgpack": msgpack(["page", 39])},
        RESEAL,
    ],
    SOON_OR_LATE,
    ALL,
)
fault(
    "pages-joined-mixed",
    "What is joined may stand in pages and in the manifest, one beside the other.",
    "PAGE-007",
    "pages-nodes",
    [node(L, ["joined", [["list", [-1]], ["page", 1], ["list", []], ["page", 2]], [1, 64, 0, 26]]), RESEAL],
    {"value": value_of([-1, *range(90)])},
    {"op": "read", "path": ["l"]},
)
fault(
    "pages-joined-mixed-item",
    "An item of a page that is joined with what stands in the manifest.",
    "PAGE-007",
    "pages-nodes",
    [node(L, ["joined", [["list", [-1]], ["page", 1], ["list", []], ["page", 2]], [1, 64, 0, 26]]), RESEAL],
    {"value": value_of(69)},
    {"op": "read", "path": ["l", {"int": "70"}]},
)
for _name, _item in {"page": ["page", 3], "joined": ["joined", [["list", []]], [0]]}.items():
    fault(
        f"pages-metadata-{_name}",
        f"A `{_name}` node in the metadata.",
        "PAGE-007",
        "pages-nodes",
        edit("/metadata", _item),
        "bad-manifest",
    )
    fault(
        f"pages-not-paged-{_name}",
        f"A `{_name}` node in a manifest that is not paged.",
        "PAGE-007 TREE-001",
        "tree-base",
        edit("/tree/2/0", _item),
        "bad-manifest",
    )

# ---- the manifest

MANIFEST: dict[str, tuple[str, str, str, Any]] = {
    "plain-keys-nil": ("`plain_keys` that is nil", "PAGE-001 MAN-002", "/plain_keys", None),
    "plain-keys-int": ("`plain_keys` that is 1", "PAGE-001 MAN-002", "/plain_keys", 1),
    "pages-nil": ("`pages` that is nil", "PAGE-001 MAN-002", "/pages", None),
    "pages-array": ("`pages` that is an array", "PAGE-001 MAN-002", "/pages", []),
    "offset-negative": ("pages before the file", "PAGE-002 MAN-002", "/pages/offset", -1),
    "offset-float": ("an offset of pages that is no integer", "PAGE-002 MAN-002", "/pages/offset", 1.0),
    "length-array": ("lengths of pages that are no bin", "PAGE-002 MAN-002", "/pages/length", [1]),
    "length-odd": ("a column of lengths that ends within one", "PAGE-002", "/pages/length", bytes(33)),
    "length-fewer": ("fewer lengths of pages than digests", "PAGE-002", "/pages/length", u64(1, 1, 1)),
    "sha256-shorter": ("a column of digests that ends within one", "PAGE-002", "/pages/sha256", bytes(127)),
    "parts": ("a part", "PAGE-001", "/parts", [{"object": "", "size": None, "frame": None, "chunks": {}}]),
    "parts-map": ("`parts` that is a map", "PAGE-001 MAN-002", "/parts", {}),
    "placement": ("`placement`", "PAGE-001 MAN-002", "/placement", {}),
    "tensors-columns": (
        "the columns of a manifest that is not paged",
        "PAGE-004 MAN-002",
        "/tensors",
        {"name": ["t"], "dtype": ["int8"], "shape": [[2]], "grid": [[2]], "codec": [0]},
    ),
    "first-no-text": ("a first name that is no text", "PAGE-004 MAN-002", "/tensors/first", [0]),
    "first-more": ("more first names than counts", "PAGE-004 MAN-007", "/tensors/first", ["t", "u"]),
    "count-array": ("counts that are no bin", "PAGE-004 MAN-002", "/tensors/count", [1]),
    "count-more": ("more counts than first names", "PAGE-004", "/tensors/count", u64(1, 1)),
    "count-zero": ("a page without tensors", "PAGE-004", "/tensors/count", u64(0)),
    "chunks-odd": ("a column of chunks that ends within one", "PAGE-004", "/tensors/chunks", bytes(7)),
    "chunks-2-62": ("2⁶² chunks", "LIM-006", "/tensors/chunks", u64(1 << 62)),
}
for _name, (_title, _spec, _pointer, _item) in MANIFEST.items():
    fault(
        f"pages-manifest-{_name}",
        f"A paged manifest with {_title}.",
        _spec,
        "pages-nodes",
        edit(_pointer, _item),
        "bad-manifest bad-extent" if _name == "offset-negative" else "bad-manifest",
    )
for _name, _pointer in {
    **{"plain-keys": "/plain_keys", "pages": "/pages", "parts": "/parts"},
    **{"offset": "/pages/offset", "length": "/pages/length", "sha256": "/pages/sha256"},
    **{"first": "/tensors/first", "count": "/tensors/count", "chunks": "/tensors/chunks"},
}.items():
    fault(
        f"pages-manifest-no-{_name}",
        f"A paged manifest without `{_pointer[1:]}`.",
        "PAGE-001 MAN-002",
        "pages-nodes",
        remove(_pointer),
        "bad-manifest",
    )
_LENGTHS = Mutation(flatten(ENTRIES["pages-nodes"].files or {})).page_lengths
EXTENTS: dict[str, tuple[str, str, Any]] = {
    "empty": ("a page of no bytes", "/pages/length", u64(1, 1, 1, 0)),
    "beyond": ("a page that reaches beyond the manifest's first byte", "/pages/length", u64(1, 1, 1, 1 << 30)),
    "far": ("a page of 2⁶³ bytes", "/pages/length", u64(1, 1, 1, 1 << 63)),
    "sum": ("pages whose lengths make up more than 2⁶⁴", "/pages/length", u64(*[(1 << 62) + 1] * 4)),
    "offset": ("pages behind the manifest", "/pages/offset", 1 << 30),
    "offset-far-2-63": ("pages from 2⁶³ on", "/pages/offset", 1 << 63),
    "offset-far-wraps": ("pages that would begin anew at 2⁶⁴", "/pages/offset", (1 << 64) - sum(_LENGTHS) + 64),
    "offset-far": ("pages from 2⁶³ − 1 on", "/pages/offset", (1 << 63) - 1),
}
for _name, (_title, _pointer, _item) in EXTENTS.items():
    fault(
        f"pages-extent-{_name}",
        f"A paged manifest with {_title}.",
        "PAGE-002" if "far" not in _name else "PAGE-002 MAN-011",
        "pages-nodes",
        edit(_pointer, _item),
        "bad-extent",
    )
for _name, _offset in {"beyond": 1 << 30, "far": 1 << 63}.items():
    fault(
        f"pages-none-{_name}",
        f"A paged manifest without pages, whose offset lies {_name} the manifest.".replace("far", "far beyond"),
        "PAGE-002",
        "pages-none",
        edit("/pages/offset", _offset),
        "bad-extent",
    )
fault(
    "pages-more-than-there-are",
    "More pages of tensors than there are pages.",
    "PAGE-004",
    "pages-nodes",
    [
        {"do": "edit_manifest", "pointer": "/tensors/first", "msgpack": msgpack(list("abcdt"))},
        {"do": "edit_manifest", "pointer": "/tensors/count", "msgpack": msgpack(u64(*[1] * 5))},
        *edit("/tensors/chunks", u64(*[1] * 5)),
    ],
    "bad-manifest",
)
for _name, _names in {"unsorted": ["w", "layers/1/w", "opt/0", "layers/0/b", "big"], "repeated": ["big"] * 5}.items():
    fault(
        f"pages-first-{_name}",
        f"First names of pages that are {_name}.",
        "PAGE-005",
        "pages-base",
        edit("/tensors/first", _names),
        "bad-manifest",
    )
fault(
    "pages-format-1-0",
    "A paged manifest that calls itself version 1.0.",
    "PAGE-001",
    "pages-nodes",
    [
        {"do": "edit_manifest", "pointer": "/format", "msgpack": msgpack([1, 0])},
        {"do": "reseal", "version": "1.0"},
    ],
    "bad-manifest",
)
fault(
    "pages-and-unknown-feature",
    "A feature that nobody knows beside `pages`.",
    "MAN-006",
    "pages-nodes",
    edit("/requires", ["pages", "no-such-feature"]),
    {"error": {"any_of": ["unknown-feature"]}},
)
fault(
    "pages-unknown-codec",
    "A paged manifest with a codec chain that nobody knows is refused when it is opened.",
    "ZARR-006",
    "pages-nodes",
    edit("/codecs", [[{"name": "bytes", "configuration": {"endian": "big"}}]]),
    "unknown-codec",
)
fault(
    "pages-not-required",
    "The pages of a manifest that does not require them are keys that nobody knows.",
    "MAN-002 MAN-003",
    "pages-nodes",
    edit("/requires", []),
    "bad-manifest",
    lacks=("pages",),
)
