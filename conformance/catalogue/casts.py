"""Casts: each value rounded once to the nearest, and what lies beyond the range of a dtype.

The codes are worked out by hand from the layouts of the dtypes: between neighbours, by the side of their middle.
"""

from __future__ import annotations

import struct

from ..model import Tensor
from .migrating import Document, document, floats, migrated, move, source

INF, NAN = float("inf"), float("nan")
PAST = 2.0**-40  # what float32 loses beside 1


def octets(dtype: str, *codes: int) -> Tensor:
    return Tensor(dtype, (len(codes),), bytes(codes))


def halves(dtype: str, *codes: int) -> Tensor:
    return Tensor(dtype, (len(codes),), struct.pack(f"<{len(codes)}H", *codes))


def longs(*values: int) -> Tensor:
    return Tensor("int64", (len(values),), struct.pack(f"<{len(values)}q", *values))


def doubles(*values: float) -> Tensor:
    return floats(*values, dtype="float64")


def bits(*values: int) -> Tensor:
    """Elements of float64 by their bits."""
    return Tensor("float64", (len(values),), struct.pack(f"<{len(values)}Q", *values))


def to(dtype: str) -> Document:
    return {"op": "cast", "dtype": dtype}


def paired(dtype: str, pairs: list[tuple[float, int]]) -> tuple[Tensor, Tensor]:
    """Elements of float64 and the codes that they become."""
    made = halves if dtype in ("bfloat16", "float16") else octets
    return doubles(*(value for value, _ in pairs)), made(dtype, *(code for _, code in pairs))


# what each float64 becomes: ties, their neighbours, subnormals, and the end of the range
FLOATS: dict[str, list[tuple[float, int]]] = {
    "bfloat16": [
        *((1 + 2.0**-8, 0x3F80), (1 + 2.0**-8 + PAST, 0x3F81), (1 + 3 * 2.0**-8 - PAST, 0x3F81)),
        *((1 + 3 * 2.0**-8, 0x3F82), (-1 - 2.0**-8 - PAST, 0xBF81)),
        *((2.0**-134, 0x0000), (2.0**-134 * (1 + PAST), 0x0001), (3 * 2.0**-134, 0x0002), (-1e-300, 0x8000)),
        *((511 * 2.0**119 * (1 - PAST), 0x7F7F), (511 * 2.0**119, 0x7F80), (-1e300, 0xFF80), (-INF, 0xFF80)),
    ],
    "float16": [
        *((1 + 2.0**-11, 0x3C00), (1 + 2.0**-11 + PAST, 0x3C01), (2.0**-25, 0x0000), (2.0**-25 * (1 + PAST), 0x0001)),
        *((65520 * (1 - PAST), 0x7BFF), (65520.0, 0x7C00), (-1e300, 0xFC00), (INF, 0x7C00)),
    ],
    "float8_e4m3fn": [
        *((1.0625, 0x38), (1.0625 + PAST, 0x39), (1.1875 - PAST, 0x39), (1.1875, 0x3A), (-1.0625 - PAST, 0xB9)),
        *((2.0**-10, 0x00), (2.0**-10 * (1 + PAST), 0x01), (-0.0, 0x80), (448.0, 0x7E), (464.0, 0x7E)),
        *((464 + PAST, 0x7F), (465.0, 0x7F), (-465.0, 0xFF), (1e300, 0x7F), (INF, 0x7F), (-INF, 0xFF), (NAN, 0x7F)),
    ],
    "float8_e5m2": [
        *((1.125, 0x3C), (1.125 + PAST, 0x3D), (465.0, 0x5F), (61440 - PAST * 2**14, 0x7B), (61440.0, 0x7C)),
        *((-1e300, 0xFC), (INF, 0x7C), (2.0**-17, 0x00), (2.0**-17 * (1 + PAST), 0x01)),
    ],
    "float8_e4m3": [(1.0625 + PAST, 0x39), (248 - PAST, 0x77), (248.0, 0x78), (-465.0, 0xF8), (INF, 0x78)],
    "float8_e3m4": [(1.03125, 0x30), (1.03125 + PAST, 0x31), (15.75 - PAST, 0x6F), (15.75, 0x70), (-16.0, 0xF0)],
    "float8_e4m3fnuz": [(1.0, 0x40), (1.0625 + PAST, 0x41), (248 - PAST, 0x7F), (248.0, 0x80), (-INF, 0x80), (-0.0, 0)],
    "float8_e5m2fnuz": [(1.0, 0x40), (1.125 + PAST, 0x41), (57344.0, 0x7F), (61440.0, 0x80), (NAN, 0x80), (-0.0, 0)],
    "float8_e4m3b11fnuz": [(1.0, 0x58), (1.0625 + PAST, 0x59), (31 - PAST, 0x7F), (31.0, 0x80), (-1e-300, 0x00)],
    "float8_e5m3fnu": [
        *((1.0, 0x78), (1.0625, 0x78), (1.0625 + PAST, 0x79), (1.1875, 0x7A), (2.0**-18, 0x00)),
        *((2.0**-18 * (1 + PAST), 0x01), (3 * 2.0**-18, 0x02), (7.5 * 2.0**-17, 0x08), (1e-300, 0x00), (0.0, 0x00)),
        *((114688.0, 0xFE), (118784.0, 0xFE), (118784 + 2.0**-20, 0xFF), (1e300, 0xFF), (INF, 0xFF), (NAN, 0xFF)),
        *((-0.0, 0x00), (-1.0, 0xFF), (-1e-300, 0xFF), (-INF, 0xFF)),
    ],
    "float8_e8m0fnu": [
        *((1.0, 0x7F), (1.5 - PAST, 0x7F), (1.5, 0x80), (3.0, 0x81), (2.0**-127, 0x00), (1e-300, 0x00)),
        *((1.5 * 2.0**-127 * (1 - PAST), 0x00), (1.5 * 2.0**127 * (1 - PAST), 0xFE), (1.5 * 2.0**127, 0xFF)),
        *((0.0, 0xFF), (-0.0, 0xFF), (-1.0, 0xFF), (INF, 0xFF), (NAN, 0xFF)),
    ],
}  # fmt: skip
for _dtype, _pairs in FLOATS.items():
    _before, _after = paired(_dtype, _pairs)
    migrated(
        f"migrate-cast-{_dtype.replace('_', '-')}",
        f"float64 to {_dtype}: the nearest, rounded once, and the end of the range.",
        "DTYPE-006 DTYPE-007",
        source({"w": _before}),
        [document(move("w", "w", to(_dtype)))],
        {"w": _after},
        loss="irreversible",
    )
migrated(
    "migrate-cast-long-integers",
    "int64 to bfloat16, rounded once: what is lost behind 53 bits breaks a tie.",
    "DTYPE-006",
    source({"w": longs(2**60 + 2**52, 2**60 + 2**52 + 1, -(2**60) - 2**52 - 1, 2**63 - 1, 257, 0)}),
    [document(move("w", "w", to("bfloat16")))],
    {"w": halves("bfloat16", 0x5D80, 0x5D81, 0xDD81, 0x5F00, 0x4380, 0x0000)},
    loss="irreversible",
)
migrated(
    "migrate-cast-nans",
    "NaNs keep their sign, and the high bits of their payload where there is an infinity too.",
    "DTYPE-008",
    source({name: bits(0x7FF8 << 48, 0xFFF8 << 48, 0x7FF4 << 48, 0xFFF << 52 | 1) for name in ("a", "b", "c")}),
    [document(move("a", "a", to("float8_e5m2")), move("b", "b", to("float8_e4m3fn")), move("c", "c", to("float16")))],
    {
        "a": octets("float8_e5m2", 0x7E, 0xFE, 0x7D, 0xFE),
        "b": octets("float8_e4m3fn", 0x7F, 0xFF, 0x7F, 0xFF),
        "c": halves("float16", 0x7E00, 0xFE00, 0x7D00, 0xFE00),
    },
    loss="irreversible",
)
_ONES = octets("float8_e4m3fn", 0x38, 0xB8, 0x7E, 0x7F)
migrated(
    "migrate-scale-add-float8",
    "What binary64 gives is rounded once to the dtype of the tensor.",
    "DTYPE-006 DTYPE-007",
    source({"s": _ONES, "t": _ONES, "a": _ONES, "b": _ONES}),
    [
        document(
            move("s", "s", {"op": "scale", "by": 1.0625 + PAST}),
            move("t", "t", {"op": "scale", "by": 2.0}),
            move("a", "a", {"op": "add", "value": 0.0625 + PAST}),
            move("b", "b", {"op": "add", "value": -16.0}),
        )
    ],
    {
        "s": octets("float8_e4m3fn", 0x39, 0xB9, 0x7F, 0x7F),
        "t": octets("float8_e4m3fn", 0x40, 0xC0, 0x7F, 0x7F),
        "a": octets("float8_e4m3fn", 0x39, 0xB7, 0x7E, 0x7F),
        "b": octets("float8_e4m3fn", 0xD7, 0xD8, 0x7E, 0x7F),
    },
    loss="lossy",
)


def _filled(name: str, value: float, dtype: str) -> Document:
    return move([], name, {"op": "fill", "value": value, "shape": [2], "dtype": dtype})


migrated(
    "migrate-fill-float8",
    "Values of fill are rounded once, and may lie beyond the range.",
    "DTYPE-006 DTYPE-007 MIG-008",
    source({"z": octets("float8_e4m3fn", 0x38)}),
    [
        document(
            move("z", "z", {"op": "pad", "axis": 0, "before": 0, "after": 1, "value": 1.0625 + PAST}),
            _filled("e4m3fn", 465, "float8_e4m3fn"),
            _filled("e5m2", 1.125 + PAST, "float8_e5m2"),
            _filled("e8m0fnu", 0, "float8_e8m0fnu"),
            _filled("int8", 300, "int8"),
        )
    ],
    {
        "z": octets("float8_e4m3fn", 0x38, 0x39),
        "e4m3fn": octets("float8_e4m3fn", 0x7F, 0x7F),
        "e5m2": octets("float8_e5m2", 0x3D, 0x3D),
        "e8m0fnu": octets("float8_e8m0fnu", 0xFF, 0xFF),
        "int8": octets("int8", 44, 44),
    },
)
