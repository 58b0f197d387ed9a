"""Paged manifests that every reader has to accept, and what it may read of them. SPEC.md sections 7.1 and 7.2."""

from __future__ import annotations

from typing import Any

from ..build import Checkpoint
from ..model import Form, Scalar, Tag, Tensor, tensor
from ..packing import pack_long
from ..pages import Paging
from . import fault, msgpack, plain, valid, value_of, verified
from .codecs import gzip, gzip_stored
from .large import STACK

SMALL = Paging(3, 100)  # so that little is in a page, and there are several
_TIED = tensor("float32", (3,), "tied")
TREE: dict[str, Any] = {
    "w": tensor("float32", (3,), "w"),
    "step": 7,
    "layers": [{"w": tensor("bfloat16", (2,), str(i)), "b": tensor("bfloat16", (), str(i))} for i in range(3)],
    "text": "x" * 200,
    "list": list(range(150)),
    "opt": {0: tensor("bool", (9,)), "name": "adam", 1: (tensor("int4", (2, 3)), None)},
    "tied": [_TIED, (_TIED, None)],
    "empty": tensor("int8", (0, 3)),
    "big": tensor("uint8", (2, 5000), "big", grid=(1, 5000)),
    "grid": tensor("int32", (4, 4), "grid", grid=(2, 2)),
}
ODD = {
    "": 1,
    "a/b": tensor("int8", (2,), "1"),
    "0": [tensor("int8", (2,), "2"), "ü" * 60],
    0: tensor("int8", (2,), "3"),
}

valid(
    "pages-base",
    "Pages of tensors and of the tree.",
    "PAGE-001 PAGE-002 PAGE-004 PAGE-006",
    Checkpoint(TREE, paged=SMALL),
)
valid(
    "pages-xxh3-128",
    "Pages, and blocks with xxh3-128 digests; metadata and a schema.",
    "PAGE-001 SCH-002",
    Checkpoint(TREE, metadata={"a": 1}, schema=("llama", "3"), digest="xxh3-128", paged=SMALL),
)
valid(
    "pages-list",
    "What a paged checkpoint says of itself.",
    "PAGE-001 SCH-001",
    Checkpoint(TREE, metadata={"a": 1}, schema=("llama", "3"), paged=SMALL),
    {"op": "list"},
    {
        "tree": value_of(TREE),
        "metadata": value_of({"a": 1}),
        "schema": {"id": "llama", "version": "3"},
    },
)
valid(
    "pages-odd-keys",
    "Keys with a slash, none, and texts of ints.",
    "PAGE-005 PAGE-008 NAME-003",
    Checkpoint(ODD, paged=SMALL),
)
valid("pages-root-tensor", "A tree that is one small tensor.", "PAGE-005 NAME-005", Checkpoint(_TIED, paged=SMALL))
valid(
    "pages-root-large-tensor",
    "A tree that is one tensor, which stands in no stack.",
    "PAGE-005 NAME-005 STACK-001",
    Checkpoint(tensor("uint8", (65_536,), "big"), paged=SMALL),
)
valid("pages-root-page", "A tree that is one long string.", "PAGE-006", Checkpoint("x" * 300, paged=SMALL))
valid("pages-no-tensors", "Pages of the tree alone.", "PAGE-004", Checkpoint({"l": list(range(200))}, paged=SMALL))
valid(
    "pages-many",
    "Forty pages of the tree, which are joined.",
    "PAGE-007",
    Checkpoint(["x" * 50] * 40, paged=Paging(3, 58)),
)
valid(
    "pages-one-each",
    "Pages of one tensor each.",
    "PAGE-004",
    Checkpoint({key: tensor("int8", (2,), key) for key in "abc"}, paged=Paging(1, 10_000)),
)
valid("pages-none", "A paged manifest without pages.", "PAGE-002 PAGE-004", Checkpoint({"a": 1}, paged=SMALL))
valid(
    "pages-empty-tensors",
    "Pages of tensors without chunks.",
    "PAGE-004",
    Checkpoint([tensor("int8", (0, i)) for i in range(4)], paged=SMALL),
)
valid(
    "pages-longest-forms",
    "Pages and manifest in the longest forms of msgpack.",
    "PAGE-013 MAN-012",
    Checkpoint(TREE, pack=pack_long, paged=SMALL),
)
valid(
    "pages-tags",
    "Tags over what is in pages, and over tensors.",
    "PAGE-006 PAGE-011",
    Checkpoint(
        Tag(
            "collections.OrderedDict",
            None,
            {
                "t": Tag("numpy.datetime64", "s", tensor("int64", (2,), "t")),
                "l": list(range(120)),
                "s": Scalar("int8", b"\1"),
            },
        ),
        paged=SMALL,
    ),
    needs=("reader", "tag:collections.OrderedDict", "tag:numpy"),
)
valid(
    "pages-unknown-tag",
    "A tag that nobody knows, over what is in pages.",
    "TAG-001 PAGE-006",
    Checkpoint({"x": Tag("example.org/Tag", {"a": 1}, list(range(120)))}, paged=SMALL),
)
valid(
    "pages-codec",
    "A compressed tensor, which stands in no stack.",
    "STACK-001 ZARR-006",
    Checkpoint(
        {
            "x": Tensor(
                "uint8",
                (4,),
                b"\1\2\3\4",
                chain=gzip(0),
                stored={(0,): gzip_stored(b"\1\2\3\4")},
            ),
            "y": tensor("uint8", (4,), "y"),
        },
        paged=SMALL,
    ),
)
plain(
    "pages-stack-chunks",
    "A stack of two chunks, the last of which is not full.",
    "STACK-003 ZARR-004",
    {"build": "stack", "generated": True},
    {"op": "read", "path": ["t64"]},
    {"value": STACK["t64"].value(None)},
    needs=("reader", "layout:file", "digest:sha256", "pages"),
)
plain(
    "pages-stack-chunks-verify",
    "Zeros after the last row of a stack are of the frame: a whole verification finds nothing.",
    "STACK-004 FRM-001",
    {"build": "stack", "generated": True},
    {"op": "verify"},
    {"damage": []},
    needs=("reader", "verify", "layout:file", "digest:sha256", "pages"),
)
valid(
    "pages-4097",
    "4097 tensors, in two pages as a canonical writer makes them.",
    "PAGE-011",
    Checkpoint([Tensor("uint16", (), i.to_bytes(2, "little")) for i in range(4097)], paged=Paging()),
    {"op": "read", "path": [{"int": "4096"}]},
)


def _joined(*pieces: Any) -> Any:
    return ["joined", list(pieces), [len(piece[-1]) for piece in pieces]]


def _nested(depth: int, value: Any) -> Any:
    for _ in range(depth):
        value = [value]
    return value


valid(
    "pages-joined-inline",
    "What is joined may stand in the manifest, too, and be of one piece.",
    "PAGE-007",
    Checkpoint(
        {
            "one": Form(_joined(["list", [1, 2]]), [1, 2]),
            "two": Form(_joined(["tuple", [1]], ["tuple", []], ["tuple", [2]]), (1, 2)),
            "dict": Form(_joined(["dict", ["a"], [1]], ["dict", ["b"], [2]]), {"a": 1, "b": 2}),
            "none": Form(_joined(["list", []]), []),
        },
        paged=Paging(3, 10_000),
    ),
)

# ---- parts of it

PARTS: dict[str, list[Any]] = {
    "tensor": ["w"],
    "tensor-in-list": ["layers", 1, "w"],
    "alias": ["tied", 1, 0],
    "large": ["big"],
    "grid": ["grid"],
    "empty": ["empty"],
    "long-text": ["text"],
    "item-of-joined": ["list", 149],
    "container": ["layers"],
    "plain": ["opt", "name"],
}
for _name, _path in PARTS.items():
    valid(
        f"pages-read-{_name}",
        f"A part of a paged checkpoint: {'/'.join(map(str, _path))}.",
        "PAGE-003 PAGE-009 PAGE-015",
        Checkpoint(TREE, paged=SMALL),
        {"op": "read", "path": [key if isinstance(key, str) else {"int": str(key)} for key in _path]},
    )
for _name, _missing in {
    "missing": ["nosuch"],
    "missing-item": ["list", {"int": "150"}],
    "below-leaf": ["step", "x"],
}.items():
    plain(
        f"pages-read-{_name}",
        "A path that the tree of a paged checkpoint does not have.",
        "PAGE-009",
        {"mutation": {"base": "pages-base", "steps": []}, "generated": True},
        {"op": "read", "path": _missing},
        {"error": {"any_of": ["no-such-path"]}},
        needs=("reader", "layout:file", "digest:sha256", "pages"),
    )
valid(
    "pages-slice-large",
    "A slice of a tensor that stands in no stack reads the blocks of that alone.",
    "READ-003 READ-004",
    Checkpoint(TREE, paged=SMALL),
    {"op": "read_slice", "path": ["big"], "slices": [[1, 2, 1], [4000, 4100, 1]]},
    {"value": Tensor("uint8", (1, 100), TREE["big"].data[9000:9100]).value(None)},
)

_PARAM = Tag("example.org/x", {"a/b": 1, "": {"0": 2}}, [tensor("int8", (2,), "p"), 5])
for _name, _operation, _expected in (
    ("", None, None),
    ("-verify", {"op": "verify"}, {"damage": []}),
):
    valid(
        f"pages-plain-keys-param{_name}",
        "Keys in metadata and in the param of a tag are not of the tree: `plain_keys` is true all the same.",
        "PAGE-008",
        Checkpoint({"t": _PARAM}, metadata={"a/b": 1, "0": 2}, paged=SMALL),
        _operation,
        _expected,
        needs=("reader", *(["verify"] if _name else [])),
    )

NODES = {"l": list(range(90)), "s": "x" * 70, "t": tensor("int8", (2,), "t")}
valid(
    "pages-nodes",
    "Pages of the tree that are joined, and one of a leaf.",
    "PAGE-006 PAGE-007",
    Checkpoint(NODES, paged=Paging(3, 64)),
)
valid(
    "pages-deepest",
    "Neither form of references adds to the depth of what it stands for.",
    "PAGE-007 TREE-012",
    Checkpoint(_nested(255, list(range(90))), paged=Paging(3, 2000)),
)
for _base in (
    "base",
    "odd-keys",
    "root-tensor",
    "no-tensors",
    "none",
    "empty-tensors",
    "tags",
    "codec",
):
    verified(
        f"pages-verify-clean-{_base}",
        f"A whole verification of the case pages-{_base} finds nothing.",
        "BLK-007 PAGE-009 FRM-001",
        f"pages-{_base}",
        [],
        generated=True,
    )
fault(
    "pages-later-minor",
    "A later minor version whose manifest is paged.",
    "VER-003 PAGE-001",
    "pages-base",
    [
        {"do": "edit_manifest", "pointer": "/format", "msgpack": msgpack([1, 7])},
        {"do": "edit_manifest", "pointer": "/later", "msgpack": msgpack({"a": 1})},
        {"do": "reseal", "version": "1.7"},
    ],
    {"value": value_of(TREE)},
    {"op": "read", "path": []},
)
fault(
    "pages-unknown-keys",
    "Keys that nobody knows, in the manifest and in a page of tensors.",
    "MAN-003 PAGE-013",
    "pages-base",
    [
        {"do": "edit_manifest", "pointer": "/pages/later", "msgpack": msgpack(1)},
        {"do": "edit_manifest", "pointer": "/tensors/later", "msgpack": msgpack(1)},
        *(
            {"do": "edit_manifest", "pointer": f"{at}later", "msgpack": msgpack(1), "page": 4}
            for at in ("/", "/kinds/")
        ),
        {"do": "reseal"},
    ],
    {"value": value_of(TREE)},
    {"op": "read", "path": []},
)
