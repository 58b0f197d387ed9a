"""Directories of Orbax (Zarr 2 or 3, in OCDBT or in plain directories), read through TensorStore; jax is not needed.

`_METADATA` names every leaf by its keys and says its kind. Arrays have the keys joined with `.` as their name.
Sequences become lists, as Orbax does not say which were tuples.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import fault
from ..format.names import Path, path_label
from .packages import package
from .probe import Probe
from .source import LazyArray, Loss, Source, parsing, unflatten

METADATA_FILE = "_METADATA"
ABOUT = "_CHECKPOINT_METADATA"
STRINGS = "_strings.json"
ITEMS = ("default", "state", "pytree", "params")  # directories in which the tree is looked for, in this order
SEQUENCE = 1  # a key_type
EMPTY: dict[str, Any] = {"None": None, "Dict": {}, "List": [], "Tuple": (), "NamedTuple": None}


def looks_like(probe: Probe) -> bool:
    return probe.is_directory and (ABOUT in probe.entries or _root(probe.path) is not None)


def _root(path: str) -> str | None:
    """The directory that holds the tree."""
    for folder in (path, *(os.path.join(path, item) for item in ITEMS)):
        if os.path.isfile(os.path.join(folder, METADATA_FILE)):
            return folder
    return None


def read(path: str) -> Source:
    tensorstore = package("tensorstore", "orbax")
    root = _root(path)
    if root is None:
        raise ValueError(f"there is no {METADATA_FILE}, which says what the tree is, here or in {', '.join(ITEMS)}")
    with open(os.path.join(root, METADATA_FILE), encoding="utf-8") as file:
        document = json.load(file)
    leaves: dict[Path, Any] = {}
    reader = _Reader(tensorstore, os.path.abspath(root), document)
    for entry in document["tree_metadata"].values():
        keys = [str(key["key"]) for key in entry["key_metadata"]]
        kinds = [key["key_type"] for key in entry["key_metadata"]]
        place = tuple(int(key) if kind == SEQUENCE else key for key, kind in zip(keys, kinds, strict=True))
        leaves[place] = reader.leaf(keys, entry["value_metadata"])
    return Source(unflatten(leaves), _metadata(path), tuple(_left_out(path, root)))


def _metadata(path: str) -> dict[str, Any] | None:
    """What the checkpoint says about itself, beside its times."""
    try:
        with open(os.path.join(path, ABOUT), encoding="utf-8") as file:
            document = json.load(file)
    except FileNotFoundError:
        return None
    found = {name: document.get(name) for name in ("metrics", "custom_metadata")}
    return {f"orbax.{name}": value for name, value in found.items() if value} or None


def _left_out(path: str, root: str) -> Iterator[Loss]:
    """Items beside the tree, which Orbax's other handlers wrote."""
    if root != path:
        for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
            if entry.is_dir() and entry.path != root:
                yield Loss("metadata", entry.name, "the item is left out")


class _Reader:
    def __init__(self, tensorstore: Any, root: str, document: dict[str, Any]) -> None:
        self.tensorstore, self.root = tensorstore, root
        self.driver = "zarr3" if document.get("use_zarr3") else "zarr"
        self.ocdbt = bool(document.get("use_ocdbt", os.path.exists(os.path.join(root, "manifest.ocdbt"))))
        self.context = tensorstore.Context({"file_io_concurrency": {"limit": 8}})

    def leaf(self, keys: list[str], value: dict[str, Any]) -> Any:
        kind = value["value_type"]
        name = ".".join(keys)
        if kind in EMPTY:
            return EMPTY[kind]
        if kind == "string":
            with open(os.path.join(self.root, STRINGS), encoding="utf-8") as file:
                return str(json.load(file)[name])
        if kind not in ("jax.Array", "np.ndarray", "scalar") or value.get("skip_deserialize"):
            raise fault("unsupported-source", f"{path_label(tuple(keys))!r} is of the kind {kind}")
        tensor = self.tensor(name)
        return tensor[()].reshape(())[()] if kind == "scalar" else tensor

    def tensor(self, name: str) -> LazyArray:
        if not self.ocdbt and (os.path.isabs(name) or ".." in name.split("/")):
            raise fault("unsafe-source", f"{name!r} lies outside the directory")
        store: Any = {"driver": "file", "path": f"{self.root}/" if self.ocdbt else f"{self.root}/{name}/"}
        if self.ocdbt:
            store = {"driver": "ocdbt", "base": store, "path": f"{name}/"}
        spec = {"driver": self.driver, "kvstore": store}
        array = self.tensorstore.open(spec, read=True, open=True, context=self.context).result()
        dtype = array.dtype.numpy_dtype
        chunk = array.chunk_layout.read_chunk.shape

        def part(index: tuple[slice, ...]) -> Any:
            with parsing(self.root):
                return np.asarray(array[index].read().result())

        return LazyArray(tuple(array.shape), dtype, part, (chunk[0] or 1) if chunk else 1)
