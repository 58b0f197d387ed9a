"""Ways to get a file into fresh memory with the digest of each block of 4 MiB, beside the way that ckptfmt goes: pieces
of 2 MiB on two threads, buffered, into memory in huge pages."""

from __future__ import annotations

import mmap
import os
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xxhash

from benchmarks import disk
from benchmarks.contenders.machine import HUGE_PAGE
from benchmarks.memory import touch
from benchmarks.results import Spread

SIZE = 256 << 20
MIB = 1 << 20
POPULATE_WRITE = 23  # MADV_POPULATE_WRITE, which mmap does not name


@dataclass(frozen=True, slots=True)
class Way:
    """How the file is read."""

    piece: int = 2 * MIB
    threads: int = 2
    huge: bool = True
    populate: str = ""  # "map": MAP_POPULATE; "write": MADV_POPULATE_WRITE
    ahead: int = 0  # bytes before the reader for which POSIX_FADV_WILLNEED is called
    sequential: bool = False
    direct: bool = False
    verified: bool = True
    in_stripes: bool = False  # each thread its own part of the file, not the next piece
    used: bool = False  # the memory is not fresh, as with into=
    mapped: str = ""  # "copy" or "populate": out of a mapping of the file


USUAL = Way()
WAYS = {
    "as ckptfmt does": USUAL,
    "without digests": replace(USUAL, verified=False),
    "into memory used before": replace(USUAL, used=True),
    "1 thread": replace(USUAL, threads=1),
    "4 threads": replace(USUAL, threads=4),
    "8 threads": replace(USUAL, threads=8),
    "pieces of 256 KiB": replace(USUAL, piece=MIB // 4),
    "pieces of 1 MiB": replace(USUAL, piece=MIB),
    "pieces of 4 MiB": replace(USUAL, piece=4 * MIB),
    "pieces of 16 MiB": replace(USUAL, piece=16 * MIB),
    "small pages": replace(USUAL, huge=False),
    "MAP_POPULATE": replace(USUAL, populate="map"),
    "MADV_POPULATE_WRITE": replace(USUAL, populate="write"),
    "WILLNEED, 32 MiB ahead": replace(USUAL, ahead=32 * MIB),
    "WILLNEED, all at once": replace(USUAL, ahead=SIZE),
    "POSIX_FADV_SEQUENTIAL": replace(USUAL, sequential=True),
    "each thread its own half": replace(USUAL, in_stripes=True),
    "O_DIRECT, 2 threads": replace(USUAL, direct=True),
    "O_DIRECT, 8 threads": replace(USUAL, direct=True, threads=8),
    "O_DIRECT, 8 threads, 8 MiB": replace(USUAL, direct=True, threads=8, piece=8 * MIB),
    "mapped, and copied": replace(USUAL, mapped="copy"),
    "mapped with MAP_POPULATE, and copied": replace(USUAL, mapped="populate"),
}


WHY_NOT = {
    "without digests": "verification is what a load is for",
    "into memory used before": "it is so with `into=`",
    "1 thread": "slower where there is a second core",
    "4 threads": "no faster on 2 cores; ckptfmt takes as many as there are cores, 2 to 8",
    "8 threads": "no faster on 2 cores",
    "pieces of 256 KiB": "no faster",
    "pieces of 1 MiB": "no faster beyond the noise",
    "pieces of 4 MiB": "no faster beyond the noise",
    "pieces of 16 MiB": "no longer in the processor's cache when they are digested",
    "small pages": "four times as long: taking pages is most of a load",
    "MAP_POPULATE": "takes small pages, as huge ones are asked for after it",
    "MADV_POPULATE_WRITE": "no faster: the pages are cleared all the same",
    "WILLNEED, 32 MiB ahead": "no faster: the system reads ahead by itself",
    "WILLNEED, all at once": "no faster",
    "POSIX_FADV_SEQUENTIAL": "no faster",
    "each thread its own half": "no faster, and pieces come out of the file's order",
    "O_DIRECT, 8 threads, 8 MiB": "faster from a cold disk alone; the page cache stays empty for the next rank",
    "mapped, and copied": "a file that is cut, or a bad sector, ends the process with SIGBUS in place of an error",
}
ALONE = replace(USUAL, threads=1)
PARTS = {
    "as ckptfmt does": ALONE,
    "without digests": replace(ALONE, verified=False),
    "into memory used before": replace(ALONE, used=True),
    "into memory used before, without digests": replace(ALONE, used=True, verified=False),
    "mapped, and copied": replace(ALONE, mapped="copy"),
    "mapped, and copied, without digests": replace(ALONE, mapped="copy", verified=False),
    "pieces of 256 KiB": replace(ALONE, piece=MIB // 4),
    "pieces of 16 MiB": replace(ALONE, piece=16 * MIB),
    "small pages": replace(ALONE, huge=False),
    "MAP_POPULATE": replace(ALONE, populate="map"),
}


def _memory(way: Way) -> memoryview:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | (mmap.MAP_POPULATE if way.populate == "map" else 0)
    memory = mmap.mmap(-1, SIZE + HUGE_PAGE, flags=flags)
    start = -np.frombuffer(memory, np.uint8).__array_interface__["data"][0] % HUGE_PAGE
    memory.madvise(mmap.MADV_HUGEPAGE if way.huge else mmap.MADV_NOHUGEPAGE)
    if way.populate == "write":
        memory.madvise(POPULATE_WRITE)
    return memoryview(memory)[start : start + SIZE]


class Reading:
    """One pass over the file."""

    def __init__(self, path: Path, way: Way, out: memoryview | None) -> None:
        self._way = way
        self._fd = os.open(path, os.O_RDONLY | (os.O_DIRECT if way.direct else 0))
        if way.sequential:
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
        self._out = _memory(way) if out is None else out
        self._source: memoryview | None = None
        if way.mapped:
            populate = mmap.MAP_POPULATE if way.mapped == "populate" else 0
            self._source = memoryview(mmap.mmap(self._fd, SIZE, mmap.MAP_SHARED | populate, mmap.PROT_READ))

    def run(self) -> None:
        way = self._way
        queue, share = iter(range(0, SIZE, way.piece)), SIZE // way.threads
        own = [iter(range(n * share, (n + 1) * share, way.piece)) for n in range(way.threads)]
        parts = own if way.in_stripes else [queue] * way.threads
        threads = [threading.Thread(target=self._work, args=(part,)) for part in parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        os.close(self._fd)

    def _work(self, offsets: Iterator[int]) -> None:
        way = self._way
        for at in offsets:
            piece = self._out[at : at + way.piece]
            if way.ahead and at % way.ahead == 0:
                start = at + way.ahead if way.ahead < SIZE else 0
                os.posix_fadvise(self._fd, start, way.ahead, os.POSIX_FADV_WILLNEED)
            if self._source is not None:
                piece[:] = self._source[at : at + way.piece]
            else:
                os.preadv(self._fd, [piece], at)
            if way.verified:
                xxhash.xxh3_128_digest(piece)


def _turn(path: Path, way: Way, cold: bool) -> tuple[float, float]:
    """Seconds of the clock and of the processor."""
    if cold:
        disk.forget(path)
    touch(SIZE * 5 // 4)
    out = _memory(way) if way.used else None
    if out is not None:
        out[:: mmap.PAGESIZE] = bytes(SIZE // mmap.PAGESIZE)
    processor, began = time.process_time(), time.perf_counter()
    Reading(path, way, out).run()
    return time.perf_counter() - began, time.process_time() - processor


@contextmanager
def _file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=".benchmark-", dir=Path.cwd()) as folder:
        path = Path(folder, "file")
        path.write_bytes(np.random.default_rng(0).bytes(SIZE))
        os.sync()
        yield path


def _race(path: Path, rounds: int) -> Iterator[tuple[str, bool, tuple[float, float]]]:
    """Name, whether the page cache is cold, and seconds, round by round, in an order shuffled within each."""
    for number in range(rounds):
        for cold in (False, True):
            for name in random.Random(number).sample(list(WAYS), len(WAYS)):
                path.read_bytes()
                with suppress(OSError):  # no O_DIRECT on this file system, or an older kernel
                    yield name, cold, _turn(path, WAYS[name], cold)


def reads(rounds: int = 9) -> Iterator[tuple[str, ...]]:
    """Ways to read 256 MiB with digests into fresh memory: speed beside ckptfmt's own in the same shuffled round, by
    the clock with the page cache warm and cold, and by processor time; and the best rate. Wants an idle machine."""
    seconds: dict[tuple[str, bool], list[tuple[float, float]]] = {(n, c): [] for n in WAYS for c in (False, True)}
    with _file() as path:
        for name, cold, took in _race(path, rounds):
            seconds[name, cold].append(took)
    yield "way", "clock, warm", "clock, cold", "processor, warm", "best, warm", "why it is not so"
    for name in WAYS:
        columns = []
        for cold, what in ((False, 0), (True, 0), (False, 1)):
            pairs = zip(seconds["as ckptfmt does", cold], seconds[name, cold], strict=False)
            ratios = [usual[what] / own[what] for usual, own in pairs]
            columns.append(str(Spread.of(ratios)) if ratios else "-")
        best = min((each[0] for each in seconds[name, False]), default=None)
        yield name, *columns, f"{SIZE / best / 1e9:.1f} GB/s" if best else "-", WHY_NOT.get(name, "")


def load_time(rounds: int = 9) -> Iterator[tuple[str, ...]]:
    """Where the time of a load goes: 256 MiB from the page cache on one thread, processor time, best of the rounds."""
    seconds: dict[str, list[float]] = {name: [] for name in PARTS}
    with _file() as path:
        for number in range(rounds):
            for name in random.Random(number).sample(list(PARTS), len(PARTS)):
                seconds[name].append(_turn(path, PARTS[name], False)[1])
    usual = min(seconds["as ckptfmt does"])
    yield "way", "rate", "beside ckptfmt's"
    for name, found in seconds.items():
        yield name, f"{SIZE / min(found) / 1e9:.1f} GB/s", f"{usual / min(found):.2f}"
