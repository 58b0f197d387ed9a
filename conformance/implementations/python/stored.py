"""The stored bytes of one chunk: its blocks (section 6) and its codec (section 5)."""

import hashlib
import zlib
from collections.abc import Callable

from chunks import Parts
from faults import Fault, Unsupported
from manifest import Tensor
from storage import Storage
from xxh3 import xxh3_128

DIGESTS: dict[str, Callable[[bytes], bytes]] = {
    "xxh3-128": xxh3_128,
    "sha256": lambda data: hashlib.sha256(data).digest(),
}


class Chunk:
    """Chunk `at` of a tensor. Each block is read and checked once, when a byte of it is wanted [BLK-004]."""

    def __init__(
        self, storage: Storage, parts: Parts, digest: str, tensor: Tensor, at: tuple[int, ...], verify: bool
    ) -> None:
        self.storage, self.tensor, self.verify = storage, tensor, verify
        self.number = 0  # in C order of the grid
        for count, position in zip(tensor.chunk_counts, at, strict=True):
            self.number = self.number * count + position
        self.extent = parts.find(tensor.index, self.number)
        key = "/".join(("tensors", *filter(None, [tensor.name]), "c", *map(str, at)))  # [LAY-003] [ZARR-003]
        self.object = key if self.extent.object is None else self.extent.object
        self.block_size, self.digest_size, self.digest = parts.block, parts.digest_size, digest
        self.blocks = -(-self.extent.length // parts.block)
        self._last = -1, b""  # the block read last: rows are read in order, so no other is wanted again
        self._decoded: bytes | None = None

    def read(self, begin: int, end: int) -> bytes:
        """Bytes of the decoded chunk."""
        if len(self.tensor.chain) == 1:
            return self._stored(begin, end)
        if self._decoded is None:
            self._decoded = self._decode(self.tensor.chain[1]["name"])
        return self._decoded[begin:end]

    def fault(self, code: str, message: str, **where: int) -> Fault:
        named: dict[str, int | str] = {"tensor": self.tensor.name, "chunk": self.number, "object": self.object}
        return Fault(code, f"tensor {self.tensor.name!r}, chunk {self.number}: {message}", **named, **where)

    def _decode(self, codec: str) -> bytes:
        if codec != "gzip":
            raise Unsupported(f"codec:{codec}")
        stream = zlib.decompressobj(wbits=31)
        try:
            data = stream.decompress(self._stored(0, self.extent.length), self.tensor.chunk_size + 1)  # [ZARR-011]
        except zlib.error as error:
            raise self.fault("bad-chunk", f"{error}") from error
        if not stream.eof or stream.unused_data or len(data) != self.tensor.chunk_size:
            raise self.fault("bad-chunk", f"no single gzip member of {self.tensor.chunk_size} bytes [ZARR-016]")
        return data

    def _stored(self, begin: int, end: int) -> bytes:
        if not self.verify:
            return self._fetch(begin, end)
        first, last = begin // self.block_size, (end - 1) // self.block_size
        data = b"".join(map(self.block, range(first, last + 1)))
        return data[begin - first * self.block_size : end - first * self.block_size]

    def block(self, number: int) -> bytes:
        """A block whose digest is right [BLK-001]."""
        if self._last[0] != number:
            if self.digest not in DIGESTS:
                raise Unsupported(f"digest:{self.digest}")
            begin = number * self.block_size
            data = self._fetch(begin, min(begin + self.block_size, self.extent.length))
            wanted = self.extent.digests[number * self.digest_size :][: self.digest_size]
            if DIGESTS[self.digest](data) != wanted:
                place = {"block": number, "offset": self.extent.offset + begin}
                raise self.fault("block-digest", f"block {number} at {place['offset']} of {self.object!r}", **place)
            self._last = number, data
        return self._last[1]

    def _fetch(self, begin: int, end: int) -> bytes:
        try:
            data = self.storage.read(self.object, self.extent.offset + begin, end - begin)
        except Fault as fault:
            raise self.fault(fault.code, str(fault)) from fault
        if len(data) != end - begin:
            raise self.fault("short-object", f"{self.object!r} ends before the chunk does [READ-005]")
        return data
