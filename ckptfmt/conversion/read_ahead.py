"""How far a system reads ahead in a mapped file."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from contextlib import contextmanager

from ..format.dtypes import Array
from .source import mapping_of


@contextmanager
def scattered(data: Array) -> Iterator[None]:
    """Within this, a look at a mapped file reads just the pages that are looked at, as where what is looked for lies
    between large tensors: a system may read megabytes ahead of each."""
    mapping = mapping_of(data)
    advise = mapping.madvise if mapping is not None and hasattr(mmap, "MADV_RANDOM") else None
    if advise is not None:
        advise(mmap.MADV_RANDOM)
    try:
        yield
    finally:
        if advise is not None:
            advise(mmap.MADV_NORMAL)
