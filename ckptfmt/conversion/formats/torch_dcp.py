"""Directories of torch's distributed checkpoint (`torch.distributed.checkpoint.save`), of any number of processes.

`.metadata` is a pickle of dataclasses that says which slice of which file holds what. Each slice is a file of
`torch.save`. The parts of a sharded tensor become one tensor.

torch writes int keys of dicts as text, and leaves out empty dicts. Both come back where the checkpoint itself says so:
in the states of optimizers, whose groups have the ints, and in the milestones of schedulers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ...errors import fault
from ...format.dtypes import DTYPES, Array, DType
from ...format.names import Key, Path, is_int_text, path_label
from ...format.tree import MAX_DEPTH, Tree
from .. import pickles
from ..archive import Window
from ..claims import count, shape_of, shown
from ..parts import TensorPart, joined
from ..pickles import Record, record
from ..probe import Probe
from ..source import Loss, OpenedSource, Ours, array_over, cut_off, is_tensor, mapped_file, unflatten
from ..torch_archive import ATTRIBUTES, read_archive
from ..torch_pickle import LEFT, OTHER_DTYPES, PACKED, TORCH_DTYPES
from ..torch_values import joined_path

FILE = ".metadata"
READINGS = 2  # times that a slice is read: what optimizers say of their parameters is looked at before
Start = tuple[int, ...]  # where a part of a tensor begins; () for other values
_PACKAGE = "torch.distributed.checkpoint"
_CLASSES = {"Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata", "TensorProperties"}
_CLASSES |= {"MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING"}


def looks_like(probe: Probe) -> bool:
    return FILE in probe.entries


def read(path: str) -> OpenedSource:
    data = mapped_file(os.path.join(path, FILE), path)
    try:
        document = pickles.load(Window(data), _TABLE).state
    except EOFError as error:
        raise cut_off(data.size, data.size + 1, or_more=True, file=FILE) from error
    entries = document["state_dict_metadata"]
    reader = _DcpReader(path, _slices(document["storage_data"], entries))
    told = document.get("planner_data")
    if not isinstance(told, dict):  # a planner that does not flatten
        found = {name: reader.leaf(name, entry, (name,)) for name, entry in entries.items()}
        tree: Tree = {name: leaf for name, leaf in found.items() if leaf is not LEFT}
    else:
        paths, ints = _paths(told, entries, reader)
        leaves = {
            paths[name]: reader.leaf(name, entry, _with_ints(paths[name], ints)) for name, entry in entries.items()
        }
        leaves = _without_left(leaves)
        leaves |= {at: {} for at in _empty_states(paths.values())}
        tree = _rekeyed(unflatten(leaves), ints)
    metadata = {ATTRIBUTES: reader.attributes} if reader.attributes else None
    return OpenedSource(tree, metadata, tuple(reader.losses), ours=Ours(None, reader.tags, {}))


def _slices(storage_data: dict[Any, Record], entries: dict[str, Record]) -> dict[str, dict[Start, dict[str, Any]]]:
    """By name, and by offset in the tensor, where a part lies; raises ValueError unless these are what the entries
    say."""
    slices: dict[str, dict[Start, dict[str, Any]]] = {name: {} for name in entries}
    for index, info in storage_data.items():
        name, place = index.state["fqn"], tuple(index.state.get("offset") or ())
        if name not in slices or place in slices[name]:
            raise ValueError(f"the files have a part of {name!r} at {place} that the metadata does not know, or twice")
        slices[name][place] = info.state
    for name, entry in entries.items():
        chunks = [()] if entry.name == "BytesStorageMetadata" else entry.state["chunks"]
        if len(slices[name]) != len(chunks):
            raise ValueError(f"there are {len(slices[name])} parts of {name!r}, where {len(chunks)} are said to be")
    return slices


# ---- paths


def _paths(told: dict[str, Any], entries: dict[str, Record], reader: _DcpReader) -> tuple[dict[str, Path], set[Path]]:
    """The path of each name, and where dicts have keys that are known to have been ints."""
    if told.keys() != entries.keys():
        odd = min(told.keys() ^ entries.keys())
        raise ValueError(f"the planner and the metadata differ about {odd!r}")
    paths = {name: tuple(path) for name, path in told.items()}
    if max(map(len, paths.values()), default=0) > MAX_DEPTH:
        raise fault("too-deep", f"containers nested deeper than {MAX_DEPTH}")
    if len(set(paths.values())) != len(paths):
        raise ValueError("two names have one path")
    ints = _int_keys(paths, entries, reader)
    for above, keys in _keys(paths.values()).items():
        if above not in ints and any(map(is_int_text, keys)):
            message = "torch writes int keys as text: nothing says whether some here were ints"
            reader.losses.append(Loss("nesting", path_label(above), message))
        if any(type(key) is int for key in keys) and keys != set(range(len(keys))):
            message = "of this list torch has left out what was empty"
            reader.losses.append(Loss("nesting", path_label(above), message))
    return paths, ints


def _int_keys(paths: dict[str, Path], entries: dict[str, Record], reader: _DcpReader) -> set[Path]:
    """The dicts whose keys were ints: the `state` of an optimizer, whose groups say so, and the `milestones` of a
    scheduler."""
    keys, found = _keys(paths.values()), set[Path]()
    ids: dict[Path, set[str]] = {}
    for name, path in paths.items():
        is_group = path[-1:] == ("params",) and path[-3:-2] == ("param_groups",)
        if is_group and entries[name].name == "BytesStorageMetadata":
            params = reader.leaf(name, entries[name], path, is_kept=False)
            if type(params) is list and all(type(param) is int for param in params):
                ids.setdefault(path[:-3], set()).update(map(str, params))
        is_schedule = path[-2:-1] == ("milestones",) and "last_epoch" in keys[path[:-2]]
        if is_schedule and all(map(is_int_text, keys[path[:-1]])):
            found.add(path[:-1])
    return found | {(*at, "state") for at, known in ids.items() if keys.get((*at, "state"), set()) <= known}


def _empty_states(paths: Iterable[Path]) -> list[Path]:
    """Where optimizers have groups and no state."""
    keys = _keys(paths)
    return [(*at, "state") for at, found in keys.items() if found == {"param_groups"} and _has_groups(keys, at)]


def _has_groups(keys: dict[Path, set[Key]], at: Path) -> bool:
    return "params" in keys.get((*at, "param_groups", 0), ())


def _keys(paths: Iterable[Path]) -> dict[Path, set[Key]]:
    """The keys right below each place."""
    found: dict[Path, set[Key]] = {}
    for path in paths:
        for depth, key in enumerate(path):
            found.setdefault(path[:depth], set()).add(key)
    return found


def _with_ints(path: Path, ints: set[Path]) -> Path:
    return tuple(int(key) if path[:depth] in ints else key for depth, key in enumerate(path))


def _rekeyed(tree: Tree, ints: set[Path], at: Path = ()) -> Tree:
    """The tree with ints for the keys of some dicts."""
    if isinstance(tree, dict):
        items = ((key, _rekeyed(item, ints, (*at, key))) for key, item in tree.items())
        return {int(key) if at in ints else key: item for key, item in items}
    if isinstance(tree, list):
        return [_rekeyed(item, ints, (*at, i)) for i, item in enumerate(tree)]
    return tree


def _without_left(leaves: dict[Path, Any]) -> dict[Path, Any]:
    """The leaves but for those of which nothing can be kept; in a list None keeps their place."""
    kept = ((path, None if leaf is LEFT and type(path[-1]) is int else leaf) for path, leaf in leaves.items())
    return {path: leaf for path, leaf in kept if leaf is not LEFT}


# ---- values


_TABLE: dict[str, Callable[..., Any]] = {
    **{f"{_PACKAGE}.metadata.{name}": record(name) for name in _CLASSES},
    f"{_PACKAGE}.filesystem._StorageInfo": record("_StorageInfo"),
    "torch.Size": lambda sizes=(): tuple(sizes),
    "torch.serialization._get_layout": record("layout"),
    **{f"torch.{name}": record(name) for name in (*TORCH_DTYPES, *PACKED, *OTHER_DTYPES)},
    **{f"pathlib.{name}": joined_path for name in ("PosixPath", "PurePosixPath")},
    **{f"pathlib._local.{name}": joined_path for name in ("PosixPath", "PurePosixPath")},
}


class _DcpReader:
    """Leaves of the checkpoint in a directory, with the `losses`, `tags` and `attributes` of `TensorPickle`."""

    def __init__(self, path: str, slices: dict[str, dict[Start, dict[str, Any]]]) -> None:
        self.path, self.slices = path, slices
        self.files: dict[str, Array] = {}
        self.taken = 0  # bytes of slices that were read
        self.losses: list[Loss] = []
        self.tags: dict[Path, Sequence[tuple[str, Any]]] = {}
        self.attributes: dict[str, Tree] = {}

    def leaf(self, name: str, entry: Record, at: Path, *, is_kept: bool = True) -> Any:
        """The value of a name, which stands at a path; unless it `is_kept`, it is only looked at."""
        slices = self.slices[name]
        if entry.name == "BytesStorageMetadata":
            source = self.source(slices[()], at)
            if is_kept:
                self.losses += source.losses
                self.tags |= source.ours.tags if source.ours is not None else {}
                self.attributes |= (source.metadata or {}).get(ATTRIBUTES, {})
            return source.tree
        shape = shape_of(entry.state["size"])
        name_of_dtype = entry.state["properties"].state[0].name.removeprefix("torch.")
        if name_of_dtype not in TORCH_DTYPES and name_of_dtype not in PACKED:
            raise fault("unsupported-source", f"tensors of torch's dtype {name_of_dtype}", tensor=name)
        row = DTYPES[PACKED.get(name_of_dtype, name_of_dtype)]
        parts: list[TensorPart] = []
        for chunk in entry.state["chunks"]:
            offsets, sizes = shape_of(chunk.state["offsets"]), shape_of(chunk.state["sizes"])
            part = self.source(slices[offsets], at).tree
            if not is_tensor(part) or part.shape != _in_elements(sizes, row) or part.dtype != row.numpy:
                raise ValueError(f"the part of {name!r} at {offsets} is not what the metadata says")
            parts.append((_in_elements(offsets, row), part))
        return joined(name, _in_elements(shape, row), row.numpy, parts)

    def source(self, place: dict[str, Any], at: Path) -> OpenedSource:
        """What lies in a slice of a file, and stands at a path."""
        name, offset, length = place["relative_path"], place["offset"], place["length"]
        if place.get("transform_descriptors"):
            raise fault("unsupported-source", f"slices transformed by {shown(place['transform_descriptors'])}")
        if os.path.isabs(name) or ".." in name.split("/"):
            raise fault("unsafe-source", f"the metadata names {name!r}, which is not in the directory")
        if name not in self.files:
            self.files[name] = mapped_file(os.path.join(self.path, name), self.path)
        held, end = self.files[name].size, count(offset) + count(length)
        if end > held:
            raise cut_off(held, end, or_more=True, file=name)
        self.taken += length
        if self.taken > READINGS * sum(file.size for file in self.files.values()):
            raise ValueError("slices of the files overlap")
        slice = array_over(self.files[name], offset, np.dtype(np.uint8), (length,))
        return read_archive(slice, at)


def _in_elements(sides: Start, row: DType) -> Start:
    """Lengths or offsets of a tensor, of which torch counts bytes on the last axis where it packs elements."""
    return sides if row.per == 1 else (*sides[:-1], sides[-1] * row.per)
