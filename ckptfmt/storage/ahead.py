"""Calls that wait for a store, several under way at a time, and their results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from ..threads import Call, Pool
    from . import Storage

T = TypeVar("T")


def ahead(storage: Storage, calls: Iterable[Callable[[], T]]) -> Iterator[T]:
    """The results of calls that read from a storage, in their order: over a network as many are under way as it
    likes, on a disk one."""
    if not storage.is_remote:
        yield from (call() for call in calls)
        return
    from ..threads import Pool  # here, as a disk needs none

    with Pool(storage.readers, "ckptfmt-ahead") as pool:
        yield from in_order(pool, calls, storage.readers)


def in_order(pool: Pool, calls: Iterable[Callable[[], T]], most: int) -> Iterator[T]:
    """The results of calls in their order, of which at most `most` are under way."""
    running: deque[Call[T]] = deque()
    try:
        for call in calls:
            running.append(pool.submit(call))
            if len(running) >= most:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for made in running:
            made.cancel()
