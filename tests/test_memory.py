"""Memory of saving, loading and opening: the tree itself and a bounded rest. Peaks are the system's own figures, each
of a process that does nothing else. [LIM-003] [READ-002]"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from damage import LAYOUTS

import ckptfmt
from ckptfmt.arrays import COMPRESSED_CHUNK
from ckptfmt.manifest import BLOCK
from ckptfmt.storage.local import LocalStorage

MIB = 1 << 20
ALLOWED = 64 * MIB
each_layout = pytest.mark.parametrize("layout", LAYOUTS)

PRELUDE = """
import sys
import numpy as np
import ckptfmt
import numcodecs.zstd, ml_dtypes, zlib_ng.zlib_ng  # whose own memory is not what is measured

path, layout = sys.argv[1:]

def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith(name))

def start():
    global before
    before = status("VmRSS")
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak counts from here

def stop():
    print(status("VmHWM") - before)
"""


def peak(code: str, path: Path, layout: str = "file") -> int:
    """Bytes by which a process grew at most between `start()` and `stop()`."""
    command = [sys.executable, "-c", f"{PRELUDE}\n{code}", path, layout]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


TREE = """
wide = np.arange(1 << 24, dtype=np.uint32).reshape(4096, 4096).view(np.float32)  # 64 MiB
tree = {
    "plain": wide,
    "big-endian": wide.astype(">f4"),
    "transposed": wide.T,
    "strided": np.ones((2, 1 << 23), np.float64)[:, ::2],  # 64 MiB of 128
    "small": [np.zeros(100) for _ in range(1000)],
}
"""


@each_layout
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_saving(tmp_path: Path, layout: str, compression: str | None) -> None:
    """Arrays that must be converted are converted piece by piece. A compressed chunk is 16 MiB before compression."""
    save = f"start(); ckptfmt.save(path, tree, layout=layout, compression={compression!r}, durable=False); stop()"
    assert peak(TREE + save, tmp_path / "x.ckpt", layout) <= ALLOWED


SIZE = 256 * MIB


def save_large(path: Path, layout: str, count: int, **options: str) -> None:
    """A tree of 256 MiB in `count` arrays."""
    shape = (256 // count, MIB // 4)
    arrays = [np.arange(SIZE // count // 4, dtype=np.uint32).reshape(shape) for _ in range(count)]
    ckptfmt.save(path, arrays, layout=layout, durable=False, **options)


@each_layout
@pytest.mark.parametrize("count", [1, 16])
def test_loading(tmp_path: Path, layout: str, count: int) -> None:
    path = tmp_path / "x.ckpt"
    save_large(path, layout, count)
    grown = peak("start(); tree = ckptfmt.load(path); stop()", path)
    assert SIZE <= grown <= 1.05 * SIZE + ALLOWED
    target = f"target = [np.ones(({256 // count}, 1 << 18), np.uint32) for _ in range({count})]; start()\n"
    assert peak(f"{target}ckptfmt.load(path, into=target); stop()", path) <= ALLOWED


def test_loading_what_is_compressed(tmp_path: Path) -> None:
    """Each thread has one chunk at a time, stored and decoded."""
    path = tmp_path / "x.ckpt"
    save_large(path, "file", 4, compression="zstd")
    grown = peak("start(); tree = ckptfmt.load(path); stop()", path)
    assert grown <= 1.05 * SIZE + ALLOWED + LocalStorage.readers * 2 * COMPRESSED_CHUNK


@each_layout
def test_opening_mapping_verifying_and_parts(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "x.ckpt"
    save_large(path, layout, 4)
    for code in (
        "checkpoint = ckptfmt.open(path); checkpoint.tree",
        "tree = ckptfmt.load(path, mmap=True)",
        "with ckptfmt.open(path) as checkpoint: checkpoint['3'][5:7, ::1000]; checkpoint['3'][:, 77]",
    ):
        assert peak(f"start()\n{code}\nstop()", path) <= ALLOWED, code
    verified = peak("start(); assert ckptfmt.verify(path).ok; stop()", path)
    assert verified <= ALLOWED + LocalStorage.readers * 2 * BLOCK, "each thread has one block at a time"


def test_a_refused_manifest_is_not_read(tmp_path: Path) -> None:
    """[LIM-001]"""
    path = tmp_path / "x.ckpt"
    ckptfmt.save(path, {}, metadata="x" * (100 * MIB), durable=False)
    code = """
start()
try:
    ckptfmt.open(path, max_manifest=1 << 20)
except ckptfmt.UnsupportedError:
    stop()
"""
    assert peak(code, path) <= 8 * MIB


def test_a_small_chunk_cannot_ask_for_much(tmp_path: Path) -> None:
    """[ZARR-011] A part of a compressed tensor costs a chunk, however large the tensor is."""
    path = tmp_path / "x.ckpt"
    ckptfmt.save(path, np.zeros((1024, MIB), np.uint8), compression="zstd", durable=False)
    assert path.stat().st_size < MIB
    assert peak("checkpoint = ckptfmt.open(path); start(); checkpoint.tree[700, 5]; stop()", path) <= ALLOWED
