"""Loading a migrated tree: as a load of a checkpoint, from tensors that a plan makes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import fault
from ..format.dtypes import Array, DType, dtype_of
from ..format.names import Path, path_label
from ..format.tags import TAGS
from ..format.tree import OMITTED, Tree
from ..frameworks.adapter import Tagged
from ..frameworks.target import untagged
from ..reading.filling import Place
from ..reading.loading import Loader
from ..reading.tensor import ArrayLike, Tensor
from .containers import build_tree, leaves_of
from .plan import Plain
from .tags import plain_value, tagged
from .view import MigratedTensor, MigratedView


class ViewLoader(Loader):
    """One load of a view; the options are those of `ckptfmt.load`. What is merely moved is read, mapped or filled as a
    load of the source does it, all at once; what is computed, one tensor after another."""

    def __init__(self, view: MigratedView, **options: Any) -> None:
        super().__init__(view.stored, **options)
        self.view = view
        self.wanted: list[MigratedTensor] = []  # by the numbers that this load gives them

    @cached_property
    def _leaves(self) -> Mapping[Path, Any]:
        counted = {id(tensor): tensor.within(self.tally, self.fetcher) for tensor in self.view.tensors.values()}
        return {path: counted.get(id(leaf), leaf) for path, leaf in self.view.leaves.items()}

    def _bound(self) -> Mapping[tuple[Path, str], Any]:
        tags = ((path, name, param) for path, over in self.view.tag_nodes.items() for name, param in over)
        return {(path, name): param for path, name, param in tags if name in TAGS and TAGS[name].binds}

    def _tags(self, objects: Iterable[Path]) -> dict[Path, dict[str, Any]]:
        return {at: {name: plain_value(param) for name, param in self.view.tag_nodes.get(at, ())} for at in objects}

    # ---- a new tree

    def _tree(self) -> Tree:
        layout = self.view.plan.layout
        kept = layout if self.keep is None else {path: entry for path, entry in layout.items() if self.keep(path)}
        if self.keep is not None and not kept:
            raise self._no_match()
        self.wanted = []
        numbers: dict[int, int] = {}
        times: dict[int, np.dtype[Any]] = {}
        for path in kept:
            tensor = self._tensor(path)
            if tensor is not None and id(tensor) not in numbers:
                numbers[id(tensor)] = len(self.wanted)
                is_viewed = self.adapter is not None and tensor.dtype.kind in "mM"  # a time, which has no dtype there
                self._note_times([path] if is_viewed else [])
                times |= {len(self.wanted): tensor.dtype} if is_viewed and not self._lacks_times else {}
                self.wanted.append(tensor.view(np.dtype(np.int64)) if is_viewed else tensor)
        tensors = self._tensors(range(len(self.wanted)))
        tensors |= {number: tensors[number].view(dtype) for number, dtype in times.items()}
        values: dict[Path, Any] = {}
        for path, entry in kept.items():
            tensor = self._tensor(path)
            values[path] = self._plain(entry) if tensor is None else tensors[numbers[id(tensor)]]
        tree = build_tree([*values.items(), *_gaps(values, self.view.tree)], self.view.tree)
        return tagged(tree, self.view.tag_nodes, self._restores())  # [MIG-021]

    def _tensor(self, path: Path) -> MigratedTensor | None:
        leaf = self._leaves.get(path)
        return leaf if isinstance(leaf, MigratedTensor) else None

    def _plain(self, entry: Any) -> Any:
        """The value of a leaf that is no tensor: with its tag, if that is one of the program or the framework."""
        return untagged(entry.value if isinstance(entry, Plain) else entry, self._restores())

    def _plain_at(self, at: Path, paths: frozenset[Path]) -> Tree:
        place: Any = self.view.plan.tree
        for key in at:
            place = _inside(place)[key]
        above = {path[:n] for path in paths for n in range(len(path) + 1)}
        kept = ((path[len(at) :], self._plain(entry)) for path, entry in leaves_of(place, at) if path in above)
        return build_tree(kept, place)

    def _dtype(self, index: int) -> DType:
        tensor = self.wanted[index]
        row = dtype_of(tensor.dtype)
        if row is None:
            raise fault("unsupported-dtype", f"{tensor!r} has no dtype of the format", path=self.checkpoint.path)
        return row

    def _nbytes(self, index: int) -> int:
        return self.wanted[index].nbytes

    def _text(self, index: int) -> str:
        return path_label(self.wanted[index].path)

    def _admit(self, wanted: Iterable[int]) -> None:
        sources = [self._source(self.wanted[number]) for number in wanted]
        super()._admit({source.index for source in sources if source is not None})

    def _arrays(self, wanted: Iterable[int]) -> dict[int, Array]:
        sources = {number: self._source(self.wanted[number]) for number in wanted}
        moved = {number: source.index for number, source in sources.items() if source is not None}
        stored = super()._arrays(dict.fromkeys(moved.values()))
        taken: set[int] = set()
        arrays: dict[int, Array] = {}
        for number in sources:
            tensor = self.wanted[number]
            if number not in moved:
                arrays[number] = tensor.verified(self.verify).read()
                continue
            array = stored[moved[number]].view(tensor.dtype)
            arrays[number] = array.copy() if moved[number] in taken else array  # a copy has memory of its own
            taken.add(moved[number])
        return arrays

    # ---- into a target

    def _fill(self, places: Iterable[Place]) -> None:
        def origin(tensor: Any) -> ArrayLike:
            source = self._origin(tensor)
            return tensor if source is None else source.verified(self.verify)

        super()._fill(place._replace(tensor=origin(place.tensor)) for place in places)

    def _origin(self, tensor: Any) -> Tensor | None:
        source = self._source(tensor)
        return None if source is None or source.dtype != tensor.dtype else source

    def _source(self, tensor: MigratedTensor) -> Tensor | None:
        return self.view.moved(tensor)


def _inside(entry: Any) -> Any:
    """The container that an entry of a plan is."""
    value = entry.value if isinstance(entry, Plain) else entry
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
