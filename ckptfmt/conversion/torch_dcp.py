"""Directories of torch's distributed checkpoint (`torch.distributed.checkpoint.save`), of any number of processes.

`.metadata` is a pickle of dataclasses that says which slice of which file holds what. Each slice is a file of
`torch.save`. The parts of a sharded tensor become one tensor.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np

from ..errors import fault
from ..format.dtypes import DTYPES, Array
from . import pickles, torch_file
from .archive import Window
from .pickles import Record, record
from .probe import Probe
from .source import Index, LazyArray, Loss, Source, Tensor, array_over, mapped_file, unflatten
from .torch_pickle import OTHER_DTYPES, TORCH_DTYPES

FILE = ".metadata"
CELLS = 1 << 24  # most cells into which the parts of a tensor may cut it
_PACKAGE = "torch.distributed.checkpoint"
_CLASSES = {"Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata", "TensorProperties"}
_CLASSES |= {"MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING"}


def looks_like(probe: Probe) -> bool:
    return FILE in probe.entries


def read(path: str) -> Source:
    document = pickles.load(Window(mapped_file(os.path.join(path, FILE))), _TABLE).state
    reader = _Reader(path)
    for index, info in document["storage_data"].items():
        place = tuple(index.state.get("offset") or ())
        reader.slices.setdefault(index.state["fqn"], {})[place] = info.state
    leaves = {name: reader.leaf(name, entry) for name, entry in document["state_dict_metadata"].items()}
    paths = document.get("planner_data")
    if not isinstance(paths, dict):  # a planner that does not flatten
        return Source(leaves, losses=tuple(reader.losses))
    return Source(unflatten({tuple(paths[name]): leaf for name, leaf in leaves.items()}), losses=tuple(reader.losses))


_TABLE: dict[str, Callable[..., Any]] = {
    **{f"{_PACKAGE}.metadata.{name}": record(name) for name in _CLASSES},
    f"{_PACKAGE}.filesystem._StorageInfo": record("_StorageInfo"),
    "torch.Size": lambda sizes=(): tuple(sizes),
    "torch.serialization._get_layout": record("layout"),
    **{f"torch.{name}": record(name) for name in (*TORCH_DTYPES, *OTHER_DTYPES)},
    **{f"pathlib.{name}": lambda *parts: os.path.join(*parts) for name in ("PosixPath", "PurePosixPath")},
    **{f"pathlib._local.{name}": lambda *parts: os.path.join(*parts) for name in ("PosixPath", "PurePosixPath")},
}


class _Reader:
    """Leaves of the checkpoint in a directory. `slices`: by name, and by offset in the tensor, where a part lies."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.slices: dict[str, dict[tuple[int, ...], dict[str, Any]]] = {}
        self.files: dict[str, Array] = {}
        self.losses: list[Loss] = []

    def leaf(self, name: str, entry: Record) -> Any:
        slices = self.slices.get(name, {})
        if entry.name == "BytesStorageMetadata":
            return self.value(slices[()])
        shape = tuple(entry.state["size"])
        dtype = entry.state["properties"].state[0].name.removeprefix("torch.")
        if dtype not in TORCH_DTYPES:
            raise fault("unsupported-source", f"tensors of torch's dtype {dtype}", tensor=name)
        parts: list[Part] = []
        for chunk in entry.state["chunks"]:
            offsets, sizes = tuple(chunk.state["offsets"]), tuple(chunk.state["sizes"])
            part = self.value(slices[offsets])
            if not isinstance(part, np.ndarray) or part.shape != sizes or part.dtype != DTYPES[dtype].numpy:
                raise ValueError(f"the part of {name!r} at {offsets} is not what the metadata says")
            parts.append((offsets, part))
        return _joined(name, shape, DTYPES[dtype].numpy, parts)

    def value(self, place: dict[str, Any]) -> Any:
        """What lies in a slice of a file."""
        name, offset, length = place["relative_path"], place["offset"], place["length"]
        if place.get("transform_descriptors"):
            raise fault("unsupported-source", f"slices transformed by {place['transform_descriptors']}")
        if os.path.isabs(name) or ".." in name.split("/"):
            raise fault("unsafe-source", f"the metadata names {name!r}, which is not in the directory")
        if name not in self.files:
            self.files[name] = mapped_file(os.path.join(self.path, name))
        source = torch_file.read_archive(array_over(self.files[name], offset, np.dtype(np.uint8), (length,)))
        self.losses += source.losses
        return source.tree


Part = tuple[tuple[int, ...], Array]  # of a sharded tensor: where it begins, and its values


def _joined(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], parts: list[Part]) -> Tensor:
    """One tensor of parts, which must cover it without overlapping."""
    ends = [a + n for at, part in parts for a, n in zip(at, part.shape, strict=True)]
    fits = all(end <= n for end, n in zip(ends, shape * len(parts), strict=True))
    if not fits or sum(part.size for _, part in parts) != prod(shape) or _overlap(parts):
        raise ValueError(f"the parts of {name!r} do not make up its shape {shape}")
    if len(parts) == 1:
        return parts[0][1]

    def read(index: Index) -> Array:
        bounds = [axis.indices(n)[:2] for axis, n in zip(index, shape, strict=False)]
        bounds += [(0, n) for n in shape[len(index) :]]
        out = np.empty([high - low for low, high in bounds], dtype)
        for at, part in parts:
            stops = [a + n for a, n in zip(at, part.shape, strict=True)]
            spans = [(max(low, a), min(high, b)) for (low, high), a, b in zip(bounds, at, stops, strict=True)]
            if all(first < last for first, last in spans):
                lows = [low for low, _ in bounds]
                out[_shifted(spans, lows)] = part[_shifted(spans, at)]
        return out

    return LazyArray(shape, dtype, read)


def _overlap(parts: list[Part]) -> bool:
    """Whether parts have elements in common: each axis is cut where a part begins or ends, and the cells counted."""
    corners = [at for at, _ in parts] + [
        tuple(a + n for a, n in zip(at, part.shape, strict=True)) for at, part in parts
    ]
    places = [{border: i for i, border in enumerate(sorted(set(axis)))} for axis in zip(*corners, strict=True)]
    if prod(len(axis) for axis in places) > CELLS:
        raise fault("limit-exceeded", "a tensor in too many parts")
    taken = np.zeros([len(axis) for axis in places], bool)
    for at, part in parts:
        cells = tuple(slice(axis[a], axis[a + n]) for axis, a, n in zip(places, at, part.shape, strict=True))
        if taken[cells].any():
            return True
        taken[cells] = True
    return False


def _shifted(spans: list[tuple[int, int]], origin: Sequence[int]) -> tuple[slice, ...]:
    """Spans of a tensor as an index into a part of it that begins at `origin`."""
    return tuple(slice(first - zero, last - zero) for (first, last), zero in zip(spans, origin, strict=True))
