"""HDF5 through h5py: groups are dicts, datasets tensors, hard links to one dataset aliases. Keras's `.weights.h5` too.

Links to other files and datasets whose bytes lie in other files are refused. Attributes become metadata.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np

from ..errors import fault
from ..format.names import Path, path_label, path_text
from ..format.tree import MAX_DEPTH, Tree
from .fit import CORE, Holds
from .packages import package
from .probe import Probe
from .source import (
    Advance,
    LazyArray,
    Loss,
    Source,
    Tensor,
    array_over,
    is_tensor,
    mapped_file,
    nbytes,
    parsing,
    slabs,
    truths,
)

ATTRIBUTES = "hdf5.attributes"  # metadata: attributes by path text

HOLDS = Holds(dtypes=CORE, containers=(dict,), forbidden="/\0", aliases=True)


def looks_like(probe: Probe) -> bool:
    return probe.head.startswith(b"\x89HDF\r\n\x1a\n")


def read(path: str) -> Source:
    h5py = package("h5py", "hdf5")
    with ExitStack() as stack:
        # chunks are decoded once, in rows of them: a cache with each dataset would hold a part of each until the end
        file = stack.enter_context(h5py.File(path, "r", rdcc_nbytes=0))
        walker = _Walker(h5py, path)
        tree = walker.group(file, ())
        metadata = {ATTRIBUTES: walker.attributes} if walker.attributes else None
        return Source(tree, metadata, tuple(walker.losses), resources=stack.pop_all())


class _Walker:
    def __init__(self, h5py: Any, path: str) -> None:
        self.h5py, self.path = h5py, path
        self.data = mapped_file(path)
        self.tensors: dict[Any, Any] = {}
        self.attributes: dict[str, Tree] = {}
        self.losses: list[Loss] = []

    def group(self, group: Any, path: Path) -> Tree:
        if len(path) > MAX_DEPTH:  # also where a group holds itself
            raise fault("too-deep", f"groups nested deeper than {MAX_DEPTH}")
        self.note_attributes(group, path)
        tree: dict[str, Any] = {}
        for name in group:
            if group.get(name, getlink=True, getclass=True) is self.h5py.ExternalLink:
                raise fault("unsafe-source", f"{path_label((*path, name))!r} is a link into another file")
            item = group[name]
            if isinstance(item, self.h5py.Group):
                tree[name] = self.group(item, (*path, name))
            elif isinstance(item, self.h5py.Dataset):
                key = self.h5py.h5o.get_info(item.id).addr
                if key not in self.tensors:
                    self.tensors[key] = self.dataset(item, (*path, name))
                tree[name] = self.tensors[key]
            else:
                self.losses.append(Loss("value", path_label((*path, name)), "a named datatype is left out"))
        return tree

    def dataset(self, dataset: Any, path: Path) -> Any:
        where = path_label(path)
        self.note_attributes(dataset, path)
        if dataset.external or dataset.is_virtual:
            raise fault("unsafe-source", f"the bytes of {where!r} lie in other files", tensor=where)
        if dataset.shape is None:
            return None
        if self.h5py.check_string_dtype(dataset.dtype) is not None:
            return _text(dataset[()])
        if dataset.dtype.kind not in "biufc":
            raise fault("unsupported-source", f"{where!r} has the dtype {dataset.dtype}", tensor=where)
        offset = dataset.id.get_offset()
        if offset is not None:  # contiguous and raw
            return array_over(self.data, offset, dataset.dtype, dataset.shape)

        def part(index: tuple[slice, ...]) -> Any:
            with parsing(self.path):
                return np.asarray(dataset[index] if dataset.shape else dataset[()])

        return LazyArray(dataset.shape, dataset.dtype, part, dataset.chunks[0] if dataset.chunks else 1)

    def note_attributes(self, item: Any, path: Path) -> None:
        for name in item.attrs:
            try:
                value = _plain(item.attrs[name])
            except (TypeError, OSError, ValueError):
                self.losses.append(Loss("metadata", path_label(path), f"the attribute {name!r} is left out"))
            else:
                self.attributes.setdefault(path_text(path), {})[name] = value


def _plain(value: Any) -> Tree:
    """An attribute's value as plain values; raises TypeError."""
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | int | float | complex | str | bytes):
        return value
    raise TypeError


def _text(value: Any) -> Tree:
    if isinstance(value, np.ndarray):
        return [_text(item) for item in value]
    return bytes(value).decode("utf-8") if isinstance(value, bytes) else str(value)


def write(path: str, tree: Tree, metadata: Tree, advance: Advance) -> None:
    """Write contiguous datasets in groups; what stands twice is linked."""
    h5py = package("h5py", "hdf5")
    written: dict[int, Any] = {}

    def fill(group: Any, items: dict[str, Any]) -> None:
        for name, item in items.items():
            if not is_tensor(item):
                fill(group.create_group(name), item)
            elif id(item) in written:
                group[name] = written[id(item)]
            else:
                written[id(item)] = _dataset(group, name, item, advance)

    with h5py.File(path, "w", track_order=True) as file:
        fill(file, tree)


def _dataset(group: Any, name: str, tensor: Tensor, advance: Advance) -> Any:
    dataset = group.create_dataset(name, tensor.shape, tensor.dtype.newbyteorder("<"))
    if nbytes(tensor):
        for index in slabs(tensor):
            dataset[index if tensor.shape else ()] = truths(tensor[index])
    advance(nbytes(tensor))
    return dataset
