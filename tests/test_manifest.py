"""The manifest (SPEC.md section 7): canonical bytes, and every violation refused with its code."""

from __future__ import annotations

import copy
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from damage import rewrite_manifest

import ckptfmt
from ckptfmt.errors import CkptError
from ckptfmt.format.arrays import ArraySpec
from ckptfmt.format.chunk_table import ChunkTable, first_chunks
from ckptfmt.format.codecs import RAW, codec_asked
from ckptfmt.format.dtypes import DTYPES
from ckptfmt.format.manifest import Manifest, Part, Schema, decode, fingerprint

SPECS = (
    ArraySpec(DTYPES["int32"], (2, 3), (2, 3), RAW),
    ArraySpec(DTYPES["bfloat16"], (4,), (2,), codec_asked("zstd")),
    ArraySpec(DTYPES["int8"], (0, 2), (1, 2), RAW),
)
NAMES = ("layers/0/w", "layers/0/b", "~30")
NODE = ["dict", ["layers", "0"], [["list", [["dict", ["w", "b"], [["tensor", 0], ["tensor", 1]]]]], ["tensor", 2]]]
TABLE = ChunkTable(np.array([64, 128, 192], "<u8"), np.array([24, 13, 12], "<u8"), bytes(range(48)), 16, 4 << 20)
MANIFEST = Manifest(
    layout="file",
    digest="xxh3-128",
    block=4 << 20,
    root=NODE,
    metadata=["dict", ["loss"], [0.5]],
    names=NAMES,
    specs=SPECS,
    parts=(Part("", TABLE),),
    generator="test",
    schema=Schema("model", "2"),
)
RAW_BYTES = MANIFEST.encode()
BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
DOCUMENT: dict[str, Any] = {
    "format": [1, 0],
    "layout": "file",
    "requires": [],
    "generator": "test",
    "digest": "xxh3-128",
    "block": 4_194_304,
    "schema": {"id": "model", "version": "2", "fingerprint": fingerprint(NAMES, SPECS)},
    "metadata": ["dict", ["loss"], [0.5]],
    "tree": NODE,
    "codecs": [[BYTES], [BYTES, {"name": "zstd", "configuration": {"checksum": False, "level": 3}}]],
    "tensors": {
        "name": list(NAMES),
        "dtype": ["int32", "bfloat16", "int8"],
        "shape": [[2, 3], [4], [0, 2]],
        "grid": [[2, 3], [2], [1, 2]],
        "codec": [0, 1, 0],
    },
    "parts": [
        {
            "object": "",
            "size": None,
            "frame": None,
            "chunks": {
                "tensor": None,
                "chunk": None,
                "offset": struct.pack("<3Q", 64, 128, 192),
                "length": struct.pack("<3Q", 24, 13, 12),
                "digest": bytes(range(48)),
            },
        }
    ],
}


def shortest(raw: bytes, at: int = 0) -> int:
    """Check that every item of a msgpack document has its shortest form, and floats all bits; gives the end."""
    kind = raw[at]
    if kind <= 0x7F or kind >= 0xE0 or kind in (0xC0, 0xC2, 0xC3):
        return at + 1
    if kind <= 0xBF:
        count, start = kind & (0x1F if kind >= 0xA0 else 0x0F), at + 1
    elif kind == 0xCB:
        return at + 9
    else:
        size, least = {
            **{0xC4: (1, 0), 0xC5: (2, 1 << 8), 0xC6: (4, 1 << 16)},
            **{0xCC: (1, 1 << 7), 0xCD: (2, 1 << 8), 0xCE: (4, 1 << 16), 0xCF: (8, 1 << 32)},
            **{0xD9: (1, 1 << 5), 0xDA: (2, 1 << 8), 0xDB: (4, 1 << 16)},
            **{0xDC: (2, 1 << 4), 0xDD: (4, 1 << 16), 0xDE: (2, 1 << 4), 0xDF: (4, 1 << 16)},
            **{0xD0: (1, 1 << 5), 0xD1: (2, 1 << 7), 0xD2: (4, 1 << 15), 0xD3: (8, 1 << 31)},
        }[kind]
        start = at + 1 + size
        count = int.from_bytes(raw[at + 1 : start], "big", signed=0xD0 <= kind <= 0xD3)
        assert (-count - 1 if 0xD0 <= kind <= 0xD3 else count) >= least
        if 0xCC <= kind <= 0xD3:
            return start
    if kind in (0xC4, 0xC5, 0xC6, 0xD9, 0xDA, 0xDB) or 0xA0 <= kind <= 0xBF:
        return start + count
    for _ in range(2 * count if kind in (0xDE, 0xDF) or 0x80 <= kind <= 0x8F else count):
        start = shortest(raw, start)
    return start


def longest(value: Any) -> bytes:
    """msgpack with the longest form of every item."""
    match value:
        case None | bool() | float():
            return bytes(msgpack.packb(value))
        case int():
            return struct.pack(">BQ", 0xCF, value) if value >= 0 else struct.pack(">Bq", 0xD3, value)
        case str():
            return struct.pack(">BI", 0xDB, len(value.encode())) + value.encode()
        case bytes():
            return struct.pack(">BI", 0xC6, len(value)) + value
        case list():
            return struct.pack(">BI", 0xDD, len(value)) + b"".join(map(longest, value))
        case dict():
            return struct.pack(">BI", 0xDF, len(value)) + b"".join(longest(x) for pair in value.items() for x in pair)
    raise TypeError(value)


# ---- encoding


def test_the_document() -> None:  # [MAN-002]
    assert msgpack.unpackb(RAW_BYTES) == DOCUMENT


def test_encoding_is_canonical() -> None:  # [MAN-004]
    assert shortest(RAW_BYTES) == len(RAW_BYTES)
    found = msgpack.unpackb(RAW_BYTES)
    assert list(found) == list(DOCUMENT)
    assert list(found["tensors"]) == list(DOCUMENT["tensors"])
    assert list(found["schema"]) == ["id", "version", "fingerprint"]
    assert list(found["parts"][0]) == ["object", "size", "frame", "chunks"]


def test_decoding_is_the_inverse_of_encoding() -> None:
    found = decode(RAW_BYTES)
    assert found.encode() == RAW_BYTES
    assert (found.names, found.specs, found.tree, found.metadata) == (NAMES, SPECS, NODE, MANIFEST.metadata)
    assert (found.schema, found.generator, found.format) == (Schema("model", "2"), "test", (1, 0))
    assert found.table.offsets == [64, 128, 192]
    assert found.first_chunks == first_chunks(SPECS)


def test_the_longest_encoding_is_read_too() -> None:  # [MAN-012]
    assert decode(longest(DOCUMENT)).encode() == RAW_BYTES
    backwards = {key: DOCUMENT[key] for key in reversed(DOCUMENT)}
    assert decode(msgpack.packb(backwards)).encode() == RAW_BYTES


def test_unknown_keys_are_kept() -> None:  # [MAN-003]
    later = {**DOCUMENT, "zz": {"new": [1, None, b"x"]}, "aa": 5}
    found = decode(msgpack.packb(later))
    assert found.unknown == {"zz": {"new": [1, None, b"x"]}, "aa": 5}
    assert msgpack.unpackb(found.encode()) == later


def test_later_minor_versions_are_read() -> None:  # [VER-003]
    assert decode(msgpack.packb({**DOCUMENT, "format": [1, 9]})).format == (1, 9)


def test_tensors_that_are_alike_share_one_description() -> None:
    alike = (SPECS[0], SPECS[2], SPECS[0])
    table = ChunkTable(TABLE.offset[:2], np.array([24, 24], "<u8"), bytes(32), 16, 4 << 20)
    specs = decode(MANIFEST._replace(specs=alike, parts=(Part("", table),)).encode()).specs
    assert specs == alike
    assert specs[0] is specs[2]


def test_the_fingerprint() -> None:  # [SCH-002]
    rows = [["layers/0/b", "bfloat16", [4]], ["layers/0/w", "int32", [2, 3]], ["~30", "int8", [0, 2]]]
    assert fingerprint(NAMES, SPECS) == hashlib.sha256(msgpack.packb(rows)).digest()
    assert fingerprint(NAMES[::-1], SPECS[::-1]) == fingerprint(NAMES, SPECS)
    assert fingerprint((), ()) == hashlib.sha256(b"\x90").digest()


# ---- violations

Change = Callable[[dict[str, Any]], None]


def put(value: Any, *path: Any) -> Change:
    """A change that puts a value into a document."""

    def change(document: dict[str, Any]) -> None:
        inner: Any = document
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value

    return change


def drop(*path: Any) -> Change:
    """A change that takes a value out of a document."""

    def change(document: dict[str, Any]) -> None:
        inner: Any = document
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]

    return change


def changed(*changes: Change) -> dict[str, Any]:
    document = copy.deepcopy(DOCUMENT)
    document["schema"] = None  # its fingerprint would hide other faults
    for change in changes:
        change(document)
    return document


def tensor(shape: Any, grid: Any) -> Change:
    """A change of the second tensor."""

    def change(document: dict[str, Any]) -> None:
        document["tensors"]["shape"][1], document["tensors"]["grid"][1] = shape, grid

    return change


CHUNKS = ("parts", 0, "chunks")
FINGERPRINT = fingerprint(NAMES, SPECS)
VIOLATIONS = [
    *(("MAN-002", "bad-manifest", drop(key)) for key in DOCUMENT),
    *(("MAN-002", "bad-manifest", drop("tensors", key)) for key in DOCUMENT["tensors"]),
    *(("MAN-002", "bad-manifest", drop("parts", 0, key)) for key in DOCUMENT["parts"][0]),
    *(("MAN-002", "bad-manifest", drop(*CHUNKS, key)) for key in DOCUMENT["parts"][0]["chunks"]),
    *(("MAN-002", "bad-manifest", put(5.5, key)) for key in DOCUMENT if key not in ("metadata", "tree")),
    *(("MAN-002", "bad-manifest", put(5, "tensors", key)) for key in DOCUMENT["tensors"]),
    ("MAN-002", "bad-manifest", put([1], "format")),
    ("MAN-002", "bad-manifest", put([1, 0, 0], "format")),
    ("MAN-002", "bad-manifest", put([1, "0"], "format")),
    ("MAN-002", "bad-manifest", put([5], "requires")),
    ("MAN-002", "bad-manifest", put(b"file", "layout")),
    ("MAN-002", "bad-manifest", put(["a", 5, "b"], "tensors", "name")),
    ("MAN-002", "bad-manifest", put(["int32", "bfloat16", None], "tensors", "dtype")),
    ("MAN-002", "bad-manifest", put([0, 2, 0], "tensors", "codec")),
    ("MAN-002", "bad-manifest", put([0, -1, 0], "tensors", "codec")),
    ("MAN-002", "bad-manifest", put([0, True, 0], "tensors", "codec")),
    ("MAN-002", "bad-manifest", put([0, 1.0, 0], "tensors", "codec")),
    ("MAN-002", "bad-manifest", tensor(4, [2])),
    ("MAN-002", "bad-manifest", tensor([4.0], [2])),
    ("MAN-002", "bad-manifest", tensor([-4], [2])),
    ("MAN-002", "bad-manifest", tensor(["4"], [2])),
    ("MAN-002", "bad-manifest", tensor([True], [1])),
    ("MAN-002", "bad-manifest", tensor([[4]], [2])),
    ("MAN-002", "bad-manifest", tensor([4], None)),
    ("MAN-006", "unknown-feature", put(["time-travel"], "requires")),
    ("MAN-007", "bad-manifest", put(["a", "b"], "tensors", "name")),
    ("MAN-007", "bad-manifest", put([0, 0, 0, 0], "tensors", "codec")),
    ("MAN-008", "bad-manifest", tensor([4], [2, 1])),
    ("MAN-008", "bad-manifest", tensor([4], [])),
    ("LIM-004", "bad-manifest", tensor([1 << 61], [1 << 61])),
    ("LIM-004", "bad-manifest", tensor([1 << 31, 1 << 31], [1, 1])),
    ("LIM-002", "bad-manifest", tensor([1 << 63], [1])),
    ("LIM-002", "limit-exceeded", tensor([1] * 65, [1] * 65)),
    ("ZARR-002", "bad-manifest", tensor([4], [0])),
    ("ZARR-002", "bad-manifest", tensor([4], [5])),
    ("ZARR-002", "bad-manifest", tensor([0], [2])),
    ("ZARR-006", "unknown-codec", put([[BYTES, {"name": "lzma"}], [BYTES]], "codecs")),
    ("DTYPE-001", "unknown-dtype", put(["int32", "float7", "int8"], "tensors", "dtype")),
    ("BLK-002", "unknown-digest", put("md5", "digest")),
    ("BLK-003", "bad-manifest", put(0, "block")),
    ("BLK-003", "bad-manifest", put(4095, "block")),
    ("BLK-003", "bad-manifest", put(4096 + 2048, "block")),
    ("BLK-003", "bad-manifest", put((1 << 30) + 4096, "block")),
    ("BLK-003", "bad-manifest", put(-4096, "block")),
    ("NAME-006", "bad-manifest", put(["a", "a", "b"], "tensors", "name")),
    ("NAME-006", "bad-manifest", put(["a", "a/b", "b"], "tensors", "name")),
    ("NAME-006", "bad-manifest", put(["a", "../b", "b"], "tensors", "name")),
    ("NAME-006", "bad-manifest", put(["a", "/b", "b"], "tensors", "name")),
    ("NAME-006", "bad-manifest", put(["a", "", "b"], "tensors", "name")),
    ("TREE-001", "bad-manifest", put(["set", []], "tree")),
    ("TREE-001", "bad-manifest", put({"a": 1}, "tree")),
    ("TREE-009", "bad-manifest", put(["list", [["tensor", 0], ["tensor", 1]]], "tree")),
    ("TREE-009", "bad-manifest", put(["list", [["tensor", 3]]], "tree")),
    ("TREE-014", "bad-manifest", put(["tensor", 0], "metadata")),
    ("TAG-003", "bad-manifest", put(["tag", "numpy.str_", None, 5], "metadata")),
    ("SCH-001", "bad-manifest", put({"id": "", "version": "1", "fingerprint": FINGERPRINT}, "schema")),
    ("SCH-001", "bad-manifest", put({"id": "a", "version": "", "fingerprint": FINGERPRINT}, "schema")),
    ("SCH-001", "bad-manifest", put({"id": "a", "version": 1, "fingerprint": FINGERPRINT}, "schema")),
    ("SCH-001", "bad-manifest", put({"id": "a", "version": "1"}, "schema")),
    ("SCH-001", "bad-manifest", put(["a", "1", FINGERPRINT], "schema")),
    ("SCH-002", "bad-manifest", put({"id": "a", "version": "1", "fingerprint": bytes(32)}, "schema")),
    ("SCH-002", "bad-manifest", put({"id": "a", "version": "1", "fingerprint": FINGERPRINT[:-1]}, "schema")),
    ("CHK-001", "bad-manifest", put(bytes(8), *CHUNKS, "length")),
    ("CHK-001", "bad-manifest", put(bytes(47), *CHUNKS, "digest")),
    ("CHK-002", "bad-manifest", put([], "parts")),
    ("CHK-002", "bad-manifest", put(DOCUMENT["parts"] * 2, "parts")),
    ("CHK-002", "bad-manifest", put(None, "parts", 0, "object")),
    ("CHK-002", "bad-manifest", put("elsewhere", "parts", 0, "object")),
    ("CHK-002", "bad-manifest", put("../other", "parts", 0, "object")),
    ("CHK-002", "bad-manifest", put(5, "parts", 0, "size")),
    ("CHK-002", "bad-manifest", put(bytes(16), "parts", 0, "frame")),
    ("CHK-002", "bad-manifest", put(None, *CHUNKS, "offset")),
    ("CHK-002", "bad-manifest", put(bytes(12), *CHUNKS, "tensor")),
    ("CHK-002", "bad-manifest", put({"path": "parts/0.msgpack", "length": 9, "sha256": bytes(32)}, *CHUNKS)),
    ("CHK-005", "bad-extent", put(struct.pack("<3Q", 25, 13, 12), *CHUNKS, "length")),
    ("CHK-005", "bad-extent", put(struct.pack("<3Q", 24, 0, 12), *CHUNKS, "length")),
    ("LAY-006", "bad-manifest", put("zip", "layout")),
    ("LAY-006", "bad-manifest", put("loose", "layout")),  # its part would have the object nil
    ("LAY-006", "bad-manifest", put("packed", "layout")),
]


def refused(document: Any, code: str, statement: str) -> None:
    with pytest.raises(CkptError) as raised:
        decode(document if isinstance(document, bytes) else msgpack.packb(document))
    assert raised.value.code == code, statement


@pytest.mark.parametrize(
    ("statement", "code", "change"), VIOLATIONS, ids=[f"{i}-{v[0]}" for i, v in enumerate(VIOLATIONS)]
)
def test_violations_are_refused(statement: str, code: str, change: Change) -> None:
    refused(changed(change), code, statement)


def test_the_unchanged_document_is_accepted() -> None:
    decode(msgpack.packb(changed()))


def test_an_unknown_feature_is_named() -> None:  # [MAN-006]
    with pytest.raises(CkptError, match="'time-travel'"):
        decode(msgpack.packb(changed(put(["time-travel"], "requires"))))


NO_MANIFEST = {
    "nothing": b"",
    "an array": b"\x90",
    "text": b"\xa1a",
    "the byte that msgpack never uses": b"\xc1",
    "cut short": RAW_BYTES[:-1],
    "a byte too many": RAW_BYTES + b"\x00",
    "two documents": RAW_BYTES * 2,
    "a repeated key": b"\x82\xa1a\x00\xa1a\x00",
    "a key that is bin": b"\x81\xc4\x01a\x00",
    "a key that is an int": b"\x81\x01\x00",
    "a key that is nil": b"\x81\xc0\x00",
    "a key that is an array": b"\x81\x90\x00",
    "no UTF-8": b"\x81\xa1\xff\x00",
    "an extension": b"\x81\xa1a\xd4\x05\x00",
    "an array that says it is huge": b"\xdd\xff\xff\xff\xff",
    "a map that says it is huge": b"\xdf\xff\xff\xff\xff",
    "a bin that says it is huge": b"\xc6\xff\xff\xff\xff",
    "deep arrays": b"\x81\xa1a" + b"\x91" * 100_000 + b"\xc0",
    "deep maps": b"\x81\xa1a" * 100_000 + b"\xc0",
}


@pytest.mark.parametrize("raw", NO_MANIFEST.values(), ids=NO_MANIFEST)
def test_what_is_no_map_is_refused(raw: bytes) -> None:  # [MAN-001]
    refused(raw, "bad-manifest", "MAN-001")


@pytest.mark.parametrize("raw", [b"\x82\xa1a\x00\xa1a\x00", b"\x81\x01\x00"], ids=["repeated", "int"])
def test_keys_within_the_document_are_checked_too(raw: bytes) -> None:  # [MAN-001]
    whole = msgpack.packb({**DOCUMENT, "zz": "?"})
    refused(whole.replace(b"\xa2zz\xa1?", b"\xa2zz" + raw), "bad-manifest", "MAN-001")


def test_timestamps_are_extensions_too() -> None:  # [MAN-001]
    refused({**DOCUMENT, "zz": msgpack.Timestamp(1)}, "bad-manifest", "MAN-001")


def test_a_version_is_a_pair_of_numbers_not_of_bools() -> None:  # [MAN-002]
    refused(changed(put([True, False], "format")), "bad-manifest", "MAN-002")


def test_a_shape_is_an_array_of_numbers_not_a_bin() -> None:  # [MAN-002]
    refused(changed(tensor(b"\x04", b"\x02")), "bad-manifest", "MAN-002")


# ---- against the commit record


def test_the_version_is_that_of_the_commit_record(tmp_path: Path) -> None:  # [MAN-005]
    ckptfmt.save(tmp_path / "a", {"x": np.zeros(3)}, durable=False)
    rewrite_manifest(tmp_path / "a", put([1, 5], "format"), format=(1, 5))
    assert ckptfmt.open(tmp_path / "a").format == (1, 5)  # [VER-003]
    rewrite_manifest(tmp_path / "a", put([1, 5], "format"), format=(1, 4))
    with pytest.raises(CkptError, match="MAN-005") as raised:
        ckptfmt.open(tmp_path / "a")
    assert raised.value.code == "bad-manifest"


def test_extents_end_before_the_manifest(tmp_path: Path) -> None:  # [CHK-005]
    ckptfmt.save(tmp_path / "a", {"x": np.zeros(3)}, durable=False)

    def beyond(document: dict[str, Any]) -> None:
        document["parts"][0]["chunks"]["offset"] = struct.pack("<Q", (tmp_path / "a").stat().st_size - 24)

    rewrite_manifest(tmp_path / "a", beyond)
    with pytest.raises(CkptError, match="CHK-005") as raised:
        ckptfmt.open(tmp_path / "a")
    assert raised.value.code == "bad-extent"
