"""Sources: tensors as a save takes them. A NumPy array is one; so is anything that knows its shape and dtype and gives
parts of itself as arrays, such as a tensor on a device, a slice of another file, or the shards that a process holds."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import combinations
from typing import Any, NamedTuple, Protocol

import numpy as np

from .arrays import Shape
from .dtypes import Array
from .errors import fault

Region = tuple[slice, ...]  # one slice an axis, with start and stop and without step


class Source(Protocol):
    """Elements to be saved. `dtype` is a NumPy or ml_dtypes dtype; indexing gives an array of just that region, which
    stays unchanged until the save is over."""

    @property
    def shape(self) -> Shape: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __getitem__(self, region: Region, /) -> Array: ...


class Lazy:
    """Base of the sources that are not arrays: whatever derives from it stands in a tree as a tensor."""

    __slots__ = ()


class Shard(NamedTuple):
    """A part of a tensor: the index of its first element along each axis, and its elements."""

    start: Shape
    source: Source

    @property
    def region(self) -> Region:
        """Where it lies in the whole."""
        return tuple(slice(low, low + n) for low, n in zip(self.start, self.source.shape, strict=True))


class Sharded(Lazy):
    """A tensor of which this process holds some parts, or none. `shape` is that of the whole. Two leaves with an equal
    `identity` are aliases."""

    __slots__ = ("dtype", "identity", "shape", "shards")

    def __init__(
        self, shape: Shape, dtype: np.dtype[Any], shards: tuple[Shard, ...], identity: Hashable = None
    ) -> None:
        """Keep one of equal shards; raises `unsupported-leaf` for one that does not fit, `shards-overlap`."""
        self.shape, self.dtype, self.identity = shape, dtype, identity
        distinct: dict[tuple[Shape, Shape], Shard] = {}
        for shard in shards:
            shape = tuple(shard.source.shape)
            fits = len(shard.start) == len(shape) == len(self.shape) and shard.source.dtype == self.dtype
            inside = fits and all(0 <= low <= m - n for low, n, m in zip(shard.start, shape, self.shape, strict=True))
            if not inside:
                raise fault(
                    "unsupported-leaf",
                    "a shard does not fit its tensor",
                    found=f"{shard.source.dtype} {shape} at {tuple(shard.start)}",
                    expected=f"a part of {self.dtype} {tuple(self.shape)}",
                )
            distinct.setdefault((tuple(shard.start), shape), shard)
        self.shards = tuple(distinct.values())
        for one, other in combinations(self.shards, 2):
            if overlap(one.region, other.region) is not None:
                raise fault("shards-overlap", f"two shards of one process overlap: {one.region} and {other.region}")

    def __getitem__(self, region: Region, /) -> Array:
        """A region that the shards cover; without a copy if it lies in one of them. Raises `shards-missing`."""
        for shard in self.shards:
            inside = within(region, shard)
            if inside is not None:
                return shard.source[inside]
        out = np.empty(tuple(axis.stop - axis.start for axis in region), self.dtype)
        missing = out.size
        for shard in self.shards:
            common = overlap(region, shard.region)
            if common is not None:
                taken = shard.source[shifted(common, shard.start)]
                out[shifted(common, [axis.start for axis in region])] = taken
                missing -= taken.size
        if missing > 0:
            raise fault("shards-missing", f"this process holds no shard with {missing} of the elements in {region}")
        return out


def within(region: Region, shard: Shard) -> Region | None:
    """`region` of the whole as a region of a shard that holds all of it, or None."""
    if all(s.start <= r.start and r.stop <= s.stop for r, s in zip(region, shard.region, strict=True)):
        return shifted(region, shard.start)
    return None


def overlap(one: Region, other: Region) -> Region | None:
    """What two regions have in common, or None."""
    common = tuple(slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True))
    return common if all(axis.start < axis.stop for axis in common) else None


def shifted(region: Region, origin: Any) -> Region:
    """A region as seen from `origin`."""
    return tuple(slice(r.start - low, r.stop - low) for r, low in zip(region, origin, strict=True))


def whole(shape: Shape) -> Region:
    """The region that is everything."""
    return tuple(slice(0, n) for n in shape)


def memory_key(source: Any) -> Hashable:
    """Equal for sources that are one tensor: the same memory seen in the same way. Empty arrays have no memory to
    share. [TREE-011]"""
    if isinstance(source, np.ndarray):
        if not source.nbytes:
            return id(source)
        return source.__array_interface__["data"][0], source.dtype, source.shape, source.strides
    identity = getattr(source, "identity", None)
    return id(source) if identity is None else (type(source), identity)
