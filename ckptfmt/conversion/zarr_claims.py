"""What the metadata of a Zarr array (format 2 or 3) claim, held against the bytes that there are, before a library
believes them; and how much a compressed chunk decodes to, before it is decoded.

Pure. Bytes of a chunk are bounded by `check_at_once`, their number by the bytes of the source: a chunk that is not
there takes time, too.
"""

from __future__ import annotations

import bz2
import lzma
import re
import zlib
from collections.abc import Iterator
from itertools import pairwise
from math import prod
from typing import Any

from ..errors import fault
from ..format.dtypes import DTYPES
from .claims import check_at_once, count, shape_of, shown

CHUNKS = 4096  # that an array may have in any case
STORED = 64  # bytes of the source for each further chunk
WIDEST = 16  # bytes of an element whose data type does not say
SPARE = 256 << 10  # bytes that a chunk may decode to beside its elements
PIECE = 1 << 20

_digits = re.compile(r"\d+$").search


def check_array(document: dict[str, Any], size: int, label: str) -> int:
    """Hold an array's metadata against the source's `size`; gives the bytes of a chunk that is decoded at once. Raises
    `limit-exceeded`, and any exception for metadata that break the format."""
    shape, chunk = shape_of(document["shape"]), _chunk(document)
    if len(shape) != len(chunk) or not all(chunk):
        raise ValueError(f"{label!r} of shape {shown(shape)} has chunks of {shown(chunk)}")
    nbytes = prod(chunk) * _itemsize(document)
    check_at_once(nbytes, size, f"a chunk of {label!r}")
    inner = [chunk, *_shards(document)]
    for outer, part in pairwise(inner):
        if len(part) != len(outer) or not all(part) or any(n % side for n, side in zip(outer, part, strict=True)):
            raise ValueError(f"{label!r} has shards of {shown(outer)} with chunks of {shown(part)}")
    chunks = prod(-(-n // side) for n, side in zip(shape, inner[-1], strict=True))
    if chunks > CHUNKS + size // STORED:
        raise fault("limit-exceeded", f"{label!r} would have {chunks:,} chunks, in {size:,} bytes", tensor=label)
    return nbytes


def _chunk(document: dict[str, Any]) -> tuple[int, ...]:
    """The shape of a chunk; of a shard, where there are some."""
    if document["zarr_format"] == 2:
        return shape_of(document["chunks"])
    return shape_of(document["chunk_grid"]["configuration"]["chunk_shape"])


def _shards(document: dict[str, Any]) -> Iterator[tuple[int, ...]]:
    """The shapes of the chunks in shards."""
    codecs = document.get("codecs") or ()
    for codec in codecs:
        if isinstance(codec, dict) and codec.get("name") == "sharding_indexed":
            configuration = codec["configuration"]
            yield shape_of(configuration["chunk_shape"])
            yield from _shards(configuration)


def _itemsize(document: dict[str, Any]) -> int:
    """Bytes of an element, or more."""
    found = document["dtype" if document["zarr_format"] == 2 else "data_type"]
    if isinstance(found, dict):
        about = found.get("configuration") or {}
        return max(WIDEST, count(about.get("length_bytes", 0)))
    if not isinstance(found, str):
        return WIDEST
    if found in DTYPES:
        return DTYPES[found].numpy.itemsize
    digits = _digits(found)
    number = count(int(digits[0])) if digits and len(digits[0]) < 20 else WIDEST
    return max(1, number * (4 if found[1:2] == "U" else 1))


# ---- chunks


def check_decoded(document: dict[str, Any], stored: bytes, nbytes: int) -> None:
    """Refuse a stored chunk, or a part of a shard, that would be decompressed to far more than the `nbytes` of a chunk;
    raises ValueError."""
    name = _compressor(document)
    most = 2 * nbytes + SPARE
    found = _decompressed(name, stored, most) if name is not None else 0
    if found > most:
        raise ValueError(
            f"a chunk of {len(stored):,} bytes is compressed ({name}) and would be {found:,}, where {nbytes:,} are due"
        )


def _compressor(document: dict[str, Any]) -> str | None:
    """The codec that compresses chunks, or those in shards; None where there is none."""
    if document["zarr_format"] == 2:
        compressor = document.get("compressor")
        return None if compressor is None else str(compressor["id"])
    found = None
    for codec in document.get("codecs") or ():
        name = codec if isinstance(codec, str) else codec["name"]
        if name == "sharding_indexed":
            return _compressor({"zarr_format": 3, **codec["configuration"]})
        if name.removeprefix("numcodecs.") in _COMPRESSORS:
            found = name.removeprefix("numcodecs.")
    return found


def _decompressed(name: str, stored: bytes, most: int) -> int:
    """Bytes to which data decompress, or more than `most`; 0 for data that are no such."""
    if name == "zstd":
        return _zstd(stored)
    if name in ("blosc", "lz4"):  # which say it in four bytes
        at = 4 if name == "blosc" else 0
        return int.from_bytes(stored[at : at + 4], "little")
    if name in ("gzip", "zlib") and len(stored) * DEFLATE <= most:
        return 0
    decoder, found, data = _COMPRESSORS[name](), 0, stored
    try:
        while found <= most and not decoder.eof:
            piece = decoder.decompress(data, PIECE)
            data = getattr(decoder, "unconsumed_tail", b"")
            if not piece and not data:
                break
            found += len(piece)
    except (zlib.error, lzma.LZMAError, OSError):  # which the library says better
        return found
    return found


def _zstd(stored: bytes) -> int:
    """Bytes that zstd frames say that they have, or that their blocks stand for at most, and the memory that one which
    does not say its size asks for (RFC 8878, section 3.1)."""
    found = at = 0
    while stored[at : at + 4] == b"\x28\xb5\x2f\xfd" and len(stored) >= at + 6:
        flags, window = stored[at + 4], stored[at + 5]
        is_single = bool(flags & 0x20)
        start = at + (5 if is_single else 6) + (0, 1, 2, 4)[flags & 3]
        width = (1 if is_single else 0, 2, 4, 8)[flags >> 6]
        said = int.from_bytes(stored[start : start + width], "little")
        at, blocks, is_last = start + width, 0, False
        while not is_last and at + 3 <= len(stored):
            header = int.from_bytes(stored[at : at + 3], "little")
            is_last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
            blocks += size if kind < 2 else ZSTD_BLOCK
            at += 3 + (1 if kind == 1 else size)
        at += 4 if flags & 4 else 0
        asked = 1 << 10 + (window >> 3)
        found += said if width else max(blocks, asked if asked > ZSTD_WINDOW else 0)
    return found


DEFLATE = 1032  # bytes that one of DEFLATE stands for at most
ZSTD_BLOCK = 128 << 10  # most bytes of a block
ZSTD_WINDOW = 8 << 20  # that decoders should always have memory for
_COMPRESSORS: dict[str, Any] = {
    "gzip": lambda: zlib.decompressobj(wbits=31),
    "zlib": zlib.decompressobj,
    "bz2": bz2.BZ2Decompressor,
    "lzma": lambda: lzma.LZMADecompressor(memlimit=1 << 25),
    "zstd": None,
    "blosc": None,
    "lz4": None,
}
