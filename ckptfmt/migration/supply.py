"""What a load takes of a checkpoint that is seen at another version: what is merely moved is read, mapped or filled as
a load of the source does it, all at once; what is computed, one tensor after another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import fault
from ..format.dtypes import Array, DType, dtype_of
from ..format.names import Path, path_label
from ..format.tree import OMITTED, Tree
from ..frameworks.adapter import Tagged
from ..frameworks.target import untagged
from ..reading.supply import Keep, Reads, Restores, binds
from ..reading.tensor import ArrayLike, Tensor
from .containers import build_tree, leaves_of
from .plan import PlainLeaf
from .tags import plain_value, tagged
from .view import MigratedTensor, MigratedView


class ViewSupply:
    """Values and tensors of a view, for one load. Its numbers are those of the tensors in order, aliases once."""

    def __init__(self, view: MigratedView, reads: Reads) -> None:
        self._view, self._reads = view, reads

    @cached_property
    def leaves(self) -> Mapping[Path, Any]:
        reads = self._reads
        within = {id(tensor): tensor.within(reads.tally, reads.fetcher) for tensor in self._view.tensors.values()}
        return {path: within.get(id(leaf), leaf) for path, leaf in self._view.leaves.items()}

    @cached_property
    def _tensors(self) -> dict[int, MigratedTensor]:
        """Each tensor, by its id."""
        return {id(leaf): leaf for leaf in self.leaves.values() if isinstance(leaf, MigratedTensor)}

    @cached_property
    def _by_number(self) -> list[MigratedTensor]:
        return list(self._tensors.values())

    @cached_property
    def _numbers(self) -> dict[int, int]:
        """The number of each tensor, by its id."""
        return {key: number for number, key in enumerate(self._tensors)}

    @property
    def times(self) -> Iterable[Path]:
        return (path for path, leaf in self.leaves.items() if isinstance(leaf, MigratedTensor) and _is_time(leaf))

    def tree(self, keep: Keep, made: Callable[[Iterable[int]], Mapping[int, Any]], restores: Restores) -> Tree:
        layout = self._view.plan.layout
        kept = layout if keep is None else {path: entry for path, entry in layout.items() if keep(path)}
        if keep is not None and not kept:
            return OMITTED
        numbers = {path: self._numbers[id(leaf)] for path in kept if id(leaf := self.leaves.get(path)) in self._numbers}
        tensors = made(list(dict.fromkeys(numbers.values())))
        values: dict[Path, Any] = {}
        for path, entry in kept.items():
            if path in numbers:
                values[path] = _timed(tensors[numbers[path]], self._by_number[numbers[path]].dtype)
            else:
                values[path] = _plain(entry, restores)
        tree = build_tree([*values.items(), *_gaps(values, self._view.tree)], self._view.tree)
        return tagged(tree, self._view.tag_nodes, restores)  # [MIG-021]

    def plain_at(self, at: Path, keep: frozenset[Path] | None, restores: Restores) -> Tree:
        place: Any = self._view.plan.tree
        for key in at:
            place = _inside(place)[key]
        leaves = leaves_of(place, at)
        if keep is not None:
            above = {path[:n] for path in keep for n in range(len(path) + 1)}
            leaves = ((path, entry) for path, entry in leaves if path in above)
        return build_tree([(path[len(at) :], _plain(entry, restores)) for path, entry in leaves], place)

    def params(self, at: Iterable[Path]) -> dict[Path, dict[str, Any]]:
        tags = self._view.tag_nodes
        return {path: {name: plain_value(param) for name, param in tags.get(path, ())} for path in at}

    def bound(self) -> Mapping[tuple[Path, str], Any]:
        tags = ((path, name, param) for path, over in self._view.tag_nodes.items() for name, param in over)
        return {(path, name): param for path, name, param in tags if binds(name)}

    def dtype(self, number: int) -> DType:
        tensor = self._by_number[number]
        row = dtype_of(np.dtype(np.int64) if _is_time(tensor) else tensor.dtype)
        if row is None:
            raise fault("unsupported-dtype", f"{tensor!r} has no dtype of the format", path=self._view.path)
        return row

    def nbytes(self, number: int) -> int:
        return self._by_number[number].nbytes

    def label(self, number: int) -> str:
        return path_label(self._by_number[number].path)

    def sources(self, numbers: Iterable[int]) -> Iterable[int]:
        sources = (self._view.moved(self._by_number[number]) for number in numbers)
        return {source.index for source in sources if source is not None}

    def arrays(self, numbers: Iterable[int], stored: Callable[[Iterable[int]], dict[int, Array]]) -> dict[int, Array]:
        numbers = list(numbers)
        sources = {number: self._view.moved(self._by_number[number]) for number in numbers}
        moved = {number: source.index for number, source in sources.items() if source is not None}
        found = stored(dict.fromkeys(moved.values()))
        taken: set[int] = set()
        arrays: dict[int, Array] = {}
        for number in numbers:
            tensor = self._by_number[number]
            if number not in moved:
                array = tensor.verified(self._reads.verify).read()
            else:
                array = found[moved[number]].view(tensor.dtype)
                array = array.copy() if moved[number] in taken else array  # a copy has memory of its own
                taken.add(moved[number])
            arrays[number] = array.view(np.int64) if _is_time(tensor) else array
        return arrays

    def origin(self, tensor: Any) -> Tensor | None:
        source = self._view.moved(tensor)
        return None if source is None or source.dtype != tensor.dtype else source

    def direct(self, tensor: ArrayLike) -> ArrayLike:
        source = self.origin(tensor)
        return tensor if source is None else source.verified(self._reads.verify)


def _is_time(tensor: ArrayLike) -> bool:
    return tensor.dtype.kind in "mM"


def _timed(value: Any, dtype: np.dtype[Any]) -> Any:
    """An array of int64 as the times that it stands for."""
    return value.view(dtype) if dtype.kind in "mM" and isinstance(value, np.ndarray) else value


def _plain(entry: Any, restores: Restores) -> Any:
    """The value of a leaf that is no tensor: with its tag, if that is one of the program or the framework."""
    return untagged(entry.value if isinstance(entry, PlainLeaf) else entry, restores)


def _inside(entry: Any) -> Any:
    """The container that an entry of a plan is."""
    value = entry.value if isinstance(entry, PlainLeaf) else entry
    while isinstance(value, Tagged):
        value = value.child
    return value


def _gaps(values: Mapping[Path, Any], tree: Tree) -> list[tuple[Path, Any]]:
    """`OMITTED` for the items of lists and tuples that were left out beside others."""
    inside = {path[:n] for path in values for n in range(len(path))}
    found = []
    for path in inside:
        value = tree
        for key in path:
            value = value[key]
        if type(value) in (list, tuple):
            items = ((*path, i) for i in range(len(value)))
            found += [(item, OMITTED) for item in items if item not in inside and item not in values]
    return found
