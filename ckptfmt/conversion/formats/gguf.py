"""GGUF (llama.cpp), versions 2 and 3, little-endian; 3 is written.

    "GGUF", u32 version, u64 tensors, u64 pairs, pairs of (string, u32 type, value), tensor infos, padding, data
    info := string name, u32 axes, u64 lengths (the fastest axis first), u32 ggml type, u64 offset in the data

Tensors of plain types are values. Those of quantised types stay as they are stored, rows of blocks as uint8, and the
metadata says their type and shape; or they are dequantised. The metadata have the pairs, and of those that have another
type than `usual` says their types, so that all goes back as it was.

A model may be split into files `NAME-00001-of-00002.gguf`, each with some of the tensors and the pairs `split.no`,
`split.count` and `split.tensors.count`. Whichever of them is given, all are read.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Iterable
from contextlib import ExitStack
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ...errors import fault
from ...format.dtypes import DTYPES, Array
from ...format.grid import Shape
from ...format.names import path_label, path_text
from ...format.tree import Tree
from ...frameworks.target import flatten
from .. import shards
from ..claims import shape_of
from ..fit import Holds, KeptMetadata, dtype_name, keys_of
from ..ggml import (
    BLOCKS_BY_NAME,
    FLOATS,
    NUMBERS,
    PLAIN,
    QUANTISED_TYPES,
    dequantized,
    quantized,
    rounded,
    shape_in_blocks,
)
from ..gguf_values import ARRAY, DEEPEST, SCALARS, STRING, array_of, kind_of, name_of, packed, usual
from ..probe import Probe
from ..source import (
    Advance,
    LazyArray,
    LeadingSlices,
    Loss,
    OpenedSource,
    SourceTensor,
    array_over,
    cut_off,
    elements,
    is_tensor,
    mapped_file,
    nbytes,
)

MAGIC = b"GGUF"
METADATA = "gguf.metadata"  # metadata: the pairs
TYPES = "gguf.types"  # metadata: key -> type of the pairs that have another than the usual one
QUANTISED = "gguf.quantised"  # metadata: name -> {"type", "shape"} of tensors that are kept as blocks
ALIGNMENT = "general.alignment"
MAX_AXES = 4
MAX_NAME = 63  # bytes: llama.cpp has 64 for a name (GGML_MAX_NAME), with a zero at the end
NUMBER, COUNT, TENSORS = "split.no", "split.count", "split.tensors.count"


def looks_like(probe: Probe) -> bool:
    return probe.head.startswith(MAGIC)


def read(path: str, dequantize: str | None = None) -> OpenedSource:
    source = _read_file(path, dequantize)
    count = source.metadata[METADATA].get(COUNT, 1)
    if type(count) is not int or count > 1:
        return _of_parts(path, count, dequantize)
    return replace(source, losses=shards.alone(path))


def _of_parts(path: str, count: Any, dequantize: str | None) -> OpenedSource:
    """The model of which the file at `path` is a part."""
    named = shards.numbered(path)
    if named is None or named.count != count:
        message = f"this is a part of a model in {count} files, and is not named so that the others can be found"
        raise fault("bad-source", message, path=path, expected="NAME-00001-of-00002.gguf")
    tree: dict[str, Any] = {}
    merged, quantised, told, size = shards.Metadata(), dict[str, Tree](), set[Any](), 0
    types: dict[str, Tree] = {}
    with ExitStack() as stack:
        for number in range(1, count + 1):
            part = named.others(number)
            if not os.path.exists(part):
                message = f"part {number} of {count} is missing: {os.path.basename(part)}"
                raise fault("bad-source", message, path=path)
            source = stack.enter_context(_read_file(part, dequantize))
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
            types = {**source.metadata.get(TYPES, {}), **types}
            merged.add(os.path.basename(part), pairs or None)
            size += os.path.getsize(part)
        if told - {None} not in (set(), {len(tree)}):
            raise ValueError(f"the parts have {len(tree)} tensors, where {TENSORS} is {sorted(told - {None})}")
        metadata = _metadata(merged.value or {}, types, quantised)
        return OpenedSource(tree, metadata, tuple(merged.losses), resources=stack.pop_all(), size=size)


def _metadata(pairs: dict[str, Tree], types: dict[str, Tree], quantised: dict[str, Tree]) -> dict[str, Tree]:
    told = {key: kind for key, kind in types.items() if key in pairs}
    return {METADATA: pairs, **({TYPES: told} if told else {}), **({QUANTISED: quantised} if quantised else {})}


def _read_file(path: str, dequantize: str | None = None) -> OpenedSource:
    reader = _GgufReader(mapped_file(path))
    version = reader.scalar("<I", skip=len(MAGIC))
    if version not in (2, 3):
        raise fault("unsupported-source", f"GGUF of version {version:#x}: 2 and 3, little-endian, can be read")
    tensors, pairs = reader.scalar("<Q"), reader.scalar("<Q")
    metadata: dict[str, Tree] = {}
    types: dict[str, Tree] = {}
    for _ in range(reader.count(pairs)):
        key = reader.string()
        if key in metadata:
            raise ValueError(f"the key {key!r} stands twice")
        kind, metadata[key] = reader.value(reader.scalar("<I"))
        if kind not in (None, usual(metadata[key])):
            types[key] = kind
    infos = [reader.info() for _ in range(reader.count(tensors))]
    alignment = metadata.get(ALIGNMENT, 32)
    if type(alignment) is not int or alignment < 1:
        raise ValueError(f"the alignment is {alignment!r}")
    start = -(-reader.at // alignment) * alignment
    stored, quantised = _tensors(infos, reader.data, start)
    tree: dict[str, Any] = dict(stored)
    if dequantize is not None:
        for name, row in quantised.items():
            tree[name] = dequantized(name, stored[name], BLOCKS_BY_NAME[row["type"]], dequantize)
        quantised = {}
    return OpenedSource(tree, _metadata(metadata, types, quantised))


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

    def value(self, kind: int, depth: int = 0) -> tuple[str | None, Tree]:
        """A value with its type; None where no single type says it."""
        if kind == STRING:
            return "string", self.string()
        if kind != ARRAY:
            name, form = SCALARS[kind]
            return name, self.scalar(f"<{form}")
        if depth > DEEPEST:
            raise fault("too-deep", f"arrays of arrays nested deeper than {DEEPEST}")
        inner, length = self.scalar("<I"), self.scalar("<Q")
        if inner in SCALARS:
            name, form = SCALARS[inner]
            raw = self.take(self.count(length) * struct.calcsize(f"<{form}"))
            return array_of(name), list(struct.unpack(f"<{length}{form}", raw))
        items = [self.value(inner, depth + 1) for _ in range(self.count(length))]
        kinds = {found for found, _ in items} or {name_of(inner)}
        return array_of(kinds.pop() if len(kinds) == 1 else None), [value for _, value in items]

    def info(self) -> _Info:
        name = self.string()
        axes = self.scalar("<I")
        if axes > MAX_AXES:
            raise ValueError(f"tensor {name!r} has {axes} axes")
        shape = tuple(self.scalar("<Q") for _ in range(axes))[::-1]
        return _Info(name, shape, self.scalar("<I"), self.scalar("<Q"))


def _tensors(infos: list[_Info], data: Array, start: int) -> tuple[dict[str, Array], dict[str, dict[str, Any]]]:
    """The tensors that lie in `data` from `start` on, and type and shape of those that are blocks."""
    quantised: dict[str, dict[str, Any]] = {}
    stored: dict[str, tuple[np.dtype[Any], Shape, int]] = {}
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
    return {name: array_over(data, start + at, dtype, shape) for name, (dtype, shape, at) in places.items()}, quantised


def _elements(info: _Info) -> tuple[np.dtype[Any], Shape]:
    """The dtype and shape of a tensor's array: of its values, or of rows of its blocks."""
    if info.type in PLAIN:
        return DTYPES[PLAIN[info.type]].numpy.newbyteorder("<"), info.shape
    if info.type not in QUANTISED_TYPES:
        message = f"tensor {info.name!r} has the unknown type {info.type}"
        raise fault("unsupported-source", message, tensor=info.name)
    try:
        return np.dtype(np.uint8), shape_in_blocks(info.shape, QUANTISED_TYPES[info.type])
    except ValueError as error:
        raise ValueError(f"tensor {info.name!r}: {error}") from error


# ---- what is written


def _is_blocks(metadata: Tree, name: str, tensor: SourceTensor) -> bool:
    """Whether metadata say of which type the blocks are that a tensor holds."""
    match _dict_in(metadata, QUANTISED).get(name):
        case {"type": str(kind), "shape": [*shape]} if kind in BLOCKS_BY_NAME and len(shape) <= MAX_AXES:
            try:
                expected = shape_in_blocks(shape_of(shape), BLOCKS_BY_NAME[kind])
            except ValueError:
                return False
            return tensor.dtype == np.uint8 and tuple(tensor.shape) == expected
    return False


def _dict_in(metadata: Tree, key: str) -> dict[str, Any]:
    """The dict with text as keys that metadata have for a key; else an empty one."""
    found = metadata.get(key) if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) and all(type(name) is str for name in found) else {}


def _kept(metadata: Tree, tree: Tree) -> KeptMetadata:
    """What of metadata a file holds beside a tree: pairs, their types, and what its blocks are."""
    kept, lost = keys_of(metadata, (METADATA, TYPES, QUANTISED))
    said, told, blocks = (_dict_in(kept, key) for key in (METADATA, TYPES, QUANTISED))
    pairs, types = dict[str, Tree](), dict[str, Tree]()
    for key, value in said.items():
        try:
            kind = kind_of(value, told, key)
            if key == ALIGNMENT and (type(value) is not int or value < 1):
                raise ValueError("it is no alignment")
        except ValueError as error:
            lost += (f"{METADATA}/{key} is left out: {error}",)
            continue
        pairs[key] = value
        if kind not in (None, usual(value)):
            types[key] = kind
    blocks = {name: row for name, row in blocks.items() if name in tree}
    odd = [name for name in blocks if not _is_blocks(metadata, name, tree[name])]
    lost += tuple(f"{QUANTISED}/{name} is left out: the tensor has no such blocks" for name in odd)
    return KeptMetadata(_metadata(pairs, types, {name: row for name, row in blocks.items() if name not in odd}), lost)


def check_name(name: str, beside: Collection[str] = ()) -> None:
    """Refuse names for which llama.cpp takes no file; raises `unsupported-key`."""
    if (length := len(name.encode())) > MAX_NAME:
        message = f"llama.cpp takes no file with the name {name!r}, of {length} bytes"
        raise fault("unsupported-key", message, tensor=name, expected=f"at most {MAX_NAME}")


HOLDS = Holds(dtypes=frozenset(PLAIN.values()), check_name=check_name, metadata=_kept, raw=_is_blocks)


def write(path: str, tree: Tree, metadata: Tree, advance: Advance) -> None:
    """Write a flat dict of tensors, with the pairs of the metadata."""
    pairs, blocks = metadata[METADATA], metadata.get(QUANTISED, {})
    alignment = pairs.get(ALIGNMENT, 32)
    with open(path, "wb") as file:
        file.write(MAGIC + struct.pack("<IQQ", 3, len(tree), len(pairs)))
        file.writelines(packed(pairs, metadata.get(TYPES, {})))
        offset = 0
        for name, tensor in tree.items():
            shape = tuple(blocks[name]["shape"]) if name in blocks else tensor.shape
            kind = NUMBERS[blocks[name]["type"] if name in blocks else dtype_name(tensor.dtype)]
            file.write(_info(_Info(name, shape, kind, offset)))
            offset += -(-nbytes(tensor) // alignment) * alignment
        file.write(bytes(-file.tell() % alignment))
        for tensor in tree.values():
            for part in elements(tensor):
                file.write(part)
                advance(len(part))
            file.write(bytes(-nbytes(tensor) % alignment))


def _info(info: _Info) -> bytes:
    if len(info.shape) > MAX_AXES:
        message = f"a tensor of {len(info.shape)} axes has no place in GGUF"
        raise fault("unsupported-leaf", message, tensor=info.name, expected=f"at most {MAX_AXES}")
    name = info.name.encode()
    head = struct.pack("<Q", len(name)) + name + struct.pack("<I", len(info.shape))
    return head + struct.pack(f"<{len(info.shape)}QIQ", *info.shape[::-1], info.type, info.offset)


# ---- a template


def follow(source: OpenedSource, template: OpenedSource) -> OpenedSource:
    """A source in the form of a template: names, order, shapes and metadata are those of the template, and so are types
    as far as they can be computed. Blocks stay as they are, and so do tensors of the template that the source has not;
    what of the source has no place in it is lost."""
    leaves = {".".join(path_text((key,)) for key in path): leaf for path, leaf in flatten(source.tree)}
    own, forms = (_dict_in(found.metadata, QUANTISED) for found in (source, template))
    losses = [_homeless(name, leaf, "has no place") for name, leaf in leaves.items() if name not in template.tree]
    quantised: dict[str, Tree] = {}
    tree: dict[str, SourceTensor] = {}
    for name, form in template.tree.items():
        leaf: Any = leaves.get(name)
        row = forms.get(name)
        held = own[name] if is_tensor(leaf) and _is_blocks(source.metadata, name, leaf) else None
        tree[name] = form
        if is_tensor(leaf):
            if tuple(held["shape"] if held else leaf.shape) == tuple(row["shape"] if row else form.shape):
                tree[name] = leaf if held else _of_type(name, leaf, row["type"] if row else dtype_name(form.dtype))
                losses += _rounding(name, leaf, tree[name], row) if held is None else ()
            else:
                losses.append(_homeless(name, leaf, "has another shape"))
        elif name in leaves:
            losses.append(_homeless(name, leaf, "is a tensor"))
        told = held if tree[name] is leaf else row
        if told and tree[name].dtype == np.uint8:
            quantised[name] = told
    metadata = source.metadata if isinstance(source.metadata, dict) else {}
    metadata = {key: value for key, value in metadata.items() if key not in (METADATA, TYPES, QUANTISED)}
    metadata |= {key: value for key, value in template.metadata.items() if key != QUANTISED}
    metadata |= {QUANTISED: quantised} if quantised else {}
    return OpenedSource(tree, metadata, (*source.losses, *losses))


# floats that others hold without loss
WIDENED = {("float16", "float32"), ("bfloat16", "float32"), *((name, "float64") for name in FLOATS)}


def _homeless(name: str, leaf: Any, why: str) -> Loss:
    what = "the tensor" if is_tensor(leaf) else f"the {type(leaf).__name__}"
    return Loss("value", path_label((name,)), f"{what} {why} in the template, and is left out")


def _rounding(name: str, tensor: SourceTensor, found: SourceTensor, row: Any) -> Iterable[Loss]:
    """What is lost where a tensor gets the type that it has in the template."""
    was, now = dtype_name(tensor.dtype), row["type"] if row and found is not tensor else dtype_name(found.dtype)
    if was != now and (was, now) not in WIDENED:
        yield Loss("dtype", path_label((name,)), f"{was} becomes {now}, as in the template")


def _of_type(name: str, tensor: SourceTensor, kind: str) -> SourceTensor:
    """A tensor as one of another type, or as it is where that cannot be computed: of what is no float, and of types
    that the package gguf does not quantise to."""
    if dtype_name(tensor.dtype) not in (*FLOATS, "float64"):
        return tensor
    if kind in BLOCKS_BY_NAME:
        return quantized(tensor, BLOCKS_BY_NAME[kind]) or tensor
    dtype = DTYPES[kind].numpy
    if tensor.dtype == dtype or kind not in (*FLOATS, "float64"):
        return tensor

    def read(index: LeadingSlices) -> Array:
        return rounded(name, tensor[index], dtype)

    return LazyArray(tensor.shape, dtype, read, tensor.rows if isinstance(tensor, LazyArray) else None)
