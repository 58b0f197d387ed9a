"""A disk that fails, at a sample of the calls of everything that changes it or reads from it; signals at any moment.

All calls: `python -m stress faults`.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from damage import LAYOUTS
from ramdisk import in_memory, tmp_path

import ckptfmt
from ckptfmt.testing import equal_trees, using_disk
from stress.faults import FaultyDisk, failing, read_faults, write_faults
from stress.operations import Operation, operations

__all__ = ["in_memory", "tmp_path"]  # fixtures

SAMPLE = 5


@pytest.mark.parametrize("operation", list(operations()), ids=lambda operation: operation.name)
def test_a_call_that_changes_the_disk_fails(tmp_path: Path, operation: Operation) -> None:
    found = list(write_faults(operation, tmp_path, seed=1, count=SAMPLE))
    assert found
    assert [text for texts in found for text in texts] == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_call_that_reads_fails(tmp_path: Path, layout: str) -> None:
    found = list(read_faults(layout, tmp_path, seed=1, count=2 * SAMPLE))
    assert len(found) > 7 * SAMPLE
    assert [text for texts in found for text in texts] == []


def test_a_failed_save_says_what_failed(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    with pytest.raises(ckptfmt.StorageError) as caught, using_disk(FaultyDisk(2, failing(errno.ENOSPC))):
        ckptfmt.save(path, {"x": np.arange(3)})
    assert (caught.value.code, caught.value.errno, caught.value.path) == ("disk-full", errno.ENOSPC, str(path))
    assert os.strerror(errno.ENOSPC) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_system_that_writes_nothing(tmp_path: Path, layout: str) -> None:
    """It would be asked for ever."""
    calls: Iterator[int] = iter(range(100))

    class Idle(FaultyDisk):
        def write(self, fd: int, data: memoryview, offset: int) -> int:
            return next(calls) * 0

    with pytest.raises(ckptfmt.StorageError) as caught, using_disk(Idle(-1, failing(0))):
        ckptfmt.save(tmp_path / "x.ckpt", {"x": np.arange(3)}, layout=layout)
    assert caught.value.code == "io"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", LAYOUTS)
def test_signals_all_the_time(tmp_path: Path, layout: str) -> None:
    """System calls that a signal interrupts (EINTR) go on."""
    tree = {"large": np.arange(3_000_000), "small": [np.arange(n) for n in range(20)]}
    count = 0

    def handle(*_: object) -> None:
        nonlocal count
        count += 1

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for overwrite in (False, True):
            ckptfmt.save(tmp_path / "x.ckpt", tree, layout=layout, overwrite=overwrite)
            assert equal_trees(ckptfmt.load(tmp_path / "x.ckpt"), tree)
            assert ckptfmt.verify(tmp_path / "x.ckpt").ok
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert count > 10
