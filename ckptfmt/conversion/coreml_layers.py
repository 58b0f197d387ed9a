"""The weights of a neural network of Core ML, layer by layer.

A weight has no shape of its own. It gets that which the lengths of its layer give, if they give as many elements, and
else is one row of numbers. What is quantised stays bytes, as it is stored, and `quantised` says how.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import prod
from typing import Any

from ..errors import fault
from ..format.dtypes import DTYPES
from ..format.names import path_text
from ..format.tree import Tree
from .claims import MAX_AXES, MemoryRoom
from .flat import of_numbers, stored
from .protobuf import FLOATS, INT, PART, PARTS, TEXT, UINT, VARINTS, ByteSpan, Message, Table, WireReader

NESTED = 64  # networks within layers
SHAPE = "shape"  # of the layer: what it says itself
KERNEL = "kernelSize"
KERNELS = {KERNEL, "kernelDepth"}  # of layers that convolve
FIRST = "channels"  # of a convolution: the first two sides, which follow from its channels and groups
_NUMBER_COST = 40  # bytes of memory

_LAYERS: Table = {1: ("layers", PARTS)}
_NAME: Table = {1: ("name", TEXT)}
_WEIGHT: Table = {
    1: ("floatValue", FLOATS),
    2: ("float16Value", PART),
    30: ("rawValue", PART),
    31: ("int8RawValue", PART),
    40: ("quantization", PARTS),
}
_QUANTISATION: Table = {1: ("numberOfBits", UINT), 101: ("linear", PARTS), 102: ("table", PARTS)}
_LINEAR: Table = {1: ("scale", FLOATS), 2: ("bias", FLOATS)}
_LOOKUP: Table = {1: ("floatValue", FLOATS)}

Weights = dict[int, tuple[str, tuple[str, ...]]]  # number of a field -> its name, the lengths that make its shape


def _gates(first: int, kinds: tuple[str, ...], what: str, shape: tuple[str, ...]) -> Weights:
    return {first + number: (f"{kind}{what}", shape) for number, kind in enumerate(kinds)}


_OUT_IN, _OUT_OUT, _OUT = ("outputVectorSize", "inputVectorSize"), ("outputVectorSize",) * 2, ("outputVectorSize",)
_GRU, _LSTM = ("updateGate", "resetGate", "outputGate"), ("inputGate", "forgetGate", "blockInput", "outputGate")
_PEEPHOLES = ("inputGatePeephole", "forgetGatePeephole", "outputGatePeephole")
_LSTM_WEIGHTS: Weights = {
    **_gates(1, _LSTM, "WeightMatrix", _OUT_IN),
    **_gates(20, _LSTM, "RecursionMatrix", _OUT_OUT),
    **_gates(40, _LSTM, "BiasVector", _OUT),
    **_gates(60, _PEEPHOLES, "Vector", _OUT),
}
_VECTOR_SIZES: Table = {1: ("inputVectorSize", UINT), 2: ("outputVectorSize", UINT)}
_CONVOLUTION: Table = {
    1: ("outputChannels", UINT),
    2: ("kernelChannels", UINT),
    10: ("nGroups", UINT),
    20: (KERNEL, VARINTS),
    60: ("isDeconvolution", INT),
}
_CONVOLUTION_3D: Table = {
    1: ("outputChannels", UINT),
    2: ("inputChannels", UINT),
    10: ("nGroups", UINT),
    20: ("kernelDepth", UINT),
    21: ("kernelHeight", UINT),
    22: ("kernelWidth", UINT),
    86: ("isDeconvolution", INT),
}
# the kinds of layers that have weights: the number of their field -> its name, the lengths in it, its weights
LAYERS: dict[int, tuple[str, Table, Weights]] = {
    100: (
        "convolution",
        _CONVOLUTION,
        {90: ("weights", (FIRST, KERNEL)), 91: ("bias", ("outputChannels",))},
    ),
    140: (
        "innerProduct",
        {1: ("inputChannels", UINT), 2: ("outputChannels", UINT)},
        {20: ("weights", ("outputChannels", "inputChannels")), 21: ("bias", ("outputChannels",))},
    ),
    150: (
        "embedding",
        {1: ("inputDim", UINT), 2: ("outputChannels", UINT)},
        {20: ("weights", ("outputChannels", "inputDim")), 21: ("bias", ("outputChannels",))},
    ),
    160: ("batchnorm", {}, {15: ("gamma", ()), 16: ("beta", ()), 17: ("mean", ()), 18: ("variance", ())}),
    245: (
        "scale",
        {1: ("shapeScale", VARINTS), 4: ("shapeBias", VARINTS)},
        {2: ("scale", ("shapeScale",)), 5: ("bias", ("shapeBias",))},
    ),
    250: ("bias", {1: (SHAPE, VARINTS)}, {2: ("bias", (SHAPE,))}),
    290: ("loadConstant", {1: (SHAPE, VARINTS)}, {2: ("data", (SHAPE,))}),
    400: (
        "simpleRecurrent",
        _VECTOR_SIZES,
        {30: ("weightMatrix", _OUT_IN), 31: ("recursionMatrix", _OUT_OUT), 32: ("biasVector", _OUT)},
    ),
    410: (
        "gru",
        _VECTOR_SIZES,
        {
            **_gates(30, _GRU, "WeightMatrix", _OUT_IN),
            **_gates(50, _GRU, "RecursionMatrix", _OUT_OUT),
            **_gates(70, _GRU, "BiasVector", _OUT),
        },
    ),
    420: ("uniDirectionalLSTM", _VECTOR_SIZES, {}),
    430: ("biDirectionalLSTM", _VECTOR_SIZES, {}),
    500: ("custom", {}, {20: ("weights", ())}),
    1040: (
        "embeddingND",
        {1: ("vocabSize", UINT), 2: ("embeddingSize", UINT)},
        {20: ("weights", ("embeddingSize", "vocabSize")), 21: ("bias", ("embeddingSize",))},
    ),
    1045: ("batchedMatmul", {}, {8: ("weights", ()), 9: ("bias", ())}),
    1070: ("loadConstantND", {1: (SHAPE, VARINTS)}, {2: ("data", (SHAPE,))}),
    1350: (
        "layerNormalization",
        {1: ("normalizedShape", VARINTS)},
        {3: ("gamma", ("normalizedShape",)), 4: ("beta", ("normalizedShape",))},
    ),
    1471: (
        "convolution3d",
        _CONVOLUTION_3D,
        {60: ("weights", (FIRST, "kernelDepth", "kernelHeight", "kernelWidth"))} | {61: ("bias", ("outputChannels",))},
    ),
}
_PARAMS = 20  # of LSTMs: the field that has the weights, one for each direction
# of layers: networks within them
_NETWORKS: dict[int, dict[int, str]] = {
    605: {1: "ifBranch", 2: "elseBranch"},
    615: {3: "conditionNetwork", 4: "bodyNetwork"},
}
# of layers: the fields of activations in them, which may have weights; the layer 130 is one itself
_ACTIVATIONS: dict[int, dict[int, str]] = {
    400: {10: "activation"},
    410: {10: "activations"},
    420: {10: "activations"},
    430: {10: "activationsForwardLSTM", 11: "activationsBackwardLSTM"},
}
_ACTIVATION = 130
_OF_ACTIVATIONS: dict[int, tuple[str, Weights]] = {
    25: ("PReLU", {1: ("alpha", ())}),
    71: ("parametricSoftplus", {1: ("alpha", ()), 2: ("beta", ())}),
}
_LSTMS, _CUSTOM = (420, 430), 500
_LAYER: Table = {
    1: ("name", TEXT),
    **{number: (str(number), PARTS) for number in (*LAYERS, *_NETWORKS, _ACTIVATION)},
}

Sizes = dict[str, tuple[int, ...]]  # what a layer says of lengths


class NetworkReader:
    """Reads the weights of networks and gives them to `add`, which says what they are called."""

    def __init__(
        self, reader: WireReader, room: MemoryRoom, add: Callable[[str, Any], str], quantised: dict[str, Tree]
    ) -> None:
        self.reader, self.room, self.add, self.quantised = reader, room, add, quantised

    def layers(self, message: Message, above: str, depth: int) -> None:
        """The weights of a network, whose names get `above` before them."""
        if depth > NESTED:
            raise fault("too-deep", f"networks nested deeper than {NESTED}")
        for place, span in enumerate(self.reader.read(message, _LAYERS).get("layers", ())):
            layer = self.reader.read((span,), _LAYER)
            label = above + (layer.get("name") or f"layer_{place}")
            self.room.take(len(label))
            for key, part in layer.items():
                if key != "name":
                    self.layer(int(key), part, label, depth)

    def layer(self, number: int, message: Message, label: str, depth: int) -> None:
        for name, part in self.parts(message, _NETWORKS.get(number, {})):
            self.layers((part,), f"{label}.{name}.", depth + 1)
        if number == _ACTIVATION:
            self.activation(message, label)
        for name, part in self.parts(message, _ACTIVATIONS.get(number, {})):
            self.activation((part,), f"{label}.{name}")
        if number not in LAYERS:
            return
        _, lengths, weights = LAYERS[number]
        sizes = _sizes(self.reader.read(message, lengths))
        if number == _CUSTOM:
            for name, part in self.parts(message, {key: name for key, (name, _) in weights.items()}):
                self.weight((part,), f"{label}.{name}", ())
            return
        self.weights(message, weights, sizes, label)
        for name, part in self.parts(message, {_PARAMS: "weightParams"} if number in _LSTMS else {}):
            self.weights((part,), _LSTM_WEIGHTS, sizes, f"{label}.{name}")

    def parts(self, message: Message, names: dict[int, str]) -> Iterator[tuple[str, ByteSpan]]:
        """Messages in one: of fields with several of them each with its number."""
        for name, spans in self.reader.read(message, {number: (name, PARTS) for number, name in names.items()}).items():
            for place, span in enumerate(spans):
                yield (f"{name}.{place}" if len(spans) > 1 else name), span

    def activation(self, message: Message, label: str) -> None:
        for number, (name, weights) in _OF_ACTIVATIONS.items():
            for _, part in self.parts(message, {number: name}):
                self.weights((part,), weights, {}, f"{label}.{name}")

    def weights(self, message: Message, weights: Weights, sizes: Sizes, label: str) -> None:
        found = self.reader.read(message, {number: (name, PARTS) for number, (name, _) in weights.items()})
        for name, shape in weights.values():
            if name in found:
                sides = [side for key in shape for side in sizes.get(key, (-1,))]
                self.weight(found[name], f"{label}.{name}", tuple(sides))

    def weight(self, message: Message, name: str, sides: tuple[int, ...]) -> None:
        """One weight; one without numbers is none."""
        found = self.reader.read(message, _WEIGHT)
        if len(numbers := found.get("floatValue", ())):
            shape = _shape(sides, len(numbers))
            self.add(name, of_numbers(name, numbers, DTYPES["float32"], shape))
            return
        for field, dtype in (("float16Value", "float16"), ("int8RawValue", "int8"), ("rawValue", "uint8")):
            if field in found and found[field].size:
                row, octets = DTYPES[dtype], self.reader.octets(found[field])
                shape = _shape(sides, octets.size // row.numpy.itemsize)
                name = self.add(name, stored(name, octets, row, shape))
                if "quantization" in found:
                    self.quantised[path_text((name,))] = self.quantisation(found["quantization"])
                return

    def quantisation(self, message: Message) -> dict[str, Tree]:
        found = self.reader.read(message, _QUANTISATION)
        about: dict[str, Tree] = {"numberOfBits": found.get("numberOfBits", 0)}
        numbers = {
            **self.reader.read(found.get("linear", ()), _LINEAR),
            **self.reader.read(found.get("table", ()), _LOOKUP),
        }
        for key, values in numbers.items():
            self.room.take(_NUMBER_COST * len(values))
            about[key] = [float(value) for value in values.part(0, len(values), values.dtype)]
        return about


def _shape(sides: tuple[int, ...], count: int) -> tuple[int, ...]:
    """A shape of that many elements: the sides, if they have so many."""
    return sides if sides and min(sides) >= 0 and len(sides) <= MAX_AXES and prod(sides) == count else (count,)


def _sizes(found: dict[str, Any]) -> Sizes:
    """What a layer says of lengths, with those that follow for a convolution."""
    sizes: Sizes = {
        key: (value,) if isinstance(value, int) else tuple(value.ints(MAX_AXES + 1)) for key, value in found.items()
    }
    groups = max(1, *sizes.pop("nGroups", (1,)))
    is_transposed = any(sizes.pop("isDeconvolution", (0,)))
    if KERNELS & sizes.keys() or "kernelChannels" in sizes:
        sizes.setdefault(KERNEL, (3, 3))
        out, into = sizes.get("outputChannels", (0,))[0], sizes.get("kernelChannels", (0,))[0]
        if "inputChannels" in sizes:
            into = sizes["inputChannels"][0] if is_transposed else sizes["inputChannels"][0] // groups
        first = (into, out // groups) if is_transposed else (out, into)
        sizes[FIRST] = first
    return sizes
