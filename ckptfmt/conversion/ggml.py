"""Types of the tensors of ggml: plain ones, and blocks of quantised elements, with which the package `gguf` computes.

A tensor of blocks is an array (uint8) of rows of blocks. Its elements, and the blocks of elements, are computed when
they are read, each part by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..errors import fault
from ..format.casts import cast
from ..format.dtypes import DTYPES, Array
from ..format.grid import Shape
from ..packages import package
from .source import LazyArray, LeadingSlices, SourceTensor

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

BLOCKS_BY_NAME: Mapping[str, Blocks] = {row.name: row for row in QUANTISED_TYPES.values()}
NUMBERS = {name: number for number, name in PLAIN.items()} | {row.name: n for n, row in QUANTISED_TYPES.items()}
FLOATS = ("float16", "bfloat16", "float32")  # what quantised elements may become
KEEP = "Leave out dequantize=, which keeps the blocks as they are stored"


def shape_in_blocks(shape: Shape, row: Blocks) -> Shape:
    """The shape of the rows of blocks of a tensor; raises ValueError where its rows are no whole blocks."""
    if not shape or shape[-1] % row.elements:
        raise ValueError(f"a tensor of shape {shape} has no whole blocks of {row.name}")
    return *shape[:-1], shape[-1] // row.elements * row.bytes


def dequantized(name: str, blocks: Array, row: Blocks, dtype: str) -> LazyArray:
    """The elements of the blocks of tensor `name` as floats of one of `FLOATS`, rounded from float32. Raises
    `missing-package`, and `unsupported-source` for a type that the package cannot compute with."""
    library = _Library.of("dequantising blocks of GGUF")
    try:
        library.dequantize(np.zeros((1, row.bytes), np.uint8), row)
    except (NotImplementedError, ValueError) as error:
        message = f"tensor {name!r} is of the type {row.name}, which the package gguf cannot dequantise"
        raise fault("unsupported-source", message, tensor=name, advice=KEEP) from error
    shape = (*blocks.shape[:-1], blocks.shape[-1] // row.bytes * row.elements)
    kind = DTYPES[dtype].numpy

    def read(index: LeadingSlices) -> Array:
        low, high, part = _blocks(index, shape, row.elements)
        octets = blocks[(*index[: len(shape) - 1], ..., slice(low * row.bytes, high * row.bytes))]
        return rounded(name, library.dequantize(octets, row)[..., part], kind)

    return LazyArray(shape, kind, read)


def quantized(tensor: SourceTensor, row: Blocks) -> LazyArray | None:
    """The blocks of a tensor of floats; None where the package makes none of that type. Raises `missing-package`."""
    library = _Library.of("quantising tensors for GGUF")
    try:
        library.quantize(np.zeros((1, row.elements), np.float32), row)
    except (NotImplementedError, ValueError):
        return None
    shape = shape_in_blocks(tensor.shape, row)

    def read(index: LeadingSlices) -> Array:
        low, high, part = _blocks(index, shape, row.bytes)
        if len(index) == len(shape):
            index = (*index[:-1], slice(low * row.elements, high * row.elements))
        return library.quantize(tensor[index], row)[..., part]

    return LazyArray(shape, np.dtype(np.uint8), read, tensor.rows if isinstance(tensor, LazyArray) else None)


def _blocks(index: LeadingSlices, shape: Shape, size: int) -> tuple[int, int, slice]:
    """The first and the last of the blocks of a row, each of that size in it, that a part reaches, and where in these
    it lies."""
    first, last = 0, shape[-1]
    if len(index) == len(shape):
        first, last, _ = index[-1].indices(shape[-1])
    low, high = first // size, -(-max(first, last) // size)
    return low, high, slice(first - low * size, max(first, last) - low * size)


def rounded(name: str, values: Array, dtype: np.dtype[Any]) -> Array:
    """Floats of tensor `name` as others; raises `unsupported-leaf` where these have no room for one."""
    found, beyond = cast(values, dtype)
    if beyond:
        message = f"{beyond:,} elements or more of tensor {name!r} are beyond the range of {dtype.name}"
        raise fault("unsupported-leaf", message, tensor=name, advice="Choose bfloat16 or float32, which have more")
    return found


@dataclass(frozen=True, slots=True)
class _Library:
    """The package `gguf`, whose functions compute each block by itself."""

    module: Any

    @classmethod
    def of(cls, what: str) -> _Library:
        return cls(package("gguf", what))

    def dequantize(self, blocks: Array, row: Blocks) -> Array:
        shape = (*blocks.shape[:-1], blocks.shape[-1] // row.bytes * row.elements)
        if not blocks.size:
            return np.empty(shape, np.float32)
        with np.errstate(all="ignore"):  # blocks of a file may hold any bits
            found = self.module.quants.dequantize(np.ascontiguousarray(blocks), self._kind(row))
        return np.asarray(found, np.float32).reshape(shape)

    def quantize(self, values: Array, row: Blocks) -> Array:
        shape = shape_in_blocks(values.shape, row)
        if not values.size:
            return np.empty(shape, np.uint8)
        with np.errstate(all="ignore"):
            found = self.module.quants.quantize(np.ascontiguousarray(values, np.float32), self._kind(row))
        return np.asarray(found, np.uint8).reshape(shape)

    def _kind(self, row: Blocks) -> Any:
        return self.module.GGMLQuantizationType(NUMBERS[row.name])
