"""msgpack as a canonical writer puts it [MAN-004], and in the longest forms that msgpack allows."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, NamedTuple


class Literal(NamedTuple):
    """An item written out by hand: its msgpack bytes."""

    raw: bytes


def pack(item: Any) -> bytes:
    """The shortest form of every item, `float 64` for floats, maps in their own order."""
    match item:
        case Literal(raw):
            return raw
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if item else b"\xc2"
        case int():
            return _integer(item)
        case float():
            return struct.pack(">Bd", 0xCB, item)
        case str():
            raw = item.encode()
            return _head(len(raw), (0xA0, 31), (0xD9, 0xDA, 0xDB)) + raw
        case bytes():
            return _head(len(item), None, (0xC4, 0xC5, 0xC6)) + item
        case list() | tuple():
            return _head(len(item), (0x90, 15), (None, 0xDC, 0xDD)) + _packed(pack, item)
        case dict():
            return _head(len(item), (0x80, 15), (None, 0xDE, 0xDF)) + _packed(pack, chain.from_iterable(item.items()))
    raise TypeError(f"no msgpack form for {item!r}")


def pack_long(item: Any) -> bytes:
    """The longest form of every item: as valid as the shortest, and not canonical."""
    match item:
        case Literal(raw):
            return raw
        case bool() | None | float():
            return pack(item)
        case int():
            return struct.pack(">Bq", 0xD3, item) if item < 1 << 63 else struct.pack(">BQ", 0xCF, item)
        case str():
            raw = item.encode()
            return struct.pack(">BI", 0xDB, len(raw)) + raw
        case bytes():
            return struct.pack(">BI", 0xC6, len(item)) + item
        case list() | tuple():
            return struct.pack(">BI", 0xDD, len(item)) + _packed(pack_long, item)
        case dict():
            return struct.pack(">BI", 0xDF, len(item)) + _packed(pack_long, chain.from_iterable(item.items()))
    raise TypeError(f"no msgpack form for {item!r}")


def _packed(form: Callable[[Any], bytes], items: Iterable[Any]) -> bytes:
    """Items one after another. A loop: through `map` or `join` Python 3.12 does not go as deep."""
    parts = []
    for item in items:
        parts.append(form(item))  # noqa: PERF401
    return b"".join(parts)


def _head(count: int, small: tuple[int, int] | None, codes: tuple[int | None, int, int]) -> bytes:
    if small and count <= small[1]:
        return bytes([small[0] | count])
    if codes[0] is not None and count < 1 << 8:
        return struct.pack(">BB", codes[0], count)
    return struct.pack(">BH", codes[1], count) if count < 1 << 16 else struct.pack(">BI", codes[2], count)


def _integer(value: int) -> bytes:
    if -32 <= value < 128:
        return struct.pack("b" if value < 0 else "B", value)
    unsigned = ((0xCC, "B", 8), (0xCD, "H", 16), (0xCE, "I", 32), (0xCF, "Q", 64))
    signed = ((0xD0, "b", 8), (0xD1, "h", 16), (0xD2, "i", 32), (0xD3, "q", 64))
    for code, form, bits in unsigned if value >= 0 else signed:
        if value >> (bits if value >= 0 else bits - 1) in (0, -1):
            return struct.pack(f">B{form}", code, value)
    raise OverflowError(f"{value} does not fit a msgpack integer")


class Bad(Exception):
    """Bytes that are not one msgpack value of the kind that a manifest may hold. [MAN-001]"""


class Single(float):
    """A float that was a `float 32`."""


def unpack(raw: bytes) -> Any:
    """The one item of `raw`, whatever its form; raises `Bad`."""
    try:
        item, end = _item(raw, 0)
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise Bad(f"not msgpack: {error} [MAN-001]") from error
    if end != len(raw):
        raise Bad(f"{len(raw) - end} bytes after the msgpack item [MAN-001]")
    return item


_CONSTANTS: dict[int, Any] = {0xC0: None, 0xC2: False, 0xC3: True}
_NUMBERS = {
    0xCA: "f",
    0xCB: "d",
    0xCC: "B",
    0xCD: "H",
    0xCE: "I",
    0xCF: "Q",
    0xD0: "b",
    0xD1: "h",
    0xD2: "i",
    0xD3: "q",
}
_LENGTHS = {
    **{0xC4: ("bin", "B"), 0xC5: ("bin", "H"), 0xC6: ("bin", "I"), 0xD9: ("str", "B"), 0xDA: ("str", "H")},
    **{0xDB: ("str", "I"), 0xDC: ("array", "H"), 0xDD: ("array", "I"), 0xDE: ("map", "H"), 0xDF: ("map", "I")},
}


def _item(raw: bytes, at: int) -> tuple[Any, int]:
    """The item at `at`, and where it ends."""
    code = raw[at]
    at += 1
    if code < 0x80 or code >= 0xE0:
        return code if code < 0x80 else code - 256, at
    if code in _CONSTANTS:
        return _CONSTANTS[code], at
    if code in _NUMBERS:
        (number,) = struct.unpack_from(f">{_NUMBERS[code]}", raw, at)
        return Single(number) if code == 0xCA else number, at + struct.calcsize(_NUMBERS[code])
    if code < 0xC0:
        kind, count = ("map", code & 15) if code < 0x90 else ("array", code & 15) if code < 0xA0 else ("str", code & 31)
    elif code in _LENGTHS:
        kind, form = _LENGTHS[code]
        (count,) = struct.unpack_from(f">{form}", raw, at)
        at += struct.calcsize(form)
    else:
        raise Bad(f"msgpack type 0x{code:02x} [MAN-001]")
    if kind in ("bin", "str"):
        data = raw[at : at + count]
        if len(data) != count:
            raise Bad("the bytes end within an item [MAN-001]")
        return data if kind == "bin" else data.decode(), at + count
    items = []
    for _ in range(count * (2 if kind == "map" else 1)):
        item, at = _item(raw, at)
        items.append(item)
    if kind == "array":
        return items, at
    keys = items[::2]
    if not all(isinstance(key, str) for key in keys) or len(set(keys)) != len(keys):
        raise Bad("a map has keys that repeat or are no strings [MAN-001]")
    return dict(zip(keys, items[1::2], strict=True)), at
