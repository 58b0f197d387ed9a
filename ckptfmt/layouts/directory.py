"""What the layouts `loose` and `packed` share: a directory with a manifest, and `COMMIT`, which is written last
(SPEC.md sections 8 and 11)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import CorruptError, fault
from ..format import commit as commits
from ..format.commit import CommitRecord
from ..format.digests import digest_named
from ..format.limits import Limits
from ..format.manifest import FORMAT, Manifest
from ..storage import COMMIT, MANIFEST, Attempt, Storage
from . import Frame, Located, Written

if TYPE_CHECKING:
    from ..format.tensor_pages import TensorPages


def layout(storage: Storage) -> str:
    """The layout that `COMMIT` names: "loose" or "packed"."""
    return _record(storage)[0].layout


def _record(storage: Storage) -> tuple[CommitRecord, bytes]:
    """The commit record and its own bytes. [READ-001]"""
    try:
        size = storage.size(COMMIT)
    except CorruptError as error:
        if error.code != "missing-object":
            raise
        from .foreign import folder_refusal

        raise folder_refusal(storage.path) from error  # [COM-005]
    if size > commits.MAX_LENGTH:
        raise fault(
            "bad-record",
            "COMMIT is too long for a commit record [COM-001]",
            path=storage.path,
            found=size,
            expected=f"at most {commits.MAX_LENGTH}",
        )
    line = storage.read(COMMIT, 0, size)
    record = commits.decode(line, FORMAT[0])
    if record.layout == "file" or record.offset != 0:
        raise fault(
            "bad-record",
            "the commit record does not fit the directory that it stands in [COM-002] [LAY-006]",
            path=storage.path,
        )
    return record, line


def locate(storage: Storage, limits: Limits) -> Located:
    """Read `COMMIT` and the manifest. [READ-001]"""
    record, line = _record(storage)
    limits.check_manifest(record.length, storage.path)
    length = storage.size(MANIFEST)
    if length != record.length:  # [COM-003]
        message = "the manifest has another length than the commit record says [COM-003]"
        raise fault("manifest-digest", message, path=storage.path, found=length, expected=record.length)
    return Located(record, line, storage.read(MANIFEST, 0, length))


def commit(attempt: Attempt, layout: str, version: tuple[int, int], raw: bytes, frame: bytes) -> Written:
    """Write the manifest, which is `raw`, then `COMMIT`; gives the bytes of both."""
    record = CommitRecord(version, layout, 0, len(raw), hashlib.sha256(raw).digest(), frame)
    return Written(put(attempt, MANIFEST, raw) + put(attempt, COMMIT, record.encode()), record)


def pages_frame(storage: Storage, manifest: Manifest) -> Iterator[Frame]:
    """That of the object with the pages, where there is one: no bytes, but it has to end with them. [PAGE-002]"""
    if manifest.pages is not None:
        yield Frame(manifest.pages.object, digest_named(manifest.digest).of(b""), _ends(storage, manifest.pages))


def _ends(storage: Storage, pages: TensorPages) -> Iterator[bytes]:
    if storage.size(pages.object) > pages.extent[1]:
        raise fault("bad-extent", "it is longer than its pages [PAGE-002]", path=storage.path)
    yield b""


def put(attempt: Attempt, name: str, data: bytes) -> int:
    """Write a whole object; gives its size."""
    out = attempt.create(name)
    out.write(0, data)
    out.finish(len(data))
    return len(data)
