"""ONNX: every tensor of a model, in its file and in those beside it. Read only, and without the library.

    ModelProto (Protocol Buffers) := graph, versions, metadata
    graph                         := initializers, nodes; node := attributes, which may be tensors and graphs
    tensor                        := name, type, lengths, and its elements: raw, as numbers, or in another file

Initializers of the graph stand under their names, and what `Constant` nodes have under the names of their outputs.
Other tensors of nodes are called `NODE.ATTRIBUTE`, and `NODE.ATTRIBUTE.` stands before what is in a graph within a
node. A sparse tensor is two, `NAME.values` and `NAME.indices`, and the metadata have its lengths.
"""

from __future__ import annotations

import os
from math import prod
from typing import Any

import numpy as np

from ...errors import CkptError, fault
from ...format.dtypes import DTYPES, Array
from ...format.names import path_text
from ...format.tree import Tree
from ..beside import FilesBeside
from ..claims import MAX_AXES, MemoryRoom, shape_of, shown
from ..flat import of_numbers, stored
from ..losses import LeftOut
from ..probe import Probe
from ..protobuf import (
    BYTES,
    DOUBLES,
    FLOATS,
    INT,
    PART,
    PARTS,
    TEXT,
    VARINT,
    VARINTS,
    ByteSpan,
    Message,
    Table,
    WireReader,
    first_fields,
)
from ..read_ahead import scattered
from ..source import Loss, OpenedSource, mapped_file, plain_text

METADATA = "onnx.metadata"  # metadata: what the model says of itself
SPARSE = "onnx.sparse"  # metadata: path of the values -> {"dims"} of sparse tensors
NESTED = 64  # graphs within each other
STRING, EXTERNAL = 8, 1
_TENSOR_COST, _TEXT_COST = 1500, 100  # bytes of memory

_PAIR: Table = {1: ("key", TEXT), 2: ("value", TEXT)}
_OPSET: Table = {1: ("domain", TEXT), 2: ("version", INT)}
_MODEL: Table = {
    1: ("ir_version", INT),
    2: ("producer_name", TEXT),
    3: ("producer_version", TEXT),
    4: ("domain", TEXT),
    5: ("model_version", INT),
    6: ("doc_string", TEXT),
    7: ("graph", PARTS),
    8: ("opset_import", PARTS),
    14: ("metadata_props", PARTS),
    20: ("training_info", PARTS),
    25: ("functions", PARTS),
    26: ("configuration", PARTS),
}
_SAID = ("ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string")
_TRAINING: Table = {1: ("initialization", PARTS), 2: ("algorithm", PARTS)}
_FUNCTION: Table = {1: ("name", TEXT), 7: ("node", PARTS), 10: ("domain", TEXT), 13: ("overload", TEXT)}
_GRAPH: Table = {1: ("node", PARTS), 2: ("name", TEXT), 5: ("initializer", PARTS), 15: ("sparse_initializer", PARTS)}
_OF_GRAPHS = {1, 2, 5, *range(10, 17)}  # numbers of all their fields, which have bytes
_NODE: Table = {2: ("output", PARTS), 3: ("name", TEXT), 4: ("op_type", TEXT), 7: ("domain", TEXT)}
_ATTRIBUTES: Table = {5: ("attribute", PARTS)}
_ATTRIBUTE_NAME: Table = {1: ("name", TEXT)}
_HELD: Table = {  # what attributes have of tensors
    5: ("t", PARTS),
    6: ("g", PARTS),
    10: ("tensors", PARTS),
    11: ("graphs", PARTS),
    22: ("sparse_tensor", PARTS),
    23: ("sparse_tensors", PARTS),
}
_SPARSE: Table = {1: ("values", PARTS), 2: ("indices", PARTS), 3: ("dims", VARINTS)}
_TENSOR: Table = {
    1: ("dims", VARINTS),
    2: ("data_type", INT),
    3: ("segment", PART),
    4: ("float_data", FLOATS),
    5: ("int32_data", VARINTS),
    6: ("string_data", PARTS),
    7: ("int64_data", VARINTS),
    8: ("name", TEXT),
    9: ("raw_data", PART),
    10: ("double_data", DOUBLES),
    11: ("uint64_data", VARINTS),
    13: ("external_data", PARTS),
    14: ("data_location", INT),
}
TYPES = {
    **{1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool"},
    **{10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16"},
    **{17: "float8_e4m3fn", 18: "float8_e4m3fnuz", 19: "float8_e5m2", 20: "float8_e5m2fnuz", 24: "float8_e8m0fnu"},
    **{21: "uint4", 22: "int4", 23: "float4_e2m1fn", 25: "uint2", 26: "int2"},
    **{27: "float6_e2m3fn", 28: "float6_e3m2fn"},
}
# the field that has the numbers of a tensor, if they are not raw; of all others it is int32_data
_FIELDS = {
    **{"float32": "float_data", "complex64": "float_data", "float64": "double_data", "complex128": "double_data"},
    **{"int64": "int64_data", "uint32": "uint64_data", "uint64": "uint64_data"},
}
_IN_FILE = ("raw_data", "float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


def looks_like(probe: Probe) -> bool:
    """Whether the fields of a file are those of a model. Protocol Buffers have no signature: an `ir_version` comes
    first, then nothing that a model has not, up to the graph."""
    if probe.is_directory or probe.head[:1] != b"\x08":
        return False
    for place, (number, wire, value) in enumerate(first_fields(probe)):
        name, kind = _MODEL.get(number, ("", ""))
        is_first = number == 1 and type(value) is int and 0 < value < 1 << 16
        if not kind or wire != (VARINT if kind == INT else BYTES) or (place == 0) != is_first:
            return False
        if name == "graph" and isinstance(value, ByteSpan):
            inside = next(first_fields(probe, *value), None)
            return not value.size or (inside is not None and inside[0] in _OF_GRAPHS and inside[1] == BYTES)
    return False


def read(path: str) -> OpenedSource:
    data = mapped_file(path)
    with scattered(data):
        return _read(path, WireReader(data))


def _read(path: str, reader: WireReader) -> OpenedSource:
    model = reader.read(reader.whole, _MODEL)
    if "graph" not in model:
        raise ValueError("the model has no graph")
    walker = _OnnxWalker(reader, FilesBeside(os.path.dirname(os.path.abspath(path))))
    walker.graph(model["graph"], "", 0)
    for number, training in enumerate(model.get("training_info", ())):
        for name, graph in reader.read((training,), _TRAINING).items():
            walker.graph(graph, f"training_info.{number}.{name}.", 0)
    for span in model.get("functions", ()):
        function = reader.read((span,), _FUNCTION)
        name = "::".join(filter(None, (function.get(key) for key in ("domain", "name", "overload"))))
        walker.nodes(function.get("node", ()), f"{name}.", 0)
    walker.left_out.check(walker.tree)
    losses = (*_losses(model), *walker.losses)
    metadata = {METADATA: _metadata(reader, model), **({SPARSE: walker.sparse} if walker.sparse else {})}
    return OpenedSource(walker.tree, metadata, losses, size=reader.data.size + walker.files.size)


def _metadata(reader: WireReader, model: dict[str, Any]) -> dict[str, Tree]:
    """What a model says of itself."""
    found: dict[str, Tree] = {key: model[key] for key in _SAID if key in model}
    graph = reader.read(model["graph"], {2: _GRAPH[2]})
    if "name" in graph:
        found["graph"] = graph["name"]
    if "opset_import" in model:
        opsets = [reader.read((span,), _OPSET) for span in model["opset_import"]]
        found["opset_import"] = {opset.get("domain", ""): opset.get("version", 0) for opset in opsets}
    if "metadata_props" in model:
        found["metadata_props"] = _pairs(reader, model["metadata_props"])
    return found


def _losses(model: dict[str, Any]) -> tuple[Loss, ...]:
    """What is to be said of a model without operator sets, which come after the graph; those of 2017 had none."""
    if "opset_import" in model or model.get("ir_version", 0) < 3:
        return ()
    return (Loss("missing", "", "the model names no operator set: it may be cut off behind its graph"),)


def _pairs(reader: WireReader, entries: Message) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in entries:
        pair = reader.read((entry,), _PAIR)
        key = pair.get("key", "")
        if key in found:
            raise ValueError(f"the key {shown(key)} stands twice")
        found[key] = pair.get("value", "")
    return found


class _OnnxWalker:
    """Collects the tensors of graphs into `tree`; some of them lie in `files`."""

    def __init__(self, reader: WireReader, files: FilesBeside) -> None:
        self.reader, self.files, self.room = reader, files, MemoryRoom(reader.data.size)
        self.tree: dict[str, Any] = {}
        self.sparse: dict[str, Tree] = {}
        self.losses: list[Loss] = []
        self.left_out = LeftOut(self.losses)

    def graph(self, message: Message, above: str, depth: int) -> None:
        """The tensors of a graph, whose names get `above` before them."""
        if depth > NESTED:
            raise fault("too-deep", f"graphs nested deeper than {NESTED}")
        graph = self.reader.read(message, _GRAPH)
        for span in graph.get("initializer", ()):
            tensor = self.reader.read((span,), _TENSOR)
            if not tensor.get("name"):
                raise ValueError("an initializer has no name")
            self.add(above + tensor["name"], tensor)
        for span in graph.get("sparse_initializer", ()):
            self.add_sparse(above, (span,))
        self.nodes(graph.get("node", ()), above, depth)

    def nodes(self, nodes: Message, above: str, depth: int) -> None:
        taken: set[str] = set()
        for number, span in enumerate(nodes):  # of which most have no tensors: no more of them is read than that
            node: dict[str, Any] | None = None
            label = ""
            for part in self.reader.read((span,), _ATTRIBUTES).get("attribute", ()):
                if not (found := self.reader.read((part,), _HELD)):
                    continue
                if node is None:
                    node = self.reader.read((span,), _NODE)
                    label = above + self.label(node, number, taken)
                name = self.reader.read((part,), _ATTRIBUTE_NAME).get("name", "")
                self.attribute(node, f"{label}.{name}", found, above, depth)

    def label(self, node: dict[str, Any], number: int, taken: set[str]) -> str:
        """What a node is called, as no other in its graph."""
        name: str = node.get("name") or f"{node.get('op_type', '')}_{number}"
        if name in taken:
            name = f"{name}_{number}"
        self.room.take(_TEXT_COST + len(name))
        taken.add(name)
        return name

    def attribute(self, node: dict[str, Any], name: str, attribute: dict[str, Any], above: str, depth: int) -> None:
        """The tensors of an attribute."""
        output = next(iter(node.get("output", ())), None)
        if (node.get("op_type"), node.get("domain", "")) == ("Constant", "") and output is not None:
            name = above + self.reader.text(output)
        if "t" in attribute:
            self.add(name, self.reader.read(attribute["t"], _TENSOR))
        if "sparse_tensor" in attribute:
            self.add_sparse("", attribute["sparse_tensor"], name)
        if "g" in attribute:
            self.graph(attribute["g"], f"{name}.", depth + 1)
        for number, span in enumerate(attribute.get("tensors", ())):
            self.add(f"{name}.{number}", self.reader.read((span,), _TENSOR))
        for number, span in enumerate(attribute.get("sparse_tensors", ())):
            self.add_sparse("", (span,), f"{name}.{number}")
        for number, span in enumerate(attribute.get("graphs", ())):
            self.graph((span,), f"{name}.{number}.", depth + 1)

    def add(self, name: str, tensor: dict[str, Any]) -> None:
        self.room.take(_TENSOR_COST + len(name))
        if name in self.tree:
            raise ValueError(f"the tensor {shown(name)} stands twice")
        try:
            self.tree[name] = self.tensor(name, tensor)
        except CkptError as error:
            self.left_out.add(error)

    def add_sparse(self, above: str, message: Message, name: str = "") -> None:
        """The values of a sparse tensor, whose name they have, and their places, as they are stored."""
        found = self.reader.read(message, _SPARSE)
        values = self.reader.read(found.get("values", ()), _TENSOR)
        name = name or above + values.get("name", "")
        self.add(f"{name}.values", values)
        self.add(f"{name}.indices", self.reader.read(found.get("indices", ()), _TENSOR))
        self.sparse[path_text((f"{name}.values",))] = {"dims": list(_dims(found))}

    # ---- one tensor

    def tensor(self, name: str, found: dict[str, Any]) -> Any:
        """A tensor, or strings as plain values."""
        kind, shape = found.get("data_type", 0), _dims(found)
        if kind not in TYPES and kind != STRING:
            raise fault("unsupported-source", f"the tensor {shown(name)} has the unknown type {kind}", tensor=name)
        if "segment" in found:
            raise fault("unsupported-source", f"the tensor {shown(name)} is a segment of one", tensor=name)
        if found.get("data_location") == EXTERNAL:
            if kind == STRING:
                raise ValueError(f"the strings {shown(name)} lie in another file")
            return stored(name, self.external(name, found), DTYPES[TYPES[kind]], shape)
        if len(having := [field for field in _IN_FILE if field in found]) > 1:
            raise ValueError(f"the tensor {shown(name)} has both {having[0]} and {having[1]}")
        if kind == STRING:
            return self.strings(name, found, shape)
        row = DTYPES[TYPES[kind]]
        if "raw_data" in found:
            return stored(name, self.reader.octets(found["raw_data"]), row, shape)
        return of_numbers(name, found.get(_FIELDS.get(row.name, "int32_data")), row, shape)

    def strings(self, name: str, found: dict[str, Any], shape: tuple[int, ...]) -> Tree:
        spans = found.get("string_data", ())
        if len(spans) != prod(shape):
            raise ValueError(f"{shown(name)} has {len(spans):,} strings, which is wrong for {list(shape)}")
        texts = np.empty(len(spans), object)
        for number, span in enumerate(spans):
            self.room.take(_TEXT_COST + 4 * span.size)
            texts[number] = self.reader.octets(span).tobytes()
        return plain_text(texts.reshape(shape)) if len(spans) else []

    def external(self, name: str, found: dict[str, Any]) -> Array:
        """The bytes of a tensor in another file."""
        entries = _pairs(self.reader, found.get("external_data", ()))
        location = entries.get("location", "")
        data = self.files.bytes_of(location, name)
        offset = _number(entries.get("offset", "0"))
        length = _number(entries["length"]) if "length" in entries else max(0, data.size - offset)
        if offset + length > data.size:
            message = f"{shown(name)} lies in {shown(location)} up to byte {offset + length:,}, of {data.size:,}"
            raise fault("bad-source", message, tensor=name, advice="Fetch that file again, with the model beside it")
        return data[offset : offset + length]


def _number(text: str) -> int:
    """An offset or a length in bytes."""
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ValueError(f"{shown(text)} is no number of bytes")
    return int(text)


def _dims(found: dict[str, Any]) -> tuple[int, ...]:
    dims = found.get("dims", ())
    return shape_of(dims.ints(MAX_AXES + 1) if dims else ())
