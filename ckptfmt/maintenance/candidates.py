"""What may be a checkpoint in a folder of any kind: files, and directories that hold what a checkpoint has.

Hidden entries, which temporaries are, and links are passed over, but for links to files on request. Nothing is opened.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ..errors import CkptError, fault, os_fault
from ..storage import COMMIT, MANIFEST, is_url, path_of
from ..storage.folders import entries_below


class Candidate(NamedTuple):
    """What may be a checkpoint: its path, its bytes on storage, and when it was written (time of modification, in
    seconds since the epoch; None on stores)."""

    path: str
    size: int
    time: float | None = None


def candidates_in(
    folder: str | os.PathLike[str],
    *,
    recursive: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
) -> Iterator[Candidate]:
    """All in a folder, a path or a URL, by name, and with `recursive` in those below, as they are taken.

    Raises `not-found` where there is no such folder, and `StorageError` for one that cannot be listed.
    """
    name = path_of(folder)
    if is_url(name):
        return _on_store(name, recursive, storage_options)
    return _on_disk(name, recursive, follow_links)


def check_folder(path: str) -> None:
    """Raise `not-found` or `not-a-checkpoint` where there is no folder; what is at a URL is not looked at."""
    if is_url(path) or os.path.isdir(path):
        return
    if os.path.exists(path):
        message = "this is a file, and no folder: `ckptfmt inspect` shows what is in a checkpoint"
        raise fault("not-a-checkpoint", message, path=path, advice="Give the path of a folder")
    raise fault("not-found", "there is no such folder", path=path)


def _on_disk(folder: str, recursive: bool, follow_links: bool) -> Iterator[Candidate]:
    check_folder(folder)
    waiting = _listed(folder)
    while waiting:
        entry = waiting.pop()
        if entry.name.startswith("."):
            continue
        if entry.is_file(follow_symlinks=follow_links):
            with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile
                status = entry.stat(follow_symlinks=follow_links)
                yield Candidate(entry.path, status.st_size, status.st_mtime)
        elif entry.is_dir(follow_symlinks=False):
            if any(os.path.lexists(os.path.join(entry.path, name)) for name in (COMMIT, MANIFEST)):
                yield Candidate(entry.path, _size(entry.path), _time(entry.path))
            elif recursive:
                waiting += _listed(entry.path)


def _listed(folder: str) -> list[os.DirEntry[str]]:
    """What is in a folder, the last first."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name, reverse=True)
    except OSError as error:
        raise os_fault(error, "cannot list the folder", folder) from error


def _size(folder: str) -> int:
    """Bytes of all files in a folder, as far as they can be looked at."""
    total = 0
    with contextlib.suppress(OSError):
        for entry in entries_below(folder):
            total += 0 if entry.is_dir(follow_symlinks=False) else entry.stat(follow_symlinks=False).st_size
    return total


def _time(folder: str) -> float | None:
    """When a directory was committed."""
    with contextlib.suppress(OSError):
        return os.stat(os.path.join(folder, COMMIT)).st_mtime
    return None


def _on_store(url: str, recursive: bool, options: Mapping[str, Any] | None) -> Iterator[Candidate]:
    from ..storage.engine import engine_for, storage_fault

    try:
        engine, key = engine_for(url, options or {})
        folder = key.rstrip("/")
        sizes = {entry.key.removeprefix(folder).lstrip("/"): entry.size for entry in engine.entries(folder)}
    except CkptError:
        raise
    except Exception as error:  # of client libraries
        raise storage_fault(error, "cannot list the folder", url) from error
    closed = {name.rpartition("/")[0] for name in sizes if name.rpartition("/")[2] in (COMMIT, MANIFEST)}
    found: dict[str, int] = {}
    for name, size in sizes.items():
        parts = name.split("/")
        above = next((top for end in range(1, len(parts)) if (top := "/".join(parts[:end])) in closed), name)
        is_hidden = any(part.startswith(".") for part in above.split("/"))
        if above and not is_hidden and (recursive or "/" not in above):
            found[above] = found.get(above, 0) + size
    return (Candidate(f"{url.rstrip('/')}/{name}", size) for name, size in sorted(found.items()))
