"""Targets that have one memory for several tensors, and checkpoints that have different values for them."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterator, Mapping
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from ..format.arrays import WHOLE
from ..format.dtypes import Array
from ..format.names import Path, path_label
from ..frameworks.adapter import Slot, SlotPart
from ..frameworks.sources import meeting, memory_bounds, memory_key
from ..frameworks.target import MatchReport
from .blocks import BlockReader
from .filling import put
from .tensor import ArrayLike, Tensor

FEW = 64  # arrays, of which each two are compared
WORK = 10_000  # of a comparison, as NumPy counts it: some tenths of a millisecond


class _FilledArray(NamedTuple):
    """An array of a target, where it stands there, and the part of a tensor that it is filled with, as a dtype."""

    path: Path
    tensor: ArrayLike
    part: SlotPart
    array: Array
    dtype: np.dtype[Any]


def shared(
    slots: Mapping[Path, Slot | None], stored: Mapping[Path, Any], blocks: BlockReader, verify: bool
) -> MatchReport:
    """The places of a target that could hold only one of the values which are stored for them."""
    holders: dict[Hashable, _FilledArray] = {}
    others: dict[Hashable, tuple[Path, ArrayLike]] = {}  # of places whose memory no array sees
    pairs: list[tuple[Path, Path]] = []
    for path, found in slots.items():
        if found is None or path not in stored:
            continue
        for part in found.parts:
            if part.array is not None:
                one = _FilledArray(path, stored[path], part, part.array, found.dtype)
                first_path, tensor, *_ = holders.setdefault(memory_key(part.array), one)
            elif part.identity is not None:
                first_path, tensor = others.setdefault(part.identity, (path, stored[path]))
            else:
                continue
            if first_path != path and not _is_alike(tensor, stored[path], blocks, verify):
                pairs.append((first_path, path))
    pairs += _overlapping(holders, verify)
    return MatchReport(shared=tuple((path_label(first), path_label(path)) for first, path in pairs))


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


# ---- memory that is seen in different ways


def _overlapping(holders: Mapping[Hashable, _FilledArray], verify: bool) -> Iterator[tuple[Path, Path]]:
    """Pairs of places, given by their `memory_key`, that overlap, and are to hold different bytes where they do; a
    place whose own elements overlap makes a pair with itself."""
    held = list(holders.values())
    groups = meeting([memory_bounds(one.array, key) for key, one in holders.items()])
    grouped = {number for group in groups for number in group}
    alone = [[n] for n, one in enumerate(held) if n not in grouped and _may_overlap_itself(one.array)]
    for group in [*groups, *alone]:
        some = [held[n] for n in group]
        if not (_are_surely_apart(some) or _are_apart(some)):
            yield from _contradictions(some, verify)


def _may_overlap_itself(array: Array) -> bool:
    """Whether two elements could have memory in common, as in what a stride of 0 repeats; False where they surely have
    not."""
    if array.flags.c_contiguous or not array.size:
        return False
    reach = array.itemsize
    for stride, side in sorted((abs(stride), side) for stride, side in zip(array.strides, array.shape, strict=True)):
        if side > 1 and stride < reach:
            return True
        reach += stride * (side - 1)
    return False


def _are_surely_apart(held: list[_FilledArray]) -> bool:
    """Whether no two elements of arrays have a byte in common, where that is told without memory for it, as of columns
    of one array."""
    if len(held) > FEW or any(_may_overlap_itself(one.array) for one in held):
        return False
    work: Any = WORK  # NumPy's types know of no bound
    try:
        return not any(np.shares_memory(a.array, b.array, max_work=work) for a, b in combinations(held, 2))
    except np.exceptions.TooHardError:
        return False


class _MemoryModel:
    """Bytes in the place of those that arrays have."""

    def __init__(self, held: Collection[_FilledArray]) -> None:
        bounds = [memory_bounds(one.array, memory_key(one.array)) for one in held]
        self._low = min(low for low, _ in bounds)
        self.bytes = np.zeros(max(high for _, high in bounds) - self._low, np.uint8)

    def seen(self, one: _FilledArray) -> Array:
        """These bytes, seen as an array sees its own; without a dtype."""
        array = one.array
        offset = array.__array_interface__["data"][0] - self._low
        return np.ndarray(array.shape, f"V{array.itemsize}", self.bytes, offset, array.strides)

    def take(self, one: _FilledArray) -> Array:
        """The bytes of an array, one after another."""
        return self.seen(one).flatten().view(np.uint8)

    def put(self, one: _FilledArray, data: Array) -> None:
        seen = self.seen(one)
        seen[...] = data.view(seen.dtype).reshape(seen.shape)


def _are_apart(held: list[_FilledArray]) -> bool:
    """Whether no two elements of arrays have a byte in common."""
    painted = _MemoryModel(held)
    for one in held:
        painted.put(one, np.ones(one.array.nbytes, np.uint8))
    return int(np.count_nonzero(painted.bytes)) == sum(one.array.nbytes for one in held)


def _contradictions(held: list[_FilledArray], verify: bool) -> Iterator[tuple[Path, Path]]:
    """Each place that does not get the bytes which one before has there, with that one."""
    values, painted = _MemoryModel(held), _MemoryModel(held)
    for number, one in enumerate(held):
        data, before, known = _elements(one, verify), values.take(one), painted.take(one) != 0
        differs = bool((before != data)[known].any())
        values.put(one, data)
        painted.put(one, np.ones(one.array.nbytes, np.uint8))
        if differs:
            yield next(other.path for other in held[:number] if not _are_apart([other, one])), one.path
        elif not np.array_equal(values.take(one), data):
            yield one.path, one.path


def _elements(one: _FilledArray, verify: bool) -> Array:
    """The bytes that an array is to hold, one element after another."""
    out = np.empty(one.array.shape, one.array.dtype)
    put(one.part._replace(array=out), one.dtype, one.tensor.verified(verify).read(region=one.part.region))
    return out.reshape(-1).view(np.uint8)
