"""What the tests of damage, crashes and races share: a varied tree, the places of a checkpoint, ways to damage it,
watched disks and child processes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import msgpack
import numpy as np
import pytest
from inside import inside

import ckptfmt
from ckptfmt.format import commit, tensor_pages, tree_pages
from ckptfmt.format.names import Path as TreePath
from ckptfmt.layouts import pack_writer
from ckptfmt.storage import disk
from ckptfmt.storage.disk import Disk
from ckptfmt.writing import request, writer
from stress.processes import CONTEXT, PRELOAD
from stress.processes import child as child

LAYOUTS = ("file", "packed", "loose")
METADATA = {"step": 7, "note": "before"}
_CHUNK = re.compile(r"tensors/(?:(.*)/)?c(?:/[0-9]+)*").fullmatch

# ---- trees


def varied_tree() -> dict[Any, Any]:
    """Raw, compressed, sub-byte, 0-d, empty and tied tensors, int and str keys, and plain values of every kind."""
    tied = np.arange(3, dtype=np.float32)
    return {
        "raw": np.arange(6, dtype=np.int16).reshape(2, 3),
        "zipped": np.zeros((8, 8), np.float32),
        "int4": np.array([1, -2, 3, -4, 5], ml_dtypes.int4),
        "bfloat16": np.array([1.5, -0.0, np.nan], ml_dtypes.bfloat16),
        "tied": [tied, (tied, None)],
        0: np.array(2.5),
        "0": np.array([True, False]),
        "empty": np.zeros((0, 3), np.uint8),
        "when": np.array([1, 2], "M8[s]"),
        "plain": {"text": "ü", "bytes": b"\0\xff", "int": 1 << 80, "float": -0.0, "scalar": np.float32(2)},
    }


PAGED = {"paged": "file", "packed paged": "packed", "loose paged": "loose"}
KINDS = (*LAYOUTS, *PAGED)  # what of a checkpoint decides which bytes are where


def save_varied(path: Path, layout: str, **options: Any) -> dict[Any, Any]:
    """Save `varied_tree` and give it; `layout` is one of `KINDS`, those of `PAGED` with several pages."""
    tree = varied_tree()
    if layout in PAGED:
        with small_pages():
            return save_varied(path, PAGED[layout], paged=True, **options)
    rules = {"zipped": "zstd"}
    ckptfmt.save(path, tree, layout=layout, compression=rules, metadata=METADATA, durable=False, **options)
    return tree


@contextlib.contextmanager
def small_chunks(*, block: int = 4096, chunk: int = 64 << 10) -> Iterator[None]:
    """Save with small blocks and chunks, so that small tensors have many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "BLOCK", block)
        patch.setattr(request, "COMPRESSED_CHUNK", chunk)
        patch.setattr(request, "LOOSE_CHUNK", chunk)
        patch.setattr(pack_writer, "INLINE", block)
        request._array_spec.cache_clear()
        yield
    request._array_spec.cache_clear()


@contextlib.contextmanager
def small_pages() -> Iterator[None]:
    """Save with little in a page, so that there are some pages of tensors and of the tree."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor_pages, "ROWS", 3)
        patch.setattr(tree_pages, "SIZE", 60)
        yield


# ---- places


class Zone(NamedTuple):
    """A run of bytes of one kind: `file` that holds it, its place there, and `where` a verification must find damage.
    `object` is the file's name in the checkpoint, `tensor` the path of the tensor whose chunk it is."""

    file: Path
    object: str
    start: int
    stop: int
    where: str
    tensor: TreePath | None = None


def zones(path: Path) -> list[Zone]:
    """Every byte of a checkpoint, found with the standard library's eyes and not those of the reader under test."""
    with ckptfmt.open(path) as checkpoint:
        tensors = {tensor.name: tensor.path for tensor in checkpoint.tensors.values()}
    if path.is_file():
        return [*_pages_apart(_pack_zones(path, "", tensors), path.read_bytes())]
    found: list[Zone] = []
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        name = file.relative_to(path).as_posix()
        if name.endswith(".zip"):
            found += _pack_zones(file, name, tensors)
        else:
            found.append(_zone(file, name, file.stat().st_size, tensors))
    return [*_pages_apart(found, (path / "COMMIT").read_bytes())]


def _pack_zones(file: Path, name: str, tensors: dict[str, TreePath]) -> Iterator[Zone]:
    """The zones of a ZIP; `name` is the object that it is."""
    position = 0
    with zipfile.ZipFile(file) as archive:
        data, comment = file.read_bytes(), len(archive.comment)
        for member in archive.infolist():
            lengths = struct.unpack_from("<2H", data, member.header_offset + 26)
            payload = member.header_offset + 30 + sum(lengths)
            zone = _zone(file, member.filename, member.file_size, tensors)
            if zone.where == "frame":
                continue
            yield Zone(file, name, position, payload, "frame")
            if member.filename.startswith("stacks/"):
                stack = json.loads(archive.read(member.filename.partition("/c/")[0] + "/zarr.json"))
                yield from _rows(zone._replace(object=name, start=payload, stop=payload + zone.stop), stack, tensors)
            else:
                yield zone._replace(object=name, start=payload, stop=payload + zone.stop)
            position = payload + zone.stop
    end = len(data) - comment
    yield Zone(file, name, position, end, "frame")
    if comment:
        yield Zone(file, name, end, len(data), "commit")


def _rows(member: Zone, stack: dict[str, Any], tensors: dict[str, TreePath]) -> Iterator[Zone]:
    """The tensors in the only chunk of a stack."""
    names = stack["attributes"]["ckptfmt"]["names"]
    size = (member.stop - member.start) // len(names)
    assert stack["chunk_grid"]["configuration"]["chunk_shape"][0] == len(names)
    for row, name in enumerate(names):
        start = member.start + row * size
        yield member._replace(start=start, stop=start + size, tensor=tensors[name])


def _pages_apart(found: Iterable[Zone], end: bytes) -> Iterator[Zone]:
    """The zones with each page in one of its own; `end`: bytes that end with the commit record."""
    for zone in found:
        yield from _pages(zone, end) if zone.where == "pages" else [zone]


def _pages(member: Zone, end: bytes) -> Iterator[Zone]:
    """The pages of a paged manifest, in their member or object."""
    offset, length = map(int, re.findall(rb"manifest=(\d+)\+(\d+) ", end)[-1])
    home = member.file if member.object == "" else member.file.parent / "manifest.msgpack"
    placed = msgpack.unpackb(home.read_bytes()[offset : offset + length])["pages"]
    assert placed["offset"] == member.start
    at = member.start
    for (size,) in struct.iter_unpack("<Q", placed["length"]):
        yield member._replace(start=at, stop=at + size, where="manifest")
        at += size
    assert at == member.stop


def _zone(file: Path, name: str, size: int, tensors: dict[str, TreePath]) -> Zone:
    if name == "manifest.msgpack" or name.startswith("parts/"):
        return Zone(file, name, 0, size, "manifest")
    if name == "COMMIT":
        return Zone(file, name, 0, size, "commit")
    if name.endswith("zarr.json"):
        return Zone(file, name, 0, size, "frame")
    if name == "pages.bin":
        return Zone(file, name, 0, size, "pages")
    if name.startswith("stacks/"):
        return Zone(file, name, 0, size, "block")
    chunk = _CHUNK(name)
    assert chunk is not None, f"{name} is no part of a checkpoint"
    return Zone(file, name, 0, size, "block", tensors[chunk[1] or ""])


# ---- damage


@contextlib.contextmanager
def flipped(file: Path, offset: int, bit: int) -> Iterator[None]:
    """Flip one bit of a file, and flip it back."""
    fd = os.open(file, os.O_RDWR)
    try:
        (byte,) = os.pread(fd, 1, offset)
        os.pwrite(fd, bytes([byte ^ (1 << bit)]), offset)
        yield
        os.pwrite(fd, bytes([byte]), offset)
    finally:
        os.close(fd)


def rewrite_manifest(path: Path, change: Callable[[dict[str, Any]], Any], **record: Any) -> None:
    """Change the manifest of a checkpoint and commit it anew, as a writer with a fault would; `record` replaces fields
    of the commit record."""
    with ckptfmt.open(path) as checkpoint:
        old = inside(checkpoint).located.record
    file = path / "manifest.msgpack" if path.is_dir() else path
    data = file.read_bytes()
    document = msgpack.unpackb(data[old.offset : old.offset + old.length])
    change(document)
    raw = msgpack.packb(document)
    fields = {"format": old.format, "layout": old.layout, "offset": old.offset, "length": len(raw), "frame": old.frame}
    line = commit.CommitRecord(**{**fields, "sha256": hashlib.sha256(raw).digest(), **record}).encode()
    if path.is_dir():
        file.write_bytes(raw)
        (path / "COMMIT").write_bytes(line)
    else:
        file.write_bytes(data[: old.offset] + raw + line)


def leftovers(folder: Path) -> list[Path]:
    """The temporaries in a directory."""
    return sorted(folder.glob(".*.ckptfmt-tmp"))


# ---- disks


class WatchedDisk(Disk):
    """A disk that calls `before` and `after` around every call that changes it, with the call's name, arguments and,
    afterwards, result. What they raise is what the call raises. With `reads` around those that read, instead."""

    def __init__(
        self,
        before: Callable[..., Any] | None = None,
        after: Callable[..., Any] | None = None,
        *,
        reads: bool = False,
    ) -> None:
        self._before, self._after, self._reads = before or _nothing, after or _nothing, reads

    def __getattribute__(self, name: str) -> Any:
        call = super().__getattribute__(name)
        if name.startswith("_") or name in _UNWATCHED or (name in READS) != self._reads:
            return call

        def watched(*arguments: Any, **keys: Any) -> Any:
            self._before(name, arguments)
            result = call(*arguments, **keys)
            self._after(name, arguments, result)
            return result

        return watched


READS = ("open", "open_below", "read", "map")
_UNWATCHED = ("write_all", "lock", "unlock")  # of other calls; and those that leave nothing on a disk


def _nothing(*_: Any) -> None:
    pass


def use_disk(
    before: Callable[..., Any] | None = None, after: Callable[..., Any] | None = None, *, reads: bool = False
) -> pytest.MonkeyPatch:
    """Make everything use a watched disk, until `undo`."""
    patch = pytest.MonkeyPatch()
    patch.setattr(disk, "_disk", WatchedDisk(before, after, reads=reads))
    return patch


# ---- child processes

# what the functions that children run stand beside is imported once. A process has one such list: the last that is set
CONTEXT.set_forkserver_preload([*PRELOAD, "fsspec", "hypothesis", "moto.server", "pytest", "tenacity"])


def semaphore() -> Any:
    """A counter that children and the test share."""
    return CONTEXT.Semaphore(0)


def barrier(parties: int) -> Any:
    """A point at which children wait for each other."""
    return CONTEXT.Barrier(parties)


def queue() -> Any:
    """What children put in, the test gets out."""
    return CONTEXT.SimpleQueue()


def exit_code(target: Callable[..., Any], *arguments: Any) -> int:
    """How a child that runs a function ended; -9 if SIGKILL ended it."""
    process = child(target, *arguments)
    process.join(120)
    assert process.exitcode is not None, "the child hangs"
    return process.exitcode
