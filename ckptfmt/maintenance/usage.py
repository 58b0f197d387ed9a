"""What checkpoints take on a disk, where some of their files are one file with several names (SPEC.md, LAY-008).

Blocks that files share without being one (reflinks) are not seen: no portable call of a system tells of them.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from ..errors import os_fault
from ..storage import is_url
from ..storage.folders import entries_below


class DiskUsage(NamedTuple):
    """Bytes of the files of one or several checkpoints, each file once: those that have no other name, so that removing
    the checkpoints frees them (`own`), and those that something else has, too (`shared`)."""

    own: int
    shared: int

    @property
    def on_disk(self) -> int:
        return self.own + self.shared


def usage_of(paths: Iterable[str]) -> DiskUsage:
    """What checkpoints on a disk take together; raises `StorageError`. Those at URLs are left out, as stores have no
    links."""
    names: Counter[tuple[int, int]] = Counter()
    sizes: dict[tuple[int, int], tuple[int, int]] = {}
    for path in paths:
        for status in () if is_url(path) else _files(path):
            file = status.st_dev, status.st_ino
            names[file] += 1
            sizes[file] = status.st_size, status.st_nlink
    own = sum(size for file, (size, links) in sizes.items() if names[file] >= links)
    return DiskUsage(own, sum(size for size, _ in sizes.values()) - own)


def _files(path: str) -> Iterator[os.stat_result]:
    """The status of each file of a checkpoint; one that was removed meanwhile has none."""
    try:
        status = os.stat(path)
        if not stat.S_ISDIR(status.st_mode):
            yield status
            return
        for entry in entries_below(path):
            if entry.is_file(follow_symlinks=False):
                yield entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return
    except OSError as error:
        raise os_fault(error, "cannot look at the files of a checkpoint", path) from error
