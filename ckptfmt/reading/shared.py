"""Targets that have one memory for several tensors, and checkpoints that have different values for them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from ..format.arrays import WHOLE
from ..format.names import Path, path_label
from ..frameworks.adapter import Slot
from ..frameworks.sources import memory_key
from ..frameworks.target import MatchReport
from .blocks import BlockReader
from .tensor import ArrayLike, Tensor


def shared(
    slots: Mapping[Path, Slot | None], stored: Mapping[Path, Any], blocks: BlockReader, verify: bool
) -> MatchReport:
    """The places of a target that could hold only one of the values which are stored for them."""
    holders: dict[Hashable, tuple[Path, ArrayLike]] = {}
    pairs: list[tuple[str, str]] = []
    for path, found in slots.items():
        for part in () if found is None or path not in stored else found.parts:
            if part.array is None:
                continue
            first, tensor = holders.setdefault(memory_key(part.array), (path, stored[path]))
            if not _is_alike(tensor, stored[path], blocks, verify):
                pairs.append((path_label(first), path_label(path)))
    return MatchReport(shared=tuple(pairs))


def _is_alike(one: ArrayLike, other: ArrayLike, blocks: BlockReader, verify: bool) -> bool:
    """Whether two tensors are one, or have the same elements: which digests say, where both are stored."""
    if one.identity == other.identity:
        return True
    if not (isinstance(one, Tensor) and isinstance(other, Tensor) and one.spec.form == other.spec.form == WHOLE):
        like = (one.shape, one.dtype) == (other.shape, other.dtype)
        elements = (tensor.verified(verify).read().tobytes() for tensor in (one, other))
        return like and next(elements) == next(elements)
    place, chunks = blocks.place, range(one.spec.chunks)
    return one.spec == other.spec and all(
        place(one.index, chunk).extent[1:] == place(other.index, chunk).extent[1:] for chunk in chunks
    )
