"""Tensor bundles, TensorFlow's checkpoints since version 2 of them: `PREFIX.index`, a sorted table, and the files
`PREFIX.data-00000-of-00001`, in which the bytes of tensors lie as they do in memory.

The key "" of the index is a header, every other one a tensor: dtype, shape, file, place and masked CRC-32C. A variable
in parts has an entry for the whole, which names their places, and one for each part, whose key is made of both.

What a tensor's bytes are is checked when any of them is first read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ..errors import fault
from ..format.dtypes import DTYPES, Array
from ..format.grid import Shape
from ..format.names import label
from ..format.tree import Tree
from . import crc32c, sorted_table
from .checked import checked
from .claims import count, shape_of, shown, size_of
from .losses import LeftOut
from .parts import TensorPart, joined
from .protobuf import BYTES, FIXED32, INT, PART, PARTS, ByteSpan, Message, WireReader, varint
from .source import (
    LEAVES,
    LazyArray,
    Loss,
    SourceTensor,
    array_over,
    cut_off,
    mapped_file,
    plain_text,
)

INDEX = ".index"
VERSION = 1  # of bundles
_STRING = "string"

# DataType of TensorFlow
_NAMES = {
    **{1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 7: _STRING, 8: "complex64"},
    **{9: "int64", 10: "bool", 11: "qint8", 12: "quint8", 13: "qint32", 14: "bfloat16", 15: "qint16", 16: "quint16"},
    **{17: "uint16", 18: "complex128", 19: "float16", 20: "resource", 21: "variant", 22: "uint32", 23: "uint64"},
    **{24: "float8_e5m2", 25: "float8_e4m3fn", 26: "float8_e4m3fnuz", 27: "float8_e4m3b11fnuz"},
    **{28: "float8_e5m2fnuz", 29: "int4", 30: "uint4", 31: "int2", 32: "uint2", 33: "float4_e2m1fn"},
}
_QUANTISED = {name: name[1:] for name in ("qint8", "quint8", "qint16", "quint16", "qint32")}


BundlePlace = tuple[tuple[int, ...], tuple[int | None, ...]]  # of a part: starts and lengths, None for a whole axis


class BundleEntry(NamedTuple):
    """A tensor as the index has it; `slices` are the places of its parts."""

    dtype: int
    shape: Shape
    shard: int
    offset: int
    size: int
    crc: int
    slices: tuple[BundlePlace, ...]


class TensorBundle:
    """The tensors of a checkpoint whose index is a file. Raises what `sorted_table.entries` does, `bad-source` for
    files that are missing or cut off, `unsafe-source`, and ValueError."""

    def __init__(self, index: str) -> None:
        self.prefix = index.removesuffix(INDEX)
        self.folder = os.path.dirname(index) or "."
        self.losses: list[Loss] = []
        self.left_out = LeftOut(self.losses)
        data = mapped_file(index)
        self.size = data.size
        reader, found = WireReader(data), sorted_table.entries(data)
        key, header = next(found, (None, ByteSpan(0, 0)))
        if key != b"":
            message = "this is a table of LevelDB, but no TensorFlow checkpoint: it has no header"
            raise fault("unsupported-source", message)
        self.shards = _shards(reader, (header,))
        self.entries = {key: _entry(reader, (place,)) for key, place in found}
        self._files: dict[int, Array] = {}
        self._check_places()

    def tensors(self) -> Iterator[tuple[str, Any]]:
        """The name of each tensor, and the tensor, or the strings as plain values."""
        parts: set[bytes] = set()
        for key, entry in self.entries.items():
            if entry.slices:
                parts.update(key_of_part(key, *place) for place in entry.slices)
        for key, entry in self.entries.items():
            if key in parts:
                continue
            if key.startswith(b"\0"):
                raise ValueError(f"{shown(key)} is a part of no tensor")
            name = key.decode("utf-8")
            dtype = self._dtype(entry, name)
            if dtype is None:
                continue
            if dtype == _STRING:
                yield name, self._strings(entry, name)
            elif entry.slices:
                yield name, self._of_parts(key, name, entry, DTYPES[dtype].numpy)
            else:
                yield name, self._array(entry, name, DTYPES[dtype].numpy)

    def _dtype(self, entry: BundleEntry, name: str) -> str | None:
        """The name of a dtype; None for what is left out."""
        found = _NAMES.get(entry.dtype)
        if found is None:
            self.left_out.add(fault("unsupported-source", f"it has the data type {entry.dtype}", tensor=name))
            return None
        if found in ("resource", "variant"):
            self.losses.append(Loss("value", name, f"a tensor of objects ({found}) is left out"))
            return None
        if found in _QUANTISED:
            self.losses.append(Loss("dtype", name, f"{found} becomes {_QUANTISED[found]} with the same bits"))
        return _QUANTISED.get(found, found)

    def _array(self, entry: BundleEntry, name: str, dtype: np.dtype[Any]) -> LazyArray:
        if entry.size != size_of(entry.shape, dtype.itemsize):
            message = f"{shown(name)} has {entry.size:,} bytes, which is wrong for {dtype} of shape {entry.shape}"
            raise ValueError(message)
        octets = BundleBytes(self._bytes(entry), entry.crc, name)
        return checked(array_over(octets.data, 0, dtype.newbyteorder("<"), entry.shape), octets.check)

    def _of_parts(self, key: bytes, name: str, entry: BundleEntry, dtype: np.dtype[Any]) -> SourceTensor:
        parts: list[TensorPart] = []
        for starts, lengths in entry.slices:
            part = self.entries.get(key_of_part(key, starts, lengths))
            if part is None:
                raise ValueError(f"a part of {shown(name)} from {starts} on is missing in the index")
            if part.dtype != entry.dtype or part.slices or len(lengths) != len(entry.shape):
                raise ValueError(f"a part of {shown(name)} is of another kind than the whole")
            shape = tuple(whole if n is None else n for n, whole in zip(lengths, entry.shape, strict=True))
            if part.shape != shape:
                raise ValueError(f"a part of {shown(name)} has the shape {part.shape}, not {shape}")
            parts.append((starts, self._array(part, name, dtype)))
        return joined(name, entry.shape, parts[0][1].dtype, parts)

    def _strings(self, entry: BundleEntry, name: str) -> Tree:
        """Strings as nested lists: their lengths, a checksum of these, and their bytes."""
        if entry.slices:
            raise fault("unsupported-source", f"{shown(name)} has strings, in parts", tensor=label(name))
        if prod(side or 1 for side in entry.shape) > LEAVES or prod(entry.shape) > entry.size:
            message = f"{shown(name)} would have {prod(entry.shape):,} strings in {entry.size:,} bytes"
            raise fault("limit-exceeded", message, tensor=label(name))
        octets = self._bytes(entry)
        data, at, lengths = memoryview(octets.tobytes()), 0, list[int]()
        for _ in range(prod(entry.shape)):
            length, at = varint(data, at, len(data))
            lengths.append(length)
        crc = crc32c.extended(0, b"".join(n.to_bytes(4 if n < 1 << 32 else 8, "little") for n in lengths))
        crc32c.compare(crc32c.masked(crc), int.from_bytes(data[at : at + 4], "little"), f"the lengths of {shown(name)}")
        if at + 4 + sum(lengths) != entry.size:
            raise ValueError(f"{shown(name)} has {entry.size:,} bytes, which is wrong for its strings")
        crc32c.compare(crc32c.masked(crc32c.extended(crc, octets[at:])), entry.crc, shown(name))
        found = np.empty(len(lengths), object)
        at += 4
        for i, length in enumerate(lengths):
            found[i] = bytes(data[at : at + length])
            at += length
        return plain_text(found.reshape(entry.shape))

    # ---- files

    def _check_places(self) -> None:
        """Refuse tensors that have bytes in common, as few bytes could stand for any number of them."""
        places = sorted((entry.shard, entry.offset, entry.size) for entry in self.entries.values() if entry.size)
        for (shard, start, size), (other, after, _) in pairwise(places):
            if shard == other and start + size > after:
                raise ValueError(f"two tensors lie at byte {after:,} of {self._name(shard)}")

    def _name(self, shard: int) -> str:
        return f"{os.path.basename(self.prefix)}.data-{shard:05}-of-{self.shards:05}"

    def _bytes(self, entry: BundleEntry) -> Array:
        """The bytes of an entry, mapped."""
        data = self._file(entry.shard) if entry.size else np.empty(0, np.uint8)
        due = entry.offset + entry.size
        if entry.size and due > data.size:
            raise cut_off(data.size, due, or_more=True, file=self._name(entry.shard))
        return data[entry.offset : due] if entry.size else data

    def _file(self, shard: int) -> Array:
        if shard not in self._files:
            name = self._name(shard)
            if shard >= self.shards:
                raise ValueError(f"a tensor lies in file {shard} of {self.shards}, from 0 on")
            path = os.path.join(self.folder, name)
            if not os.path.lexists(path):
                advice = "Put all files of the checkpoint into one folder, under the names that they were written with"
                raise fault("bad-source", f"{name} is missing, which the index names", path=path, advice=advice)
            self._files[shard] = mapped_file(path, self.folder)
            self.size += self._files[shard].size
        return self._files[shard]


@dataclass(slots=True)
class BundleBytes:
    """The bytes of a tensor, of which nothing is to be believed before `check`."""

    data: Array
    crc: int
    name: str
    is_checked: bool = False

    def check(self) -> None:
        """Refuse bytes of another checksum than the one stored with them; raises ValueError."""
        if not self.is_checked:
            crc32c.check(self.data, self.crc, shown(self.name))
            self.is_checked = True


# ---- messages

_HEADER = {1: ("shards", INT), 2: ("is_big", INT), 3: ("version", PART)}
_ENTRY = {
    **{1: ("dtype", INT), 2: ("shape", PART), 3: ("shard", INT), 4: ("offset", INT), 5: ("size", INT)},
    7: ("slices", PARTS),
}
_CHECKSUM = 6  # field of an entry


def _shards(reader: WireReader, header: Message) -> int:
    """How many files a bundle has, from its header. Raises `unsupported-source`."""
    if any((number, wire) == (1, BYTES) for number, wire, _ in reader.fields(header)):
        advice = "Load it with TensorFlow, and save it with the Saver of today"
        raise fault("unsupported-source", "this is a TensorFlow checkpoint of version 1", advice=advice)
    said = reader.read(header, _HEADER)
    if said.get("is_big"):
        raise fault("unsupported-source", "this is a TensorFlow checkpoint of a big-endian machine")
    least = reader.read((said["version"],), {2: ("least", INT)}).get("least", 0) if "version" in said else 0
    if least > VERSION:
        raise fault("unsupported-source", f"this is a TensorFlow checkpoint for readers of version {least} or newer")
    return count(said.get("shards", 0), "the number of files")


def _entry(reader: WireReader, message: Message) -> BundleEntry:
    said = reader.read(message, _ENTRY)
    crc = 0
    for number, wire, value in reader.fields(message):
        if (number, wire) == (_CHECKSUM, FIXED32):
            crc = int(reader.octets(value).view("<u4")[0])
    shape = _shape(reader, (said["shape"],)) if "shape" in said else ()
    shard, offset, size = (count(said.get(name, 0), name) for name in ("shard", "offset", "size"))
    slices = tuple(_slice(reader, (place,)) for place in said.get("slices", ()))
    return BundleEntry(said.get("dtype", 0), shape, shard, offset, size, crc, slices)


def _shape(reader: WireReader, message: Message) -> Shape:
    said = reader.read(message, {2: ("sides", PARTS), 3: ("is_unknown", INT)})
    if said.get("is_unknown"):
        raise ValueError("a tensor of no known rank")
    return shape_of(reader.read((side,), {1: ("size", INT)}).get("size", 0) for side in said.get("sides", ()))


def _slice(reader: WireReader, message: Message) -> BundlePlace:
    said = reader.read(message, {1: ("extents", PARTS)})
    extents = [reader.read((extent,), {1: ("start", INT), 2: ("length", INT)}) for extent in said.get("extents", ())]
    lengths = (extent.get("length") for extent in extents)
    return (
        tuple(count(extent.get("start", 0)) for extent in extents),
        tuple(None if n is None else count(n) for n in lengths),
    )


# ---- keys of parts, which sort as what they are made of does


def key_of_part(name: bytes, starts: tuple[int, ...], lengths: tuple[int | None, ...]) -> bytes:
    """The key of a part: 0, the name, the number of axes, and of each its start and length."""
    escaped = re.sub(rb"[\0\xff]", lambda byte: byte[0] + bytes([byte[0][0] ^ 0xFF]), name)
    axes = bytes([1, len(starts)]) if starts else b"\0"
    numbers = (number for pair in zip(starts, lengths, strict=True) for number in pair)
    return b"\0" + escaped + b"\0\1" + axes + b"".join(map(_sorting, numbers))


def _sorting(number: int | None) -> bytes:
    """A number from 0 on, or None for -1, which is all of an axis, as bytes that sort as numbers do: before it stands a
    bit for each byte."""
    if number is None:
        return b"\x7f"
    size = number.bit_length() // 7 + 1
    return (number | ((1 << size) - 1) << 7 * size).to_bytes(size, "big")
