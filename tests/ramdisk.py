"""Folders in memory, for tests that write thousands of files or flush them as often: what they show is which calls are
made, in which order, and what each of them leaves, whatever the disk. Where there is no such place they are on the
disk."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

PLACE = Path("/dev/shm")
ROOM = 1 << 30  # bytes


@pytest.fixture(scope="module")
def in_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if not PLACE.is_dir() or shutil.disk_usage(PLACE).free < ROOM:
        yield tmp_path_factory.mktemp("on-disk")
        return
    with tempfile.TemporaryDirectory(dir=PLACE, prefix="ckptfmt-test-") as folder:
        yield Path(folder)


@pytest.fixture
def tmp_path(in_memory: Path) -> Iterator[Path]:
    """In the place of pytest's own."""
    with tempfile.TemporaryDirectory(dir=in_memory) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def temporaries(in_memory: Path) -> Iterator[None]:
    """What makes temporary folders makes them there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(in_memory))
        yield
