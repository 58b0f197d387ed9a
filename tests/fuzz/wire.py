"""Messages of Protocol Buffers by hand, which no library would write so."""

from __future__ import annotations

import struct
from typing import Any

Value = int | float | str | bytes  # a varint, 4 bytes of a float, or what has a length


def varint(value: int) -> bytes:
    value &= 0xFFFF_FFFF_FFFF_FFFF
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: Value) -> bytes:
    if isinstance(value, int):
        return varint(8 * number) + varint(value)
    if isinstance(value, float):
        return varint(8 * number + 5) + struct.pack("<f", value)
    data = value.encode() if isinstance(value, str) else value
    return varint(8 * number + 2) + varint(len(data)) + data


def message(*fields: tuple[int, Value]) -> bytes:
    return b"".join(field(number, value) for number, value in fields)


# ---- ONNX


def tensor(name: str, kind: int, dims: tuple[int, ...], *fields: tuple[int, Value]) -> bytes:
    """A TensorProto of ONNX; `fields` are its elements."""
    return message(*((1, side) for side in dims), (2, kind), (8, name), *fields)


def model(*graph: tuple[int, Value]) -> bytes:
    """A ModelProto of ONNX with a graph of some fields."""
    return message((1, 8), (2, "by hand"), (7, message(*graph)), (8, message((2, 15))))


SMALL_MODEL = model(
    (5, tensor("raw", 1, (2, 2), (9, bytes(range(16))))),
    (5, tensor("floats", 1, (3,), (4, 1.0), (4, 2.0), (4, 3.0))),
    (5, tensor("ints", 6, (3,), (5, varint(7) + varint(-1) + varint(300)))),
    (5, tensor("bits", 22, (3,), (9, b"\x21\x03"))),
    (5, tensor("six", 27, (3,), (9, b"\x21\x03\x01"))),
    (5, tensor("text", 8, (2,), (6, "a"), (6, "b"))),
    (15, message((1, tensor("sparse", 1, (1,), (4, 1.0))), (2, tensor("", 7, (1,), (7, 5))), (3, 9))),
    (1, message((2, "out"), (4, "Constant"), (5, message((1, "value"), (5, tensor("", 2, (1,), (5, 9))))))),
    (1, message((4, "If"), (5, message((1, "g"), (6, message((5, tensor("in", 3, (), (5, 4))))))))),
)


# ---- Core ML

MIL_KINDS = {"float16": 10, "float32": 11}


def ml_program(arrays: dict[str, Any]) -> bytes:
    """A Model of Core ML whose program has these constants."""
    operations = []
    for name, array in arrays.items():
        sides = [(3, message((1, message((1, side))))) for side in array.shape]
        kind = message((1, message((1, MIL_KINDS[array.dtype.name]), (2, array.ndim), *sides)))
        elements = (1 if array.dtype.name == "float32" else 7, message((1, array.tobytes())))
        value = message((2, kind), (3, message((1, message(elements)))))
        attribute = message((1, "val"), (2, value))
        operations.append((3, message((1, "const"), (3, message((1, name), (2, kind))), (5, attribute))))
    function = message((2, "CoreML5"), (3, message((1, "CoreML5"), (2, message(*operations)))))
    program = message((1, 1), (2, message((1, "main"), (2, function))))
    return message((1, 6), (2, b""), (502, program))
