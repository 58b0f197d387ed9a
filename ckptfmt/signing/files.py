"""The files of a checkpoint as model-signing signs them: the sha256 of each, read whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from ..errors import fault, os_fault
from ..storage import is_url
from .statement import IGNORED, FileStatement

if TYPE_CHECKING:
    from ..reading.checkpoint import StoredCheckpoint

PIECE = 1 << 20  # bytes that are read at a time


def digests_of(place: str, besides: Collection[str], follow_links: bool = False) -> tuple[tuple[str, str], ...]:
    """Names, in order, and sha256 (hexadecimal) of the files at a path; one file has the name ".". Files of `besides`
    are left out. Raises `bad-option` for a URL, `linked-object` for a link that is not to be followed, `io`."""
    if is_url(place):
        raise fault("bad-option", "model-signing signs files on a disk", path=place, found=place, expected="a path")
    if not os.path.isdir(place):
        return ((".", _digest(place)),)
    left_out = {os.path.abspath(path) for path in (*besides, *(os.path.join(place, name) for name in IGNORED))}
    return tuple((name, _digest(os.path.join(place, name))) for name in _names(place, left_out, follow_links))


def check_files(
    stored: StoredCheckpoint, said: FileStatement, besides: Collection[str], follow_links: bool = False
) -> None:
    """Raise `other-checkpoint` unless the files of a checkpoint are those that were signed."""
    if not all(name in IGNORED or name.endswith(".sig") for name in said.ignored):  # others may be of the checkpoint
        raise fault("bad-signature", f"what is signed leaves out {', '.join(said.ignored)[:200]}", path=stored.path)
    left_out = [*besides, *(os.path.join(stored.path, name) for name in said.ignored)]
    found, expected = dict(digests_of(stored.path, left_out, follow_links)), dict(said.files)
    if found == expected:
        return
    differ = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    words = {True: "is not what was signed", False: "was not signed"}
    told = [f"{name!r} {words[name in expected] if name in found else 'is missing'}" for name in differ[:3]]
    raise fault(
        "other-checkpoint",
        f"it is signed, but {', '.join(told)}{' …' if len(differ) > 3 else ''}",
        path=stored.path,
        found=f"{len(differ)} files that differ",
        expected=f"the {len(expected)} files of {said.name!r}",
    )


def _names(place: str, left_out: set[str], follow_links: bool) -> Iterator[str]:
    """The names of the files below a folder, with "/" between folders, in order."""
    names = []
    for folder, folders, files in os.walk(place, followlinks=follow_links):
        folders[:] = [one for one in folders if os.path.abspath(os.path.join(folder, one)) not in left_out]
        for one in files:
            path = os.path.join(folder, one)
            if os.path.abspath(path) not in left_out:
                if os.path.islink(path) and not follow_links:
                    raise fault("linked-object", f"{path} is a symbolic link", path=place, object=one)
                names.append(os.path.relpath(path, place).replace(os.sep, "/"))
    yield from sorted(names)


def _digest(path: str) -> str:
    try:
        with open(path, "rb") as file:
            hasher = hashlib.sha256()
            while data := file.read(PIECE):
                hasher.update(data)
    except OSError as error:
        raise os_fault(error, "cannot read a file", path) from error
    return hasher.hexdigest()
