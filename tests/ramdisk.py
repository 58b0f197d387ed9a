"""A folder in memory, for tests that flush thousands of files: what they show is which calls are made, in which order,
and what each of them leaves, whatever the disk. Where there is no such place it is on the disk."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

PLACE = Path("/dev/shm")
ROOM = 1 << 30  # bytes


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    if not PLACE.is_dir() or shutil.disk_usage(PLACE).free < ROOM:
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=PLACE, prefix="ckptfmt-test-") as folder:
        yield Path(folder)
