"""Files between the timed stretches: remove, make durable, forget, count."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path


def files(path: Path) -> Iterator[Path]:
    """The file itself, or every file below the directory."""
    if path.is_file():
        yield path
    for folder, _, names in os.walk(path):
        yield from (Path(folder, name) for name in names)


def size(path: Path) -> int:
    """Bytes in all files."""
    return sum(file.stat().st_size for file in files(path))


def remove(path: Path) -> None:
    """Leave nothing of a checkpoint, whether it is a file or a directory."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fsync(path: Path) -> None:
    """What a careful caller adds to a library that does not sync: files, directories, parent."""
    for file in files(path):
        _fsync(file)
    for folder, _, _ in os.walk(path, topdown=False):
        _fsync(Path(folder))
    _fsync(path.parent)


def forget(path: Path) -> None:
    """Drop the files from the page cache; their pages must be clean, so sync first."""
    for file in files(path):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
