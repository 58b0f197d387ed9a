"""Digest algorithms (SPEC.md section 6) and the digests of blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import xxhash

from ..errors import fault
from ..packages import install

Buffer = Any  # whatever exports the buffer protocol; typing.Buffer needs Python 3.12


class Hasher(Protocol):
    """What `hashlib` objects offer."""

    def update(self, data: Buffer, /) -> None: ...
    def digest(self) -> bytes: ...


DIGEST = "xxh3-128"  # unless another is asked for


class Digest(NamedTuple):
    """A digest algorithm: its name in a manifest, its size in bytes, a one-shot and a streaming form."""

    name: str
    size: int
    of: Callable[[Buffer], bytes]
    stream: Callable[[], Hasher]

    def of_blocks(self, data: memoryview, block: int) -> bytes:
        """Digests of the blocks of `data` (bytes), which begins at a block's start, one after another. [BLK-001]"""
        if len(data) <= block:
            return self.of(data)
        return b"".join(self.of(data[start : start + block]) for start in range(0, len(data), block))


def _sha256(data: Buffer) -> bytes:
    return hashlib.sha256(data).digest()


def digest_named(name: str) -> Digest:
    """The algorithm of that name; raises `unknown-digest` [BLK-002]."""
    if name == "xxh3-128":
        return Digest(name, 16, xxhash.xxh3_128_digest, xxhash.xxh3_128)
    if name == "sha256":
        return Digest(name, 32, _sha256, hashlib.sha256)
    if name == "blake3":
        blake3: Any
        try:
            from blake3 import blake3
        except ImportError:
            message = "digest blake3 needs the package blake3"
            raise fault("unknown-digest", message, advice=f"Install it: {install('blake3')}") from None
        return Digest(name, 32, lambda data: bytes(blake3(data).digest()), blake3)
    raise fault("unknown-digest", f"unknown digest {name!r}", found=name, expected="xxh3-128, sha256 or blake3")
