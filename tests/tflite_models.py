"""Models of TensorFlow Lite, made with its own generated code (the packages tflite and flatbuffers)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

flatbuffers = pytest.importorskip("flatbuffers")
tflite = pytest.importorskip("tflite")

KINDS = {name: kind for name, kind in vars(tflite.TensorType).items() if name.isupper()}
FLOAT, STRING = KINDS["FLOAT32"], KINDS["STRING"]
W = np.arange(6, dtype=np.float32).reshape(2, 3)


def vector(builder: Any, items: Any, dtype: Any = np.int32) -> int:
    return builder.CreateNumpyVector(np.asarray(items, dtype))


def tables(builder: Any, start: Any, places: Sequence[int]) -> int:
    start(builder, len(places))
    for place in reversed(places):
        builder.PrependUOffsetTRelative(place)
    return builder.EndVector()


def buffer(builder: Any, data: bytes | tuple[int, int] | None) -> int:
    """A buffer of bytes, or of an offset and size in the file."""
    octets = vector(builder, np.frombuffer(data, np.uint8), np.uint8) if isinstance(data, bytes) else None
    tflite.BufferStart(builder)
    if octets is not None:
        tflite.BufferAddData(builder, octets)
    elif data is not None:
        tflite.BufferAddOffset(builder, data[0])
        tflite.BufferAddSize(builder, data[1])
    return tflite.BufferEnd(builder)


def quantisation(builder: Any, about: dict[str, Any]) -> int:
    adds = {"min": np.float32, "max": np.float32, "scale": np.float32, "zero_point": np.int64}
    made = {key: vector(builder, about[key], dtype) for key, dtype in adds.items() if key in about}
    details_type, details = about["details"](builder) if "details" in about else (0, None)
    tflite.QuantizationParametersStart(builder)
    for key, place in made.items():
        name = key.title().replace("_", "")
        getattr(tflite, f"QuantizationParametersAdd{name}")(builder, place)
    tflite.QuantizationParametersAddQuantizedDimension(builder, about.get("quantized_dimension", 0))
    if details is not None:
        tflite.QuantizationParametersAddDetailsType(builder, details_type)
        tflite.QuantizationParametersAddDetails(builder, details)
    return tflite.QuantizationParametersEnd(builder)


def tensor(builder: Any, name: str | None, kind: int, shape: Any, number: int, **more: Any) -> int:
    text = None if name is None else builder.CreateString(name)
    sides = None if shape is None else vector(builder, shape)
    how = quantisation(builder, more["quantised"]) if "quantised" in more else None
    sparse = None
    if more.get("sparse"):
        tflite.SparsityParametersStart(builder)
        sparse = tflite.SparsityParametersEnd(builder)
    tflite.TensorStart(builder)
    tflite.TensorAddType(builder, kind)
    tflite.TensorAddBuffer(builder, number)
    for add, place in (
        (tflite.TensorAddName, text),
        (tflite.TensorAddShape, sides),
        (tflite.TensorAddQuantization, how),
        (tflite.TensorAddSparsity, sparse),
    ):
        if place is not None:
            add(builder, place)
    return tflite.TensorEnd(builder)


def model(
    *subgraphs: tuple[str | None, list[dict[str, Any]]],
    version: int = 3,
    metadata: dict[str, bytes] | None = None,
    more: Sequence[tuple[int, int]] = (),
) -> bytearray:
    """A model of subgraphs: a name, and tensors with `name`, `kind`, `shape` and `data` (None: none). `more` are the
    offset and size of buffers behind all others."""
    builder = flatbuffers.Builder(1024)
    datas: list[Any] = [None]

    def number_of(data: Any) -> int:
        if data is None:
            return 0
        if data in datas[1:]:
            return datas.index(data)
        datas.append(data)
        return len(datas) - 1

    made = []
    for name, tensors in subgraphs:
        places = [
            tensor(
                builder, one.get("name"), one["kind"], one.get("shape"), one.get("number", number_of(one.get("data"))),
                **{key: one[key] for key in ("quantised", "sparse") if key in one},
            )
            for one in tensors
        ]  # fmt: skip
        listed = tables(builder, tflite.SubGraphStartTensorsVector, places)
        text = None if name is None else builder.CreateString(name)
        tflite.SubGraphStart(builder)
        tflite.SubGraphAddTensors(builder, listed)
        if text is not None:
            tflite.SubGraphAddName(builder, text)
        made.append(tflite.SubGraphEnd(builder))
    items = []
    for key, data in (metadata or {}).items():
        text = builder.CreateString(key)
        tflite.MetadataStart(builder)
        tflite.MetadataAddName(builder, text)
        tflite.MetadataAddBuffer(builder, number_of(data))
        items.append(tflite.MetadataEnd(builder))
    listed = tables(builder, tflite.ModelStartMetadataVector, items)
    graphs = tables(builder, tflite.ModelStartSubgraphsVector, made)
    buffers = tables(builder, tflite.ModelStartBuffersVector, [buffer(builder, data) for data in [*datas, *more]])
    description = builder.CreateString("by tests")
    tflite.ModelStart(builder)
    tflite.ModelAddVersion(builder, version)
    tflite.ModelAddSubgraphs(builder, graphs)
    tflite.ModelAddBuffers(builder, buffers)
    tflite.ModelAddMetadata(builder, listed)
    tflite.ModelAddDescription(builder, description)
    builder.Finish(tflite.ModelEnd(builder), file_identifier=b"TFL3")
    return bytearray(builder.Output())


def of(name: str | None, array: np.ndarray, kind: int, **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": kind, "shape": array.shape, "data": array.tobytes(), **more}


def strings(*texts: bytes) -> bytes:
    """Their buffer, as TensorFlow Lite has it."""
    begin = 8 + 4 * len(texts)
    ends = np.cumsum([begin, *map(len, texts)])
    return struct.pack(f"<{len(texts) + 2}i", len(texts), *ends) + b"".join(texts)


def small() -> bytes:
    """A model with whatever there is."""
    about = {"scale": [0.5, 0.25], "zero_point": [3, 4], "quantized_dimension": 1}
    main = [
        of("w", W, FLOAT, quantised=about),
        {"name": "i4", "kind": 17, "shape": (3,), "data": b"\x21\x03"},
        {"name": "text", "kind": STRING, "shape": (2,), "data": strings(b"a", b"bc")},
        {"name": "computed", "kind": FLOAT, "shape": (1, 2)},
    ]
    return bytes(model(("main", main), ("other", [of("w", W, FLOAT)]), metadata={"note": b"x"}))
