"""Core ML: a model (`.mlmodel`) or a package of one (`.mlpackage`). Read only, and without the library.

    package := Manifest.json, which says where in Data/ the model lies; beside that the files of its weights
    Model (Protocol Buffers) := a program, a neural network, a pipeline of models, or something else
    program := functions; function := a block of operations; operation := values, blocks
    value   := its type, and what it is, or a place in a file of blobs

    file of blobs := u32 count, u32 version 2, 56 bytes; blobs, each behind 64 bytes about it:
                     u32 0xDEADBEEF, u32 type, u64 size, u64 where its bytes begin, u64 unused bits, 32 bytes

Of a program each `const` stands under the name of its output, other values of an operation under `OUTPUT.ARGUMENT`, and
those of functions other than `main` after `FUNCTION.`; of a network each weight under `LAYER.WEIGHT`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ...errors import fault
from ...format.dtypes import DTYPES, Array
from ...format.tree import Tree
from ..beside import FilesBeside
from ..claims import MAX_AXES, MemoryRoom, shape_of, shown
from ..coreml_layers import NetworkReader
from ..entries import check_inside, read_json
from ..flat import codes, in_order, of_numbers, stored
from ..probe import Probe
from ..protobuf import (
    BYTES,
    DOUBLES,
    FLOATS,
    INT,
    PART,
    PARTS,
    TEXT,
    UINT,
    VARINT,
    VARINTS,
    Message,
    PartList,
    Table,
    WireReader,
    first_fields,
)
from ..shards import distinct
from ..source import Loss, OpenedSource, SourceTensor, mapped_file, plain_text

METADATA = "coreml.metadata"  # metadata: what the model says of itself
QUANTISED = "coreml.quantised"  # metadata: path -> how the weights of a network are quantised
MANIFEST, DATA = "Manifest.json", "Data"
NESTED = 64  # blocks, values and models within each other
MODEL_PATH = "@model_path/"  # where names of files begin
SENTINEL, BLOBS = 0xDEADBEEF, 2
STRING = 2
_BLOB_HEAD = struct.Struct("<IIQQQ")
_TENSOR_COST, _TEXT_COST = 1500, 100  # bytes of memory

_PAIR: Table = {1: ("key", TEXT), 2: ("value", PARTS)}
_TEXTS: Table = {1: ("key", TEXT), 2: ("value", TEXT)}
_MODEL: Table = {1: ("specificationVersion", INT), 2: ("description", PARTS), 10: ("isUpdatable", INT)}
_DESCRIPTION: Table = {21: ("defaultFunctionName", TEXT), 100: ("metadata", PARTS)}
_ABOUT: Table = {
    1: ("shortDescription", TEXT),
    2: ("versionString", TEXT),
    3: ("author", TEXT),
    4: ("license", TEXT),
    100: ("userDefined", PARTS),
}
_PIPELINE: Table = {1: ("models", PARTS), 2: ("names", PARTS)}
# what a model may be: by the numbers of its fields
_PIPELINES = {200: "pipelineClassifier", 201: "pipelineRegressor", 202: "pipeline"}
_NETWORKS = {303: "neuralNetworkRegressor", 403: "neuralNetworkClassifier", 500: "neuralNetwork"}
_PROGRAM = 502
_OTHERS = {
    **{300: "glmRegressor", 301: "supportVectorRegressor", 302: "treeEnsembleRegressor", 400: "glmClassifier"},
    **{304: "bayesianProbitRegressor", 401: "supportVectorClassifier", 402: "treeEnsembleClassifier"},
    **{404: "kNearestNeighborsClassifier", 501: "itemSimilarityRecommender", 555: "customModel", 556: "linkedModel"},
    **{560: "classConfidenceThresholding", 600: "oneHotEncoder", 601: "imputer", 602: "featureVectorizer"},
    **{603: "dictVectorizer", 604: "scaler", 606: "categoricalMapping", 607: "normalizer", 900: "identity"},
    **{609: "arrayFeatureExtractor", 610: "nonMaximumSuppression", 2000: "textClassifier", 2001: "wordTagger"},
    **{2002: "visionFeaturePrint", 2003: "soundAnalysisPreprocessing", 2004: "gazetteer", 2005: "wordEmbedding"},
    **{2006: "audioFeaturePrint", 3000: "serializedModel"},
}
_TYPES = {*_PIPELINES, *_NETWORKS, _PROGRAM, *_OTHERS}

_FUNCTIONS: Table = {2: ("functions", PARTS)}
_FUNCTION: Table = {2: ("opset", TEXT), 3: ("blocks", PARTS)}
_BLOCK: Table = {3: ("operations", PARTS)}
_OPERATION: Table = {
    1: ("type", TEXT),
    2: ("inputs", PARTS),
    3: ("outputs", PARTS),
    4: ("blocks", PARTS),
    5: ("attributes", PARTS),
}
_OUTPUT: Table = {1: ("name", TEXT)}
_ARGUMENT: Table = {1: ("bindings", PARTS)}
_BINDING: Table = {2: ("value", PARTS)}
_VALUE: Table = {2: ("type", PARTS), 3: ("immediate", PARTS), 5: ("blob", PARTS)}
_VALUE_TYPE: Table = {1: ("tensor", PARTS)}
_TENSOR_TYPE: Table = {1: ("type", INT), 3: ("dimensions", PARTS)}
_DIMENSION: Table = {1: ("constant", PARTS)}
_CONSTANT: Table = {1: ("size", UINT)}
_IMMEDIATE: Table = {1: ("tensor", PARTS), 2: ("tuple", PARTS), 3: ("list", PARTS), 4: ("dictionary", PARTS)}
_VALUES: Table = {1: ("values", PARTS)}
_TENSOR: Table = {
    1: ("floats", PARTS),
    2: ("ints", PARTS),
    3: ("bools", PARTS),
    4: ("strings", PARTS),
    5: ("longInts", PARTS),
    6: ("doubles", PARTS),
    7: ("bytes", PARTS),
}
_FORMS = {"floats": FLOATS, "ints": VARINTS, "bools": VARINTS, "longInts": VARINTS, "doubles": DOUBLES, "bytes": PART}
_FORMS["strings"] = PARTS
_BLOB: Table = {1: ("fileName", TEXT), 2: ("offset", UINT)}


class MilType(NamedTuple):
    """A type of elements: its name, the number of it in files of blobs, the field that has its elements otherwise."""

    name: str
    blob: int = 0
    field: str = "bytes"


MIL_TYPES = {
    1: MilType("bool", 0, "bools"),
    10: MilType("float16", 1),
    11: MilType("float32", 2, "floats"),
    12: MilType("float64", 0, "doubles"),
    13: MilType("bfloat16", 5),
    21: MilType("int8", 4),
    22: MilType("int16", 6, "ints"),
    23: MilType("int32", 14, "ints"),
    24: MilType("int64", 0, "longInts"),
    25: MilType("int4", 8),
    31: MilType("uint8", 3),
    32: MilType("uint16", 7, "ints"),
    33: MilType("uint32", 15, "ints"),
    34: MilType("uint64", 0, "longInts"),
    35: MilType("uint4", 11),
    36: MilType("uint2", 10),
    37: MilType("uint1", 9),
    38: MilType("uint6", 13),
    39: MilType("uint3", 12),
    40: MilType("float8_e4m3fn", 16),
    41: MilType("float8_e5m2", 17),
}
_WIDER = {"uint6": 6, "uint3": 3}  # that become uint8, and their bits


def looks_like(probe: Probe) -> bool:
    """Whether a folder is a package, or the fields of a file are those of a model: a version, then what it is."""
    if probe.is_directory:
        return {MANIFEST, DATA} <= probe.entries
    if probe.head[:1] != b"\x08":
        return False
    for place, (number, wire, value) in enumerate(first_fields(probe)):
        if number in _TYPES:
            return wire == BYTES and place > 0
        is_first = number == 1 and type(value) is int and 0 < value < 1 << 10
        if number not in _MODEL or wire != (BYTES if number == 2 else VARINT) or (place == 0) != is_first:
            return False
    return False


def read(path: str) -> OpenedSource:
    if os.path.isdir(path):
        place = _model_in(path)
        files = FilesBeside(path, os.path.dirname(place))
        data = mapped_file(os.path.join(path, place), path)
    else:
        files = FilesBeside(os.path.dirname(os.path.abspath(path)))
        data = mapped_file(path)
    walker = _CoremlWalker(WireReader(data), files)
    walker.model(walker.reader.whole, "", 0)
    metadata: dict[str, Tree] = {METADATA: walker.about}
    if walker.quantised:
        metadata[QUANTISED] = walker.quantised
    return OpenedSource(walker.tree, metadata, tuple(walker.losses), size=data.size + files.size)


def _model_in(package: str) -> str:
    """Where in a package its model lies; raises `unsafe-source`."""
    manifest = read_json(os.path.join(package, MANIFEST), distinct, package)
    item = manifest["itemInfoEntries"][manifest["rootModelIdentifier"]]
    place = os.path.normpath(os.path.join(DATA, item["path"]))
    if os.path.isabs(place) or place.split(os.sep)[0] == os.pardir:
        raise fault("unsafe-source", f"the model lies at {shown(item['path'])}, outside of its package")
    if not os.path.lexists(os.path.join(package, place)):
        raise fault("bad-source", f"the manifest names {shown(item['path'])}, which is missing")
    check_inside(os.path.join(package, place), package)
    return place


class _CoremlWalker:
    """Collects the tensors of models into `tree`; those of programs may lie in `files`."""

    def __init__(self, reader: WireReader, files: FilesBeside) -> None:
        self.reader, self.files, self.room = reader, files, MemoryRoom(reader.data.size)
        self.tree: dict[str, Any] = {}
        self.about: dict[str, Tree] = {}
        self.quantised: dict[str, Tree] = {}
        self.losses: list[Loss] = []

    def model(self, message: Message, above: str, depth: int) -> None:
        """The tensors of a model, whose names get `above` before them."""
        _check_depth(depth)
        found = self.reader.read(message, {**_MODEL, **{number: (str(number), PARTS) for number in _TYPES}})
        if depth == 0:
            self.about = self.metadata(found)
        kinds = [number for number in _TYPES if str(number) in found]
        if not kinds:
            raise ValueError("a model that is nothing: it may be cut off behind its description")
        for number in kinds:
            part = found[str(number)]
            if number in _PIPELINES:
                self.pipeline(part, above, depth, is_wrapped=number != 202)
            elif number in _NETWORKS:
                network = NetworkReader(self.reader, self.room, self.add, self.quantised)
                network.layers(part, above, 0)
            elif number == _PROGRAM:
                self.program(part, above)
            else:
                self.losses.append(Loss("value", above[:-1], f"a model of the type {_OTHERS[number]} is left out"))

    def metadata(self, model: dict[str, Any]) -> dict[str, Tree]:
        """What a model says of itself."""
        found: dict[str, Tree] = {key: model[key] for key in ("specificationVersion", "isUpdatable") if key in model}
        description = self.reader.read(model.get("description", ()), _DESCRIPTION)
        about = self.reader.read(description.get("metadata", ()), _ABOUT)
        for key, value in about.items():
            if key != "userDefined":
                found[key] = value
                continue
            pairs = [self.reader.read((span,), _TEXTS) for span in value]
            found[key] = {pair.get("key", ""): pair.get("value", "") for pair in pairs}
        return found

    def pipeline(self, message: Message, above: str, depth: int, *, is_wrapped: bool) -> None:
        if is_wrapped:
            message = self.reader.read(message, _VALUES).get("values", ())
        found = self.reader.read(message, _PIPELINE)
        names = [self.reader.text(span) for span in found.get("names", ())]
        for number, span in enumerate(found.get("models", ())):
            name = names[number] if number < len(names) else f"model_{number}"
            self.room.take(_TEXT_COST + len(above) + len(name))
            self.model((span,), f"{above}{name}.", depth + 1)

    def add(self, name: str, value: Any) -> str:
        """Give a value its name, and a number behind it if that is taken."""
        if name in self.tree:
            name = f"{name}.{len(self.tree)}"
        if name in self.tree:
            raise ValueError(f"the tensor {shown(name)} stands twice")
        self.room.take(_TENSOR_COST + len(name))
        self.tree[name] = value
        return name

    # ---- programs

    def program(self, message: Message, above: str) -> None:
        functions = self.reader.read(message, _FUNCTIONS).get("functions", ())
        for name, function in self.pairs(functions):
            self.function(function, above if name == "main" else f"{above}{name}.")

    def function(self, message: Message, above: str) -> None:
        """The block of a function for the operators that it names, and those for others after their names."""
        found = self.reader.read(message, _FUNCTION)
        for opset, block in self.pairs(found.get("blocks", ())):
            self.block(block, above if opset == found.get("opset", "") else f"{above}{opset}.", 0)

    def pairs(self, entries: Message) -> Iterator[tuple[str, Message]]:
        for entry in entries:
            pair = self.reader.read((entry,), _PAIR)
            yield pair.get("key", ""), pair.get("value", ())

    def block(self, message: Message, above: str, depth: int) -> None:
        _check_depth(depth)
        for number, span in enumerate(self.reader.read(message, _BLOCK).get("operations", ())):
            operation = self.reader.read((span,), _OPERATION)
            kind = operation.get("type", "")
            output = self.reader.read(list(operation.get("outputs", ()))[:1], _OUTPUT).get("name")
            label = above + (output or f"{kind}_{number}")
            for name, value in self.pairs(operation.get("attributes", ())):
                if name != "name":
                    self.value(value, label if (kind, name) == ("const", "val") else f"{label}.{name}")
            for name, argument in self.pairs(operation.get("inputs", ())):
                bindings = self.reader.read(argument, _ARGUMENT).get("bindings", ())
                for place, binding in enumerate(bindings):
                    found = self.reader.read((binding,), _BINDING)
                    if "value" in found:
                        self.value(found["value"], f"{label}.{name}" + (f".{place}" if len(bindings) > 1 else ""))
            for block in operation.get("blocks", ()):
                self.block((block,), above, depth + 1)

    def value(self, message: Message, name: str) -> None:
        self.room.take(_TENSOR_COST + len(name))
        found = self.decoded(message, name, 0)
        if found is None:
            self.losses.append(Loss("value", name, "a value that is neither a tensor nor a list is left out"))
        elif not isinstance(found, str):  # one text alone says how an operation works
            self.add(name, found)

    def decoded(self, message: Message, name: str, depth: int) -> Any:
        """A value as a tensor, or strings and lists as plain values; None for others."""
        _check_depth(depth)
        value = self.reader.read(message, _VALUE)
        tensor = self.reader.read(value.get("type", ()), _VALUE_TYPE).get("tensor")
        if "blob" in value and tensor is not None:
            return self.blob(value["blob"], tensor, name)
        immediate = self.reader.read(value.get("immediate", ()), _IMMEDIATE)
        if "tensor" in immediate and tensor is not None:
            return self.immediate(immediate["tensor"], tensor, name)
        if "dictionary" in immediate or not immediate:
            return None
        items = self.reader.read(immediate.get("list", immediate.get("tuple", ())), _VALUES).get("values", ())
        found = []
        for item in items:
            self.room.take(_TENSOR_COST)
            found.append(self.decoded((item,), name, depth + 1))
        return None if any(item is None for item in found) else found

    def tensor_type(self, message: Message, name: str) -> tuple[int, tuple[int, ...]]:
        found = self.reader.read(message, _TENSOR_TYPE)
        dimensions = [
            self.reader.read((span,), _DIMENSION) for span in found.get("dimensions", _NO_SIDES).first(MAX_AXES + 1)
        ]
        if any("constant" not in dimension for dimension in dimensions):
            raise ValueError(f"{shown(name)} has a side of any length")
        shape = shape_of(self.reader.read(side["constant"], _CONSTANT).get("size", 0) for side in dimensions)
        return found.get("type", 0), shape

    def immediate(self, message: Message, type_message: Message, name: str) -> Any:
        """A tensor whose elements stand in the model."""
        kind, shape = self.tensor_type(type_message, name)
        field = "strings" if kind == STRING else self.mil_type(kind, name).field
        part = self.reader.read(message, _TENSOR)
        found = self.reader.read(part.get(field, ()), {1: ("values", _FORMS[field])}).get("values")
        if kind == STRING:
            return self.strings(found or (), shape, name)
        if field == "bytes":
            octets = _NOTHING if found is None else self.reader.octets(found)
            return self.elements(octets, kind, shape, name)
        return of_numbers(name, found, DTYPES[MIL_TYPES[kind].name], shape)

    def strings(self, spans: Any, shape: tuple[int, ...], name: str) -> Tree:
        if len(spans) != prod(shape):
            raise ValueError(f"{shown(name)} has {len(spans):,} strings, which is wrong for {list(shape)}")
        texts = np.empty(len(spans), object)
        for number, span in enumerate(spans):
            self.room.take(_TEXT_COST + 4 * span.size)
            texts[number] = self.reader.text(span)
        return plain_text(texts.reshape(shape)) if len(spans) else []

    def blob(self, message: Message, type_message: Message, name: str) -> SourceTensor:
        """A tensor whose elements lie in a file of blobs."""
        kind, shape = self.tensor_type(type_message, name)
        place = self.reader.read(message, _BLOB)
        data = self.files.bytes_of(place.get("fileName", "").removeprefix(MODEL_PATH), name)
        version = int.from_bytes(bytes(data[4:8]), "little")
        if data.size >= 8 and version != BLOBS:
            raise fault("unsupported-source", f"a file of blobs of version {version}: {BLOBS} can be read", tensor=name)
        head = bytes(data[place.get("offset", 0) :][: _BLOB_HEAD.size])
        if len(head) < _BLOB_HEAD.size:
            raise _cut(name, place, data)
        sentinel, blob_type, size, first, _ = _BLOB_HEAD.unpack(head)
        if sentinel != SENTINEL or blob_type != self.mil_type(kind, name).blob:
            raise ValueError(f"there is no blob for {shown(name)} at byte {place.get('offset', 0):,}")
        if first + size > data.size:
            raise _cut(name, place, data)
        return self.elements(data[first : first + size], kind, shape, name)

    def elements(self, octets: Array, kind: int, shape: tuple[int, ...], name: str) -> SourceTensor:
        type_name = self.mil_type(kind, name).name
        if type_name not in _WIDER:
            return stored(name, octets, DTYPES[type_name], shape)
        bits = _WIDER[type_name]
        if octets.size != (due := -(-prod(shape) * bits // 8)):
            raise ValueError(f"{shown(name)} has {octets.size:,} bytes, where {due:,} are due for {type_name}")
        self.losses.append(Loss("dtype", name, f"{type_name} becomes uint8"))
        return in_order(shape, np.dtype(np.uint8), codes(lambda first, last: octets[first:last], bits))

    def mil_type(self, kind: int, name: str) -> MilType:
        if kind not in MIL_TYPES:
            raise fault("unsupported-source", f"{shown(name)} has the unknown type {kind}", tensor=name)
        return MIL_TYPES[kind]


_NOTHING = np.empty(0, np.uint8)
_NO_SIDES = PartList()


def _check_depth(depth: int) -> None:
    if depth > NESTED:
        raise fault("too-deep", f"blocks, values or models nested deeper than {NESTED}")


def _cut(name: str, place: dict[str, Any], data: Array) -> Exception:
    message = f"{shown(name)} lies in {shown(place.get('fileName', ''))}, beyond its {data.size:,} bytes"
    return fault("bad-source", message, tensor=name, advice="Fetch that file again, with the model beside it")
