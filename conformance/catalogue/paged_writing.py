"""Writing paged checkpoints: trees that are written, judged byte by byte and read back. SPEC.md sections 7.1, 7.2."""

from __future__ import annotations

from typing import Any

from ..build import Checkpoint
from ..model import FIRST, Tag, Tensor, tensor
from ..pages import Paging
from . import plain, valid, value_of
from .crashes import NEW, OLD, trace
from .names import ODD
from .writing import LATER_DTYPE, THERE, items, written

JUDGED = (
    "PAGE-001 PAGE-002 PAGE-003 PAGE-004 PAGE-005 PAGE-006 PAGE-007 PAGE-008 PAGE-013 STACK-001 STACK-002 STACK-003 "
    "ZARR-001 FRM-001 FMT-001"
)
CANONICAL = f"{JUDGED} PAGE-011 PAGE-012 STACK-004"
_ALL = "PAGE-001 PAGE-002 PAGE-003 PAGE-004 PAGE-005 PAGE-006 PAGE-007 PAGE-008 PAGE-013 FMT-001"
PACKED, LOOSE = f"{_ALL} LAY-004 FRM-003 PACK-001 PAGE-017", f"{_ALL} PAGE-011 PAGE-012 FRM-002 LAY-002 LAY-003"
_TIED = tensor("float32", (3,), "tied")
BASE: dict[Any, Any] = {
    "step": 7,
    "w": tensor("float32", (3, 4), "w"),
    "list": [_TIED, (_TIED, None), tensor("float32", (3,), "x")],
    "opt": {0: tensor("bfloat16", (5,), "b"), "0": tensor("bool", (9,)), "": tensor("int4", (3,)), "a/b": 1.5},
    "scalars": [tensor("float64", (), str(i)) for i in range(3)],
    "empty": tensor("int8", (0, 3)),
}


def paged(identity: str, title: str, spec: str, tree: Any, **options: Any) -> None:
    written(identity, title, spec, tree, needs=["pages"], digest=options.pop("digest", "sha256"), paged=True, **options)


for _digest in ("xxh3-128", "sha256", "blake3"):
    paged(
        f"write-paged-{_digest}",
        f"A small tree whose manifest is paged, with {_digest} digests.",
        CANONICAL,
        BASE,
        metadata={"a": 1},
        digest=_digest,
    )
paged(
    "write-paged-dtypes",
    "Every dtype, with several shapes: a stack for each kind.",
    f"{CANONICAL} DTYPE-003 DTYPE-004 ZARR-013",
    {
        dtype: [tensor(dtype, shape, str(i)) for i in range(2) for shape in ((3, 5), (), (9,), (0, 2))]
        for dtype in FIRST
    },
)
paged(
    "write-paged-later-dtype",
    "What only a later version has, in a paged manifest.",
    f"{CANONICAL} DTYPE-011 FMT-001 ZARR-014",
    {"x": [LATER_DTYPE, LATER_DTYPE], "y": tensor("int8", (3,))},
)
paged(
    "write-paged-names",
    "Keys that need escapes.",
    f"{CANONICAL} NAME-001 NAME-002 NAME-003 NAME-004",
    {
        **{key: tensor("uint8", (1,), key) for key in ODD},
        7: tensor("uint8", (1,), "7"),
        -(2**70): tensor("uint8", (1,), "l"),
    },
)
for _layout, _rules in {"packed": PACKED, "loose": LOOSE}.items():
    paged(
        f"write-paged-{_layout}",
        f"A small tree whose manifest is paged, in layout {_layout}.",
        _rules,
        BASE,
        metadata={"a": 1},
        schema=["llama", "3"],
        layout=_layout,
    )
    paged(
        f"write-paged-{_layout}-no-tensors",
        f"Plain values alone, in layout {_layout}.",
        _rules,
        {"a": [1, 2.5, "x"]},
        layout=_layout,
    )
    paged(
        f"write-paged-{_layout}-root-tensor",
        f"One tensor alone, in layout {_layout}.",
        f"{_rules} NAME-005",
        _TIED,
        layout=_layout,
    )
    paged(
        f"write-paged-{_layout}-tree",
        f"A tree that is cut, in layout {_layout}.",
        f"{_rules} PAGE-011",
        {"l": ["x" * 1000] * 70, "w": tensor("float32", (3,), "w")},
        layout=_layout,
    )
paged("write-paged-root-tensor", "One small tensor alone.", f"{CANONICAL} NAME-005", _TIED)
paged(
    "write-paged-root-large-tensor",
    "One tensor alone, which stands in no stack.",
    f"{CANONICAL} NAME-005",
    {"type": "tensor", "index": 0, "dtype": "uint8", "shape": [65_536], "repeat": "010203"},
)
paged("write-paged-no-tensors", "Plain values alone.", CANONICAL, {"a": [1, 2.5, "x"]})
paged("write-paged-schema", "A schema.", f"{CANONICAL} SCH-001 SCH-002", BASE, schema=["llama", "3"])
paged(
    "write-paged-gzip",
    "Compressed tensors, which stand in no stack.",
    f"{CANONICAL} ZARR-016",
    {"x": tensor("int32", (10, 20)), "y": _TIED},
    compression="gzip",
)
paged(
    "write-paged-large",
    "Tensors of 65,535 bytes stand in a stack, of 65,536 they do not.",
    CANONICAL,
    items(
        *(
            (
                f"t{size}-{i}",
                {"type": "tensor", "index": size + i * 10, "dtype": "uint8", "shape": [size], "repeat": f"0{i}"},
            )
            for size in (65_535, 65_536, 5_000_000)
            for i in range(2)
        )
    ),
)
paged(
    "write-paged-stack-chunks",
    "A stack of more than one chunk.",
    CANONICAL,
    items(
        *(
            (f"t{i}", {"type": "tensor", "index": i, "dtype": "uint8", "shape": [65_535], "repeat": f"{i:02x}"})
            for i in range(66)
        )
    ),
)
paged(
    "write-paged-4097",
    "4097 tensors: two pages.",
    CANONICAL,
    {f"t{i}": Tensor("uint16", (), i.to_bytes(2, "little")) for i in range(4097)},
)
paged(
    "write-paged-tree",
    "Values that stand in pages: long lists, tuples, dicts, texts and bytes.",
    CANONICAL,
    {
        "list": [f"{i}-{'x' * 9000}" for i in range(16)],
        "tuple": (*("y" * 9000 for _ in range(9)), list(range(20))),
        "dict": {f"key-{i}": [i, {"a": "z" * 9000}] for i in range(9)},
        "ints": dict.fromkeys(range(9), "v" * 9000),
        "text": "ü" * 40_000,
        "bytes": bytes(70_000),
        "deep": [[["a" * 30_000, "b" * 40_000, "x" * 60_000], "y" * 65_531, "z" * 65_532]],
        "tag": Tag("collections.OrderedDict", None, {f"k{i}": "v" * 9000 for i in range(9)}),
        "w": _TIED,
    },
)
paged(
    "write-paged-edges",
    "Nodes of exactly as many bytes as stand in no page, and of one more.",
    CANONICAL,
    [
        "x" * 65_533,
        "x" * 65_532,
        b"x" * 65_533,
        b"x" * 65_532,
        ["x" * 32_766, "y" * 32_764],
        ["x" * 32_766, "y" * 32_765],
    ],
)
paged("write-paged-root-text", "One long text alone.", CANONICAL, "x" * 70_000)
plain(
    "write-paged-canonical",
    "The canonical bytes of a checkpoint whose manifest is paged.",
    "PAGE-011 PAGE-012 STACK-004 MAN-004 PACK-004",
    None,
    {"op": "write", "tree": value_of(BASE), "options": {"digest": "sha256", "paged": True}},
    {"tree": value_of(BASE)},
    needs=["canonical", "write", "layout:file", "digest:sha256", "pages"],
    level="canonical",
)
written(
    "write-paged-by-itself",
    "A manifest with a tree of 1 MiB is paged, where nobody says whether it is to be.",
    "PAGE-010 FMT-001",
    ["x" * 1_048_576],
    needs=["pages", "canonical"],
    digest="sha256",
)

for _overwrite in (False, True):
    _kind = "replacing" if _overwrite else "exclusive"
    plain(
        f"commit-paged-{_kind}",
        f"A {_kind} commit of a paged checkpoint, call by call: no power loss leaves anything but whole checkpoints.",
        "PUB-001 PUB-002 " + ("PUB-004" if _overwrite else "PUB-003"),
        THERE["file"] if _overwrite else None,
        {"op": "commit", "tree": value_of(BASE), "options": {"overwrite": _overwrite, "paged": True}},
        {"accept": True},
        needs=["write", "trace", "layout:file", "digest:xxh3-128", "pages"],
    )

# ---- crash states, and what stock Zarr readers find

_MORE = {**NEW, "list": list(range(200)), "v": tensor("int16", (4,), "v")}
_TREES = {"previous": value_of(OLD), "new": value_of(_MORE)}
for _flushed in (True, False):
    plain(
        "crash-paged" if _flushed else "crash-paged-unflushed",
        "A power loss at any moment of a commit of a paged checkpoint: nothing or the whole of it."
        if _flushed
        else "A writer of paged checkpoints that does not flush: what is torn or cut off is refused, and never given.",
        "PUB-002 PUB-003 COM-005" if _flushed else "COM-004 COM-005 COM-003 PAGE-003 BLK-004",
        None,
        {"op": "states", "trace": "trace.jsonl"},
        {
            "states": ["absent", "new"],
            "absent": ["not-found"]
            if _flushed
            else [
                *("not-found", "not-a-checkpoint", "truncated", "bad-record", "manifest-digest"),
                *("short-object", "block-digest", "bad-manifest", "bad-extent"),
            ],
            "trees": {"new": _TREES["new"]},
        },
        needs=("reader", "layout:file", "digest:sha256", "pages"),
        others={"trace.jsonl": trace("file", replaces=False, flushed=_flushed, new=_MORE, paged=Paging(2, 100))},
    )
for _dtype, _shape in (("float32", (3, 4)), ("bfloat16", (2,)), ("int4", (3, 5)), ("bool", ()), ("complex64", (2,))):
    _some = {f"t{i}": tensor(_dtype, _shape, str(i)) for i in range(3)}
    _like = _some["t0"]
    valid(
        f"zarr-stack-{_dtype}",
        f"A stock Zarr reader reads a stack of {_dtype} tensors, one in each row.",
        "STACK-001 STACK-002 STACK-003 PACK-007",
        Checkpoint({"a": _some, "b": tensor("int8", (5,), grid=(2,))}, paged=Paging()),
        {"op": "read_node", "root": "stacks", "name": f"{_dtype}-{'x'.join(map(str, _shape)) or 'scalar'}"},
        {
            "value": Tensor(
                _like.row.storage, (3, *_like.storage_shape), b"".join(one.data for one in _some.values())
            ).value(None)
        },
        needs=("zarr",),
    )
valid(
    "zarr-paged-array",
    "A stock Zarr reader reads a tensor of a paged checkpoint that stands in no stack.",
    "ZARR-001 STACK-001",
    Checkpoint({"a": tensor("int8", (2,)), "b": tensor("int16", (5,), grid=(2,))}, paged=Paging()),
    {"op": "read_node", "name": "b"},
    {"value": tensor("int16", (5,)).value(None)},
    needs=("zarr",),
)
