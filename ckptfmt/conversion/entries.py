"""Files and folders of a source, opened so that nothing waits and nothing outside is reached.

Only regular files are read: a pipe would wait for ever, a device would never end. In a folder a link may lead to
another place in the folder, and to no place outside it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from ..errors import fault
from ..storage import disk as disks
from ..storage.folders import entries_below
from ..storage.links import blobs_of
from .claims import Pairs, json_document

JSON = 1 << 28  # most bytes of a JSON document


class FilePart(NamedTuple):
    """A part of a file that is a file itself, such as a member of an archive."""

    path: str
    offset: int
    size: int


_part: ContextVar[FilePart | None] = ContextVar("part", default=None)


@contextmanager
def reading_part(part: FilePart) -> Iterator[None]:
    """Who looks at the file, or maps it, gets that part meanwhile."""
    token = _part.set(part)
    try:
        yield
    finally:
        _part.reset(token)


def part_of(path: str) -> FilePart | None:
    """The part that stands for all of a file, if it is one."""
    part = _part.get()
    return part if part is not None and part.path == path else None


def open_file(path: str, folder: str | None = None) -> int:
    """A file open for reading, also through a link. With `folder`, the source in which it lies, the link may not lead
    out of it: `unsafe-source`. Raises `unsafe-source` for what is no file, too, and OSError."""
    if folder is not None:
        check_inside(path, folder)
    try:
        number = disks.current().open(path)
    except OSError as error:
        if error.errno in (errno.ENXIO, errno.ENODEV):  # a socket, or a device that is not there
            raise _no_file(path) from error
        raise
    mode = os.fstat(number).st_mode
    if stat.S_ISREG(mode):
        return number
    os.close(number)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    raise _no_file(path)


def check_inside(path: str, folder: str) -> None:
    """Refuse a path that links lead out of a folder, but for the blobs beside a snapshot in a cache of Hugging Face;
    raises `unsafe-source`."""
    root, place = os.path.realpath(folder), os.path.realpath(path)
    if not any(place.startswith(os.path.join(allowed, "")) for allowed in (root, *blobs_of(root))):
        raise fault("unsafe-source", f"{os.path.relpath(path, folder)!r} is a link that leads out of it", path=folder)


def read_file(path: str, folder: str | None = None, limit: int = JSON) -> bytes:
    """All bytes of a small file; raises what `open_file` does, and `limit-exceeded`."""
    with open(open_file(path, folder), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise fault("limit-exceeded", f"{os.path.basename(path)!r} has {size:,} bytes", expected=f"at most {limit}")
        return file.read(size)


def read_json(path: str, pairs: Pairs | None = None, folder: str | None = None) -> Any:
    """The JSON document in a file, whose dicts `pairs` makes; raises what `read_file` and `json_document` do."""
    return json_document(read_file(path, folder), pairs)


def folder_size(path: str) -> int:
    """Bytes of all files in a folder and below, each once; links to files count as what they lead to. Links to folders
    are not followed. Raises OSError."""
    seen: set[tuple[int, int]] = set()
    size = 0
    for entry in entries_below(path):
        try:
            status = entry.stat()
        except OSError:  # a link that leads nowhere, or a file that has just been removed
            continue
        if stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) not in seen:
            seen.add((status.st_dev, status.st_ino))
            size += status.st_size
    return size


def check_folder(path: str) -> None:
    """Refuse a folder that a library is to read by itself, if anything in it is no file, or a link to a folder, or
    leads out: `unsafe-source`."""
    for entry in entries_below(path):
        if entry.is_symlink():
            check_inside(entry.path, path)
            if entry.is_dir():  # in which one could walk in circles
                raise fault("unsafe-source", f"{os.path.relpath(entry.path, path)!r} is a link to a folder", path=path)
        if not entry.is_file() and not entry.is_dir() and os.path.exists(entry.path):
            raise _no_file(entry.path)


def _no_file(path: str) -> Exception:
    name = os.path.basename(os.path.normpath(path))
    return fault("unsafe-source", f"{name!r} is neither a file nor a folder, but a pipe, a device or a socket")
