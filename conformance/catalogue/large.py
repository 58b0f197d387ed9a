"""Cases whose input is too large to be checked in; it is made when a case is run."""

from __future__ import annotations

import struct
from collections.abc import Callable

from ..build import Checkpoint, Files, record
from ..model import Tensor, pattern, tensor
from ..packing import pack
from ..pages import Paging
from . import plain


def wide() -> Files:
    """A matrix of 32 MiB in one raw chunk, of which every row of 4 KiB tells its number."""
    rows = [pattern(64, f"row-{i}") for i in range(8192)]
    data = b"".join(row + bytes(4032) for row in rows)
    rows_with_pattern = {5000: pattern(4096, "row-5000")}
    for number, row in rows_with_pattern.items():
        data = data[: number * 4096] + row + data[(number + 1) * 4096 :]
    return Checkpoint({"x": Tensor("uint8", (8192, 4096), data)}, block=65536).build()


COUNT = 70_000


def many() -> Files:
    """More members than a ZIP without ZIP64 can count."""
    return Checkpoint({"x": Tensor("uint16", (COUNT,), _numbers(), grid=(1,))}).build()


def _numbers() -> bytes:
    return b"".join((i & 0xFFFF).to_bytes(2, "little") for i in range(COUNT))


FAR = {"first": tensor("int16", (3,), "first"), "far": tensor("int16", (3,), "far")}


def far() -> Files:
    """Chunks behind a hole of 4 GiB, whose places need ZIP64."""
    return Checkpoint(FAR, hole=(1 << 32) + 4096).build()


STACK = {f"t{i:02}": Tensor("uint8", (65_535,), pattern(13_107, f"stack-{i}") * 5) for i in range(65)}


def stack() -> Files:
    """Small tensors that take more than one chunk of a stack."""
    return Checkpoint(STACK, paged=Paging()).build()


def page() -> Files:
    """A paged manifest of which one page has 2 GiB, all of it a hole."""
    hole = 2 << 30
    manifest = pack(
        {
            **{"format": [1, 1], "layout": "file", "requires": ["pages"], "generator": "conformance"},
            **{"digest": "sha256", "block": 4096, "schema": None, "metadata": None},
            "tree": ["dict", ["a", "b"], [1, ["page", 0]]],
            "codecs": [],
            "tensors": {"first": [], "count": b"", "chunks": b""},
            "parts": [],
            "pages": {"offset": 4, "length": struct.pack("<Q", hole), "sha256": bytes(32)},
            "plain_keys": True,
        }
    )
    return {"": [b"PK\3\4", hole, manifest, record("file", 4 + hole, manifest, bytes(32), (1, 1))]}


BUILDERS: dict[str, Callable[[], Files]] = {"wide": wide, "many": many, "far": far, "stack": stack, "page": page}

_NEEDS = ("reader", "layout:file", "digest:sha256")
plain(
    "zip64-many-members",
    "70,000 chunks: the ZIP's end record needs ZIP64.",
    "PACK-003",
    {"build": "many", "generated": True},
    {"op": "read", "path": ["x"]},
    {"value": Tensor("uint16", (COUNT,), _numbers()).value(None)},
    needs=_NEEDS,
    large=True,
)
plain(
    "zip64-many-members-slice",
    "One of 70,000 chunks.",
    "PACK-003 READ-003",
    {"build": "many", "generated": True},
    {"op": "read_slice", "path": ["x"], "slices": [[66_000, 66_002, 1]]},
    {"value": Tensor("uint16", (2,), _numbers()[132_000:132_004]).value(None)},
    needs=_NEEDS,
    large=True,
)
plain(
    "zip64-far-chunks",
    "Chunks beyond 4 GiB.",
    "PACK-003",
    {"build": "far", "generated": True},
    {"op": "read", "path": []},
    {"value": Checkpoint(FAR).values()[0]},
    needs=(*_NEEDS, "sparse"),
    large=True,
)
plain(
    "zip64-far-chunks-node",
    "Chunks beyond 4 GiB, as a Zarr reader finds them by the ZIP's directory.",
    "PACK-003 PACK-007",
    {"build": "far", "generated": True},
    {"op": "read_node", "name": "far"},
    {"value": FAR["far"].value(None)},
    needs=("zarr", "layout:file", "sparse"),
    large=True,
)
plain(
    "limit-page",
    "A page of 2 GiB is refused before it is read, and when it is asked for.",
    "LIM-011",
    {"build": "page", "generated": True},
    {"op": "read", "path": ["b"]},
    {
        "error": {"any_of": ["limit-exceeded"]},
        "still_readable": [{"path": ["a"], "value": {"type": "int", "value": "1"}}],
        "budget": {"bytes": 64 << 20},
    },
    needs=(*_NEEDS, "pages", "sparse"),
    large=True,
)
