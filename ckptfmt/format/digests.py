"""Digest algorithms (SPEC.md section 6) and the digests of blocks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any, Protocol

from ..errors import fault
from ..tuples import NamedTuple

Buffer = Any  # whatever exports the buffer protocol; typing.Buffer needs Python 3.12


class Hasher(Protocol):
    """What `hashlib` objects offer."""

    def update(self, data: Buffer, /) -> None: ...
    def digest(self) -> bytes: ...


DIGEST = "xxh3-128"  # unless another is asked for
FEW = 1 << 20  # bytes


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


def sha256(data: Buffer) -> bytes:
    """The sha256 of bytes. Of few, by Python's own module, which needs no OpenSSL: to import that takes as long as it
    saves on a megabyte."""
    if "hashlib" not in sys.modules and memoryview(data).nbytes <= FEW:
        with suppress(ImportError):  # of a Python that was built without it
            digest: bytes = import_module("_sha2" if sys.version_info >= (3, 12) else "_sha256").sha256(data).digest()
            return digest
    import hashlib

    return hashlib.sha256(data).digest()


def digest_named(name: str) -> Digest:
    """The algorithm of that name; raises `unknown-digest` [BLK-002]."""
    if name == "xxh3-128":
        import xxhash  # these here, as a checkpoint needs one

        return Digest(name, 16, xxhash.xxh3_128_digest, xxhash.xxh3_128)
    if name == "sha256":
        import hashlib

        return Digest(name, 32, sha256, hashlib.sha256)
    if name == "blake3":
        blake3: Any
        try:
            from blake3 import blake3
        except ImportError:
            from ..packages import install

            message = "digest blake3 requires the package blake3"
            raise fault("unknown-digest", message, advice=f"Install it: {install('blake3')}") from None
        return Digest(name, 32, lambda data: bytes(blake3(data).digest()), blake3)
    raise fault("unknown-digest", f"unknown digest {name!r}", found=name, expected="xxh3-128, sha256 or blake3")
