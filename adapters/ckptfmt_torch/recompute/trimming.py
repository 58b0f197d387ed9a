"""Memory of the host that goes back to the system."""

from __future__ import annotations

import ctypes
from typing import Any

LARGE = 32 << 20  # bytes from which on glibc has a mapping of its own for each piece


class HostTrim:
    """Gives memory back that was freed. glibc keeps what lies between pieces that are still used, and seldom finds
    place for another tensor there: its aligned allocations look for more than they then take."""

    EVERY = 32 << 20  # bytes

    def __init__(self) -> None:
        self._freed = 0
        try:
            self._trim: Any = ctypes.CDLL(None).malloc_trim
        except (AttributeError, OSError, TypeError):  # of another C library, or none that has a name
            self._trim = None

    def freed(self, size: int) -> None:
        """Note what is freed on the host, of one tensor, and trim from time to time."""
        if size < LARGE:
            self._freed += size
        if self._trim is not None and self._freed >= self.EVERY:
            self._freed = 0
            self._trim(0)


TRIM = HostTrim()
