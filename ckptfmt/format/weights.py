"""The preset `compression="weights"`: a codec for each dtype, from what `python -m benchmarks.compression` measures."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .codecs import RAW, Codec
from .dtypes import dtype_of

WEIGHTS = Codec("weights")  # stands for the codec of each tensor, and is not stored
LEAST = 1 << 16  # bytes of a tensor; smaller ones are read together, which compressed ones are not

_ZSTD = {"blocksize": 0, "clevel": 1, "cname": "zstd", "shuffle": "shuffle", "typesize": 1}
PLANES = Codec("planes", tuple(_ZSTD.items()))  # a Huffman code for exponents, mantissas as they are
REPEATS = Codec("blosc", tuple({**_ZSTD, "clevel": 3}.items()))  # zstd itself, which looks for repetitions
BITS = Codec("blosc", tuple({**_ZSTD, "clevel": 3, "shuffle": "bitshuffle"}.items()))

# what of packed elements (int4, float4_e2m1fn …) is not named is raw: their codes are about equally frequent
CODECS: dict[str, Codec] = {
    **dict.fromkeys(("bfloat16", "float16", "float32", "float64"), PLANES),
    **dict.fromkeys(("complex32", "bcomplex32", "complex64", "complex128"), PLANES),
    **dict.fromkeys(("float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn", "float8_e4m3fnuz"), PLANES),
    **dict.fromkeys(("float8_e5m2", "float8_e5m2fnuz", "float8_e5m3fnu", "float8_e8m0fnu"), PLANES),
    **dict.fromkeys(("float6_e2m3fn", "float6_e3m2fn"), PLANES),
    **dict.fromkeys(("int8", "uint8"), PLANES),  # quantised weights
    **dict.fromkeys(("int16", "int32", "int64", "uint16", "uint32", "uint64"), REPEATS),  # indices
    "bool": BITS,
}


def codec_for(numpy_dtype: np.dtype[Any], shape: tuple[int, ...]) -> Codec:
    """The codec of a tensor: a function of its dtype and size alone, so that all processes that hold parts of it, and
    all saves, choose the same. [MAN-009]"""
    dtype = dtype_of(numpy_dtype)
    if dtype is None or math.prod(dtype.storage_shape(shape)) * dtype.stored.itemsize < LEAST:
        return RAW
    return CODECS.get(dtype.name, RAW)


def check_weights() -> None:
    """Raise `missing-package` where the package that encodes planes is not there, before anything is written."""
    from .planes import compressor

    compressor()
