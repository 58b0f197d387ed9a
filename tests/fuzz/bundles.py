"""What the fuzzer of checkpoints feeds the reader: a whole checkpoint in memory, in one byte string.

A bundle holds the parts of a checkpoint. `storage` puts them together as a storage that the reader can be given, and
makes lengths, offsets and sha256 of manifest and part manifests right again after a mutation, so that what lies behind
these digests is reached. A byte string that is no bundle is taken as it is, as a file.
"""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any, NamedTuple

import msgpack

from ckptfmt.errors import fault
from ckptfmt.format import commit
from ckptfmt.format.commit import CommitRecord
from ckptfmt.format.pages import OBJECT, encode_pages

LAYOUTS = ("file", "packed", "loose")
PAGES = "pages/"
MANIFEST, COMMIT = "manifest.msgpack", "COMMIT"


class MemoryStorage:
    """The objects of one checkpoint, in memory; see `ckptfmt.storage.Storage`."""

    path = "fuzz.ckpt"
    span = 1 << 20
    readers = 2
    most_readers = readers
    held: int | None = 0
    is_remote = False

    def __init__(self, objects: dict[str, bytes]) -> None:
        self.objects = objects
        self.is_directory = "" not in objects

    def size(self, name: str) -> int:
        return len(self._object(name))

    def read(self, name: str, offset: int, length: int) -> bytes:
        out = bytearray(length)
        self.read_into(name, offset, memoryview(out))
        return bytes(out)

    def read_into(self, name: str, offset: int, out: memoryview) -> None:
        data = self._object(name)[offset : offset + len(out)]
        if len(data) < len(out):
            raise fault("short-object", f"{name or 'the file'} ends", path=self.path, offset=offset + len(data))
        out[:] = data

    def map(self, name: str) -> memoryview:
        data = bytearray(self._object(name))
        if not data:
            raise fault("short-object", f"{name or 'the file'} is empty", path=self.path, offset=0)
        return memoryview(data)

    def was_replaced(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing is held open."""

    def _object(self, name: str) -> bytes:
        if name not in self.objects:
            raise fault("missing-object", f"{name} is missing", path=self.path)
        return self.objects[name]


class Bundle(NamedTuple):
    """`objects` by name, in layout `file` what stands before the manifest under the empty name, and each page of it by
    its number, beginning with `pages/`; `tail`: what stands between the manifest and the record in a file. `record`:
    other bytes in the place of the commit record that fits."""

    layout: str
    manifest: bytes
    objects: dict[str, bytes]
    tail: bytes = b""
    record: bytes = b""

    def encode(self) -> bytes:
        return bytes(msgpack.packb([LAYOUTS.index(self.layout), *self[1:]]))

    @classmethod
    def decode(cls, data: bytes) -> Bundle | None:
        """None for what is no bundle."""
        try:
            layout, manifest, objects, tail, record = msgpack.unpackb(data)
            bundle = cls(LAYOUTS[layout], bytes(manifest), dict(objects), bytes(tail), bytes(record))
        except Exception:
            return None
        whole = all(type(name) is str and type(raw) is bytes for name, raw in bundle.objects.items())
        return bundle if whole else None

    def storage(self) -> MemoryStorage:
        """The checkpoint, with digests that fit."""
        manifest = self.manifest if self.layout == "file" else _refer(self.manifest, self.objects)
        pages = b"".join(pages_of(self.objects))
        body = self.objects.get("", b"") + pages if self.layout == "file" else b""
        line = self.record or _record(self.layout, len(body), manifest)
        if self.layout == "file":
            return MemoryStorage({"": body + manifest + self.tail + line})
        objects = {name: raw for name, raw in self.objects.items() if not name.startswith(PAGES)}
        if b"\xa5pages" in manifest:
            objects[OBJECT] = pages
        return MemoryStorage({**objects, MANIFEST: manifest, COMMIT: line})


def _record(layout: str, offset: int, manifest: bytes) -> bytes:
    frame = bytes(32 if b"\xa6digest\xa6sha256" in manifest else 16)
    version = (1, 1 if b"\xa5pages" in manifest else 0)
    return CommitRecord(version, layout, offset, len(manifest), hashlib.sha256(manifest).digest(), frame).encode()


def pages_of(objects: dict[str, bytes]) -> list[bytes]:
    """The pages of a manifest."""
    return [objects[name] for name in sorted(objects) if name.startswith(PAGES)]


def repaged(manifest: bytes, objects: dict[str, bytes]) -> bytes:
    """The manifest with lengths and digests that fit its pages."""
    try:
        document = msgpack.unpackb(manifest, strict_map_key=False)
        document["pages"].update(encode_pages(len(objects.get("", b"")), pages_of(objects)))
        return bytes(msgpack.packb(document))
    except Exception:
        return manifest


def _refer(manifest: bytes, objects: dict[str, bytes]) -> bytes:
    """The manifest with references that fit the part manifests."""
    try:
        document = msgpack.unpackb(manifest, strict_map_key=False)
        changed = False
        for part in document["parts"]:
            raw = objects.get(part["chunks"].get("path"))
            if raw is not None:
                part["chunks"].update(length=len(raw), sha256=hashlib.sha256(raw).digest())
                changed = True
    except Exception:
        return manifest
    return bytes(msgpack.packb(document)) if changed else manifest


def bundle_of(path: Path) -> Bundle:
    """A checkpoint on the disk as a bundle."""
    if path.is_file():
        data = path.read_bytes()
        line = commit.find(data)
        assert line is not None
        record = commit.decode(line, 1)
        end = record.offset + record.length
        manifest, objects = data[record.offset : end], {"": data[: record.offset]}
        placed = msgpack.unpackb(manifest, strict_map_key=False).get("pages")
        if placed is not None:
            objects = {"": data[: placed["offset"]], **_apart(placed, data)}
        return Bundle("file", manifest, objects, data[end : -len(line)])
    objects = {file.relative_to(path).as_posix(): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    layout, manifest = commit.decode(objects.pop(COMMIT), 1).layout, objects.pop(MANIFEST)
    placed = msgpack.unpackb(manifest, strict_map_key=False).get("pages")
    if placed is not None:
        objects |= _apart(placed, objects.pop(OBJECT))
    return Bundle(layout, manifest, objects)


def _apart(placed: dict[str, Any], data: bytes) -> dict[str, bytes]:
    """The pages in an object, each by its number."""
    pages, at = {}, placed["offset"]
    for number, (length,) in enumerate(struct.iter_unpack("<Q", placed["length"])):
        pages[f"{PAGES}{number:05}"] = data[at : at + length]
        at += length
    return pages


def storage_of(data: bytes) -> Any:
    """What the reader is given for a byte string."""
    bundle = Bundle.decode(data)
    return MemoryStorage({"": data}) if bundle is None else bundle.storage()
