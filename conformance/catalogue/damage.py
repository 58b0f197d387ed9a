"""Damaged bytes: what is found, where, what is still readable, and what a whole verification reports. SPEC.md
sections 6 and 12."""

from __future__ import annotations

from typing import Any

from ..build import Checkpoint
from ..model import Tensor, pattern, tensor
from . import chunk, fault, place, valid, verified

READ_W = {"op": "read", "path": ["w"]}


def _tree() -> dict[str, Tensor]:
    return {
        "w": Tensor("uint8", (3, 4000), pattern(12000, "w")),
        "b": tensor("bfloat16", (2,), "b"),
        "c": tensor("int32", (4, 4), "c", grid=(2, 2)),
    }


def flip(path: list[Any], number: int, offset: int, bit: int = 0) -> dict[str, Any]:
    return {"do": "flip_bit", "at": chunk(path, number, offset), "bit": bit}


for _digest in ("sha256", "xxh3-128", "blake3"):
    for _layout in ("file", "loose"):
        valid(
            f"digest-{_digest}-{_layout}",
            f"Blocks with {_digest} digests, the last one shorter, in layout {_layout}.",
            "BLK-001 BLK-002",
            Checkpoint(_tree(), digest=_digest, layout=_layout),
        )
        valid(
            f"digest-{_digest}-{_layout}-verify",
            f"A whole verification of {_digest} in layout {_layout} finds nothing.",
            "BLK-007 FRM-006 " + ("FRM-001" if _layout == "file" else "FRM-002"),
            Checkpoint(_tree(), digest=_digest, layout=_layout),
            {"op": "verify"},
            {"damage": []},
            needs=("reader", "verify"),
        )
        fault(
            f"digest-{_digest}-{_layout}-bit",
            f"One flipped bit is found by its {_digest} digest, and named.",
            "BLK-004 BLK-005",
            f"digest-{_digest}-{_layout}",
            [flip(["w"], 0, 5000, 3)],
            {"error": {"any_of": ["block-digest"], "tensor": "w", "chunk": 0, "block": 1}},
            READ_W,
            still=[["b"], ["c"]],
        )

BASE = "digest-sha256-file"
BLOCKS = {"first-byte": (0, 0), "end-of-block-0": (4095, 0), "start-of-block-1": (4096, 1), "last-byte": (11999, 2)}
for _name, (_offset, _block) in BLOCKS.items():
    fault(
        f"block-{_name}",
        f"A flipped bit, {_name.replace('-', ' ')}: block {_block} is named.",
        "BLK-001 BLK-004",
        BASE,
        [flip(["w"], 0, _offset, 7)],
        {"error": {"any_of": ["block-digest"], "tensor": "w", "chunk": 0, "block": _block, "object": ""}},
        READ_W,
        still=[["b"]],
    )
fault(
    "block-zeroed",
    "A block of zeros, as a lost write leaves it.",
    "BLK-004",
    BASE,
    [{"do": "overwrite", "at": chunk(["w"], 0, 4096), "hex": "00" * 4096}],
    {"error": {"any_of": ["block-digest"], "tensor": "w", "block": 1}},
    READ_W,
    still=[["c"]],
)
fault(
    "block-swapped-chunks",
    "Two chunks in each other's place.",
    "BLK-004",
    BASE,
    [
        {"do": "overwrite", "at": chunk(["c"], 0, 0), "hex": _tree()["c"].chunk((0, 1)).hex()},
        {"do": "overwrite", "at": chunk(["c"], 1, 0), "hex": _tree()["c"].chunk((0, 0)).hex()},
    ],
    {"error": {"any_of": ["block-digest"], "tensor": "c"}},
    {"op": "read", "path": ["c"]},
    still=[["w"]],
)
fault(
    "block-other-chunk",
    "A damaged chunk is named by its number.",
    "BLK-004",
    BASE,
    [flip(["c"], 3, 1)],
    {"error": {"any_of": ["block-digest"], "tensor": "c", "chunk": 3, "block": 0}},
    {"op": "read", "path": ["c"]},
    still=[["w"]],
)
fault(
    "block-padding",
    "The padding of a chunk is covered by its digest too.",
    "BLK-004 ZARR-004",
    "grid-padding",
    [flip(["x"], 2, 2)],
    {"error": {"any_of": ["block-digest"], "tensor": "x", "chunk": 2}},
    {"op": "read", "path": ["x"]},
)
fault(
    "block-slice-beside",
    "A slice in other blocks of a damaged tensor is given.",
    "BLK-005",
    BASE,
    [flip(["w"], 0, 9000)],
    {"value": Tensor("uint8", (1, 4000), pattern(12000, "w")[:4000]).value(None)},
    {"op": "read_slice", "path": ["w"], "slices": [[0, 1, 1], [0, 4000, 1]]},
)
fault(
    "block-slice-in-it",
    "A slice that needs one byte of a damaged block, and not the damaged one, is refused.",
    "BLK-004",
    BASE,
    [flip(["w"], 0, 9000)],
    {"error": {"any_of": ["block-digest"], "tensor": "w", "block": 2}},
    {"op": "read_slice", "path": ["w"], "slices": [[2, 3, 1], [3999, 4000, 1]]},
)
fault(
    "block-slice-chunks-beside",
    "A slice of other chunks of a damaged tensor is given.",
    "BLK-005",
    BASE,
    [flip(["c"], 3, 1)],
    {"value": Tensor("int32", (2, 2), _tree()["c"].chunk((0, 1))).value(None)},
    {"op": "read_slice", "path": ["c"], "slices": [[0, 2, 1], [2, 4, 1]]},
)
fault(
    "block-compressed",
    "A flipped bit in a compressed chunk is found before it is decoded.",
    "BLK-004",
    "codec-zstd-loose",
    [{"do": "flip_bit", "at": {"object": "tensors/x/c/0", "offset": 20}, "bit": 0}],
    {"error": {"any_of": ["block-digest"], "tensor": "x", "chunk": 0, "block": 0, "object": "tensors/x/c/0"}},
    {"op": "read", "path": ["x"]},
    still=[["b"]],
)
fault(
    "block-digest-column",
    "A digest of the manifest that is wrong, under a right sha256.",
    "BLK-004",
    "digest-xxh3-128-file",
    [{"do": "edit_bin", "pointer": "/parts/0/chunks/digest", "offset": 0, "hex": "00" * 16}, {"do": "reseal"}],
    {"error": {"any_of": ["block-digest"], "tensor": "w", "block": 0}},
    READ_W,
    still=[["b"]],
)
for _digest in ("sha256", "xxh3-128"):
    fault(
        f"block-digest-last-byte-{_digest}",
        f"Every byte of a {_digest} digest is compared.",
        "BLK-004",
        f"digest-{_digest}-file",
        [
            {
                "do": "edit_bin",
                "pointer": "/parts/0/chunks/digest",
                "offset": {"sha256": 31, "xxh3-128": 15}[_digest],
                "hex": "00",
            },
            {"do": "reseal"},
        ],
        {"error": {"any_of": ["block-digest"], "tensor": "w", "block": 0}},
        READ_W,
    )
fault(
    "unverified-damaged",
    "A read without verification gives the bytes as they are, and has to be asked for.",
    "BLK-006",
    BASE,
    [flip(["b"], 0, 0)],
    {
        "value": Tensor(
            "bfloat16",
            (2,),
            bytes([tensor("bfloat16", (2,), "b").data[0] ^ 1]) + tensor("bfloat16", (2,), "b").data[1:],
        ).value(None)
    },
    {"op": "read", "path": ["b"], "verify": False},
    needs=("unverified",),
)
valid(
    "unverified-slice",
    "A slice without verification.",
    "BLK-006 READ-003",
    Checkpoint(_tree()),
    {"op": "read_slice", "path": ["c"], "slices": [[1, 4, 1], [1, 3, 1]], "verify": False},
    {
        "value": Tensor(
            "int32", (3, 2), b"".join(tensor("int32", (4, 4), "c").data[i * 16 + 4 : i * 16 + 12] for i in (1, 2, 3))
        ).value(None)
    },
    needs=("reader", "unverified"),
)
valid(
    "unverified-strided-slice",
    "A slice with large steps, without verification.",
    "BLK-006 READ-003",
    Checkpoint(_tree()),
    {"op": "read_slice", "path": ["w"], "slices": [[0, 3, 2], [1, 4000, 1999]], "verify": False},
    {
        "value": Tensor(
            "uint8", (2, 3), bytes(pattern(12000, "w")[i * 4000 + j] for i in (0, 2) for j in (1, 2000, 3999))
        ).value(None)
    },
    needs=("reader", "unverified"),
)

# ---- objects

LOOSE = "digest-sha256-loose"
fault(
    "object-missing",
    "A missing object damages the tensors in it, and no other.",
    "READ-005",
    LOOSE,
    [{"do": "remove_object", "object": "tensors/w"}],
    {"error": {"any_of": ["missing-object"], "tensor": "w"}},
    READ_W,
    still=[["b"], ["c"]],
)
fault(
    "object-short",
    "An object shorter than its chunk.",
    "READ-005 LIM-003",
    LOOSE,
    [{"do": "truncate", "at": {"object": "tensors/w/c/0/0", "offset": 11999}}],
    {"error": {"any_of": ["short-object"], "tensor": "w"}},
    READ_W,
    still=[["b"]],
)
fault(
    "object-short-slice-before",
    "A slice of blocks that are there, of an object that is too short: a SHOULD, as some stores refuse such a range.",
    "READ-007 READ-005 BLK-005",
    LOOSE,
    [{"do": "truncate", "at": {"object": "tensors/w/c/0/0", "offset": 9000}}],
    {"value": Tensor("uint8", (1, 4000), pattern(12000, "w")[:4000]).value(None)},
    {"op": "read_slice", "path": ["w"], "slices": [[0, 1, 1], [0, 4000, 1]]},
    level="should",
)
fault(
    "object-empty",
    "An object of 0 bytes.",
    "READ-005",
    LOOSE,
    [{"do": "add_object", "object": "tensors/b/c/0", "hex": ""}],
    {"error": {"any_of": ["short-object"], "tensor": "b"}},
    {"op": "read", "path": ["b"]},
    still=[["w"]],
)
fault(
    "object-missing-one-chunk",
    "One missing chunk of several: others of the same tensor are given.",
    "READ-005 BLK-005",
    LOOSE,
    [{"do": "remove_object", "object": "tensors/c/c/1/1"}],
    {"value": Tensor("int32", (2, 2), _tree()["c"].chunk((0, 0))).value(None)},
    {"op": "read_slice", "path": ["c"], "slices": [[0, 2, 1], [0, 2, 1]]},
)
fault(
    "object-missing-open",
    "Opening looks at no chunk: the tensors of a checkpoint without chunks are listed.",
    "READ-002 READ-005",
    LOOSE,
    [{"do": "remove_object", "object": f"tensors/{name}/c"} for name in "wbc"],
    {"accept": True},
)
fault(
    "object-behind-a-file",
    "A file where the directory of an object should be.",
    "READ-005",
    LOOSE,
    [
        {"do": "remove_object", "object": "tensors/b/c"},
        {"do": "add_object", "object": "tensors/b/c", "hex": "00"},
    ],
    {"error": {"any_of": ["missing-object"], "tensor": "b"}},
    {"op": "read", "path": ["b"]},
    still=[["w"], ["c"]],
)
fault(
    "object-directory",
    "A directory where an object should be.",
    "READ-005",
    LOOSE,
    [
        {"do": "remove_object", "object": "tensors/b/c/0"},
        {"do": "add_object", "object": "tensors/b/c/0/x", "hex": "00"},
    ],
    {"error": {"any_of": ["missing-object"], "tensor": "b"}},
    {"op": "read", "path": ["b"]},
    still=[["w"]],
)

# ---- frames

valid(
    "frame-node-documents-gone",
    "A reader of checkpoints needs no node documents.",
    "ZARR-015 READ-002",
    Checkpoint(_tree(), document=lambda member, text: b"{}" if "tensors/" in member else text),
)
fault(
    "frame-loose-no-documents",
    "In plain files the node documents may be missing.",
    "ZARR-015 FRM-004",
    LOOSE,
    [{"do": "remove_object", "object": f"tensors/{name}zarr.json"} for name in ("", "w/", "b/", "c/")],
    {"value": Checkpoint(_tree()).values()[0]},
    {"op": "read", "path": []},
)
FRAMES: dict[str, tuple[str, str, str, list[dict[str, Any]]]] = {
    "first-byte": ("the first byte of the file", "FRM-001", BASE, [{"do": "flip_bit", "at": {"offset": 0}, "bit": 0}]),
    "document": ("a node document", "FRM-001", BASE, [{"do": "flip_bit", "at": {"offset": 60}, "bit": 0}]),
    "alignment": (
        "the gap before a chunk",
        "FRM-001",
        BASE,
        [{"do": "flip_bit", "at": {**chunk(["w"], 0, 0), "before": 1}, "bit": 0}],
    ),
    "directory": (
        "the central directory",
        "FRM-001 PACK-006",
        BASE,
        [{"do": "flip_bit", "at": place("directory", 20), "bit": 0}],
    ),
    "end-record": ("the end record", "FRM-001", BASE, [{"do": "flip_bit", "at": place("directory", -5), "bit": 0}]),
    "loose-document": (
        "a node document of plain files",
        "FRM-002",
        LOOSE,
        [{"do": "flip_bit", "at": {"object": "tensors/w/zarr.json", "offset": 9}, "bit": 0}],
    ),
    "loose-document-gone": (
        "a node document that is missing",
        "FRM-002 ZARR-001",
        LOOSE,
        [{"do": "remove_object", "object": "tensors/b/zarr.json"}],
    ),
    "record-frame": ("another frame digest in the record", "FRM-001", BASE, [{"do": "reseal", "frame": "0" * 64}]),
    "xxh3": (
        "a byte under an xxh3-128 frame digest",
        "FRM-001",
        "digest-xxh3-128-file",
        [{"do": "flip_bit", "at": {"offset": 60}, "bit": 0}],
    ),
}
for _name, (_title, _spec, _base, _steps) in FRAMES.items():
    verified(
        f"frame-{_name}",
        f"A whole verification finds a change of the frame: {_title}.",
        f"{_spec} FRM-004 BLK-007",
        _base,
        _steps,
        {"code": "frame-digest"},
    )
    fault(
        f"frame-{_name}-read",
        f"Loading need not look at the frame: {_title}.",
        "FRM-004",
        _base,
        _steps,
        {"value": Checkpoint(_tree()).values()[0]},
        {"op": "read", "path": []},
    )

# ---- whole verification

VERIFIED: dict[str, tuple[str, str, str, list[dict[str, Any]], list[dict[str, Any]]]] = {
    "one-block": (
        "one block",
        "BLK-007",
        BASE,
        [flip(["w"], 0, 5000)],
        [{"code": "block-digest", "tensor": "w", "chunk": 0, "block": 1}],
    ),
    "two-blocks": (
        "two blocks of one tensor",
        "BLK-007",
        BASE,
        [flip(["w"], 0, 0), flip(["w"], 0, 11999)],
        [{"code": "block-digest", "tensor": "w", "block": 0}, {"code": "block-digest", "tensor": "w", "block": 2}],
    ),
    "two-tensors": (
        "blocks of two tensors",
        "BLK-007",
        BASE,
        [flip(["b"], 0, 0), flip(["c"], 2, 3)],
        [{"code": "block-digest", "tensor": "b", "chunk": 0}, {"code": "block-digest", "tensor": "c", "chunk": 2}],
    ),
    "missing-object": (
        "a missing object",
        "BLK-007 READ-005",
        LOOSE,
        [{"do": "remove_object", "object": "tensors/b/c/0"}],
        [{"code": "missing-object", "tensor": "b"}],
    ),
    "short-object": (
        "an object that is too short",
        "BLK-007 READ-005",
        LOOSE,
        [{"do": "truncate", "at": {"object": "tensors/b/c/0", "offset": 3}}],
        [{"code": "short-object", "tensor": "b"}],
    ),
    "long-object": (
        "an object longer than its chunk",
        "LAY-003",
        LOOSE,
        [{"do": "append", "object": "tensors/b/c/0", "hex": "00"}],
        [{"code": "bad-extent", "tensor": "b"}],
    ),
    "undecodable": (
        "a chunk that matches its digest and does not decode",
        "BLK-007 ZARR-011",
        "codec-zstd-loose",
        [{"do": "add_object", "object": "tensors/x/c/0", "hex": "00" * 20}, {"do": "reseal", "digests": True}],
        [{"code": "bad-chunk", "tensor": "x"}],
    ),
    "bad-bool": (
        "a bool that is neither 0 nor 1",
        "BLK-007 DTYPE-005",
        "dtype-bools",
        [{"do": "overwrite", "at": chunk(["x"], 0, 1), "hex": "05"}, {"do": "reseal", "digests": True}],
        [{"code": "bad-chunk", "tensor": "x"}],
    ),
    "manifest": (
        "a changed manifest",
        "BLK-007 COM-003",
        BASE,
        [{"do": "flip_bit", "at": place("manifest", 50), "bit": 0}],
        [{"code": "manifest-digest"}],
    ),
}
for _name, (_title, _spec, _base, _steps, _found) in VERIFIED.items():
    verified(
        f"verify-{_name}",
        f"A whole verification reports {_title}, and nothing else.",
        _spec,
        _base,
        _steps,
        *_found,
    )
for _base in (
    "grid-padding",
    "codec-several",
    "dtype-bool-padding",
    "manifest-unknown-keys",
    "empty-tensors",
    "tree-aliases",
):
    verified(
        f"verify-clean-{_base}",
        f"A whole verification of the case {_base} finds nothing.",
        "BLK-007",
        _base,
        [],
    )
fault(
    "object-long-read",
    "An object longer than its chunk is read as far as the chunk goes.",
    "LAY-003",
    LOOSE,
    [{"do": "append", "object": "tensors/b/c/0", "hex": "ff"}],
    {"value": tensor("bfloat16", (2,), "b").value(None)},
    {"op": "read", "path": ["b"]},
    level="may",
)
