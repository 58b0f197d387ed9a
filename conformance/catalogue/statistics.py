"""Statistics: claims about elements, which a reader may use and may ignore, and for which it refuses nothing, whatever
they say. SPEC.md section 7.3."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import Any

from ..build import Checkpoint
from ..model import tensor
from . import fault, msgpack, valid, value_of
from .pages import TREE as PAGED_TREE

TREE = {"f": tensor("float32", (3, 2), "f"), "i": tensor("int64", (3,), "i"), "none": tensor("uint8", (0,), "none")}
ALL = ("nan", "positive_inf", "negative_inf", "zeros", "subnormals", "saturated")


def _right(document: dict[str, Any]) -> dict[str, Any]:
    """Of this form, and bound to what stands there; of a tensor without elements all is as it has to be."""
    proof = document["schema"]["fingerprint"] + document["parts"][0]["chunks"]["digest"]
    nan = float("nan")
    return {
        "of": hashlib.sha256(proof).digest(),
        "tensor": None,
        **dict.fromkeys(ALL),
        "bits": bytes([24, 64, 0]),
        "min": struct.pack("<dqQ", -1.5, -(2**62), 0),
        "max": struct.pack("<dqQ", 2.5, 2**62, 0),
        "mean": struct.pack("<3d", 0.25, 1.0, nan),
        "std": struct.pack("<3d", 1.0, 2.0**60, nan),
    }


def _with(**columns: Any) -> Callable[[dict[str, Any]], None]:
    """Statistics with other columns."""

    def edit(document: dict[str, Any]) -> None:
        document["statistics"] = {**_right(document), **columns}

    return edit


def _as(value: Any) -> Callable[[dict[str, Any]], None]:
    """Something else in their place."""

    def edit(document: dict[str, Any]) -> None:
        document["statistics"] = value

    return edit


def _doubles(*values: float) -> bytes:
    return struct.pack(f"<{len(values)}d", *values)


def _numbers(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


U64, NAN = 2**64 - 1, float("nan")
CASES: dict[str, tuple[str, str, Callable[[dict[str, Any]], None]]] = {
    "all": ("Statistics of every tensor.", "STAT-001 STAT-002 MAN-003", _with()),
    "some": (
        "Statistics of one tensor.",
        "STAT-001 STAT-002",
        _with(tensor=struct.pack("<I", 1), bits=b"\x40", **{
            name: column[8:16] for name, column in (
                ("min", struct.pack("<dqQ", 0, -(2**62), 0)), ("max", struct.pack("<dqQ", 0, 2**62, 0)),
                ("mean", struct.pack("<3d", 0, 1, 0)), ("std", struct.pack("<3d", 0, 2.0**60, 0)),
            )
        }),
    ),
    "text": ("Statistics that are a text.", "STAT-004", _as("none")),
    "nil": ("Statistics that are nil.", "STAT-004", _as(None)),
    "empty": ("Statistics without a column.", "STAT-004", _as({})),
    "of-others": ("Statistics that are bound to other bytes.", "STAT-002 STAT-004", _with(of=bytes(32))),
    "short-column": ("A column that is too short.", "STAT-001 STAT-004", _with(mean=bytes(16))),
    "odd-column": ("A column of no whole rows.", "STAT-001 STAT-004", _with(std=bytes(23))),
    "column-of-floats": ("A column that is an array.", "STAT-001 STAT-004", _with(mean=[0.0, 0.0, 0.0])),
    "no-such-tensor": ("A row of a tensor that is not there.", "STAT-001 STAT-004", _with(tensor=_numbers(0, 1, 7))),
    "out-of-order": ("Rows out of order.", "STAT-001 STAT-004", _with(tensor=_numbers(2, 1, 0))),
    "too-many": ("More NaNs than there are elements.", "STAT-004", _with(nan=struct.pack("<3Q", U64, 0, 0))),
    "integer-nan": ("NaNs of a tensor of integers.", "STAT-001 STAT-004", _with(nan=struct.pack("<3Q", 0, 1, 0))),
    "nan-mean": ("A mean that is NaN, and no element.", "STAT-001 STAT-004", _with(mean=_doubles(NAN, NAN, NAN))),
    "negative-std": ("A standard deviation below 0.", "STAT-004", _with(std=_doubles(-1.0, 0.0, NAN))),
    "upside-down": ("A least element above the greatest.", "STAT-004", _with(min=struct.pack("<dqQ", 9.0, 0, 0))),
    "far-mean": ("A mean above the greatest element.", "STAT-004", _with(mean=_doubles(1e9, 1.0, NAN))),
    "bits": ("More bits than there are.", "STAT-004", _with(bits=b"\xff\xff\xff")),
}  # fmt: skip
for _name, (_title, _spec, _edit) in CASES.items():
    valid(
        f"statistics-{_name}",
        f"{_title} All is read as if there were none.",
        _spec,
        Checkpoint(TREE, schema=("a", "1"), edit=_edit),
    )
fault(
    "statistics-paged",
    "Statistics of a page that break the rules. All is read as if there were none.",
    "STAT-001 STAT-004",
    "pages-base",
    [
        {
            "do": "edit_manifest",
            "pointer": "/statistics",
            "msgpack": msgpack({"of": bytes(32), "tensor": None, "mean": b""}),
            "page": 4,
        },
        {"do": "reseal"},
    ],
    {"value": value_of(PAGED_TREE)},
    {"op": "read", "path": []},
)
