"""Sorted tables of LevelDB, as TensorFlow's indexes are: keys and values in blocks, with a checksum of each. Pure.

    table  := blocks, footer                       block := entries, u32 restarts, their number (u32)
    entry  := varints shared, more and value; more bytes of the key; value
    footer := handles of the metaindex and of the index, filled up to 40 bytes; MAGIC

A handle is two varints, the offset and size of a block, behind which lie a byte, its compression, and the masked
CRC-32C of both (u32). Of each key `shared` bytes are those of the key before it. The values of the index are handles.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import fault
from ..format.dtypes import Array, bytes_of
from ..format.limits import FACTOR, VALUES
from . import crc32c
from .protobuf import ByteSpan, varint

MAGIC = (0xDB4775248B80FB57).to_bytes(8, "little")
FOOTER = 48  # bytes
TRAILER = 5  # bytes behind a block
COMPRESSIONS = {1: "snappy", 2: "zlib", 4: "zstd"}

KeyAndPlace = tuple[bytes, ByteSpan]  # a key, and where its value lies


def entries(data: Array) -> Iterator[KeyAndPlace]:
    """All keys, in their order, each with the place of its value. Raises `unsupported-source` for blocks that are
    compressed, `limit-exceeded` for keys that take far more memory than the table has bytes, and ValueError."""
    footer = data[-FOOTER:].tobytes()
    if len(footer) < FOOTER or not footer.endswith(MAGIC):
        raise ValueError("the table does not end with its footer")
    offset, size, at = _handle(memoryview(footer), 0)
    room, end = VALUES + FACTOR * data.size, 0
    for _ in _block(data, offset, size, room):  # the metaindex, of which nothing is needed
        pass
    offset, size, _ = _handle(memoryview(footer), at)
    before: bytes | None = None
    for _, place in _block(data, offset, size, room):
        offset, size, _ = _handle(bytes_of(data[place.first : place.last]), 0)
        if offset < end:  # else one block could stand for any number of them
            raise ValueError("two blocks of the table overlap, or their order is another one")
        end = offset + size + TRAILER
        for key, item in _block(data, offset, size, room):
            if before is not None and key <= before:
                raise ValueError(f"the key {key[:60]!r} of the table stands twice, or its order is another one")
            before, room = key, room - len(key)
            yield key, item


def _handle(data: memoryview, at: int) -> tuple[int, int, int]:
    """The offset and size of a block, and the place behind them."""
    offset, at = varint(data, at, len(data))
    size, at = varint(data, at, len(data))
    return offset, size, at


def _block(data: Array, offset: int, size: int, room: int) -> Iterator[KeyAndPlace]:
    """The entries of a block, whose keys have `room` bytes at most."""
    end = offset + size + TRAILER
    if size < 4 or end > data.size - FOOTER:
        raise ValueError(f"a block of {size:,} bytes at byte {offset:,} lies outside the table")
    crc32c.check(data[offset : end - 4], int.from_bytes(data[end - 4 : end], "little"), "a block of the table")
    if compression := int(data[end - 5]):
        name = COMPRESSIONS.get(compression, f"the method {compression}")
        raise fault("unsupported-source", f"blocks of the table are compressed with {name}", expected="none")
    block = bytes_of(data[offset : offset + size])
    limit = size - 4 - 4 * int.from_bytes(block[-4:], "little")
    if limit < 0:
        raise ValueError("a block of the table has more restarts than bytes")
    key, at = b"", 0
    while at < limit:
        shared, at = varint(block, at, limit)
        more, at = varint(block, at, limit)
        length, at = varint(block, at, limit)
        if shared > len(key) or more + length > limit - at:
            raise ValueError("an entry of the table reaches beyond its block, or the key before it")
        if (room := room - shared - more) < 0:
            raise fault("limit-exceeded", f"the keys of a table of {data.size:,} bytes take too much memory")
        key = key[:shared] + bytes(block[at : at + more])
        at += more + length
        yield key, ByteSpan(offset + at - length, offset + at)
