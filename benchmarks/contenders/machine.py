"""What the machine can do at all, without a format: plain reads into fresh memory, plain writes, a copy of memory."""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders.contender import ONLY_LOADS, Contender
from benchmarks.states import Array

PIECE = 8 << 20  # bytes of one call of the system
TAIL = 8  # bytes at the end that say how long the list of tensors before them is
HUGE_PAGE = 2 << 20
SMALL = frozenset({"small_save", "small_load"})


def fresh(nbytes: int) -> memoryview:
    """Memory that begins at a huge page and is asked for in huge pages: the cheapest there is."""
    memory = mmap.mmap(-1, nbytes + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = -np.frombuffer(memory, np.uint8).__array_interface__["data"][0] % HUGE_PAGE
    memory.madvise(mmap.MADV_HUGEPAGE)
    return memoryview(memory)[start : start + nbytes]


class Plain(Contender):
    """The bytes one after another, and a list of them at the end."""

    peer = "the machine"
    requires = ("numpy",)

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self.name = f"plain reads, {threads} thread{'s' if threads > 1 else ''}"
        self.note = (
            f"`preadv` of {PIECE >> 20} MiB at a time into one piece of fresh memory in huge pages. No peer, a limit."
        )
        self.omits = SMALL | ONLY_LOADS

    def save(self, path: Path, tree: Any) -> None:
        listed = json.dumps([(name, array.dtype.name, array.shape) for name, array in tree.items()]).encode()
        total = sum(array.nbytes for array in tree.values())
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            os.posix_fallocate(descriptor, 0, total + len(listed) + TAIL)
            offset = 0
            for array in tree.values():
                data = memoryview(array.reshape(-1).view(np.uint8))
                for at in range(0, len(data), PIECE):
                    offset += os.pwrite(descriptor, data[at : at + PIECE], offset)
            os.pwrite(descriptor, listed + len(listed).to_bytes(TAIL, "little"), offset)
        finally:
            os.close(descriptor)

    def load(self, path: Path) -> Mapping[str, Any]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            end = os.fstat(descriptor).st_size - TAIL
            length = int.from_bytes(os.pread(descriptor, TAIL, end), "little")
            listed = json.loads(os.pread(descriptor, length, end - length))
            memory = fresh(end - length)

            def read(at: int) -> None:
                if os.preadv(descriptor, [memory[at : at + PIECE]], at) != len(memory[at : at + PIECE]):
                    raise OSError(f"{path}: a read came back short")

            with ThreadPoolExecutor(self._threads) as pool:
                list(pool.map(read, range(0, len(memory), PIECE)))
        finally:
            os.close(descriptor)
        sizes = [np.dtype(dtype).itemsize * int(np.prod(shape)) for _, dtype, shape in listed]
        starts = [0, *accumulate(sizes)]
        return {
            name: np.ndarray(shape, dtype, memory, start)
            for (name, dtype, shape), start in zip(listed, starts, strict=False)
        }


class PlainWrite(Plain):
    """Shown for its saves."""

    def __init__(self) -> None:
        super().__init__(1)
        self.name = "plain writes"
        self.note = f"`posix_fallocate`, then `pwrite` of {PIECE >> 20} MiB at a time. No peer, a limit."
        self.omits = SMALL | {"load"}


class Memcpy(Contender):
    """A copy of each tensor into memory of its own, which is no save: nothing is written."""

    name, peer = "a copy in memory", "the machine"
    note = "`numpy.copy` of each tensor into fresh memory. No peer: what a save that copies first waits for."
    requires = ("numpy",)

    def can(self, action: str) -> bool:
        return action == "copy"

    def copy(self, path: Path, tree: Mapping[str, Array]) -> None:
        self._copies = {name: array.copy() for name, array in tree.items()}

    def save(self, path: Path, tree: Mapping[str, Array]) -> None:
        self.copy(path, tree)

    def load(self, path: Path) -> Mapping[str, Any]:
        return self._copies
