"""Files of other formats whose headers claim what is not there: safetensors, GGUF, flax, .npz.

`--all`: every mutant, not a few of each kind.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import msgpack
from attack import AS_SOURCE, attempt, folder
from mutants import asked, mutants

# what it tries, the suffix of its file, its bytes, or what makes them where that takes long
Made = tuple[str, str, bytes | Callable[[], bytes]]


def safetensors() -> Iterator[Made]:
    entry = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    for title, document in mutants({"__metadata__": {"k": "v"}, "a": entry}):
        raw = json.dumps(document).encode()
        yield f"safetensors {title}", ".safetensors", struct.pack("<Q", len(raw)) + raw + bytes(16)
    for title, raw in {
        "3,000,000 axes": b'{"a":{"dtype":"F4","shape":[' + b"1," * 3_000_000 + b'2],"data_offsets":[0,1]}}',
        "a million empty lists": b'{"a":[' + b"[]," * 1_000_000 + b"0]}",
        "a million tensors without bytes": b"{"
        + b",".join(b'"%x":{"dtype":"F4","shape":[0],"data_offsets":[0,0]}' % n for n in range(60_000))
        + b"}",
        "an int of 5,000 digits": b'{"a":{"dtype":"F4","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,0]}}',
        "a name without UTF-8": b'{"\xff":1}',
        "a lone surrogate": b'{"\\ud800":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}',
    }.items():
        yield f"safetensors with {title}", ".safetensors", struct.pack("<Q", len(raw)) + raw


def gguf() -> Iterator[Made]:
    def text(value: bytes) -> bytes:
        return struct.pack("<Q", len(value)) + value

    head = {
        "version": 3,
        "tensors": 1,
        "pairs": 1,
        "kind": 8,
        "length": 1,
        "axes": 2,
        "a": 2,
        "b": 2,
        "type": 0,
        "at": 0,
    }
    for title, fields in mutants(head):
        if not isinstance(fields, dict) or fields.keys() != head.keys():
            continue
        if any(type(value) is not int or not 0 <= value < 1 << 64 for value in fields.values()):
            continue
        v = {
            key: value & ((1 << 32) - 1) if key in ("version", "kind", "axes", "type") else value
            for key, value in fields.items()
        }
        pairs = text(b"k") + struct.pack("<IQ", v["kind"], v["length"]) + b"v"
        info = text(b"w") + struct.pack("<IQQIQ", v["axes"], v["a"], v["b"], v["type"], v["at"])
        raw = b"GGUF" + struct.pack("<IQQ", v["version"], v["tensors"], v["pairs"]) + pairs + info
        yield f"GGUF {title}", ".gguf", raw + bytes(-len(raw) % 32 + 64)
    for depth in (8, 9, 2000):
        pairs = text(b"k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * depth + struct.pack("<IQ", 0, 0)
        yield f"GGUF with arrays {depth} deep", ".gguf", b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pairs + bytes(64)
    empty = struct.pack("<IQ", 0, 0) * 200_000
    pairs = text(b"k") + struct.pack("<IIQ", 9, 9, 200_000) + empty
    yield "GGUF with 200,000 empty arrays", ".gguf", b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + pairs + bytes(64)
    flags = text(b"k") + struct.pack("<IIQ", 9, 7, 2_000_000) + bytes(2_000_000)
    yield "GGUF with 2,000,000 flags", ".gguf", b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + flags + bytes(64)


def flax() -> Iterator[Made]:
    def packed(value: Any) -> bytes:
        return bytes(msgpack.packb(value))

    for title, (shape, dtype, data) in _fits(mutants([[2, 2], "float32", bytes(16)]), 3):
        yield f"flax {title}", ".msgpack", b"\x81\xa1a" + packed(msgpack.ExtType(1, packed((shape, dtype, data))))
    chunk = msgpack.ExtType(1, packed(((4,), "float32", bytes(16))))
    whole = {"__msgpack_chunked_array__": True, "shape": {"0": 2, "1": 2}, "chunks": {"0": chunk}}
    for title, document in mutants(whole):
        yield f"flax in chunks {title}", ".msgpack", b"\x81\xa1a" + packed(document)
    for title, raw in {
        "a million empty lists": b"\x81\xa1a\xdd" + struct.pack(">I", 1_000_000) + b"\x90" * 1_000_000,
        "a million empty maps": b"\x81\xa1a\xdd" + struct.pack(">I", 1_000_000) + b"\x80" * 1_000_000,
        "a million ints": b"\x81\xa1a\xdd" + struct.pack(">I", 1_000_000) + b"\x01" * 1_000_000,
        "a list as a key": b"\x82\xa1a\x01\x90\x01",
        "a float as a key": b"\x82\xa1a\x01\xca\0\0\0\0\x01",
        "bytes as a key": b"\x82\xa1a\x01\xc4\x01a\x01",
        "nothing as a key": b"\x82\xa1a\x01\xc0\x01",
        "an array as a key": b"\x82\xa1a\x01" + packed(chunk) + b"\x01",
        "a complex number of text": b"\x81\xa1a" + packed(msgpack.ExtType(2, packed(("x", "y")))),
        "arrays in arrays": b"\x81\xa1a" + packed(msgpack.ExtType(1, packed(([chunk], "float32", b"")))),
        "a shape of 100,000 axes": b"\x81\xa1a"
        + packed(msgpack.ExtType(1, packed(([1] * 100_000, "float32", bytes(4))))),
        "colliding keys": b"\x81\xa1a"
        + packed({7 + n * ((1 << 61) - 1): None for n in range(-3, 8)} | {n << 20: None for n in range(50_000)}),
    }.items():
        yield f"flax with {title}", ".msgpack", raw


def _fits(made: Iterator[tuple[str, Any]], count: int) -> Iterator[tuple[str, Any]]:
    return ((title, document) for title, document in made if isinstance(document, list) and len(document) == count)


def npz() -> Iterator[Made]:
    fields = {"descr": "<f4", "fortran_order": False, "shape": (2, 2)}
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        for title, document in mutants(fields):
            yield f"npz {method} {title}", ".npz", _archive({"a.npy": _npy(repr(document), bytes(16))}, method)
        for text in (
            "(" * 5000,
            "-" * 5000 + "1",
            "{'descr':'<f4','fortran_order':False,'shape':(9**9**9,)}",
            "\0",
            "[]",
        ):
            yield f"npz {method} header {text[:10]!r}", ".npz", _archive({"a.npy": _npy(text, bytes(16))}, method)
        for shape in ((1 << 40,), (1 << 62, 4), (0, 1 << 62), (1,) * 65, (-1,), (-2, -2), (True, 4), (4.0,), ("4",)):
            header = repr({**fields, "shape": shape})
            yield f"npz {method} shape {str(shape)[:20]}", ".npz", _archive({"a.npy": _npy(header, bytes(16))}, method)
    names = {f"{n}.npy": _npy(repr(fields), bytes(16)) for n in range(3000)}
    yield "npz with 3,000 compressed members", ".npz", _archive(names, zipfile.ZIP_DEFLATED)
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        yield f"npz {method}", ".npz", _archive({"a.npy": _npy(repr(fields), bytes(16))}, method)
    for size in (8 << 20, 256 << 20):
        header = repr({**fields, "shape": (size // 4,)})
        yield f"npz of {size:,} zeros", ".npz", partial(_zeros, header, size)


def _zeros(header: str, size: int) -> bytes:
    return _archive({"a.npy": _npy(header, bytes(size))}, zipfile.ZIP_DEFLATED)


def _npy(header: str, data: bytes) -> bytes:
    raw = header.encode() + b"\n"
    return b"\x93NUMPY\x02\0" + struct.pack("<I", len(raw)) + raw + data


def _archive(members: dict[str, bytes], method: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def main() -> None:
    with folder() as here:
        for kind in (safetensors, gguf, flax, npz):
            for title, suffix, raw in asked(kind(), 17):
                path = here / f"source{suffix}"
                path.write_bytes(raw() if callable(raw) else raw)
                attempt(title, path, actions=AS_SOURCE)
                path.unlink()


if __name__ == "__main__":
    main()
