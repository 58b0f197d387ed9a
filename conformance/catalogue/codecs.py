"""Codecs: chunks by hand and by common encoders, and everything that is not one whole chunk. SPEC.md section 5."""

from __future__ import annotations

import struct
import zlib
from typing import Any

from ..build import Checkpoint
from ..model import Shape, Tensor, tensor
from . import edit, fault, valid
from .dtypes import slice_case

PLAIN = b"".join((i // 4).to_bytes(4, "little") for i in range(64))  # what the encoders were given

# PLAIN as common encoders make it: numcodecs 0.16 (zstd 1.5, c-blosc 1.21) and zlib 1.3.
ENCODED = {
    "zstd": (
        "28b52ffd600000a501008800000102030405060708090a0b0c0d0e0f1000a013d01de818e80474073a063a01dd818e814e40"
        "77a063a013d0ddae63326803"
    ),
    "zstd-checksum": (
        "28b52ffd640000a501008800000102030405060708090a0b0c0d0e0f1000a013d01de818e80474073a063a01dd818e814e40"
        "77a063a013d0ddae633268031d7c24e3"
    ),
    "gzip": (
        "1f8b08000000000002035dc3c90d802000003004b911f6dfd6376dd2106e0f23135f66165636760e4e2e7edc3cfc01c3c043a900010000"
    ),
    "blosc-zstd": (
        "02019104000100000001000055000000140000003d00000028b52ffd6000009d010012840a8e1111111111111110f0ffefee"
        "deddcdccbcbbabaa9a99898878776766565545443433232212110100100100018f0251"
    ),
    "blosc-lz4": (
        "0201340400010000000100003a000000140000002200000013f001002300ff02002300ff0400700000ffffffff0009000f02"
        "00c3500000000000"
    ),
    "blosc-lz4hc": (
        "02013104000100000001000064000000140000004c000000ff32000000000101010102020202030303030404040405050505"
        "060606060707070708080808090909090a0a0a0a0b0b0b0b0c0c0c0c0d0d0d0d0e0e0e0e0f0f0f0f000100a7500000000000"
    ),
    "blosc-blosclz": (
        "02011104000100000001000062000000140000004a0000003f00000000010101010202020203030303040404040505050506"
        "060606070707071f08080808090909090a0a0a0a0b0b0b0b0c0c0c0c0d0d0d0d0e0e0e0e0f0f0f0f0000e0b400010000"
    ),
    "blosc-zlib": (
        "02017004000100000001000043000000140000002b000000785e5dc3c90d802000003004b911f6dfd6376dd2106e0f23135f"
        "66165636760e4e2e7edc3cfc019fc001e1"
    ),
}


def zstd(checksum: bool = False) -> dict[str, Any]:
    return {"name": "zstd", "configuration": {"checksum": checksum, "level": 3}}


def gzip(level: int = 9) -> dict[str, Any]:
    return {"name": "gzip", "configuration": {"level": level}}


def blosc(cname: str = "zstd", shuffle: str = "shuffle", typesize: int = 4) -> dict[str, Any]:
    options = {"blocksize": 0, "clevel": 5, "cname": cname, "shuffle": shuffle, "typesize": typesize}
    return {"name": "blosc", "configuration": options}


def zstd_raw(data: bytes, pieces: int = 1) -> bytes:
    """A frame of uncompressed blocks."""
    step = -(-len(data) // pieces)
    blocks = [data[at : at + step] for at in range(0, len(data), step)]
    out = zstd_header(len(data))
    for number, block in enumerate(blocks):
        out += (len(block) << 3 | (number == len(blocks) - 1)).to_bytes(3, "little") + block
    return out


def zstd_header(size: int) -> bytes:
    """A header that declares the content size, in one segment."""
    if size < 256:
        return b"\x28\xb5\x2f\xfd\x20" + bytes([size])
    if size < 65536 + 256:
        return b"\x28\xb5\x2f\xfd\x60" + struct.pack("<H", size - 256)
    return b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", size)


def zstd_repeat(byte: int, size: int, declared: int | None = None) -> bytes:
    """A frame of one byte, repeated: a few bytes that decode to many."""
    return zstd_header(size if declared is None else declared) + (size << 3 | 3).to_bytes(3, "little") + bytes([byte])


def zstd_empty_last(data: bytes) -> bytes:
    """A frame of one uncompressed block, and an empty one after it."""
    return zstd_header(len(data)) + (len(data) << 3).to_bytes(3, "little") + data + b"\1\0\0"


def gzip_stored(data: bytes) -> bytes:
    """A member of uncompressed blocks."""
    out = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    blocks = [data[at : at + 65535] for at in range(0, len(data), 65535)] or [b""]
    for number, block in enumerate(blocks):
        out += struct.pack("<BHH", number == len(blocks) - 1, len(block), len(block) ^ 0xFFFF) + block
    return out + struct.pack("<II", zlib.crc32(data), len(data))


def blosc_copied(data: bytes, typesize: int = 4) -> bytes:
    """A Blosc 1 buffer that holds its data as they are."""
    return bytes([2, 1, 2, typesize]) + struct.pack("<3I", len(data), len(data), len(data) + 16) + data


def compressed(source: Tensor, chain: dict[str, Any], encode: Any) -> Tensor:
    source.chain = chain
    source.stored = {position: encode(source.raw_chunk(position)) for position in source.chunk_keys()}
    return source


def given(name: str, chain: dict[str, Any]) -> Tensor:
    """PLAIN as an int32 vector, encoded by a common encoder."""
    position: Shape = (0,)
    return Tensor("int32", (64,), PLAIN, chain=chain, stored={position: bytes.fromhex(ENCODED[name])})


# ---- whole chunks

CHAINS = {
    "zstd": zstd(),
    "zstd-checksum": zstd(checksum=True),
    "gzip": gzip(),
    "blosc-zstd": blosc(),
    "blosc-lz4": blosc("lz4", "bitshuffle"),
    "blosc-lz4hc": blosc("lz4hc"),
    "blosc-blosclz": blosc("blosclz"),
    "blosc-zlib": blosc("zlib", "noshuffle"),
}
for _name, _chain in CHAINS.items():
    valid(
        f"codec-{_name}",
        f"A chunk as a common encoder makes it: {_name}.",
        "ZARR-006 ZARR-016",
        Checkpoint({"x": given(_name, _chain), "raw": tensor("int8", (2,), "raw")}),
    )
HAND: dict[str, tuple[dict[str, Any], Any]] = {
    "zstd": (zstd(), zstd_raw),
    "zstd-two-blocks": (zstd(), lambda data: zstd_raw(data, 2)),
    "gzip": (gzip(0), gzip_stored),
    "blosc": (blosc(), blosc_copied),
}
for _name, (_chain, _encode) in HAND.items():
    valid(
        f"codec-{_name}-by-hand",
        f"Chunks that are stored and not compressed, in the form of {_name}.",
        "ZARR-006 ZARR-016 ZARR-004",
        Checkpoint({"x": compressed(tensor("int32", (5, 7), "hand", grid=(3, 4)), _chain, _encode)}),
    )
    for _layout in ("file", "loose"):
        slice_case(
            f"codec-{_name}-slice-{_layout}",
            f"Part of a tensor compressed with {_name}, layout {_layout}.",
            "ZARR-006 READ-003 READ-004",
            Checkpoint(
                {"x": compressed(tensor("int32", (5, 7), "hand", grid=(3, 4)), _chain, _encode)}, layout=_layout
            ),
            ["x"],
            [(1, 5, 3), (2, 7, 2)],
        )
slice_case(
    "codec-slice-within-chunk",
    "Part of a compressed chunk, without steps, that touches none of its edges.",
    "ZARR-006 READ-003",
    Checkpoint({"x": compressed(tensor("int32", (6, 8), "within", grid=(5, 7)), zstd(), zstd_raw)}),
    ["x"],
    [(1, 3, 1), (2, 5, 1)],
)
valid(
    "codec-zstd-empty-last-block",
    "A frame whose last block is empty is a whole frame.",
    "ZARR-016",
    Checkpoint({"x": compressed(tensor("int32", (16,), "last"), zstd(), zstd_empty_last)}),
)
valid(
    "codec-several",
    "Raw and compressed tensors side by side, with several chains.",
    "ZARR-006 MAN-002",
    Checkpoint(
        {
            "zstd": compressed(tensor("int16", (4,), "a"), zstd(), zstd_raw),
            "raw": tensor("int16", (4,), "b"),
            "gzip": compressed(tensor("bfloat16", (4, 3), "c", grid=(2, 2)), gzip(1), gzip_stored),
            "int4": compressed(tensor("int4", (4, 3), "d", grid=(2, 1)), zstd(), zstd_raw),
        }
    ),
)

# ---- faults of a chunk. They are made in layout `loose`, where a chunk may change its length without moving others.

BASES = {"zstd": (zstd(), zstd_raw), "gzip": (gzip(0), gzip_stored), "blosc": (blosc(), blosc_copied)}
DATA = tensor("int32", (16,), "loose").data
for _name, (_chain, _encode) in BASES.items():
    valid(
        f"codec-{_name}-loose",
        f"A chunk of {_name} that is an object of its own.",
        "ZARR-006 LAY-003",
        Checkpoint(
            {"x": compressed(tensor("int32", (16,), "loose"), _chain, _encode), "b": tensor("int8", (2,), "b")},
            layout="loose",
        ),
    )
FAULTS: dict[str, dict[str, tuple[str, bytes]]] = {
    "zstd": {
        "bytes-after": ("bytes after the frame", zstd_raw(DATA) + b"\0"),
        "two-frames": ("two frames", zstd_raw(DATA[:32]) + zstd_raw(DATA[32:])),
        "empty-frame": ("an empty frame after it", zstd_raw(DATA) + zstd_repeat(0, 0)),
        "skippable-frame": ("a skippable frame after it", zstd_raw(DATA) + b"\x50\x2a\x4d\x18\0\0\0\0"),
        "no-size": (
            "a header without the content size",
            b"\x28\xb5\x2f\xfd\x00\x00" + (64 << 3 | 1).to_bytes(3, "little") + DATA,
        ),
        "declares-less": ("a header that declares less than there is", zstd_header(60) + zstd_raw(DATA)[6:]),
        "shorter": ("fewer elements", zstd_raw(DATA[:60])),
        "longer": ("more elements", zstd_raw(DATA + b"\0\0\0\0")),
        "bomb": ("131,072 bytes where 64 are wanted", zstd_repeat(0, 131_072)),
        "lying-bomb": ("131,072 bytes where the header declares 64", zstd_repeat(0, 131_072, 64)),
        "truncated": ("a frame that breaks off", zstd_raw(DATA)[:-1]),
        "other-magic": ("bytes that are no frame", b"\x28\xb5\x2f\xfe" + zstd_raw(DATA)[4:]),
        "nothing-like-it": ("the raw elements", DATA),
    },
    "gzip": {
        "bytes-after": ("bytes after the member", gzip_stored(DATA) + b"\0"),
        "two-members": ("two members", gzip_stored(DATA[:32]) + gzip_stored(DATA[32:])),
        "shorter": ("fewer elements", gzip_stored(DATA[:60])),
        "longer": ("more elements", gzip_stored(DATA + b"\0\0\0\0")),
        "bomb": ("64 KiB where 64 bytes are wanted", gzip_stored(bytes(1 << 16))),
        "truncated": ("a member that breaks off", gzip_stored(DATA)[:-1]),
        "crc": ("a member whose crc32 is wrong", gzip_stored(DATA)[:-5] + b"\xff" + gzip_stored(DATA)[-4:]),
        "size": ("a member whose size is wrong", gzip_stored(DATA)[:-1] + b"\x01"),
        "zlib": ("a zlib stream", zlib.compress(DATA, 0)),
    },
    "blosc": {
        "bytes-after": ("bytes after the buffer", blosc_copied(DATA) + b"\0"),
        "shorter": ("fewer elements", blosc_copied(DATA[:60])),
        "longer": ("more elements", blosc_copied(DATA + b"\0\0\0\0")),
        "declares-less": (
            "a header that declares another size",
            blosc_copied(DATA)[:4] + struct.pack("<I", 60) + blosc_copied(DATA)[8:],
        ),
        "truncated": ("a buffer that breaks off", blosc_copied(DATA)[:-1]),
        "stored-size": ("a header with another stored size", blosc_copied(DATA)[:12] + struct.pack("<I", 81) + DATA),
        "header-alone": ("a header alone", blosc_copied(DATA)[:15]),
    },
}
for _name, _faults in FAULTS.items():
    for _kind, (_title, _stored) in _faults.items():
        fault(
            f"codec-{_name}-bad-{_kind}",
            f"Where a chunk of {_name} is wanted: {_title}.",
            "ZARR-016" + (" ZARR-011 SEC-002" if _kind in ("shorter", "longer", "bomb", "lying-bomb") else ""),
            f"codec-{_name}-loose",
            [{"do": "add_object", "object": "tensors/x/c/0", "hex": _stored.hex()}, {"do": "reseal", "digests": True}],
            {"error": {"any_of": ["bad-chunk"], "tensor": "x", "chunk": 0, "object": "tensors/x/c/0"}},
            {"op": "read", "path": ["x"]},
            still=[["b"]],
        )
    fault(
        f"codec-{_name}-bad-slice",
        f"A slice of a chunk of {_name} that holds more than it should.",
        "ZARR-011",
        f"codec-{_name}-loose",
        [
            {"do": "add_object", "object": "tensors/x/c/0", "hex": FAULTS[_name]["longer"][1].hex()},
            {"do": "reseal", "digests": True},
        ],
        {"error": {"any_of": ["bad-chunk"], "tensor": "x"}},
        {"op": "read_slice", "path": ["x"], "slices": [[0, 2, 1]]},
    )

# ---- chains that are not allowed

BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
CHAINS_BAD: dict[str, tuple[str, Any]] = {
    "big-endian": ("big-endian bytes", [{"name": "bytes", "configuration": {"endian": "big"}}]),
    "empty": ("an empty chain", []),
    "no-bytes": ("a compressor without `bytes`", [zstd()]),
    "compressor-first": ("the compressor before `bytes`", [zstd(), BYTES]),
    "two-compressors": ("two compressors", [BYTES, zstd(), gzip()]),
    "transpose": ("a transposition", [{"name": "transpose", "configuration": {"order": [0]}}, BYTES]),
    "sharding": ("sharding", [{"name": "sharding_indexed", "configuration": {"chunk_shape": [1]}}]),
    "crc32c": ("a checksum codec", [BYTES, {"name": "crc32c"}]),
    "unknown": ("an unknown compressor", [BYTES, {"name": "brotli", "configuration": {"level": 3}}]),
    "zstd-missing-key": ("zstd without `checksum`", [BYTES, {"name": "zstd", "configuration": {"level": 3}}]),
    "zstd-extra-key": (
        "zstd with a key too many",
        [BYTES, {"name": "zstd", "configuration": {"checksum": False, "level": 3, "window": 9}}],
    ),
    "zstd-level-bool": (
        "zstd with a level that is a bool",
        [BYTES, {"name": "zstd", "configuration": {"checksum": False, "level": True}}],
    ),
    "zstd-checksum-int": (
        "zstd with a checksum that is a number",
        [BYTES, {"name": "zstd", "configuration": {"checksum": 0, "level": 3}}],
    ),
    "gzip-no-level": ("gzip without a level", [BYTES, {"name": "gzip", "configuration": {}}]),
    "gzip-level-float": (
        "gzip with a level that is a float",
        [BYTES, {"name": "gzip", "configuration": {"level": 5.0}}],
    ),
    "gzip-extra": ("gzip with a key too many", [BYTES, {"name": "gzip", "configuration": {"level": 5, "x": 1}}]),
    "blosc-missing": (
        "blosc without `shuffle`",
        [BYTES, {"name": "blosc", "configuration": {"blocksize": 0, "clevel": 5, "cname": "lz4", "typesize": 4}}],
    ),
    "gzip-level-10": ("gzip with level 10", [BYTES, {"name": "gzip", "configuration": {"level": 10}}]),
    "blosc-cname": ("blosc with an unknown compressor in it", [BYTES, blosc("lzma")]),
    "blosc-shuffle": ("blosc with an unknown shuffle", [BYTES, blosc(shuffle="byteshuffle")]),
    "no-configuration": ("`bytes` without a configuration", [{"name": "bytes"}]),
    "bytes-extra": ("`bytes` with a key too many", [{"name": "bytes", "configuration": {"endian": "little", "x": 1}}]),
    "codec-string": ("a codec that is a string", [BYTES, "gzip"]),
}
valid("codec-raw", "A raw tensor.", "ZARR-006 ZARR-007", Checkpoint({"x": tensor("int16", (4,), "raw")}))
for _name, (_title, _bad) in CHAINS_BAD.items():
    fault(
        f"codec-chain-{_name}",
        f"Refused when the checkpoint is opened: {_title}.",
        "ZARR-006 ERR-001",
        "codec-raw",
        edit("/codecs/0", _bad),
        "unknown-codec",
    )
fault(
    "codec-chain-unused",
    "A chain that is not allowed is refused, also if no tensor uses it.",
    "ZARR-006",
    "codec-raw",
    edit("/codecs/-", [BYTES, {"name": "brotli", "configuration": {}}]),
    "unknown-codec",
)
fault(
    "codec-chain-number",
    "A chain that is no array.",
    "MAN-002",
    "codec-raw",
    edit("/codecs/0", 5),
    "bad-manifest unknown-codec",
)

# ---- bounds of what a chunk decodes to

for _name, _side, _expect in (("2-62", 2**60, "bad-manifest"), ("below-2-62", 2**60 - 1, {"accept": True})):
    fault(
        f"array-bytes-{_name}",
        f"A tensor of int32 with {_side:,} elements: sizes in bytes stay below 2⁶².",
        "LIM-004",
        "codec-gzip",
        [*edit("/tensors/shape/0", [_side])[:1], *edit("/tensors/grid/0", [_side])],
        _expect,
    )
