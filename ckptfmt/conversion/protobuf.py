"""The wire format of Protocol Buffers, read over a mapped file, by tables that say what the fields of a message are.

    message := fields, in any order and number
    field   := varint of 8 * number + wire type, value
    value   := varint (wire type 0), 8 bytes (1), varint of a length and so many bytes (2), 4 bytes (5)

A message is read when it is asked for, and of it only what its table names; messages in it are the places of their
bytes until they are read themselves. So nothing here is recursive, and bytes stay where they are in the file.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np

from ..format.dtypes import Array, bytes_of
from .claims import shown
from .probe import Probe
from .source import array_over, cut_off

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types; groups, 3 and 4, are refused
_WIDTHS = {FIXED64: 8, FIXED32: 4}
MAX_NUMBER = 1 << 29  # of a field
MAX_VARINT = 10  # bytes
BLOCK = 1 << 16  # bytes of packed varints that are decoded together
FIRST = 64  # fields that are looked at to tell what a message is
SMALL = 1 << 10  # bytes of packed numbers that are not worth an array of their own

# the kinds of fields: numbers and texts, of which the last counts, ...
INT, UINT, FLOAT, DOUBLE, TEXT = "int", "uint", "float", "double", "text"
PART = "part"  # ... bytes of which the last count, as a `ByteSpan`, ...
PARTS = "parts"  # ... all of them, as `PartList`: one message or several, and bytes or texts that are many, ...
VARINTS, FLOATS, DOUBLES = "varints", "floats", "doubles"  # ... and numbers, one by one or packed, as `Numbers`
_WIRES = {INT: VARINT, UINT: VARINT, FLOAT: FIXED32, DOUBLE: FIXED64, TEXT: BYTES, PART: BYTES, PARTS: BYTES}
_WIRES |= {VARINTS: VARINT, FLOATS: FIXED32, DOUBLES: FIXED64}
_DTYPES: dict[str, np.dtype[Any]] = {VARINTS: np.dtype(np.uint64), FLOATS: np.dtype("<f4"), DOUBLES: np.dtype("<f8")}

Table = Mapping[int, tuple[str, str]]  # number of a field -> its name, its kind


class ByteSpan(NamedTuple):
    """The place of some bytes in a file."""

    first: int
    last: int

    @property
    def size(self) -> int:
        return self.last - self.first


# the parts of one message, one after another: it may come in several, and almost never does
Message = Iterable[ByteSpan]


class PartList:
    """Places of bytes, in little memory: there may be one for every two bytes of a file."""

    def __init__(self) -> None:
        self._places = array("Q")

    def add(self, span: ByteSpan) -> None:
        self._places.extend(span)

    def __len__(self) -> int:
        return len(self._places) // 2

    def __iter__(self) -> Iterator[ByteSpan]:
        return self.first(len(self))

    def first(self, most: int) -> Iterator[ByteSpan]:
        """The first of them."""
        for at in range(0, 2 * min(most, len(self)), 2):
            yield ByteSpan(self._places[at], self._places[at + 1])


class WireReader:
    """Reads messages of a file. All that it gives takes 16 times the bytes that it is read from, at most."""

    def __init__(self, data: Array) -> None:
        self.data, self._view = data, bytes_of(data)

    @property
    def whole(self) -> Message:
        """The message that the file is."""
        return (ByteSpan(0, self.data.size),)

    def fields(self, message: Message) -> Iterator[tuple[int, int, Any]]:
        """The fields of a message: number, wire type, and an int, or the `ByteSpan` of what is no varint."""
        view = self._view
        for first, last in message:
            at = first
            while at < last:
                tag, at = (view[at], at + 1) if view[at] < 0x80 else self._varint(at, last, first)
                number, wire = tag >> 3, tag & 7
                if not 0 < number < MAX_NUMBER:
                    raise ValueError(f"a field with the number {number} at byte {at:,}")
                if wire in _WIDTHS:
                    value: Any = ByteSpan(at, at + _WIDTHS[wire])
                    at = value.last
                elif wire in (VARINT, BYTES):
                    is_short = at < last and view[at] < 0x80
                    value, at = (view[at], at + 1) if is_short else self._varint(at, last, first)
                    if wire == BYTES:
                        value = ByteSpan(at, at + value)
                        at = value.last
                else:
                    raise ValueError(f"field {number} at byte {at:,} has the wire type {wire}")
                if at > last:
                    raise self._ended(first, last, at)
                yield number, wire, value

    def read(self, message: Message, table: Table) -> dict[str, Any]:
        """The fields of a message that a table names, but for those that are not there."""
        found: dict[str, Any] = {}
        for number, wire, value in self.fields(message):
            if number not in table:
                continue
            name, kind = table[number]
            if kind in _DTYPES:
                if name not in found:
                    found[name] = Numbers(self, kind)
                found[name].add(wire, value)
            elif wire != _WIRES[kind]:
                raise ValueError(f"the field {name!r} has the wire type {wire}: {shown(value)}")
            elif kind == PARTS:
                if name not in found:
                    found[name] = PartList()
                found[name].add(value)
            else:
                found[name] = self._value(kind, value)
        return found

    def text(self, span: ByteSpan) -> str:
        """Text in UTF-8; raises UnicodeDecodeError."""
        return str(self._view[span.first : span.last], "utf-8")

    def octets(self, span: ByteSpan) -> Array:
        """Bytes of the file, where they are."""
        return array_over(self.data, span.first, np.dtype(np.uint8), (span.size,))

    def _value(self, kind: str, value: Any) -> Any:
        if kind == TEXT:
            return self.text(value)
        if kind in (FLOAT, DOUBLE):
            return float(self.octets(value).view("<f4" if kind == FLOAT else "<f8")[0])
        return signed(value) if kind == INT else value

    def _varint(self, at: int, last: int, first: int) -> tuple[int, int]:
        """A varint of a message from `first` to `last`, and the place after it."""
        try:
            return varint(self._view, at, last)
        except EOFError:
            raise self._ended(first, last, last + 1) from None

    def _ended(self, first: int, last: int, due: int) -> Exception:
        if (first, last) == (0, self.data.size):
            return cut_off(self.data.size, due, or_more=True)
        return ValueError(f"a field reaches over the end of its message at byte {last:,}")


def varint(octets: bytes | memoryview, at: int, last: int) -> tuple[int, int]:
    """The varint at a place, and the place after it; raises EOFError where it reaches over `last`."""
    value = shift = 0
    while at < last:
        byte = octets[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
        shift += 7
        if shift == 7 * MAX_VARINT:
            raise ValueError(f"a varint of more than {MAX_VARINT} bytes before byte {at:,}")
    raise EOFError


def first_fields(probe: Probe, first: int = 0, last: int | None = None) -> Iterator[tuple[int, int, ByteSpan | int]]:
    """The first fields of what may be a message, from one byte of a file to another, without what is in them: number,
    wire type, and an int, or the place of what is no varint. They end where they make no sense."""
    last = probe.size if last is None else last
    for _ in range(FIRST):
        head = probe.head[first : first + 20] if first + 20 <= len(probe.head) else probe.read(first, 20)
        head = head[: max(0, last - first)]
        try:
            tag, at = varint(head, 0, len(head))
            wire = tag & 7
            value, at = (_WIDTHS[wire], at) if wire in _WIDTHS else varint(head, at, len(head))
        except (EOFError, ValueError):
            return
        if wire not in (VARINT, BYTES, *_WIDTHS) or not 0 < tag >> 3 < MAX_NUMBER:
            return
        start = first + at
        first = start if wire == VARINT else start + value
        yield tag >> 3, wire, value if wire == VARINT else ByteSpan(start, first)


def signed(value: int) -> int:
    """A varint as the int64 that it stands for."""
    return value - (1 << 64) if value >> 63 else value


class Numbers:
    """Repeated numbers of one kind: how many there are, and any part of them."""

    def __init__(self, reader: WireReader, kind: str) -> None:
        self._reader, self.kind, self.dtype = reader, kind, _DTYPES[kind]
        self._pieces: list[Any] = []
        self._loose: array[int] | None = None  # the last piece, as it grows, of numbers that lie scattered

    def add(self, wire: int, value: Any) -> None:
        """Add what a field has: one number, or many that are packed."""
        if wire == BYTES and self.kind == VARINTS:
            octets = self._reader.octets(value)
            if octets.size and octets[-1] >= 0x80:
                raise ValueError(f"packed numbers end within one, at byte {value.last:,}")
            self._add_many(octets, _varints, PackedVarints)
        elif wire == BYTES:
            if value.size % self.dtype.itemsize:
                raise ValueError(f"{value.size:,} bytes of packed {self.kind} before byte {value.last:,}")
            self._add_many(self._reader.octets(value), _as_they_are, lambda octets: octets.view(self.dtype))
        elif wire == VARINT == _WIRES[self.kind]:
            self._scattered().append(value)
        elif wire == _WIRES[self.kind]:
            self._scattered().frombytes(self._reader.octets(value).tobytes())
        else:
            raise ValueError(f"{self.kind} with the wire type {wire}: {shown(value)}")

    def _add_many(self, octets: Array, few: Callable[[Array], Array], many: Callable[[Array], Any]) -> None:
        if octets.size < SMALL and (self._pieces or self.kind == VARINTS):
            self._scattered().frombytes(few(octets).tobytes())
        else:
            self._pieces.append(many(octets))
            self._loose = None

    def _scattered(self) -> array[int]:
        if self._loose is None:
            self._loose = array("Q" if self.dtype.itemsize == 8 else "I")
            self._pieces.append(self._loose)
        return self._loose

    @property
    def pieces(self) -> list[Any]:
        """They in order: arrays, and of varints what decodes them."""
        return [np.frombuffer(piece, self.dtype) if isinstance(piece, array) else piece for piece in self._pieces]

    def __len__(self) -> int:
        return sum(map(len, self._pieces))

    def part(self, first: int, last: int, dtype: np.dtype[Any]) -> Array:
        """Those from one number to another, as a dtype: ints of that width, whatever is above."""
        out = np.empty(last - first, dtype)
        at = 0
        for piece in self.pieces:
            low, high = max(first, at), min(last, at + len(piece))
            if low < high and isinstance(piece, PackedVarints):
                piece.fill(low - at, out[low - first : high - first])
            elif low < high:
                out[low - first : high - first] = piece[low - at : high - at].astype(dtype)
            at += len(piece)
        return out

    def ints(self, most: int) -> list[int]:
        """The first of them, as int64."""
        return list(map(int, self.part(0, min(len(self), most), np.dtype(np.int64))))


class PackedVarints:
    """Varints one after another, any of which can be read: it is known how many end in each block."""

    def __init__(self, octets: Array) -> None:
        self._octets = octets
        blocks = (octets[at : at + BLOCK] for at in range(0, octets.size, BLOCK))
        self._before = list(accumulate((int(np.count_nonzero(block < 0x80)) for block in blocks), initial=0))

    def __len__(self) -> int:
        return self._before[-1]

    def fill(self, first: int, out: Array) -> None:
        """Decode those from `first` on into an array of ints."""
        last = first + out.size
        for block in range(bisect_right(self._before, first) - 1, bisect_left(self._before, last)):
            low, high = max(first, self._before[block]), min(last, self._before[block + 1])
            if low < high:
                values = self._block(block)[low - self._before[block] : high - self._before[block]]
                out[low - first : high - first] = values.astype(out.dtype)

    def _block(self, block: int) -> Array:
        """All that end in a block; the first of them may begin before it."""
        begin = block * BLOCK
        while begin and self._octets[begin - 1] >= 0x80 and begin > block * BLOCK - MAX_VARINT:
            begin -= 1
        return _varints(self._octets[begin : (block + 1) * BLOCK])


def _as_they_are(octets: Array) -> Array:
    return octets


def _varints(octets: Array) -> Array:
    """The varints that end in some bytes, which begin with one."""
    ends = np.flatnonzero(octets < 0x80)
    starts = np.concatenate([np.zeros(1, ends.dtype), ends[:-1] + 1]) if ends.size else ends
    lengths = ends - starts + 1
    longest = int(lengths.max(initial=0))
    if longest > MAX_VARINT:
        raise ValueError(f"a varint of more than {MAX_VARINT} bytes")
    values = np.zeros(ends.size, np.uint64)
    for place in range(longest):
        has = lengths > place
        values[has] |= (octets[starts[has] + place].astype(np.uint64) & np.uint64(0x7F)) << np.uint64(7 * place)
    return values
