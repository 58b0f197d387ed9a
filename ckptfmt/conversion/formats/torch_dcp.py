"""Directories of torch's distributed checkpoint (`torch.distributed.checkpoint.save`), of any number of processes.

`.metadata` is a pickle of dataclasses that says which slice of which file holds what. Each slice is a file of
`torch.save`. The parts of a sharded tensor become one tensor.

Megatron's are of that form, too (`torch_dist`), with flat names, and `common.pt` beside.

torch writes int keys of dicts as text, and leaves out empty dicts. Both come back where the checkpoint itself says so:
in the states of optimizers, whose groups have the ints, and in the milestones of schedulers. Written by torch itself.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ...errors import fault
from ...format.dtypes import DTYPES, Array, DType
from ...format.names import Path, is_int_text, path_label
from ...format.tree import MAX_DEPTH, Tree
from ...format.values import ATOMS
from ...packages import package
from .. import pickles
from ..archive import Window
from ..claims import count, shape_of, shown
from ..dcp_paths import empty_states, int_keys, keys_of, rekeyed, shaped, with_ints
from ..fit import Holds
from ..parts import TensorPart, joined
from ..pickles import Record, record
from ..probe import Probe
from ..source import (
    Advance,
    Loss,
    OpenedSource,
    Ours,
    array_over,
    cut_off,
    is_tensor,
    mapped_file,
    nbytes,
    unflatten,
    walk,
)
from ..torch_archive import ATTRIBUTES, read_archive
from ..torch_pickle import LEFT, OTHER_DTYPES, PACKED, TORCH_DTYPES
from ..torch_values import joined_path
from . import torch_file

FILE = ".metadata"
READINGS = 2  # times that a slice is read: what optimizers say of their parameters is looked at before
Start = tuple[int, ...]  # where a part of a tensor begins; () for other values
_PACKAGE = "torch.distributed.checkpoint"
_CLASSES = {"Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata", "TensorProperties"}
_CLASSES |= {"MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING"}
_PLANS = {"SavePlan", "WriteItem", "TensorWriteData", "WriteItemType"}  # which Megatron keeps, and nobody needs to read
COMMON, ABOUT = "common.pt", "metadata.json"  # what Megatron has beside: plain values, and how it has saved
# tags of what torch stores as one value, but for times, of which the protocol of its pickles forgets a part
LEAVES = {*ATOMS, "torch.Size", "torch.dtype", "torch.device"} - {"datetime.datetime", "datetime.time"}

HOLDS = Holds(
    dtypes=torch_file.HOLDS.dtypes,
    pairs=torch_file.HOLDS.pairs,
    containers=torch_file.CONTAINING,
    int_keys=True,
    values=torch_file.HOLDS.values,
    arrays=True,
    tags={name: made for name, made in torch_file.HOLDS.tags.items() if name in LEAVES},
    shaped=shaped,
)


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
            paths[name]: reader.leaf(name, entry, with_ints(paths[name], ints)) for name, entry in entries.items()
        }
        leaves = _without_left(leaves)
        leaves |= {at: {} for at in empty_states(paths.values())}
        tree = rekeyed(unflatten(leaves), ints)
    if all(os.path.isfile(os.path.join(path, name)) for name in (COMMON, ABOUT)):
        tree = {**tree, **reader.common(tree)}
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


def write(path: str, tree: Tree, metadata: Tree, advance: Advance) -> None:
    """Write with `torch.distributed.checkpoint`, as one process. Every tensor of `tree` must be an array, which is
    written from where it is; what lies in a tuple is pickled in memory."""
    dcp = package("torch.distributed.checkpoint", "a directory of torch.distributed.checkpoint")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        value = torch_file.values(tree)
        try:
            dcp.save(value, storage_writer=dcp.FileSystemWriter(path, sync_files=False), no_dist=True)
        except dcp.CheckpointException as error:
            raise next(iter(error.failures.values()))[0] from error
    advance(sum(nbytes(leaf) for _, leaf in walk(tree) if is_tensor(leaf)))


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

    def params(name: str) -> Any:
        is_plain = entries[name].name == "BytesStorageMetadata"
        return reader.leaf(name, entries[name], paths[name], is_kept=False) if is_plain else None

    ints = int_keys(paths, params)
    for above, keys in keys_of(paths.values()).items():
        if above not in ints and any(map(is_int_text, keys)):
            message = "torch writes int keys as text: nothing says whether some here were ints"
            reader.losses.append(Loss("nesting", path_label(above), message))
        if any(type(key) is int for key in keys) and keys != set(range(len(keys))):
            message = "of this list torch has left out what was empty"
            reader.losses.append(Loss("nesting", path_label(above), message))
    return paths, ints


def _without_left(leaves: dict[Path, Any]) -> dict[Path, Any]:
    """The leaves but for those of which nothing can be kept; in a list None keeps their place."""
    kept = ((path, None if leaf is LEFT and type(path[-1]) is int else leaf) for path, leaf in leaves.items())
    return {path: leaf for path, leaf in kept if leaf is not LEFT}


# ---- values


_TABLE: dict[str, Callable[..., Any]] = {
    **{f"{_PACKAGE}.metadata.{name}": record(name) for name in _CLASSES},
    **{f"{_PACKAGE}.planner.{name}": record(name) for name in _PLANS},
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
            return self.kept(source) if is_kept else source.tree
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

    def kept(self, source: OpenedSource) -> Any:
        """The tree of a file of torch, of which all comes along."""
        self.losses += source.losses
        self.tags |= source.ours.tags if source.ours is not None else {}
        self.attributes |= (source.metadata or {}).get(ATTRIBUTES, {})
        return source.tree

    def common(self, tree: Tree) -> dict[str, Any]:
        """What Megatron has in a file of its own: all that is the same in each process."""
        name = COMMON.removesuffix(".pt")
        if name in tree:
            raise ValueError(f"{name!r} is also the name of a tensor")
        data = mapped_file(os.path.join(self.path, COMMON), self.path)
        return {name: self.kept(read_archive(data, (name,)))}

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
