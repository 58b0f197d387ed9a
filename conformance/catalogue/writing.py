"""Writing: trees that are written, judged byte by byte and read back by everyone; and what a writer must refuse.
SPEC.md sections 2 to 5, 9 and 11."""

from __future__ import annotations

import math
from typing import Any

from ..build import Checkpoint
from ..model import DTYPES, FIRST, Scalar, Tag, Tensor, pattern, tensor
from . import plain, valid, value_of
from .names import ODD
from .trees import VALUES

JUDGED = (
    "MAN-001 MAN-002 MAN-009 COM-001 COM-002 COM-003 CHK-001 CHK-004 CHK-005 BLK-001 BLK-002 FRM-001 ZARR-001 ZARR-012"
)


def features(options: dict[str, Any]) -> list[str]:
    found = ["write", f"layout:{options.get('layout', 'file')}", f"digest:{options.get('digest', 'xxh3-128')}"]
    return [*found, f"codec:{options['compression']}"] if options.get("compression") else found


LATER_DTYPE = Tensor("float8_e5m3fnu", (5, 3), bytes([0, 1, 7, 8, 0x78, *range(0xF6, 0x100)]))


def written(
    identity: str,
    title: str,
    spec: str,
    tree: Any,
    *,
    metadata: Any = None,
    needs: list[str] | None = None,
    **options: Any,
) -> None:
    """A tree that is written and read back."""
    value = tree if isinstance(tree, dict) and "type" in tree else value_of(tree)
    operation: dict[str, Any] = {"op": "write", "tree": value, "options": options}
    expect: dict[str, Any] = {"tree": _meant(value)}
    if metadata is not None:
        operation["metadata"] = expect["metadata"] = value_of(metadata)
    plain(identity, title, spec, None, operation, expect, needs=[*features(options), *(needs or [])])


def _meant(value: dict[str, Any]) -> dict[str, Any]:
    """A value in which repeated bytes are written out."""
    if value["type"] == "tensor" and "repeat" in value:
        unit = bytes.fromhex(value["repeat"])
        size = math.prod(value["shape"]) * DTYPES[value["dtype"]].size
        whole = (unit * (size // len(unit) + 1))[:size]
        return Tensor(value["dtype"], tuple(value["shape"]), whole).value(value.get("index"))
    if value["type"] == "dict":
        return {**value, "items": [[key, _meant(item)] for key, item in value["items"]]}
    return value


def refused(
    identity: str,
    title: str,
    spec: str,
    tree: dict[str, Any],
    codes: str,
    *,
    source: dict[str, Any] | None = None,
    name: str | None = None,
    **options: Any,
) -> None:
    """A tree that a writer must refuse, without leaving anything."""
    operation: dict[str, Any] = {"op": "write", "tree": tree, "options": options}
    if name is not None:
        operation["name"] = name
    plain(identity, title, spec, source, operation, {"error": {"any_of": codes.split()}}, needs=features(options))


def items(*pairs: tuple[Any, dict[str, Any]]) -> dict[str, Any]:
    return {"type": "dict", "items": [list(pair) for pair in pairs]}


# ---- what is written

PACKED = "LAY-002 LAY-004 LAY-005 CHK-001 CHK-003 CHK-004 CHK-005 CHK-006 CHK-008 FRM-003 PACK-001 PACK-002 PACK-007"

W, TIED = tensor("float32", (3, 4), "w"), tensor("float32", (3,), "tied")
BASE = {"step": 7, "w": W, "list": [TIED, (TIED, None)], "opt": {0: tensor("bfloat16", (5,), "b")}}
for _digest in ("xxh3-128", "sha256", "blake3"):
    written(
        f"write-packed-{_digest}",
        f"A small tree in layout packed with {_digest} digests.",
        f"{PACKED} COM-001 COM-003 BLK-002",
        BASE,
        metadata={"a": 1},
        layout="packed",
        digest=_digest,
    )
written(
    "write-packed-gzip",
    "Compressed tensors, and tensors of every dtype, in layout packed.",
    f"{PACKED} ZARR-016",
    {"x": tensor("int32", (10, 20), "c"), "all": {dtype: tensor(dtype, (3, 5)) for dtype in FIRST}},
    layout="packed",
    digest="sha256",
    compression="gzip",
)
written("write-packed-no-tensors", "A tree without tensors in layout packed.", PACKED, {"a": [1]}, layout="packed")
for _layout in ("file", "loose"):
    for _digest in ("xxh3-128", "sha256", "blake3"):
        _frame = "LAY-001" if _layout == "file" else "LAY-002 LAY-003 FRM-002"
        written(
            f"write-{_layout}-{_digest}",
            f"A small tree in layout {_layout} with {_digest} digests.",
            f"{JUDGED} {_frame}",
            BASE,
            metadata={"a": 1},
            layout=_layout,
            digest=_digest,
        )
    for _codec in ("zstd", "gzip", "blosc"):
        written(
            f"write-{_layout}-{_codec}",
            f"Tensors compressed with {_codec}, layout {_layout}.",
            "ZARR-006 ZARR-011 ZARR-016",
            {"x": tensor("int32", (10, 20), "c"), "y": W},
            layout=_layout,
            digest="sha256",
            compression=_codec,
        )
    written(
        f"write-dtypes-{_layout}",
        f"Every dtype, with several shapes, in layout {_layout}.",
        "DTYPE-001 DTYPE-002 DTYPE-003 DTYPE-004 DTYPE-005 ZARR-003 ZARR-013 ZARR-014",
        {dtype: [tensor(dtype, shape) for shape in ((3, 5), (), (9,), (0, 2))] for dtype in FIRST},
        layout=_layout,
        digest="sha256",
    )
    written(
        f"write-later-dtypes-{_layout}",
        f"What only a later version has: a tensor and a scalar of it, in layout {_layout}.",
        "DTYPE-001 DTYPE-002 DTYPE-011 FMT-001 ZARR-014",
        {"x": LATER_DTYPE, "s": Scalar(LATER_DTYPE.dtype, b"\x78")},
        layout=_layout,
        digest="sha256",
    )
    written(
        f"write-names-{_layout}",
        f"Keys that need escapes, in layout {_layout}.",
        "NAME-001 NAME-002 NAME-003 NAME-004 NAME-006",
        {
            **{key: tensor("uint8", (1,), key) for key in ODD},
            7: tensor("uint8", (1,), "7"),
            -(2**70): tensor("uint8", (1,), "l"),
        },
        layout=_layout,
        digest="sha256",
    )
    written(
        f"write-root-tensor-{_layout}",
        f"One tensor alone, in layout {_layout}.",
        "NAME-005 ZARR-001",
        W,
        layout=_layout,
        digest="sha256",
    )
    written(
        f"write-no-tensors-{_layout}",
        f"Plain values alone, in layout {_layout}.",
        "ZARR-001",
        {"a": [1, 2.5, "x"]},
        layout=_layout,
        digest="sha256",
    )
    written(
        f"write-schema-{_layout}",
        f"A schema, in layout {_layout}.",
        "SCH-001 SCH-002",
        {"b": W, "a": tensor("int4", (3,), "q"), "c": {"d": TIED}},
        layout=_layout,
        digest="sha256",
        schema=["llama", "3"],
    )
for _name, (_title, _spec, _tree) in VALUES.items():
    if _name not in ("int-not-shortest", "dict-key-not-shortest", "many-keys", "byte-strings", "strings"):
        written(
            f"write-tree-{_name}",
            f"Written and read back: {_title}",
            f"{_spec} TREE-002 TREE-004 TREE-008",
            _tree,
            digest="sha256",
        )
written(
    "write-tree-strings",
    "Strings are written as UTF-8.",
    "TREE-001 TREE-015",
    ["", "ü", "😀", "\0", "x" * 300],
    digest="sha256",
)
written("write-tree-bytes", "Bytes.", "TREE-001", [b"", bytes(range(256))], digest="sha256")
written(
    "write-aliases",
    "One tensor at several places is stored once.",
    "TREE-010 TREE-011 TREE-016",
    {"z": TIED, "a": TIED, "m": [W, TIED]},
    digest="sha256",
)
written(
    "write-blocks",
    "A tensor of more than one block of any usual size.",
    "BLK-001 PACK-002",
    items(
        ("small", TIED.value(0)),
        ("x", {"type": "tensor", "index": 1, "dtype": "uint16", "shape": [3_000_001], "repeat": "010203"}),
    ),
    digest="sha256",
)
written(
    "write-edge-chunks",
    "A compressed tensor whose last chunk is not full: padding is zero.",
    "ZARR-004 ZARR-011 ZARR-005",
    items(("x", {"type": "tensor", "index": 0, "dtype": "uint8", "shape": [1031, 16_500], "repeat": "07"})),
    digest="sha256",
    compression="gzip",
)
written(
    "write-tags",
    "Values that are written as tagged nodes.",
    "TAG-006 TREE-001",
    {
        "ordered": Tag("collections.OrderedDict", None, {"b": 1, "a": 2}),
        "time": Tag("numpy.datetime64", "s", tensor("int64", (2,), "t")),
        "span": Tag("numpy.timedelta64", "25ms", Scalar("int64", bytes(8))),
        "str": Tag("numpy.str_", None, "a"),
        "bytes": Tag("numpy.bytes_", None, b"a"),
    },
    needs=["tag:collections.OrderedDict", "tag:numpy"],
    digest="sha256",
)
_VIEW = {"type": "tensor", "dtype": "int32", "shape": [4], "view": [0, 2]}
_WHOLE = tensor("int32", (8,), "v")
plain(
    "write-overlapping",
    "Leaves that share memory and are no aliases become tensors of their own, and are reported.",
    "TREE-011",
    None,
    {"op": "write", "tree": items(("all", _WHOLE.value(0)), ("part", _VIEW)), "options": {"digest": "sha256"}},
    {
        "tree": items(("all", _WHOLE.value(0)), ("part", Tensor("int32", (4,), _WHOLE.data[8:24]).value(1))),
        "overlaps": [["all", "part"]],
    },
    needs=["write", "layout:file", "digest:sha256"],
)

for _layout in ("file", "loose"):
    plain(
        f"write-canonical-{_layout}",
        f"The canonical bytes of a checkpoint, in layout {_layout}.",
        "MAN-004 PACK-001 PACK-004 PACK-005 PACK-007 PACK-008" if _layout == "file" else "MAN-004",
        None,
        {"op": "write", "tree": value_of(BASE), "options": {"layout": _layout, "digest": "sha256"}},
        {"tree": value_of(BASE)},
        needs=["canonical", *features({"layout": _layout, "digest": "sha256"})],
        level="canonical",
    )
written(
    "write-zip",
    "The ZIP around the chunks: stored members, complete headers, a true directory.",
    "PACK-001 PACK-002 PACK-007 LAY-001",
    {f"t{size}": tensor("uint8", (size,), str(size)) for size in (1, 63, 64, 65, 1000)},
    digest="sha256",
)

# ---- what is refused

OPAQUE = {"type": "opaque"}
NUMBER = {"type": "int", "value": "1"}
for _layout in ("file", "loose"):
    refused(
        f"refuse-leaf-{_layout}",
        "A leaf that has no encoding.",
        "TREE-013 PUB-007",
        items(("a", NUMBER), ("b", {"type": "list", "items": [OPAQUE]})),
        "unsupported-leaf",
        layout=_layout,
    )
refused(
    "refuse-leaf-after-tensors",
    "A leaf that has no encoding, after tensors: nothing is written.",
    "TREE-013 PUB-007",
    items(("w", W.value(0)), ("f", OPAQUE)),
    "unsupported-leaf",
)
refused(
    "refuse-key",
    "A key that is neither string nor integer.",
    "TREE-007 TREE-013",
    items((OPAQUE, NUMBER)),
    "unsupported-key",
)
refused(
    "refuse-dtype",
    "A tensor of a dtype that has no encoding.",
    "TREE-013",
    items(("x", {"type": "tensor", "dtype": OPAQUE, "shape": [2]})),
    "unsupported-dtype",
)
plain(
    "refuse-metadata-tensor",
    "A tensor in the metadata.",
    "TREE-014",
    None,
    {"op": "write", "tree": NUMBER, "metadata": items(("w", W.value(0))), "options": {}},
    {"error": {"any_of": ["unsupported-leaf"]}},
    needs=features({}),
)
refused(
    "refuse-surrogate",
    "A string with a lone surrogate.",
    "TREE-015 TREE-013",
    items(("a", {"type": "str", "value": "\ud800"})),
    "unsupported-leaf",
)
refused(
    "refuse-surrogate-key",
    "A key with a lone surrogate.",
    "TREE-015 TREE-013",
    items(("a\udfff", NUMBER)),
    "unsupported-key",
)


def _nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = NUMBER
    for _ in range(depth):
        value = {"type": "list", "items": [value]}
    return value


refused("refuse-too-deep", "Lists nested one deeper than is allowed.", "TREE-012 TREE-013", _nested(257), "too-deep")
refused(
    "refuse-long-integer-name",
    "A tensor under an integer key of more than 8192 bits.",
    "NAME-001",
    items(({"int": str(1 << 8200)}, W.value(0))),
    "name-too-long",
)
refused(
    "refuse-long-name-loose",
    "A name that a file system cannot hold.",
    "NAME-007 PUB-007",
    items(("x" * 5000, W.value(0))),
    "name-too-long",
    layout="loose",
)
refused(
    "refuse-long-name",
    "A name of more than 65,000 bytes.",
    "NAME-006",
    items(("x" * 65_001, W.value(0))),
    "name-too-long",
)

# ---- what is at the target

THERE = {
    "file": {"mutation": {"base": "tree-base", "steps": []}, "generated": True},
    "loose": {"mutation": {"base": "tree-base-loose", "steps": []}, "generated": True},
}
DIRECTORY = {"generated": True, "disk": [{"kind": "file", "at": "precious.txt", "hex": "00"}]}
FILE = {"generated": True, "disk": [{"kind": "file", "at": "", "hex": b"precious".hex()}]}
TREE = items(("w", W.value(0)))
for _layout in ("file", "loose"):
    for _there in ("file", "loose"):
        refused(
            f"refuse-existing-{_there}-{_layout}",
            f"A checkpoint of layout {_there} is at the target, layout {_layout}.",
            "PUB-003 PUB-007",
            TREE,
            "exists",
            source=THERE[_there],
            layout=_layout,
        )
    refused(
        f"refuse-existing-other-{_layout}",
        f"Another file is at the target, layout {_layout}.",
        "PUB-003",
        TREE,
        "exists",
        source=FILE,
        layout=_layout,
    )
    refused(
        f"refuse-existing-directory-{_layout}",
        f"A directory is at the target, layout {_layout}.",
        "PUB-003",
        TREE,
        "exists",
        source=DIRECTORY,
        layout=_layout,
    )
    refused(
        f"refuse-replacing-directory-{_layout}",
        f"A directory that is no checkpoint is not replaced, layout {_layout}.",
        "PUB-005",
        TREE,
        "not-replaceable",
        source=DIRECTORY,
        layout=_layout,
        overwrite=True,
    )
    plain(
        f"write-replacing-{_layout}",
        f"A checkpoint is replaced when that is asked for, layout {_layout}.",
        "PUB-004",
        THERE[_layout],
        {"op": "write", "tree": TREE, "options": {"layout": _layout, "overwrite": True, "digest": "sha256"}},
        {"tree": TREE},
        needs=features({"layout": _layout, "digest": "sha256"}),
    )
refused(
    "refuse-temporary-name",
    "A target with the name of a temporary.",
    "PUB-001",
    TREE,
    "bad-option temporary",
    name="x.ckptfmt-tmp",
)

# ---- recorded commits

for _layout in ("file", "loose"):
    for _overwrite in (False, True):
        _kind = "replacing" if _overwrite else "exclusive"
        plain(
            f"commit-{_kind}-{_layout}",
            f"A {_kind} commit in layout {_layout}, call by call: no power loss leaves anything but whole checkpoints.",
            "PUB-001 PUB-002 " + ("PUB-004" if _overwrite else "PUB-003"),
            THERE[_layout] if _overwrite else None,
            {"op": "commit", "tree": value_of(BASE), "options": {"layout": _layout, "overwrite": _overwrite}},
            {"accept": True},
            needs=["write", "trace", f"layout:{_layout}", "digest:xxh3-128"],
        )

# ---- reading into a target


def target(**tensors: Tensor) -> dict[str, Any]:
    value = value_of(tensors)
    return {
        **value,
        "items": [[key, {k: v for k, v in item.items() if k not in ("hex", "sha256")}] for key, item in value["items"]],
    }


_BIG = Tensor("uint8", (5000,), pattern(5000, "big"))
SOURCE = {"a": tensor("float32", (3,), "a"), "b": tensor("int16", (2, 2), "b"), "big": _BIG}
INTO: dict[str, tuple[str, dict[str, Tensor], dict[str, list[str]] | None]] = {
    "fits": ("A target that fits is filled.", SOURCE, None),
    "missing": (
        "A tensor that the checkpoint lacks.",
        {**SOURCE, "c": W},
        {"missing": ["c"], "unexpected": [], "shape": [], "dtype": []},
    ),
    "unexpected": (
        "A tensor that the target lacks.",
        {"b": SOURCE["b"], "big": _BIG},
        {"missing": [], "unexpected": ["a"], "shape": [], "dtype": []},
    ),
    "all": (
        "All differences are reported at once.",
        {"a": tensor("float32", (4,)), "b": tensor("int32", (2, 2)), "other": W},
        {"missing": ["other"], "unexpected": ["big"], "shape": ["a"], "dtype": ["b"]},
    ),
    "transposed": (
        "A shape with the same number of elements is another shape.",
        {**SOURCE, "b": tensor("int16", (4,))},
        {"missing": [], "unexpected": [], "shape": ["b"], "dtype": []},
    ),
    "same-width": (
        "A dtype of the same width is another dtype.",
        {**SOURCE, "b": tensor("uint16", (2, 2))},
        {"missing": [], "unexpected": [], "shape": [], "dtype": ["b"]},
    ),
}


for _name, (_title, _tree, _report) in INTO.items():
    valid(
        f"into-{_name}",
        _title,
        "READ-006",
        Checkpoint(SOURCE),
        {"op": "read_into", "target": target(**_tree)},
        {"value": value_of(SOURCE)} if _report is None else {"error": {"any_of": ["mismatch"]}, "report": _report},
        needs=("reader", "into"),
    )
