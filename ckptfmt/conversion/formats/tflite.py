"""TensorFlow Lite (LiteRT): the constants of a model. Read only, and without the library.

    Model (FlatBuffers, "TFL3") := subgraphs, buffers, metadata
    subgraph                    := tensors; tensor := name, type, shape, number of its buffer, quantisation
    buffer                      := its bytes, or where in the file they lie, behind the first 2 GiB

Tensors of the first subgraph stand under their names, those of others after `SUBGRAPH.`. Names need not differ: one
that is taken gets the number of its tensor, `NAME.7`.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import Any

import numpy as np

from ...errors import fault
from ...format.dtypes import DTYPES, Array
from ...format.names import path_text
from ...format.tree import Tree
from ..claims import MAX_AXES, MemoryRoom, shape_of, shown
from ..flat import stored
from ..flatbuffer import TABLE, TABLES, TEXT, FlatReader, FlatTable, FlatVector, numbers
from ..losses import LeftOut
from ..probe import Probe
from ..source import Loss, OpenedSource, mapped_file, plain_text

_NO_AXES = np.empty(0, np.int32)
MAGIC = b"TFL3"  # at byte 4
METADATA = "tflite.metadata"  # metadata: what the model says of itself
QUANTISED = "tflite.quantised"  # metadata: path -> scale, zero_point, ... of quantised tensors
VERSION = 3
STRING = 5
_TENSOR_COST, _TEXT_COST, _NUMBER_COST = 1500, 100, 40  # bytes of memory

TYPES = {
    **{0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 8: "complex64"},
    **{9: "int8", 10: "float64", 11: "complex128", 12: "uint64", 15: "uint32", 16: "uint16", 17: "int4"},
    **{18: "bfloat16", 19: "int2", 20: "uint4", 21: "float8_e4m3fn", 22: "float8_e5m2"},
}
HANDLES = {13: "resource", 14: "variant"}  # types of what exists while a model runs
_MODEL: FlatTable = {
    0: ("version", "<I"),
    2: ("subgraphs", TABLES),
    3: ("description", TEXT),
    4: ("buffers", TABLES),
    6: ("metadata", TABLES),
}
_SUBGRAPH: FlatTable = {0: ("tensors", TABLES), 4: ("name", TEXT)}
_NAME = 3  # the slot of the name of a tensor
_TENSOR: FlatTable = {
    0: ("shape", numbers("<i4")),
    1: ("type", "<b"),
    2: ("buffer", "<I"),
    _NAME: ("name", TEXT),
    4: ("quantization", TABLE),
    6: ("sparsity", TABLE),
    10: ("external_buffer", "<I"),
}
_BUFFER: FlatTable = {0: ("data", numbers("<u1")), 1: ("offset", "<Q"), 2: ("size", "<Q")}
_QUANTISATION: FlatTable = {
    0: ("min", numbers("<f4")),
    1: ("max", numbers("<f4")),
    2: ("scale", numbers("<f4")),
    3: ("zero_point", numbers("<i8")),
    4: ("details_type", "<B"),
    5: ("details", TABLE),
    6: ("quantized_dimension", "<i"),
}
_BLOCKWISE: FlatTable = {0: ("scales", "<i"), 1: ("zero_points", "<i"), 2: ("block_size", "<i")}
_DETAILS = {  # kinds of quantisation whose scales are a tensor; what they are called, and their details
    2: ("blockwise", _BLOCKWISE),
    3: ("multi_axis", {**_BLOCKWISE, 3: ("quantized_dimensions", numbers("<i4"))}),
}
_METADATA: FlatTable = {0: ("name", TEXT), 1: ("buffer", "<I")}


def looks_like(probe: Probe) -> bool:
    return probe.head[4:8] == MAGIC


def read(path: str) -> OpenedSource:
    reader = FlatReader(mapped_file(path))
    model = reader.read(reader.root, _MODEL)
    if model.get("version", 0) != VERSION:
        raise fault("unsupported-source", f"a model of version {model.get('version', 0)}: {VERSION} can be read")
    walker = _TfliteWalker(reader, model.get("buffers", FlatVector(0, 0)))
    for number, table in enumerate(reader.tables(model.get("subgraphs", FlatVector(0, 0)))):
        walker.subgraph(number, table)
    metadata: dict[str, Tree] = {METADATA: walker.metadata(model)}
    if walker.quantised:
        metadata[QUANTISED] = dict(walker.quantised)
    walker.left_out.check(walker.tree)
    return OpenedSource(walker.tree, metadata, tuple(walker.losses))


class _TfliteWalker:
    """Collects the constants of subgraphs into `tree`."""

    def __init__(self, reader: FlatReader, buffers: FlatVector) -> None:
        self.reader, self.room = reader, MemoryRoom(reader.data.size)
        self.buffers = buffers
        self.tree: dict[str, Any] = {}
        self.quantised: dict[str, dict[str, Tree]] = {}  # by path texts
        self.losses: list[Loss] = []
        self.left_out = LeftOut(self.losses)

    def metadata(self, model: dict[str, Any]) -> dict[str, Tree]:
        """What a model says of itself, with bytes that others put into it."""
        found: dict[str, Tree] = {key: model[key] for key in ("version", "description") if key in model}
        items: dict[str, Tree] = {}
        for table in self.reader.tables(model.get("metadata", FlatVector(0, 0))):
            self.room.take(_TENSOR_COST + self.reader.text_size(table, 0))
            item = self.reader.read(table, _METADATA)
            octets = self.buffer(item.get("buffer", 0))
            self.room.take(0 if octets is None else octets.size)
            items[item.get("name", "")] = b"" if octets is None else octets.tobytes()
        return {**found, "metadata": items} if items else found

    def buffer(self, number: int) -> Array | None:
        """The bytes of a buffer; None where it has none, as that of what is computed."""
        if number >= self.buffers.length:
            raise ValueError(f"buffer {number:,} of {self.buffers.length:,}")
        entry = FlatVector(self.buffers.at + 4 * number, 1)
        found = self.reader.read(next(self.reader.tables(entry)), _BUFFER)
        if (offset := found.get("offset", 0)) > 1:  # 1 stands for what will be known at the end
            return self.reader.octets(offset, found.get("size", 0))
        data: Array | None = found.get("data")
        return data if data is not None and data.size else None

    def subgraph(self, number: int, table: int) -> None:
        found = self.reader.read(table, _SUBGRAPH)
        above = f"{found.get('name') or f'subgraph_{number}'}." if number else ""
        names: dict[int, str] = {}
        blocks: dict[str, tuple[str, dict[str, Any]]] = {}
        for place, at in enumerate(self.reader.tables(found.get("tensors", FlatVector(0, 0)))):
            self.room.take(_TEXT_COST + 2 * (len(above) + self.reader.text_size(at, _NAME)))
            tensor = self.reader.read(at, _TENSOR)
            octets = self.buffer(tensor.get("buffer", 0))
            if octets is None and not tensor.get("external_buffer"):
                continue
            name = names[place] = self.name(above + tensor.get("name", ""), place)
            self.add(name, tensor, octets)
            if "quantization" in tensor:
                self.quantisation(name, tensor["quantization"], blocks)
        for name, (called, about) in blocks.items():
            self.quantised[name] = {**self.quantised.get(name, {}), called: self.named(about, names)}

    def name(self, name: str, place: int) -> str:
        """What a tensor is called: by its name, and its number if that is taken."""
        if not name or name in self.tree:
            name = f"{name}.{place}"
        if name in self.tree:
            raise ValueError(f"the tensor {shown(name)} stands twice")
        return name

    def add(self, name: str, tensor: dict[str, Any], octets: Array | None) -> None:
        self.room.take(_TENSOR_COST)
        kind, shape = tensor.get("type", 0), shape_of(tensor.get("shape", _NO_AXES)[: MAX_AXES + 1].tolist())
        why = "its values lie in another file" if octets is None else "it is sparse" if "sparsity" in tensor else None
        if why is None and kind in HANDLES:
            why = f"it is a {HANDLES[kind]}"
        if why is not None or octets is None:
            self.losses.append(Loss("value", name, f"the tensor is left out, as {why}"))
        elif kind == STRING:
            self.tree[name] = self.strings(name, octets, shape)
        elif kind in TYPES:
            self.tree[name] = stored(name, octets, DTYPES[TYPES[kind]], shape)
        else:
            message = f"the tensor {shown(name)} has the unknown type {kind}"
            self.left_out.add(fault("unsupported-source", message, tensor=name))

    def strings(self, name: str, octets: Array, shape: tuple[int, ...]) -> Tree:
        """Strings as plain values. Their buffer has their number, where each begins and the last ends, and they."""
        count = int(octets[:4].view("<i4")[0]) if octets.size >= 4 else -1
        if count != prod(shape) or 8 + 4 * count > octets.size:
            raise ValueError(f"{shown(name)} has {count:,} strings, which is wrong for {list(shape)}")
        places = octets[4 : 8 + 4 * count].view("<i4").astype(np.int64)
        if places[0] != 8 + 4 * count or places[-1] > octets.size or np.any(np.diff(places) < 0):
            raise ValueError(f"the strings of {shown(name)} lie outside of their buffer")
        self.room.take(_TEXT_COST * count + 4 * octets.size)
        texts = np.empty(count, object)
        for number, (first, last) in enumerate(pairwise(places)):
            texts[number] = octets[first:last].tobytes()
        return plain_text(texts.reshape(shape)) if count else []

    def quantisation(self, name: str, table: int, blocks: dict[str, tuple[str, dict[str, Any]]]) -> None:
        """Note how the values of a tensor are quantised, if they are."""
        found = self.reader.read(table, _QUANTISATION)
        kind, details = found.pop("details_type", 0), found.pop("details", None)
        about: dict[str, Tree] = {}
        for key, value in found.items():
            if isinstance(value, np.ndarray) and value.size:
                self.room.take(_NUMBER_COST * value.size)
                about[key] = value.tolist()
        if about.keys() & {"scale", "zero_point"}:
            about["quantized_dimension"] = found.get("quantized_dimension", 0)
        if kind in _DETAILS and details is not None:
            called, slots = _DETAILS[kind]
            blocks[path_text((name,))] = called, self.reader.read(details, slots)
        elif kind:
            self.losses.append(Loss("metadata", name, "how it is quantised is left out: in a way that is unknown"))
        if about:
            self.quantised[path_text((name,))] = about

    def named(self, about: dict[str, Any], names: dict[int, str]) -> dict[str, Tree]:
        """Details of quantisation, with the names of tensors for their numbers; they may be left out."""
        for key in ("scales", "zero_points"):
            if key in about:
                about[key] = names.get(about[key])
        if (axes := about.get("quantized_dimensions")) is not None:
            self.room.take(_NUMBER_COST * axes.size)
            about["quantized_dimensions"] = axes.tolist()
        return about
