"""Files of `paddle.save` (.pdparams, .pdopt, .pdtensor): a pickle of dicts of NumPy arrays, which is not unpickled.

A tensor is an array, or a tuple of its name and an array. The names of a state dict stand in an item of their own.
Before protocol 4, large tensors are cut into slices, which another item lists. bfloat16 is written as uint16, which
Paddle's tensors lack.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any, NoReturn

import numpy as np

from ...errors import fault
from ...format.dtypes import DTYPES, Array
from ...format.names import Path, path_text
from ...format.tree import Tree
from ..archive import Window
from ..claims import shape_of, shown
from ..pickles import Record
from ..probe import Probe
from ..source import LazyArray, LeadingSlices, OpenedSource, Ours, cut_off, mapped_file
from ..torch_pickle import LEFT, TensorPickle

SUFFIXES = (".pdparams", ".pdopt", ".pdtensor")
PROTOCOLS = (2, 3, 4)
TABLE, SLICES = "StructuredToParameterName@@", "UnpackBigParamInfor@@"  # keys of items that are no tensors
NAMES = "paddle.names"  # metadata: path text -> the name by which an optimizer knows a tensor
TAIL = 1 << 20  # bytes at the end of a file in which its table begins, if it is not very large


def looks_like(probe: Probe) -> bool:
    if probe.head[:1] != b"\x80" or probe.head[1:2] not in map(bytes, zip(PROTOCOLS)):
        return False
    return probe.path.endswith(SUFFIXES) or TABLE.encode() in bytes(mapped_file(probe.path)[-TAIL:])


def read(path: str) -> OpenedSource:
    data, reader = mapped_file(path), _PaddlePickle()
    try:
        value = reader.load(Window(data), data)
    except EOFError as error:
        raise cut_off(data.size, data.size + 1, or_more=True) from error
    tree = reader.whole(value)
    if tree is LEFT:
        raise fault("unsupported-source", f"the file is one object: {reader.losses[-1].message}")
    metadata = {NAMES: reader.names} if reader.names else None
    return OpenedSource(tree, metadata, tuple(reader.losses), ours=Ours(None, reader.tags, {}))


class _PaddlePickle(TensorPickle):
    """Reads a pickle of Paddle. `names` are those of its tensors, by path text."""

    def __init__(self) -> None:
        super().__init__(_no_storage)
        self.names: dict[str, Tree] = {}
        self._bfloat16: dict[int, Array] = {}  # by the identity of their record

    def _table(self) -> Mapping[str, Callable[..., Any]]:
        return {**super()._table(), "builtins.tuple": tuple}

    def whole(self, value: Any) -> Tree:
        """The tree of all that the pickle holds, without the items that say how to read the others."""
        if not isinstance(value, dict):
            return self.tree(value)
        items = dict(value)
        table, slices = items.pop(TABLE, {}), items.pop(SLICES, {})
        if not isinstance(table, dict) or not isinstance(slices, dict):
            raise ValueError(f"{TABLE} or {SLICES} is no dict")
        tree = self.tree(items)
        for name, about in slices.items():
            parts = [tree.pop(part) for part in about["slices"]]
            if name in tree:
                raise ValueError(f"the tensor {shown(name)} stands there whole and in slices")
            tree[name] = _joined(parts, shape_of(about["OriginShape"]))
        for key, name in table.items():
            if key in tree and type(name) is str and name != key:
                self.names[path_text((key,))] = name
        return tree

    def _sequence(self, value: list[Any] | tuple[Any, ...], path: Path) -> Tree:
        match value:
            case (str(name), Record() as found) if isinstance(self._of_numpy(found), np.ndarray):
                self.names[path_text(path)] = name
                return self._numpy_value(found, path)
        return super()._sequence(value, path)

    def _numpy_value(self, value: Record, path: Path) -> Any:
        found = super()._numpy_value(value, path)
        if isinstance(found, np.ndarray) and found.dtype == np.uint16:
            return self._bfloat16.setdefault(id(value), found.view(DTYPES["bfloat16"].numpy))
        return found

    def _tag(self, path: Path, name: str, param: Any = None) -> None:
        if name != "numpy.ndarray":  # which stands for a tensor
            super()._tag(path, name, param)


def _no_storage(key: str) -> NoReturn:
    raise ValueError(f"the pickle refers to the storage {shown(key)}, which is not in it")


def _joined(parts: list[Any], shape: tuple[int, ...]) -> LazyArray:
    """A tensor that is cut into slices of its elements."""
    if not parts or any(not isinstance(part, np.ndarray) or part.ndim != 1 for part in parts):
        raise ValueError("a tensor is cut into what are no slices")
    if len({part.dtype for part in parts}) > 1 or sum(part.size for part in parts) != prod(shape):
        raise ValueError(f"slices are not those of a tensor of shape {shown(shape)}")
    starts = np.cumsum([0, *(part.size for part in parts)])

    def read(index: LeadingSlices) -> Array:
        return _elements(parts, starts, shape, index)

    return LazyArray(shape, parts[0].dtype, read, rows=1)


def _elements(parts: list[Array], starts: Array, shape: tuple[int, ...], index: LeadingSlices) -> Array:
    """A part of a tensor, of which the first axes have slices, from those slices of its elements that it lies in."""
    if not index:
        return np.concatenate(parts).reshape(shape)
    first, last, _ = index[0].indices(shape[0])
    row = prod(shape[1:])
    begin, end = first * row, max(first, last) * row
    found = [part[max(0, begin - at) : max(0, end - at)] for part, at in zip(parts, starts, strict=False)]
    rows: Array = np.concatenate(found).reshape(-1, *shape[1:])
    return rows[(slice(None), *index[1:])]
