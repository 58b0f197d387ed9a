"""The layouts (SPEC.md section 8): how commit record, manifest, node documents and chunks lie on storage.

Each layout is a module with the same four functions; what differs between layouts stands there and nowhere else.

- `locate(storage, max_manifest)` finds and checks the commit record and reads the manifest's bytes,
- `chunk_object(manifest, tensor, chunk)` names the object of a chunk,
- `write(draft, attempt)` writes a whole checkpoint into an attempt, and gives its size and commit record,
- `frame(storage, located, manifest)` and `frame_damage(...)` read the frame, and say where it differs from the
  canonical one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from ..arrays import ArraySpec
from ..chunk_table import ChunkTable
from ..commit import CommitRecord
from ..digests import Digest
from ..dtypes import Array
from ..errors import fault
from ..manifest import Manifest, Part, Schema
from ..storage import Attempt, Storage
from ..tree import Node

LAYOUTS = ("file", "loose")  # each a module of this package, imported when used


@dataclass(frozen=True, slots=True)
class Draft:
    """What is to be written: everything of a manifest but the chunk table, and the arrays."""

    arrays: list[Array]
    names: tuple[str, ...]
    specs: tuple[ArraySpec, ...]
    tree: Node
    metadata: Node
    schema: Schema | None
    digest: Digest
    block: int
    generator: str
    extra: dict[str, Any] = field(default_factory=dict)  # further keys of the manifest

    def manifest(self, layout: str, obj: str | None, table: ChunkTable) -> Manifest:
        return Manifest(
            layout=layout,
            digest=self.digest.name,
            block=self.block,
            tree=self.tree,
            metadata=self.metadata,
            names=self.names,
            specs=self.specs,
            part=Part(obj, table),
            generator=self.generator,
            schema=self.schema,
            unknown=self.extra,
        )


class Written(NamedTuple):
    """What a layout wrote: total bytes, and the commit record."""

    bytes: int
    record: CommitRecord


class Located(NamedTuple):
    """A commit record that was found and is valid, its own bytes, and the manifest's bytes, whose sha256 is right."""

    record: CommitRecord
    line: bytes
    manifest: bytes


def check_manifest_length(record: CommitRecord, limit: int, path: str) -> None:
    """Refuse to read a manifest longer than `limit` bytes. [LIM-001]"""
    if record.length > limit:
        raise fault(
            "limit-exceeded", "the manifest is too large", path=path, found=record.length, expected=f"at most {limit}"
        )


def first_difference(found: bytes, expected: bytes) -> int:
    """The first position at which two byte strings differ."""
    pairs = enumerate(zip(found, expected, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(found), len(expected)))


class Layout(Protocol):
    """What the modules of this package offer."""

    def locate(self, storage: Storage, max_manifest: int) -> Located: ...

    def chunk_object(self, manifest: Manifest, tensor: int, chunk: int) -> str: ...

    def write(self, draft: Draft, attempt: Attempt) -> Written: ...

    def frame(self, storage: Storage, located: Located, manifest: Manifest) -> Iterator[bytes]: ...

    def frame_damage(
        self, storage: Storage, located: Located, manifest: Manifest, damaged: set[int]
    ) -> Iterator[tuple[str, int, str]]: ...


def layout_named(name: str) -> Layout:
    """The layout's module; raises `bad-option`."""
    if name not in LAYOUTS:
        raise fault("bad-option", f"unknown layout {name!r}", found=name, expected=" or ".join(LAYOUTS))
    layout: Layout = import_module(f".{name}", __name__)
    return layout


def layout_of(storage: Storage) -> Layout:
    """The layout in which a storage's checkpoint must be: directories hold `loose` ones."""
    return layout_named("loose" if storage.is_directory else "file")
