"""What lies in folders of a disk, however deep they are: no recursion, which a stranger's folder could exhaust."""

from __future__ import annotations

import os
from collections.abc import Iterator


def entries_below(path: str) -> Iterator[os.DirEntry[str]]:
    """Everything in a folder and in the folders below, but not behind links; what a folder holds comes after it. Raises
    OSError."""
    folders = [path]
    while folders:
        with os.scandir(folders.pop()) as found:
            for entry in found:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
