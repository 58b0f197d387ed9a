"""Tensors that ZeRO of DeepSpeed has cut into partitions, put together from where they lie.

ZeRO 1 and 2 lay the parameters of a group one behind another, with padding, and give each process a run of that; ZeRO 3
cuts each parameter into equal parts, of which each process has one, and lays its parts one behind another.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import prod
from typing import Any

from ..format.grid import Shape
from .claims import count, shape_of, shown
from .parts import TensorPart, joined, reshaped, run_of
from .source import SourceTensor, is_tensor

Shapes = Mapping[str, Shape]  # of the parameters of a group, in their order


class FlatPieces:
    """Arrays of one axis, which stand one behind another."""

    def __init__(self, arrays: Sequence[Any]) -> None:
        if not all(is_tensor(array) and array.ndim == 1 for array in arrays):
            raise ValueError("a partition is no tensor of one axis")
        if len({array.dtype for array in arrays}) > 1:
            raise ValueError("partitions have different dtypes")
        self.arrays: list[SourceTensor] = list(arrays)
        self.starts: list[int] = [0, *accumulate(prod(array.shape) for array in arrays)]

    @property
    def size(self) -> int:
        return self.starts[-1]

    def parts(self, first: int, length: int, at: int = 0) -> list[TensorPart]:
        """What lies from `first` on, as parts of a tensor that begin at `at`."""
        found: list[TensorPart] = []
        number = max(0, bisect_right(self.starts, first) - 1)
        while number < len(self.arrays) and self.starts[number] < first + length:
            low = max(first, self.starts[number])
            high = min(first + length, self.starts[number + 1])
            if low < high:
                start = self.starts[number]
                found.append(((at + low - first,), run_of(self.arrays[number], low - start, high - start)))
            number += 1
        return found


def shapes_of(told: Any) -> list[Shapes]:
    """Shapes of parameters by group; raises ValueError."""
    if type(told) is not list or not all(isinstance(group, dict) for group in told):
        raise ValueError(f"the shapes of parameters are {shown(told)}")
    groups: list[Shapes] = [{str(name): shape_of(sides) for name, sides in group.items()} for group in told]
    names = [name for group in groups for name in group]
    if len(set(names)) != len(names):
        raise ValueError("a parameter stands in two groups")
    return groups


def in_runs(shapes: Shapes, ranks: Sequence[Any], paddings: Sequence[Any] | None) -> dict[str, SourceTensor]:
    """The tensors of a group of ZeRO 1 or 2, of which each rank has a run. `paddings`: elements behind each tensor.
    Raises ValueError where the runs are not as long as the shapes say."""
    flat = FlatPieces(ranks)
    if paddings is None:
        paddings = [0] * len(shapes)
    if len(paddings) != len(shapes):
        raise ValueError(f"there are {len(paddings)} paddings of {len(shapes)} parameters")
    found, offset = {}, 0
    for (name, shape), padding in zip(shapes.items(), paddings, strict=True):
        found[name] = _tensor(name, shape, flat.parts(offset, prod(shape)), flat)
        offset += prod(shape) + count(padding, "a padding")
    unit = 2 * len(ranks)  # to which DeepSpeed pads the whole, of which it stores some or nothing
    if -(-offset // unit) != -(-flat.size // unit):
        raise ValueError(f"the partitions have {flat.size:,} elements, where their parameters have {offset:,}")
    return found


def in_shares(shapes: Shapes, ranks: Sequence[Sequence[Any]]) -> dict[str, SourceTensor]:
    """The tensors of ZeRO 3, of which each rank has an equal share, in arrays one behind another. Raises ValueError
    where they are not as long as the shapes say."""
    flats = [FlatPieces(arrays) for arrays in ranks]
    found, offset = {}, 0
    for name, shape in shapes.items():
        length = prod(shape)
        share = -(-length // len(ranks))
        parts: list[TensorPart] = []
        for rank, flat in enumerate(flats):
            begin = min(rank * share, length)
            parts += flat.parts(offset, min(share, length - begin), begin)
        found[name] = _tensor(name, shape, parts, flats[0])
        offset += share
    for flat in flats:
        if flat.size != offset:
            raise ValueError(f"a partition has {flat.size:,} elements, where its parameters have {offset:,}")
    return found


def _tensor(name: str, shape: Shape, parts: list[TensorPart], flat: FlatPieces) -> SourceTensor:
    if not flat.arrays:
        raise ValueError(f"there are no partitions of {name!r}")
    return reshaped(joined(name, (prod(shape),), flat.arrays[0].dtype, parts), shape)


def same_on_all(name: str, values: Sequence[Any]) -> Any:
    """A value that every rank has; raises ValueError where they differ, as those of several saves do."""
    first = values[0]
    bits = [value[()].tobytes() if is_tensor(value) else repr(value) for value in values]
    if any(found != bits[0] for found in bits):
        raise ValueError(f"the partitions are of different saves: {name} is {shown(first)} in one, and not in all")
    return first
