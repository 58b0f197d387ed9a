"""GGUF (llama.cpp), versions 2 and 3, little-endian. Read only.

    "GGUF", u32 version, u64 tensors, u64 pairs, pairs of (string, u32 type, value), tensor infos, padding, data
    info := string name, u32 axes, u64 lengths (the fastest axis first), u32 ggml type, u64 offset in the data

Tensors of plain types are values. Those of quantised types stay as they are stored, rows of blocks as uint8, and the
metadata says their type and shape.

A model may be split into files `NAME-00001-of-00002.gguf`, each with some of the tensors and the pairs `split.no`,
`split.count` and `split.tensors.count`. Whichever of them is given, all are read.
"""

from __future__ import annotations

import os
import struct
from contextlib import ExitStack
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ...errors import fault
from ...format.dtypes import DTYPES, Array
from ...format.tree import Tree
from .. import shards
from ..probe import Probe
from ..source import OpenedSource, array_over, cut_off, mapped_file

MAGIC = b"GGUF"
METADATA = "gguf.metadata"  # metadata: the pairs
QUANTISED = "gguf.quantised"  # metadata: name -> {"type", "shape"} of tensors that are kept as blocks
MAX_AXES = 4
NUMBER, COUNT, TENSORS = "split.no", "split.count", "split.tensors.count"

PLAIN = {0: "float32", 1: "float16", 24: "int8", 25: "int16", 26: "int32", 27: "int64", 28: "float64", 30: "bfloat16"}


class Blocks(NamedTuple):
    """A quantised type: its name, the elements of a block and its bytes."""

    name: str
    elements: int
    bytes: int


QUANTISED_TYPES = {
    2: Blocks("Q4_0", 32, 18),
    3: Blocks("Q4_1", 32, 20),
    6: Blocks("Q5_0", 32, 22),
    7: Blocks("Q5_1", 32, 24),
    8: Blocks("Q8_0", 32, 34),
    9: Blocks("Q8_1", 32, 40),
    10: Blocks("Q2_K", 256, 84),
    11: Blocks("Q3_K", 256, 110),
    12: Blocks("Q4_K", 256, 144),
    13: Blocks("Q5_K", 256, 176),
    14: Blocks("Q6_K", 256, 210),
    15: Blocks("Q8_K", 256, 292),
    16: Blocks("IQ2_XXS", 256, 66),
    17: Blocks("IQ2_XS", 256, 74),
    18: Blocks("IQ3_XXS", 256, 98),
    19: Blocks("IQ1_S", 256, 50),
    20: Blocks("IQ4_NL", 32, 18),
    21: Blocks("IQ3_S", 256, 110),
    22: Blocks("IQ2_S", 256, 82),
    23: Blocks("IQ4_XS", 256, 136),
    29: Blocks("IQ1_M", 256, 56),
    34: Blocks("TQ1_0", 256, 54),
    35: Blocks("TQ2_0", 256, 66),
    39: Blocks("MXFP4", 32, 17),
    40: Blocks("NVFP4", 64, 36),
    41: Blocks("Q1_0", 128, 18),
}

STRING, ARRAY = 8, 9
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}


def looks_like(probe: Probe) -> bool:
    return probe.head.startswith(MAGIC)


def read(path: str) -> OpenedSource:
    source = _read_file(path)
    count = source.metadata[METADATA].get(COUNT, 1)
    if type(count) is not int or count > 1:
        return _of_parts(path, count)
    return replace(source, losses=shards.alone(path))


def _of_parts(path: str, count: Any) -> OpenedSource:
    """The model of which the file at `path` is a part."""
    named = shards.numbered(path)
    if named is None or named.count != count:
        message = f"this is a part of a model in {count} files, and is not named so that the others can be found"
        raise fault("bad-source", message, path=path, expected="NAME-00001-of-00002.gguf")
    tree: dict[str, Any] = {}
    merged, quantised, told, size = shards.Metadata(), dict[str, Tree](), set[Any](), 0
    with ExitStack() as stack:
        for number in range(1, count + 1):
            part = named.others(number)
            if not os.path.exists(part):
                message = f"part {number} of {count} is missing: {os.path.basename(part)}"
                raise fault("bad-source", message, path=path)
            source = stack.enter_context(_read_file(part))
            pairs = dict(source.metadata[METADATA])
            said = (pairs.pop(NUMBER, None), pairs.pop(COUNT, None))
            if said != (number - 1, count):
                raise ValueError(f"{os.path.basename(part)} says that it is part {said[0]} of {said[1]}, from 0 on")
            told.add(pairs.pop(TENSORS, None))
            both = tree.keys() & source.tree.keys()
            if both:
                raise ValueError(f"the tensor {min(both)!r} stands in two parts")
            tree |= source.tree
            quantised |= source.metadata.get(QUANTISED, {})
            merged.add(os.path.basename(part), pairs or None)
            size += os.path.getsize(part)
        if told - {None} not in (set(), {len(tree)}):
            raise ValueError(f"the parts have {len(tree)} tensors, where {TENSORS} is {sorted(told - {None})}")
        metadata = {METADATA: merged.value or {}, **({QUANTISED: quantised} if quantised else {})}
        return OpenedSource(tree, metadata, tuple(merged.losses), resources=stack.pop_all(), size=size)


def _read_file(path: str) -> OpenedSource:
    reader = _GgufReader(mapped_file(path))
    version = reader.scalar("<I", skip=len(MAGIC))
    if version not in (2, 3):
        raise fault("unsupported-source", f"GGUF of version {version:#x}: 2 and 3, little-endian, can be read")
    tensors, pairs = reader.scalar("<Q"), reader.scalar("<Q")
    metadata: dict[str, Tree] = {}
    for _ in range(reader.count(pairs)):
        key = reader.string()
        if key in metadata:
            raise ValueError(f"the key {key!r} stands twice")
        metadata[key] = reader.value(reader.scalar("<I"))
    infos = [reader.info() for _ in range(reader.count(tensors))]
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or alignment < 1:
        raise ValueError(f"the alignment is {alignment!r}")
    return _source(infos, reader.data, -(-reader.at // alignment) * alignment, metadata)


class _Info(NamedTuple):
    name: str
    shape: tuple[int, ...]  # the slowest axis first
    type: int
    offset: int


class _GgufReader:
    def __init__(self, data: Array) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if count > self.data.size - self.at:
            raise cut_off(self.data.size, self.at + count, or_more=True)
        self.at += count
        return bytes(self.data[self.at - count : self.at])

    def scalar(self, form: str, skip: int = 0) -> Any:
        self.take(skip)
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def count(self, items: int) -> int:
        if items > self.data.size - self.at:  # each takes a byte at least
            raise cut_off(self.data.size, self.at + items, or_more=True)
        return items

    def string(self) -> str:
        return self.take(self.scalar("<Q")).decode("utf-8")

    def value(self, kind: int, depth: int = 0) -> Tree:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            if depth > 8:
                raise fault("too-deep", "arrays of arrays nested deeper than 8")
            inner, length = self.scalar("<I"), self.scalar("<Q")
            return [self.value(inner, depth + 1) for _ in range(self.count(length))]
        return self.scalar(_SCALARS[kind])

    def info(self) -> _Info:
        name = self.string()
        axes = self.scalar("<I")
        if axes > MAX_AXES:
            raise ValueError(f"tensor {name!r} has {axes} axes")
        shape = tuple(self.scalar("<Q") for _ in range(axes))[::-1]
        return _Info(name, shape, self.scalar("<I"), self.scalar("<Q"))


def _source(infos: list[_Info], data: Array, start: int, metadata: dict[str, Tree]) -> OpenedSource:
    quantised: dict[str, Tree] = {}
    stored: dict[str, tuple[np.dtype[Any], tuple[int, ...], int]] = {}
    end = 0
    for info in sorted(infos, key=lambda info: info.offset):
        if info.name in stored:
            raise ValueError(f"the tensor {info.name!r} stands twice")
        if info.offset < end:
            raise ValueError(f"tensor {info.name!r} overlaps the one before it")
        dtype, shape = _elements(info)
        stored[info.name] = dtype, shape, info.offset
        end = info.offset + prod(shape) * dtype.itemsize
        if info.type in QUANTISED_TYPES:
            quantised[info.name] = {"type": QUANTISED_TYPES[info.type].name, "shape": list(info.shape)}
    if infos and start + end > data.size:
        raise cut_off(data.size, start + end)
    places = {info.name: stored[info.name] for info in infos}
    tree = {name: array_over(data, start + offset, dtype, shape) for name, (dtype, shape, offset) in places.items()}
    return OpenedSource(tree, {METADATA: metadata, **({QUANTISED: quantised} if quantised else {})})


def _elements(info: _Info) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """The dtype and shape of a tensor's array: of its values, or of rows of its blocks."""
    if info.type in PLAIN:
        return DTYPES[PLAIN[info.type]].numpy.newbyteorder("<"), info.shape
    if info.type not in QUANTISED_TYPES:
        message = f"tensor {info.name!r} has the unknown type {info.type}"
        raise fault("unsupported-source", message, tensor=info.name)
    blocks = QUANTISED_TYPES[info.type]
    if not info.shape or info.shape[-1] % blocks.elements:
        raise ValueError(f"tensor {info.name!r} of shape {info.shape} has no whole blocks of {blocks.name}")
    return np.dtype(np.uint8), (*info.shape[:-1], info.shape[-1] // blocks.elements * blocks.bytes)
