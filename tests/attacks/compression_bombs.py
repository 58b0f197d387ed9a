"""Compressed chunks that are what they say, and are a thousand or a hundred thousand times as large as what is stored;
and chunks that say one thing and hold another. [LIM-008] [ZARR-011] [ZARR-016]"""

from __future__ import annotations

import gzip
import hashlib
import struct
from functools import cache, partial
from pathlib import Path
from typing import Any

import msgpack
import numcodecs.blosc
import numpy as np
import xxhash
from attack import MIB, OPENED, attempt, folder, verify
from damage import rewrite_manifest
from inside import inside

import ckptfmt

GIB = 1 << 30


def zstd_zeros(size: int) -> bytes:
    """A zstd frame of zeros: blocks of one repeated byte, 4 bytes for 128 KiB."""
    count = size >> 17
    header = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", size)
    block = (1 << 17) << 3 | 1 << 1
    blocks = (block.to_bytes(3, "little") + b"\0") * (count - 1)
    return header + blocks + (block | 1).to_bytes(3, "little") + b"\0"


@cache
def gzip_zeros(size: int) -> bytes:
    return gzip.compress(bytes(size), 9, mtime=0)


@cache
def blosc_zeros(size: int) -> bytes:
    return bytes(numcodecs.blosc.Blosc("zstd", 5, 1, 0, 1).encode(np.zeros(size, np.uint8)))


def chunk(path: Path, codec: str, stored: bytes, size: int, layout: str) -> Path:
    """A checkpoint of one tensor of `size` bytes whose only chunk is stored as these bytes."""
    ckptfmt.save(path, {"w": np.zeros(8, np.uint8)}, layout=layout, compression=codec, durable=False)
    block = 4 << 20
    digest = b"".join(xxhash.xxh3_128_digest(stored[at : at + block]) for at in range(0, len(stored), block))

    def change(document: dict[str, Any]) -> None:
        document["tensors"].update(shape=[[size]], grid=[[size]])
        table = document["parts"][0]["chunks"]
        table.update(length=struct.pack("<Q", len(stored)), digest=digest)
        if layout == "file":
            table["offset"] = struct.pack("<Q", 0)

    if layout == "file":
        with ckptfmt.open(path) as checkpoint:
            record = inside(checkpoint).located.record
        document = msgpack.unpackb(path.read_bytes()[record.offset : record.offset + record.length])
        change(document)
        raw = msgpack.packb(document)
        place = {"offset": len(stored), "length": len(raw), "sha256": hashlib.sha256(raw).digest()}
        path.write_bytes(stored + raw + record._replace(**place).encode())
    else:
        (path / "tensors" / "w" / "c" / "0").write_bytes(stored)
        rewrite_manifest(path, change)
    return path


def load(path: Path) -> None:
    ckptfmt.load(path)


def load_within(path: Path) -> None:
    ckptfmt.load(path, limits=ckptfmt.Limits(expansion=32 * MIB))


def slice_within(path: Path) -> None:
    with ckptfmt.open(path, limits=ckptfmt.Limits(expansion=32 * MIB)) as checkpoint:
        checkpoint["w"][7:9]


def main() -> None:
    within = (load_within, slice_within)
    with folder() as here:
        for layout in ("file", "loose"):
            name = partial("{}-{}.ckpt".format, layout)
            for codec, zeros in (("zstd", zstd_zeros), ("gzip", gzip_zeros), ("blosc", blosc_zeros)):
                size = 256 * MIB
                path = chunk(here / name(codec), codec, zeros(size), size, layout)
                attempt(f"{codec}: 256 MiB of zeros, layout {layout}", path, "limit-exceeded", actions=within)
            path = chunk(here / name("tib"), "zstd", zstd_zeros(1024 * GIB), 1024 * GIB, layout)
            attempt(f"zstd: 1 TiB of zeros, layout {layout}", path, "limit-exceeded", actions=(load, verify))
            size = 48 * MIB
            path = chunk(here / name("small"), "zstd", zstd_zeros(size), size, layout)
            attempt(
                f"zstd: 48 MiB of zeros are allowed, layout {layout}", path, OPENED, actions=(load,), room=128 * MIB
            )
            lies = {
                "zstd: says 8 bytes, holds 1 GiB": ("zstd", struct.pack("<Q", 8).join(_halves(zstd_zeros(GIB)))),
                "zstd: says 64 GiB, holds nothing": ("zstd", zstd_zeros(64 * GIB)[:20]),
                "gzip: holds 256 MiB": ("gzip", gzip_zeros(256 * MIB)),
                "blosc: says 2 GiB": ("blosc", struct.pack("<I", 0x7FFFFFFF).join(_halves(blosc_zeros(64), 4, 8))),
                "zstd: no zstd": ("zstd", bytes(100)),
            }
            for number, (title, (codec, stored)) in enumerate(lies.items()):
                path = chunk(here / name(f"lie-{number}"), codec, stored, 8, layout)
                attempt(f"{title}, layout {layout}", path, "bad-chunk", actions=(load, verify))


def _halves(stored: bytes, start: int = 5, stop: int = 13) -> tuple[bytes, bytes]:
    """What stands around the declared size."""
    return stored[:start], stored[stop:]


if __name__ == "__main__":
    main()
