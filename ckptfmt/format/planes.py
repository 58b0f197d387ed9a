"""Chunks of floats as their byte planes, in the Blosc 1 format (SPEC.md section 5, `blosc` with `shuffle`).

Trained weights have few different exponents and mantissas that look random. So the bytes that hold exponents are worth
a Huffman code and nothing more, and the others are stored as they are. c-blosc looks for repetitions in both, which
takes most of its time and costs size; what is written here it decodes like its own.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from ..packages import package
from .codecs import PLANE
from .dtypes import Array

SPLIT = 128  # bytes of a plane below which Blosc decoders take the planes of a block as one stream
SHUFFLED, STORED, WHOLE, ZSTD = 0x01, 0x02, 0x10, 4 << 5  # flags of the header
HEADER = struct.Struct("<BBBBIII")  # versions of format and codec, flags, typesize, sizes: decoded, block, stored
SIZE = struct.Struct("<i")

# zstd without a search: a hash of 64 entries for 7 bytes finds runs, and little else
PARAMETERS: dict[str, int] = {
    "window_log": 17,
    "hash_log": 6,
    "chain_log": 6,
    "search_log": 1,
    "min_match": 7,
    "target_length": 0,  # a greater one would do without the Huffman code
    "strategy": 1,
}


def compressor() -> Any:
    """What compresses a plane; raises `missing-package`."""
    zstandard = package("zstandard", "compression 'weights'")
    return zstandard.ZstdCompressor(compression_params=zstandard.ZstdCompressionParameters(**PARAMETERS))


def encode_planes(data: Array, typesize: int) -> bytes:
    """A Blosc buffer of `data` (uint8, one axis), elements of `typesize` bytes. Reads each byte once, so that memory
    which changes meanwhile gives a buffer that decodes. [ZARR-016]"""
    size = min(data.size, typesize * PLANE)
    blocks = -(-data.size // size)
    compress = compressor().compress
    planes = np.empty((typesize, size // typesize), np.uint8)
    is_whole = size // typesize < SPLIT
    at = HEADER.size + SIZE.size * blocks
    starts: list[int] = []
    streams: list[bytes] = []
    for start in range(0, data.size, size):
        block = data[start : start + size]
        rows = planes[:, : block.size // typesize]
        split(block, rows)
        starts.append(at)
        if is_whole or block.size < size:  # the last block, if it is shorter, is one stream
            rows = np.ascontiguousarray(rows).reshape(1, -1)
        for plane in rows:
            packed = compress(plane)
            stream = packed if len(packed) < plane.size else plane.tobytes()
            streams += (SIZE.pack(len(stream)), stream)
            at += SIZE.size + len(stream)
    if at >= HEADER.size + data.size:
        stored = HEADER.size + data.size
        return HEADER.pack(2, 1, SHUFFLED | STORED | ZSTD, typesize, data.size, size, stored) + data.tobytes()
    flags = SHUFFLED | ZSTD | (WHOLE if is_whole else 0)
    header = HEADER.pack(2, 1, flags, typesize, data.size, size, at)
    return b"".join([header, *map(SIZE.pack, starts), *streams])


def split(block: Array, planes: Array) -> None:
    """The bytes of each significance, the lowest first, of the little-endian elements of a block."""
    width = len(planes)
    if width & (width - 1) or width > 8:
        planes[...] = block.reshape(-1, width).T
    else:
        _halve(block.view(f"<u{width}"), planes)


def _halve(values: Array, planes: Array) -> None:
    """In halves, as processors narrow many integers at once to half their width."""
    width = len(planes) // 2
    if not width:
        planes[0] = values
    elif width == 1:
        np.copyto(planes[0], values, casting="unsafe")
        np.right_shift(values, 8, out=planes[1], casting="unsafe")
    else:
        _halve(values.astype(f"<u{width}"), planes[:width])
        _halve((values >> (8 * width)).astype(f"<u{width}"), planes[width:])
