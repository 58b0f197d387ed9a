"""Codec chains (SPEC.md section 5): raw bytes, or one compressor after them, as registered for Zarr v3.

numcodecs is what zarr-python's own codecs call; here it is called without zarr, on one chunk at a time. Decoding is
bounded by the size that the chunk must have, so a small stored chunk cannot ask for much memory. [ZARR-011]
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

import numpy as np

from ..errors import fault
from ..tuples import NamedTuple
from .dtypes import Array

PLANE = 1 << 17  # bytes of a plane in a block of "planes"
CodecChain = list[dict[str, Any]]

RAW_CODEC: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}


class Codec(NamedTuple):
    """A codec chain: `name` is "raw" or the compressor's; `options` are the compressor's configuration for Zarr,
    sorted by key. "planes" is stored as blosc, and encoded by `format.planes`."""

    name: str = "raw"
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def chain(self) -> CodecChain:
        """The chain as a node document and the manifest hold it. [ZARR-006]"""
        return (
            [RAW_CODEC]
            if self.name == "raw"
            else [RAW_CODEC, {"name": self.stored.name, "configuration": dict(self.options)}]
        )

    @property
    def stored(self) -> Codec:
        """What its chain is read as."""
        return Codec("blosc", self.options) if self.name == "planes" else self

    @property
    def reads_once(self) -> bool:
        """Whether memory that changes while it is encoded does no harm."""
        return self.name == "planes"

    def for_itemsize(self, itemsize: int) -> Codec:
        """This codec for elements of `itemsize` bytes: blosc's shuffle must know."""
        if self.stored.name != "blosc":
            return self
        more = {"blocksize": PLANE * itemsize} if self.name == "planes" else {}
        return Codec(self.name, tuple(sorted({**dict(self.options), **more, "typesize": itemsize}.items())))

    def encode(self, chunk: Array) -> bytes:
        """The stored bytes of a contiguous chunk of storage elements."""
        options = dict(self.options)
        if self.name == "gzip":
            import zlib  # here, as raw chunks need none

            return zlib.compress(chunk.tobytes(), options["level"], wbits=31)  # a header without a clock [MAN-009]
        data = chunk.reshape(-1).view(np.uint8)
        if self.name == "planes":
            from .planes import encode_planes

            return encode_planes(data, options["typesize"])
        import threading  # here, as reading a slice needs none

        encode = _numcodec(self.name, options).encode
        # on the main thread numcodecs gives blosc threads, which store blocks in the order in which they end [MAN-009]
        if threading.current_thread() is not threading.main_thread():
            return bytes(encode(data))
        from ..threads import Pool  # here, as reading needs no threads of its own

        with Pool(1, "ckptfmt-encode") as pool:
            return bytes(pool.submit(encode, data).result())

    def decode(self, stored: memoryview, nbytes: int, out: Array | None = None) -> Array:
        """`nbytes` decoded bytes (uint8), in `out` if it is given; ValueError if the stored bytes decode to more, to
        less, or not at all."""
        if self.name == "gzip":
            import zlib

            inflater = zlib.decompressobj(wbits=31)
            try:
                decoded = inflater.decompress(stored, nbytes + 1)
            except zlib.error as error:
                raise ValueError(str(error)) from error
            if len(decoded) != nbytes or not inflater.eof or inflater.unused_data:
                raise ValueError(f"gzip data decodes to another size than {nbytes}")
            found = np.frombuffer(decoded, np.uint8)
            if out is None:
                return found
            out[...] = found
            return out
        self.check_size(stored, nbytes)
        out = np.empty(nbytes, np.uint8) if out is None else out
        try:
            _numcodec(self.name, dict(self.options)).decode(stored, out=out)
        except (RuntimeError, KeyError, OverflowError) as error:
            raise ValueError(f"{self.name} cannot decode: {error}") from error
        return out

    def check_size(self, stored: memoryview, nbytes: int) -> None:
        """ValueError if the stored bytes would decode to another size than `nbytes`; for those whose decoder trusts
        what they say of themselves."""
        if self.name == "gzip":  # which says it at its end, where it can lie
            self.decode(stored, nbytes)
        elif self.name != "raw" and (size := _declared_size(self.name, stored)) != nbytes:
            raise ValueError(f"{self.name} data declares {size} bytes, not {nbytes}")


RAW = Codec()


def codec_of(chain: Any) -> Codec:
    """The codec of a chain; raises `unknown-codec`. [ZARR-006]"""
    match chain:
        case [first] if first == RAW_CODEC:
            return RAW
        case [first, {"name": "zstd" | "gzip" | "blosc" as name, "configuration": dict(options)}] if first == RAW_CODEC:
            known = {key: type(value) for key, value in _DEFAULTS[name].items()}
            typed = {key: type(value) for key, value in options.items()} == known and len(chain[1]) == 2
            if typed and all(value in _ALLOWED.get((name, key), (value,)) for key, value in options.items()):
                return Codec(name, tuple(sorted(options.items())))
    raise fault("unknown-codec", f"unknown codec chain {str(chain)[:300]}")


_DEFAULTS: dict[str, dict[str, Any]] = {
    "zstd": {"checksum": False, "level": 3},
    "gzip": {"level": 5},
    "blosc": {"blocksize": 0, "clevel": 5, "cname": "zstd", "shuffle": "shuffle", "typesize": 1},
}
_SHUFFLES = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}
_CNAMES = ("zstd", "lz4", "lz4hc", "blosclz", "snappy", "zlib")
_ALLOWED: dict[tuple[str, str], Container[Any]] = {  # values that are not free, by codec and option
    ("gzip", "level"): range(10),
    ("blosc", "clevel"): range(10),
    ("blosc", "cname"): _CNAMES,
    ("blosc", "shuffle"): _SHUFFLES,
}


def codec_asked(option: str | Mapping[str, Any] | None) -> Codec:
    """The codec of a `compression=` value: None, a name, or a map of `name` and options; raises `bad-option`."""
    if option is None:
        return RAW
    options = {"name": option} if isinstance(option, str) else dict(option) if isinstance(option, Mapping) else {}
    name = options.pop("name", None)
    if not isinstance(name, str) or name not in _DEFAULTS:
        raise fault("bad-option", "unknown compression", found=option, expected=", ".join((*_DEFAULTS, "weights")))
    defaults = _DEFAULTS[name]
    for key, value in options.items():
        if key not in defaults or type(value) is not type(defaults[key]):
            raise fault(
                "bad-option",
                f"compression {name!r} has no option {key}={value!r}",
                found=key,
                expected=", ".join(defaults),
            )
    import zlib

    codec = Codec(name, tuple(sorted({**defaults, **options}.items())))
    try:
        codec.encode(np.zeros(1, np.uint8))
    except (ValueError, RuntimeError, KeyError, TypeError, OverflowError, zlib.error) as error:
        raise fault("bad-option", f"compression {name!r} refuses {options}: {error}") from error
    return codec


def _numcodec(name: str, options: dict[str, Any]) -> Any:
    from ..packages import package  # here, as raw chunks need none

    package("numcodecs", f"compression {name!r}")  # where it fails, its modules are there at the second try
    module = package(f"numcodecs.{name}", f"compression {name!r}")
    if name == "zstd":
        return module.Zstd(level=options["level"], checksum=options["checksum"])
    if options["cname"] not in _CNAMES:
        raise ValueError(f"unknown cname {options['cname']!r}")
    shuffle = _SHUFFLES[options["shuffle"]]
    return module.Blosc(options["cname"], options["clevel"], shuffle, options["blocksize"], options["typesize"])


def _declared_size(name: str, stored: memoryview) -> int:
    """The decoded size that a zstd or blosc header declares; the decoders trust it, so it is checked first."""
    head = bytes(stored[:18])
    if name == "blosc":
        whole = len(head) >= 16 and int.from_bytes(head[12:16], "little") == len(stored)  # [ZARR-016]
        return int.from_bytes(head[4:8], "little") if whole else -1
    if len(head) < 6 or head[:4] != b"\x28\xb5\x2f\xfd":
        return -1
    descriptor = head[4]
    start = 5 + (0 if descriptor & 0x20 else 1) + (0, 1, 2, 4)[descriptor & 3]
    width = (1 if descriptor & 0x20 else 0, 2, 4, 8)[descriptor >> 6]
    if width == 0 or len(head) < start + width or _frame_end(stored, start + width, descriptor) != len(stored):
        return -1  # [ZARR-016]
    return int.from_bytes(head[start : start + width], "little") + (256 if width == 2 else 0)


def _frame_end(stored: memoryview, at: int, descriptor: int) -> int:
    """Where a zstd frame ends whose first block header is at `at` (RFC 8878, section 3.1.1)."""
    while at + 3 <= len(stored):
        header = int.from_bytes(stored[at : at + 3], "little")
        at += 3 + (1 if header >> 1 & 3 == 1 else header >> 3)  # a block of one repeated byte holds it once
        if header & 1:
            return at + (4 if descriptor & 4 else 0)
    return -1
