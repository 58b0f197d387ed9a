"""Symbolic links in the place of a checkpoint's objects, followed where the caller asks for it (SPEC.md, CHK-010).

A cache of Hugging Face keeps the files of a repository in `blobs/`, and what one loads is a folder of links to them.
Such a link may lead to a file in the checkpoint's own folder, or in the `blobs` of the cache; to no other place,
whatever comes between: the text of a link only says where to look below those folders, and there no link is followed
any more.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from typing import NamedTuple

from ..errors import fault
from .disk import Disk

BLOBS, SNAPSHOTS = "blobs", "snapshots"  # folders of a cache of Hugging Face


def blobs_of(folder: str) -> Iterator[str]:
    """Where the cache of Hugging Face has the files of a folder (a real path) that lies in it: beside the `snapshots`
    above."""
    above = folder
    while (parent := os.path.dirname(above)) != above:
        if os.path.basename(parent) == SNAPSHOTS:
            yield os.path.join(os.path.dirname(parent), BLOBS)
        above = parent


class _Root(NamedTuple):
    """A folder to which links may lead, and what it was when the checkpoint was opened."""

    path: str
    identity: tuple[int, int]


class Links:
    """Where the links of a checkpoint in a folder may lead: into the folder, and into `blobs` beside it or beside the
    `snapshots` above it."""

    def __init__(self, folder: str) -> None:
        self.folder = os.path.realpath(folder)
        paths = [self.folder, os.path.join(os.path.dirname(self.folder), BLOBS), *blobs_of(self.folder)]
        self._roots = [_Root(path, identity) for path in paths if (identity := _identity(path)) is not None]

    def open(self, disk: Disk, name: str, target: str) -> int | None:
        """Open for reading the file to which the link with the text `target` leads, in the place of the object `name`;
        None if it leads elsewhere, or to no file. Raises OSError."""
        above, base = os.path.split(os.path.join(self.folder, os.path.dirname(name), target))
        above = os.path.realpath(above)
        for root in self._roots:
            if above == root.path or above.startswith(os.path.join(root.path, "")):
                parts = [*os.path.relpath(above, root.path).split(os.sep), base]
                return _file_below(disk, root, [part for part in parts if part != os.curdir])
        return None


def follow(links: Links | None, disk: Disk, checkpoint: str, name: str, part: str, target: str) -> int:
    """Open for reading what the link with the text `target` leads to, in the place of `part` of the object `name`;
    raises `linked-object` where it is not to be followed (no `links`) or leads elsewhere, and `missing-object`."""
    what = name if part == name else f"{part!r} in {name!r}"
    if links is None:
        raise fault("linked-object", f"{what} is a link [CHK-007]", path=checkpoint)
    try:
        found = links.open(disk, name, target) if part == name.rpartition("/")[2] else None
    except OSError as error:
        code = "missing-object" if error.errno in (errno.ENOENT, errno.ENOTDIR) else "linked-object"
        raise fault(code, f"cannot follow the link {what}: {error.strerror}", path=checkpoint) from error
    if found is not None:
        return found
    message = f"{what} is a link to {target!r}, which is no file in this folder or in the blobs of its cache [CHK-010]"
    advice = "Replace the link by what it stands for, if you trust it"
    raise fault("linked-object", message, path=checkpoint, advice=advice)


def _file_below(disk: Disk, root: _Root, parts: list[str]) -> int | None:
    """A file below a folder that is still the one that it was; no link is followed."""
    fd = disk.open(root.path)
    try:
        if not parts or _of(os.fstat(fd)) != root.identity or not all(parts) or os.pardir in parts:
            return None
        for part in parts:
            above, fd = fd, disk.open_below(fd, part)  # so that an interrupt has nothing closed twice
            os.close(above)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        found, fd = fd, -1
        return found
    finally:
        if fd >= 0:
            os.close(fd)


def _identity(path: str) -> tuple[int, int] | None:
    """What tells a folder from others; None for a link, or if there is none."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return _of(found) if stat.S_ISDIR(found.st_mode) else None


def _of(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
