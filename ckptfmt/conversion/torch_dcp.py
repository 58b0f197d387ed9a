"""Directories of torch's distributed checkpoint (`torch.distributed.checkpoint.save`), of any number of processes.

`.metadata` is a pickle of dataclasses that says which slice of which file holds what. Each slice is a file of
`torch.save`. The parts of a sharded tensor become one tensor.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np

from ..dtypes import DTYPES, Array
from ..errors import fault
from . import pickles, torch_file
from .archive import Window
from .pickles import Record, record
from .probe import Probe
from .source import Index, LazyArray, Loss, Source, Tensor, array_over, mapped_file, unflatten
from .torch_pickle import OTHER_DTYPES, TORCH_DTYPES

FILE = ".metadata"
_PACKAGE = "torch.distributed.checkpoint"
_CLASSES = ("Metadata", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata", "TensorProperties")
_CLASSES += ("MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING")


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
        parts: list[tuple[tuple[int, ...], Array]] = []
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


def _joined(name: str, shape: tuple[int, ...], dtype: np.dtype[Any], parts: list[tuple[tuple[int, ...], Array]]) -> Tensor:
    """One tensor of parts, which must cover it without overlapping."""
    covered = sum(part.size for _, part in parts)
    if covered != prod(shape) or any(a + n > m for at, part in parts for a, n, m in zip(at, part.shape, shape, strict=True)):
        raise ValueError(f"the parts of {name!r} do not make up its shape {shape}")
    if len(parts) == 1:
        return parts[0][1]

    def read(index: Index) -> Array:
        bounds = [axis.indices(n)[:2] for axis, n in zip(index, shape, strict=False)]
        bounds += [(0, n) for n in shape[len(index) :]]
        out = np.empty([high - low for low, high in bounds], dtype)
        for at, part in parts:
            spans = [(max(low, a), min(high, a + n)) for (low, high), a, n in zip(bounds, at, part.shape, strict=True)]
            if all(first < last for first, last in spans):
                target = tuple(slice(first - low, last - low) for (first, last), (low, _) in zip(spans, bounds, strict=True))
                out[target] = part[tuple(slice(first - a, last - a) for (first, last), a in zip(spans, at, strict=True))]
        return out

    return LazyArray(shape, dtype, read)
