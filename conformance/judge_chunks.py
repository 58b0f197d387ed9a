"""The chunks of what a writer wrote: what they decode to, and the tensors that they make up. SPEC.md section 5."""

from __future__ import annotations

import math
import zlib

from .model import Tensor


class Unfit(Exception):
    """What was written is so wrong that nothing more can be said."""


def decoded(tensor: Tensor, stored: bytes) -> bytes | None:
    """A chunk before compression; None if its codec is not in the standard library."""
    if tensor.chain is None:
        return stored
    if tensor.chain["name"] != "gzip":
        return None
    decoder = zlib.decompressobj(wbits=31)
    data = decoder.decompress(stored)
    if not decoder.eof or decoder.unused_data:
        raise Unfit("a gzip chunk is not one member [ZARR-016]")
    if stored[4:8] != bytes(4):
        raise Unfit("a gzip chunk has a time [ZARR-016]")
    return data


def assembled(tensor: Tensor, pieces: dict[tuple[int, ...], bytes]) -> tuple[bytes, bytes]:
    """The elements of a tensor in C order, and what lies outside of it in its chunks."""
    shape, grid, size = tensor.storage_shape, tensor.chunk_shape, tensor.row.size
    if len(pieces) == 1 and shape == grid:
        return next(iter(pieces.values())), b""
    out, padding = bytearray(math.prod(shape) * size), bytearray()
    for position, data in pieces.items():
        width = grid[-1] * size
        for number in range(len(data) // width):
            row = data[number * width : (number + 1) * width]
            index, rest = [], number
            for side in reversed(grid[:-1]):
                rest, i = divmod(rest, side)
                index.append(i)
            place = [p * side + i for p, side, i in zip(position, grid[:-1], reversed(index), strict=False)]
            if any(i >= n for i, n in zip(place, shape, strict=False)):
                padding += row
                continue
            first = position[-1] * grid[-1]
            kept = min(grid[-1], shape[-1] - first) * size
            start = 0
            for i, n in zip([*place, first], shape, strict=True):
                start = start * n + i
            out[start * size : start * size + kept] = row[:kept]
            padding += row[kept:]
    return bytes(out), bytes(padding)
