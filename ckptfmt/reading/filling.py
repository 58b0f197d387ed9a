"""Filling memory with parts of tensors, many at a time: arrays straight from storage where they have the stored form,
all else through memory that a load has besides."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeGuard, TypeVar

import numpy as np

from ..errors import fault
from ..format.casts import cast
from ..format.dtypes import Array
from ..format.grid import Axis
from ..format.memory import aligned
from ..format.names import path_label
from ..frameworks.adapter import SlotPart, slot
from ..frameworks.overflows import Tally, TensorCast, name_of, place_of
from ..frameworks.sources import Region, memory_key, whole
from ..storage import IN_FLIGHT
from .fetch import Fetcher, Wanted
from .tensor import ArrayLike, Tensor

T = TypeVar("T")


class TargetPlace(NamedTuple):
    """Where a part of a tensor goes, and the dtype that its elements have there."""

    tensor: ArrayLike
    part: SlotPart
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        itemsize: int = self.tensor.dtype.itemsize
        return itemsize * math.prod(_shape(self.part.region))

    @property
    def kind(self) -> TensorCast:
        return TensorCast(
            path_label(self.tensor.path), name_of(self.tensor.dtype), self.dtype, math.prod(self.tensor.shape)
        )

    @property
    def is_whole(self) -> bool:
        return self.part.region == whole(self.tensor.shape)


def put(part: SlotPart, dtype: np.dtype[Any], values: Array) -> int:
    """Bring elements, cast to a dtype, to where a part is filled; how many lie beyond its range."""
    if part.array is not None:
        return cast(values, dtype, part.array).beyond
    values, beyond = (values, 0) if values.dtype == dtype else cast(values, dtype)
    if part.put is not None:
        part.put(values)
    return beyond


def fill(
    fetcher: Fetcher,
    places: Iterable[TargetPlace],
    verify: bool,
    max_bytes_in_flight: int = IN_FLIGHT,
    tally: Tally | None = None,
) -> None:
    """Fill places. What goes through memory takes at most `max_bytes_in_flight` of it at a time, or one part that is
    larger. Elements beyond the range of a dtype are told to `tally`, or warned of."""
    direct: dict[int, Array] = {}  # whole tensors
    parts: list[Wanted] = []
    others: list[TargetPlace] = []
    filled = set()
    for place in places:
        tensor, (region, array, *_), _ = place
        if array is not None:
            key = tensor.identity, tuple((side.start, side.stop) for side in region), memory_key(array)
            if key in filled:  # an alias of what is filled already
                continue
            filled.add(key)
        if array is None or not _is_direct(tensor, array):
            others.append(place)
        elif place.is_whole and tensor.index not in direct:
            direct[tensor.index] = array.view(tensor.stored_dtype)
        else:
            parts.append(_wanted(tensor, region, array.view(tensor.stored_dtype)))
    fetcher.tensors(direct, verify, direct)
    fetcher.fill(parts, verify)
    if not others:
        return
    met = Tally() if tally is None else tally
    room = beside_buffers(fetcher, max_bytes_in_flight)
    for group in grouped(others, lambda place: place.nbytes, room):
        for place, values in zip(group, _values(fetcher, group, verify), strict=True):
            beyond = put(place.part, place.dtype, values)
            if beyond:
                met.add(place.kind, place_of(place.part.region), beyond)
    if tally is None:
        met.warn()


def read_into(tensor: ArrayLike, out: Any, region: Region | None, checkpoint: str) -> Any:
    """Fill `out`, an array or a tensor of a framework of the same shape and dtype, with a tensor or a region of it;
    raises `mismatch` for another."""
    place, text = region or whole(tensor.shape), path_label(tensor.path)
    inside = len(place) == tensor.ndim and all(
        0 <= side.start <= side.stop <= n for side, n in zip(place, tensor.shape, strict=True)
    )
    found = slot(out)
    if found is None:
        message, wanted = f"out= is a {type(out).__name__}", "an array, or a tensor"
        raise fault("bad-option", message, path=checkpoint, tensor=text, expected=wanted)
    if not (
        inside and found.shape == _shape(place) and found.dtype.newbyteorder("=") == tensor.dtype and found.writable
    ):
        raise fault(
            "mismatch",
            f"cannot read {text!r} into the {type(out).__name__}",
            path=checkpoint,
            tensor=text,
            found=f"{name_of(found.dtype)} {found.shape}" + ("" if found.writable else ", which cannot be written"),
            expected=f"{name_of(tensor.dtype)} {_shape(place)} inside {tensor.shape}",
        )
    for part in found.parts:
        there = tuple(slice(s.start + p.start, s.stop + p.start) for s, p in zip(part.region, place, strict=True))
        if isinstance(tensor, Tensor) and part.array is not None:
            tensor.read(part.array, region=there)
        else:
            put(part, found.dtype, tensor.read(region=there))
    found.changed()
    return out


def beside_buffers(fetcher: Fetcher, max_bytes_in_flight: int) -> int:
    """Bytes for arrays that are no result of a load: over a network half, and the other half to its buffers."""
    if not fetcher.blocks.storage.is_remote:
        return max_bytes_in_flight
    fetcher.blocks.in_flight = max_bytes_in_flight // 2
    return max_bytes_in_flight // 2


def grouped(items: Iterable[T], nbytes: Callable[[T], int], room: int) -> Iterator[list[T]]:
    """Items that together have at most `room` bytes, or one that is larger."""
    group: list[T] = []
    size = 0
    for item in items:
        more = nbytes(item)
        if group and size + more > room:
            yield group
            group, size = [], 0
        group.append(item)
        size += more
    if group:
        yield group


def _values(fetcher: Fetcher, places: list[TargetPlace], verify: bool) -> Iterator[Array]:
    """The elements for places, not yet of their dtypes, in memory that those of one tensor may share."""
    whole_ones: dict[int, None] = {}
    parts: dict[int, Wanted] = {}
    for number, place in enumerate(places):
        tensor, region = place.tensor, place.part.region
        if isinstance(tensor, Tensor) and place.is_whole:
            whole_ones[tensor.index] = None
        elif isinstance(tensor, Tensor):
            parts[number] = _wanted(tensor, region, aligned(_shape(region), tensor.stored_dtype))
    arrays = fetcher.tensors(whole_ones, verify, {})
    fetcher.fill(parts.values(), verify)
    for number, place in enumerate(places):
        if isinstance(place.tensor, Tensor):
            yield place.tensor.seen(parts[number].out if number in parts else arrays[place.tensor.index])
        else:
            yield place.tensor.verified(verify).read(region=place.part.region)


def _is_direct(tensor: ArrayLike, array: Array) -> TypeGuard[Tensor]:
    """Whether stored elements can be read straight into an array."""
    return isinstance(tensor, Tensor) and array.dtype == tensor.dtype and tensor.is_direct(array)


def _wanted(tensor: Tensor, region: Region, out: Array) -> Wanted:
    return Wanted(tensor.index, tuple(Axis(side.start, side.stop - side.start, 1) for side in region), out)


def _shape(region: Region) -> tuple[int, ...]:
    return tuple(side.stop - side.start for side in region)
