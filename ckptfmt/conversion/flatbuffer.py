"""FlatBuffers, read over a mapped file, by tables that say what the slots of a table are.

    table  := i32 how far before it its vtable lies, fields
    vtable := u16 its bytes, u16 those of the table, u16 for each slot: where in the table its field lies, 0 for none
    field  := a scalar, or u32 how far behind it a string, a vector or a table lies
    vector := u32 count, items

Every place is checked before it is read. Tables are read one by one, when they are asked for: what points in a circle
is followed no further than who asks.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..format.dtypes import Array, bytes_of
from .source import array_over, cut_off

TEXT, TABLE, TABLES = "text", "table", "tables"  # kinds of fields; a scalar has its code of `struct`, ...
_NUMBERS = "numbers of "  # ... and a vector of numbers a dtype
_U16, _U32, _I32 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<i")

FlatTable = Mapping[int, tuple[str, str]]  # slot -> name, kind


def numbers(dtype: str) -> str:
    """The kind of a vector of numbers."""
    return _NUMBERS + dtype


class FlatVector(NamedTuple):
    """The place of the first item of a vector, and how many it has."""

    at: int
    length: int


class FlatReader:
    """Reads tables of a file."""

    def __init__(self, data: Array) -> None:
        self.data, self._view = data, bytes_of(data)

    @property
    def root(self) -> int:
        """The place of the table that comes first."""
        return self._target(0)

    def read(self, table: int, slots: FlatTable) -> dict[str, Any]:
        """The fields of the table at a place that are named, but for those that are not there."""
        vtable = table - self._number(_I32, table)
        if vtable < 0:
            raise ValueError(f"the vtable of the table at byte {table:,} would lie before the file")
        held, size = self._number(_U16, vtable), self._number(_U16, vtable + 2)
        if held < 4 or size < 4:
            raise ValueError(f"the vtable at byte {vtable:,} has {held} bytes, for a table of {size}")
        self._within(vtable + held)
        self._within(table + size)
        found: dict[str, Any] = {}
        for slot, (name, kind) in slots.items():
            place = self._number(_U16, vtable + 4 + 2 * slot) if 6 + 2 * slot <= held else 0
            if place:
                width = struct.calcsize(kind) if kind[0] == "<" else 4
                if not 4 <= place <= size - width:
                    raise ValueError(f"the field {name!r} of the table at byte {table:,} lies outside of it")
                found[name] = self._field(table + place, kind)
        return found

    def tables(self, vector: FlatVector) -> Iterator[int]:
        """The places of the tables in a vector."""
        return (self._target(vector.at + 4 * number) for number in range(vector.length))

    def octets(self, first: int, size: int) -> Array:
        """Bytes of the file, where they are."""
        self._within(first + size)
        return array_over(self.data, first, np.dtype(np.uint8), (size,))

    def text_size(self, table: int, slot: int) -> int:
        """Bytes of the text in a slot, before it is read."""
        return len(self.read(table, {slot: ("text", numbers("<u1"))}).get("text", ()))

    def _field(self, at: int, kind: str) -> Any:
        if kind[0] == "<":
            return struct.unpack_from(kind, self._view, at)[0]
        target = self._target(at)
        if kind == TABLE:
            return target
        count, first = self._number(_U32, target), target + 4
        if kind == TEXT:
            return str(self.octets(first, count).tobytes(), "utf-8")
        if kind == TABLES:
            self._within(first + 4 * count)
            return FlatVector(first, count)
        dtype = np.dtype(kind.removeprefix(_NUMBERS))
        return self.octets(first, count * dtype.itemsize).view(dtype)

    def _target(self, at: int) -> int:
        """What an offset leads to."""
        target = at + self._number(_U32, at)
        self._within(target + 4)
        return target

    def _number(self, form: struct.Struct, at: int) -> int:
        self._within(at + form.size)
        return int(form.unpack_from(self._view, at)[0])

    def _within(self, end: int) -> None:
        if end > self.data.size:
            raise cut_off(self.data.size, end, or_more=True)
