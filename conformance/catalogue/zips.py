"""Legal variants of the file around the chunks, which a reader of checkpoints has to accept. SPEC.md section 9."""

from __future__ import annotations

from ..build import Checkpoint
from ..model import tensor
from . import fault, place, valid

TREE = {"x": tensor("int32", (5,), "x", grid=(2,)), "y": tensor("float64", (3,), "y")}
VARIANTS = {
    "reversed": (
        "Chunks lie in the reverse of the table's order.",
        "PACK-006 CHK-005",
        Checkpoint(TREE, order=[3, 2, 1, 0]),
    ),
    "shuffled": ("Chunks of two tensors lie between each other.", "PACK-006", Checkpoint(TREE, order=[1, 3, 0, 2])),
    "gaps": ("Gaps between the members.", "FRM-001 PACK-006", Checkpoint(TREE, gap=37)),
    "foreign": (
        "Members that are no part of the checkpoint.",
        "ZARR-001 PACK-006",
        Checkpoint(TREE, foreign=[("readme.txt", b"hello")]),
    ),
    "alignment": ("Chunks aligned to one byte.", "PACK-002 PACK-006", Checkpoint(TREE, align=(1, 1))),
    "alignment-page": ("Small chunks aligned to 4096.", "PACK-002", Checkpoint(TREE, align=(4096, 4096))),
    "directory-lies": (
        "A ZIP directory of which nothing is true: the manifest holds.",
        "PACK-006",
        Checkpoint(TREE, directory=False),
    ),
    "documents-lie": (
        "Node documents that say something else: the manifest holds.",
        "ZARR-015 PACK-006",
        Checkpoint(TREE, document=lambda member, text: text.replace(b"[5]", b"[4]").replace(b"int32", b"uint8")),
    ),
    "documents-none": ("No node documents at all.", "ZARR-015", Checkpoint(TREE, document=lambda member, text: None)),
}
for _name, (_title, _spec, _checkpoint) in VARIANTS.items():
    valid(f"zip-{_name}", _title, _spec, _checkpoint)
    if _name not in ("documents-none", "foreign"):
        valid(
            f"zip-{_name}-verify",
            f"{_title} A whole verification need not mind.",
            "BLK-007 FRM-001",
            _checkpoint,
            {"op": "verify"},
            {"damage": []},
            needs=("reader", "verify"),
        )
fault(
    "zip-directory-gone",
    "A ZIP directory of zeros: chunks are found all the same.",
    "PACK-006 FRM-004",
    "zip-gaps",
    [{"do": "overwrite", "at": place("directory", 0), "hex": "00" * 300}],
    {"value": Checkpoint(TREE).values()[0]},
    {"op": "read", "path": []},
)
valid(
    "zip-large-chunk",
    "A chunk of 64 KiB, aligned to 4096.",
    "PACK-002 BLK-001",
    Checkpoint({"small": tensor("int8", (3,)), "large": tensor("uint8", (65536,), "large")}, block=65536),
)
valid(
    "zip-chunks-before-others",
    "A file of tensors between a kibibyte and its neighbours, in every order of size.",
    "READ-003 PACK-004",
    Checkpoint([tensor("uint8", (size,), f"s{size}") for size in (1, 4097, 2, 4096, 63, 64, 65, 1000, 8192)]),
)
