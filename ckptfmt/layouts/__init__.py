"""The layouts (SPEC.md section 8): how commit record, manifest, node documents and chunks lie on storage.

Each layout is a module with the same functions; what differs between layouts stands there and nowhere else.

- `locate(storage, limits)` finds and checks the commit record and reads the manifest's bytes,
- `write(draft, attempt)` writes a whole checkpoint into an attempt, and gives its size and commit record,
- `frames(...)` reads the frames with the digests that they must have, and `frame_damage(...)` says where they differ
  from the canonical ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Protocol

from ..errors import fault
from ..format.arrays import XOR, ArraySpec
from ..format.commit import CommitRecord
from ..format.limits import Limits
from ..storage import Attempt, Storage
from ..tuples import NamedTuple
from .chunk_index import ChunkIndex

if TYPE_CHECKING:
    from .draft import Draft

WINDOW, BETWEEN = 1 << 20, 64 << 10  # most bytes of one read of the frame, and of a chunk that is read along
LAYOUTS = ("file", "loose", "packed")  # each a module of this package, imported when used


class Written(NamedTuple):
    """What a layout wrote: total bytes, and the commit record. `shared`: of the bytes those that were not sent, as an
    earlier checkpoint has them; `refused`: why there are not more, where something kept it from that."""

    bytes: int
    record: CommitRecord
    shared: int = 0
    refused: str = ""


class Located(NamedTuple):
    """A commit record that was found and is valid, its own bytes, and the manifest's bytes, whose sha256 is not checked
    yet. `size`: bytes of the file that they are from, 0 for a directory."""

    record: CommitRecord
    line: bytes
    manifest: bytes
    size: int = 0


def bytes_between(storage: Storage, name: str, taken: list[tuple[int, int]], end: int) -> Iterator[bytes]:
    """The bytes of an object before `end` that lie in none of the `taken` extents (offset, length), in order."""
    from ..storage.ahead import ahead  # here, as opening needs none

    windows = _windows(_gaps(storage, name, taken, end))
    for pieces in ahead(storage, (partial(_read_window, storage, name, window) for window in windows)):
        yield from pieces


def _gaps(storage: Storage, name: str, taken: list[tuple[int, int]], end: int) -> Iterator[tuple[int, int]]:
    """What lies between extents: (start, stop), at most `WINDOW` bytes each."""
    position = 0
    for offset, length in [*sorted(taken), (end, 0)]:
        if offset > end:  # it was longer when it was opened
            raise fault("short-object", f"{name or 'the file'} ends at byte {end}", path=storage.path, offset=end)
        for start in range(position, offset, WINDOW):
            yield start, min(start + WINDOW, offset)
        position = offset + length


def _windows(gaps: Iterator[tuple[int, int]]) -> Iterator[list[tuple[int, int]]]:
    """Gaps that are read together, as little lies between them."""
    window: list[tuple[int, int]] = []
    for start, stop in gaps:
        if window and (start - window[-1][1] > BETWEEN or stop - window[0][0] > WINDOW):
            yield window
            window = []
        window.append((start, stop))
    if window:
        yield window


def _read_window(storage: Storage, name: str, gaps: list[tuple[int, int]]) -> list[bytes]:
    first = gaps[0][0]
    data = storage.read(name, first, gaps[-1][1] - first)
    return [data[start - first : stop - first] for start, stop in gaps]


def first_difference(found: bytes, expected: bytes) -> int:
    """The first position at which two byte strings differ."""
    pairs = enumerate(zip(found, expected, strict=False))
    return next((at for at, (one, other) in pairs if one != other), min(len(found), len(expected)))


class Frame(NamedTuple):
    """The frame of an object (`""`: of the whole checkpoint): its digest, and its bytes in order. [FRM-001] to
    [FRM-003]"""

    object: str
    digest: bytes
    parts: Iterator[bytes]


def chunk_object(name: str, spec: ArraySpec, chunk: int) -> str:
    """The path of a chunk: of its object in layout `loose` [LAY-003], of its member in a pack."""
    key, root = spec.chunk_key(chunk), "xor" if spec.form == XOR else "tensors"  # [PATCH-010]
    return f"{root}/{name}/{key}" if name else f"{root}/{key}"


class Layout(Protocol):
    """What the modules of this package offer."""

    def locate(self, storage: Storage, limits: Limits) -> Located: ...

    def write(self, draft: Draft, attempt: Attempt) -> Written: ...

    def frames(self, storage: Storage, located: Located, index: ChunkIndex) -> Iterator[Frame]: ...

    def frame_damage(
        self, storage: Storage, located: Located, index: ChunkIndex, damaged: set[tuple[str, int]], object: str
    ) -> Iterator[tuple[str, int, str]]: ...


def layout_named(name: str) -> Layout:
    """The layout's module; raises `bad-option`."""
    if name not in LAYOUTS:
        raise fault("bad-option", f"unknown layout {name!r}", found=name, expected=" or ".join(LAYOUTS))
    layout: Layout = import_module(f".{name}", __name__)
    return layout


def layout_of(storage: Storage) -> Layout:
    """The layout in which a storage's checkpoint must be: that of its commit record, in a directory."""
    if not storage.is_directory:
        return layout_named("file")
    from . import directory

    return layout_named(directory.layout(storage))
