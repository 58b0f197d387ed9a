"""Limits (SPEC.md section 16): what a checkpoint may ask of its reader, so that memory and time are bounded by what is
stored.

A few bytes can stand for much: an empty msgpack array takes one byte and 72 of memory, a compressed chunk of zeros
takes a thousandth of them, and keys can be chosen so that every look into a hash table takes as long as there are keys.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Hashable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import islice
from typing import Any, TypeVar

import numpy as np

from ..calls import checked_class
from ..errors import fault
from ..tuples import NamedTuple

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

FACTOR = 16  # bytes of memory that each stored byte may take in any case [LIM-007] [LIM-008]
VALUES = 48 << 20  # bytes that the values of a manifest may take beyond: with all else that opening takes, 64 MiB


@checked_class
class Limits(NamedTuple):
    """How much memory an untrusted checkpoint may take, in bytes, and how much else may be asked of its reader.

    - `manifest`: a manifest, part manifest or page of one [LIM-001] [LIM-011].
    - `expansion`: what one call may take beyond 16 times the stored bytes. By default the values of a manifest may take
      48 MiB more [LIM-007], and compressed tensors half of this machine's memory [LIM-008].
    - `patches`: how many patches may be read one through another, 8 by default [PATCH-009].
    """

    manifest: int = 1 << 30
    expansion: int | None = None
    patches: int = 8

    def check_manifest(self, length: int, path: str) -> None:
        """Refuse to read a manifest of `length` bytes. [LIM-001]"""
        if length > self.manifest:
            limit = f"at most {self.manifest}"
            raise fault("limit-exceeded", "the manifest is too large", path=path, found=length, expected=limit)

    def values(self, stored: int) -> int:
        """Return how much memory is for the values of a manifest that stands in `stored` bytes, which are held up to
        three times."""
        return (FACTOR - 3) * stored + (VALUES if self.expansion is None else self.expansion)

    def check_expansion(self, decoded: int, stored: int) -> None:
        """Refuse to decode chunks of `stored` bytes to `decoded`. [LIM-008]"""
        room = FACTOR * stored + (_memory() // 2 if self.expansion is None else self.expansion)
        if decoded > room:
            raise fault(
                "limit-exceeded",
                f"{stored:,} bytes of compressed chunks stand for far more [LIM-008]",
                found=decoded,
                expected=f"at most {room}",
            )


DEFAULT = Limits()


@cache
def _memory() -> int:
    """Bytes of memory of this machine."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 8 << 30


@contextmanager
def uncollected() -> Iterator[None]:
    """While very many containers are made that hold no cycles, Python need not look for cycles among them again and
    again, which is a third of the time. Threads that do so at once leave the collector as it was, whoever is last."""
    was_enabled = gc.isenabled()
    try:
        gc.disable()  # in here, as an interrupt may come right after it
        yield
    finally:
        if was_enabled:
            gc.enable()


# ---- hash tables


def table(pairs: Iterable[tuple[K, V]]) -> dict[K, V]:
    """A dict; refuses keys that were chosen to collide, by the time that they take. [LIM-007]"""
    found: dict[K, V] = {}
    rest, start = iter(pairs), 0.0
    while part := list(islice(rest, SMALL)):
        found.update(part)
        if len(part) < SMALL:
            break
        start = start or time.thread_time()
        if time.thread_time() - start > _PATIENCE + len(found) * _LOOK:
            raise fault("limit-exceeded", "the keys of a dict were chosen to collide in a hash table [LIM-007]")
    return found


SMALL = 512  # keys that cost little, however they collide: so many are added between two looks at the clock
_PATIENCE, _LOOK = 0.5, 20e-6  # seconds, for all keys and for each: a hundred times what it takes


# ---- values


def costs_at_most(raw: bytes, limit: int) -> bool:
    """Whether the values of a msgpack document surely take no more than `limit` bytes of memory: a cheap bound."""
    return len(raw) * max(_COSTS) <= limit or most_cost(raw) <= limit


def most_cost(raw: bytes) -> int:
    """Bytes of memory that the values of a msgpack document take at most."""
    array, cost = np.frombuffer(raw, np.uint8), 0
    for start in range(0, array.size, 1 << 20):
        cost += int(np.bincount(array[start : start + (1 << 20)], minlength=256) @ np.array(_COSTS))
    return cost


class Budget:
    """Memory for the values of documents, which their hooks are told of one by one. [LIM-007]"""

    def __init__(self, limit: int) -> None:
        self.limit, self.taken = limit, 0

    @property
    def left(self) -> int:
        return self.limit - self.taken

    def stored(self, length: int) -> None:
        """So many bytes more are stored than was known, and are held up to three times."""
        self.limit += (FACTOR - 3) * length

    def take(self, items: list[Any], container: Any = None) -> list[Any]:
        """A list with these items has been made, or another container with them. There may be a million small ones, so
        what most are made of is counted without a call: each takes the memory that `_size` gives."""
        if container is None and len(items) < _GROWN:
            cost = 16 + (71 + 8 * len(items) & ~15)
        else:
            cost = 16 + _size(items if container is None else container)
        for item in items:  # small numbers and single characters are shared
            kind = type(item)
            if kind is list:
                continue
            if kind is str:
                if len(item) > 1:
                    cost += _TEXTS[len(item)] if len(item) < _SHORT and item.isascii() else _size(item)
            elif kind is bytes:
                cost += _size(item) if len(item) > 1 else 0
            elif kind is float:
                cost += 32
            elif kind is int and not -6 < item < 257:
                cost += 32 if -_TWO_DIGITS < item < _TWO_DIGITS else 48
        self.taken += cost
        if self.taken > self.limit:
            raise exceeded(self.limit)
        return items


def exceeded(limit: int) -> Exception:
    """What is raised for a document whose values take too much memory."""
    return fault(
        "limit-exceeded", "the values of the manifest take too much memory [LIM-007]", expected=f"at most {limit}"
    )


_GROWN = 64  # items from which on a list may have room for more
_TWO_DIGITS = 1 << 60  # from which CPython takes a third one, of 30 bits


def _size(item: Any) -> int:
    """Memory of a value; the allocator gives multiples of 16 bytes."""
    return sys.getsizeof(item) + 15 & ~15


def _costs() -> list[int]:
    """For each byte, what it costs at most to decode the item of msgpack that it may begin."""
    costs = [8] * 256  # a pointer to a value that is shared; also what each byte of a string costs at most
    costs[0x80:0xA0] = [72, *[240] * 15, 72, *[88] * 15]  # maps, arrays
    costs[0xA2:0xC0] = [204] * 30  # strings; keys of maps among them
    costs[0xC4:0xCC] = [64] * 6 + [32] * 2  # bin, ext, float
    costs[0xCD:0xE0] = [32] * 7 + [64] * 5 + [204] * 3 + [88] * 2 + [240] * 2  # int, ext, str, array, map
    costs[0xE0:0xFB] = [40] * 27  # negative ints
    return costs


_COSTS = _costs()
_SHORT = 32  # characters
_TEXTS = [_size("x" * length) for length in range(_SHORT)]  # what short texts take
