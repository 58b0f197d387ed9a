"""Memory of the host that goes back to the system."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterable
from typing import Any

import torch


class HostTrim:
    """Gives memory back that was freed. glibc keeps what lies between pieces that are still used, and seldom finds
    place for another tensor there: its aligned allocations look for more than they then take. Most of it is freed by
    the steps of a model, unseen from here; so what counts is how far the memory of the process has risen."""

    RISE = 32 << 20  # bytes, since it was least, after which freed memory is given back
    LOOK = 4 << 20  # bytes that are freed between two looks

    def __init__(self) -> None:
        self._freed = 0
        try:
            self._trim: Any = ctypes.CDLL(None).malloc_trim
            self._least = _resident()
        except (AttributeError, OSError, TypeError):  # of another C library, or none that has a name
            self._trim = None

    def freed(self, tensors: Iterable[torch.Tensor]) -> None:
        """Note what is freed, as far as it is on the host, and give it back from time to time."""
        if self._trim is None:
            return
        self._freed += sum(t.numel() * t.element_size() for t in tensors if t.device.type == "cpu")
        if self._freed >= self.LOOK:
            self._freed = 0
            now = _resident()
            self._least = min(self._least, now)
            if now - self._least >= self.RISE:
                self._trim(0)
                self._least = _resident()


def _resident() -> int:
    """Bytes of memory that the process has."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE


TRIM = HostTrim()
