"""Layout `loose`: a directory with a plain Zarr v3 hierarchy, the manifest and `COMMIT` (SPEC.md section 8).

Every chunk is a file of its own, exactly as long as the chunk, so that any Zarr tool reads it over any store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from .. import commit
from ..chunk_table import ChunkTable, first_rows
from ..chunks import PIECE, stored_pieces
from ..commit import CommitRecord
from ..dtypes import bytes_of
from ..errors import CorruptError, fault
from ..manifest import FORMAT, Manifest
from ..storage import Attempt, Storage
from ..zarr_nodes import node_documents
from . import Draft, Located, Written, check_manifest_length, first_difference

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

COMMIT = "COMMIT"
MANIFEST = "manifest.msgpack"
TENSORS = "tensors/"


# ---- reading


def locate(storage: Storage, max_manifest: int) -> Located:
    """Read `COMMIT` and the manifest. [READ-001]"""
    try:
        size = storage.size(COMMIT)
    except CorruptError as error:
        if error.code != "missing-object":
            raise
        raise fault(
            "not-a-checkpoint", "this is a directory without a COMMIT file", path=storage.path
        ) from error  # [COM-005]
    if size > commit.MAX_LENGTH:
        raise fault(
            "bad-record",
            "COMMIT is too long for a commit record [COM-001]",
            path=storage.path,
            found=size,
            expected=f"at most {commit.MAX_LENGTH}",
        )
    line = storage.read(COMMIT, 0, size)
    record = commit.decode(line, FORMAT[0])
    if record.layout == "packed":
        raise fault(
            "unknown-feature", "layout 'packed' is not known to this version", path=storage.path, found="packed"
        )
    if record.layout != "loose" or record.offset != 0:
        raise fault(
            "bad-record",
            "the commit record does not fit the directory that it stands in [COM-002] [LAY-006]",
            path=storage.path,
        )
    check_manifest_length(record, max_manifest, storage.path)
    length = storage.size(MANIFEST)
    if length != record.length:  # [COM-003]
        message = "the manifest has another length than the commit record says [COM-003]"
        raise fault("manifest-digest", message, path=storage.path, found=length, expected=record.length)
    return Located(record, line, storage.read(MANIFEST, 0, length))


def chunk_object(manifest: Manifest, tensor: int, chunk: int) -> str:
    """[LAY-003]"""
    name, key = manifest.names[tensor], manifest.specs[tensor].chunk_key(chunk)
    return f"{TENSORS}{name}/{key}" if name else f"{TENSORS}{key}"


def frame(storage: Storage, located: Located, manifest: Manifest) -> Iterator[bytes]:
    """All node documents, in C-string order of their paths. [FRM-002]"""
    for name in sorted(TENSORS + key for key, _ in node_documents(manifest.names, manifest.specs)):
        yield storage.read(name, 0, storage.size(name))


def frame_damage(
    storage: Storage, located: Located, manifest: Manifest, damaged: set[int]
) -> Iterator[tuple[str, int, str]]:
    """(object, offset, what) of each node document that is missing or differs from the canonical one."""
    for key, expected in node_documents(manifest.names, manifest.specs):
        name = TENSORS + key
        try:
            found = storage.read(name, 0, storage.size(name))
        except CorruptError:
            yield name, 0, "the node document is missing"
            continue
        if found != expected:
            at = first_difference(found, expected)
            yield name, at, f"the node document changed at byte {at}"


# ---- writing


def write(draft: Draft, attempt: Attempt) -> Written:
    """Write every chunk and node document as a file of its own, then the manifest, then `COMMIT`."""
    documents = sorted((TENSORS + key, text) for key, text in node_documents(draft.names, draft.specs))
    rows = [(tensor, chunk) for tensor, spec in enumerate(draft.specs) for chunk in range(spec.chunks)]
    total = 0
    for name, text in documents:
        total += _put(attempt, name, text)
    lengths: list[int] = []
    digests: list[bytes] = []
    from concurrent.futures import ThreadPoolExecutor  # here, as opening needs no threads

    with ThreadPoolExecutor(1, thread_name_prefix="ckptfmt-digest") as pool:
        for tensor, chunk in rows:
            length, digest = _write_chunk(draft, attempt, tensor, chunk, pool)
            lengths.append(length)
            digests.append(digest)
    table = ChunkTable(
        None, np.array(lengths, np.uint64), b"".join(digests), draft.digest.size, draft.block, first_rows(draft.specs)
    )
    manifest = draft.manifest("loose", None, table)
    raw = manifest.encode()
    frame_digest = draft.digest.of(b"".join(text for _, text in documents))
    record = CommitRecord(FORMAT, "loose", 0, len(raw), hashlib.sha256(raw).digest(), frame_digest)
    total += _put(attempt, MANIFEST, raw) + _put(attempt, COMMIT, record.encode()) + sum(lengths)
    return Written(total, record)


def _write_chunk(
    draft: Draft, attempt: Attempt, tensor: int, chunk: int, pool: ThreadPoolExecutor
) -> tuple[int, bytes]:
    """Write one chunk while a second thread digests it; gives its length and its blocks' digests."""
    spec = draft.specs[tensor]
    key = spec.chunk_key(chunk)
    name = draft.names[tensor]
    out = attempt.create(f"{TENSORS}{name}/{key}" if name else f"{TENSORS}{key}")
    digesting: list[Future[bytes]] = []
    position = 0
    for piece in stored_pieces(draft.arrays[tensor], spec, chunk):
        if len(digesting) > 1:
            digesting[-2].result()  # at most two pieces wait
        digesting.append(pool.submit(draft.digest.of_blocks, bytes_of(piece), draft.block))
        out.write(position, piece)
        position += piece.size
        if position == PIECE and spec.is_raw:
            out.reserve(spec.chunk_nbytes)
    out.finish(position)
    return position, b"".join(future.result() for future in digesting)


def _put(attempt: Attempt, name: str, data: bytes) -> int:
    out = attempt.create(name)
    out.write(0, data)
    out.finish(len(data))
    return len(data)
