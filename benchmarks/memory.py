"""Memory of one operation, from /proc (Linux; elsewhere there are no memory figures).

Two figures, both above the baseline just before the operation (imports done, state built):
- resident: the peak of all resident pages, VmHWM after a reset. Pages of mapped files count.
- anonymous: the peak of RssAnon, private memory alone. The kernel keeps no high-water mark for it,
  so the parent process samples it from outside, where no interpreter lock can hold the sampler up.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

RESET_HIGH_WATER_MARK = "5"


def status(pid: int | str, *keys: str) -> list[int]:
    """Fields of /proc/PID/status in bytes."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    table = {words[0].rstrip(":"): int(words[1]) << 10 for words in lines if words[-1] == "kB"}
    return [table[key] for key in keys]


@dataclass(frozen=True, slots=True)
class Spell:
    """One operation's time span, its baseline of private memory, and how far its resident memory rose."""

    began: float
    ended: float
    anonymous_before: int
    resident_rise: int


class Meter:
    """Takes the spell of the block it surrounds."""

    spell: Spell | None = None

    def __enter__(self) -> Meter:
        self._resident = self._anonymous = None
        try:
            Path("/proc/self/clear_refs").write_text(RESET_HIGH_WATER_MARK)
            self._resident, self._anonymous = status("self", "VmRSS", "RssAnon")
        except (OSError, KeyError):
            self._resident = self._anonymous = None
        self._began = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._resident is not None and self._anonymous is not None:
            (peak,) = status("self", "VmHWM")
            self.spell = Spell(self._began, time.monotonic(), self._anonymous, peak - self._resident)


def touch(size: int) -> None:
    """Use `size` bytes of memory and give them back, so that the pages used next are truly there.

    A virtual machine hands idle blocks of pages back to its host. Taking them again costs many times
    a page fault, and by chance falls on one contender or another. Huge pages, because those who
    allocate huge pages (NumPy does) get only untouched blocks after small ones were touched.
    """
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as pages:
        with suppress(AttributeError, OSError):  # a kernel without huge pages
            pages.madvise(mmap.MADV_HUGEPAGE)
        pages[:: mmap.PAGESIZE] = bytes(-(-size // mmap.PAGESIZE))


def give_back() -> None:
    """Give memory that the allocator keeps for later back to the system, as it would hide what is added then."""
    gc.collect()
    with suppress(AttributeError, OSError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


class Sampler:
    """Reads another process's private memory whenever it is asked to."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._samples: list[tuple[float, int]] = []

    def sample(self) -> None:
        try:
            (anonymous,) = status(self._pid, "RssAnon")
        except (OSError, KeyError):  # the process has just ended, or this is not Linux
            return
        self._samples.append((time.monotonic(), anonymous))

    def peak(self) -> int:
        """The most private memory seen."""
        return max((anonymous for _, anonymous in self._samples), default=0)

    def rise(self, spell: Spell) -> int:
        """The most private memory seen during the spell, above what was there before it."""
        seen = [anonymous for at, anonymous in self._samples if spell.began <= at <= spell.ended]
        return max([*seen, spell.anonymous_before]) - spell.anonymous_before
