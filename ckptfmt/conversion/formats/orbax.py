"""Directories of Orbax (Zarr 2 or 3, in OCDBT or in plain directories), read through TensorStore; jax is not needed.

`_METADATA` names every leaf of a tree by its keys and says its kind. Arrays have the keys joined with `.` as their
name, strings the same as a JSON pointer into one file. Sequences become lists, as Orbax does not say which were tuples.
A checkpoint is one tree, or a directory for each of its items: trees and JSON files. Written by Orbax itself, with jax.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from typing import Any, NamedTuple

import numpy as np

from ...errors import CkptError, fault
from ...format.dtypes import dtype_of
from ...format.names import Path, path_label
from ...format.tree import Tree
from ...frameworks.target import rebuild
from ...packages import package
from .. import orbax_trees
from ..claims import json_document, shown
from ..entries import check_folder, folder_size, read_json
from ..fit import CORE, Holds
from ..probe import Probe
from ..source import (
    Advance,
    LazyArray,
    Loss,
    OpenedSource,
    Ours,
    is_tensor,
    nbytes,
    parsing,
    unflatten,
    walk,
)
from ..zarr_claims import check_array

METADATA_FILE = "_METADATA"
ABOUT = "_CHECKPOINT_METADATA"
TEMPORARY = ".orbax-checkpoint-tmp"  # a part of the names of directories that are being written
COMMITTED = "commit_success.txt"
STRINGS = "_strings.json"
ARRAYS = "array_metadatas"  # a file for each process, about the arrays that it wrote
JSON_FILES = ("metadata", "metrics")  # of items that Orbax's JSON handlers write
METRICS = "metrics"  # an item
ITEMS = ("default", "state", "pytree", "params")  # that tell a checkpoint which says nothing of itself
SEQUENCE = 1  # a key_type
KINDS = ("jax.Array", "np.ndarray", "scalar", "string")
PYTHON = (np.bool_, np.int64, np.float64, np.complex128)  # of Python's numbers; uint64 for ints beyond int64
EMPTY: dict[str, Any] = {"None": None, "Dict": {}, "List": [], "Tuple": (), "NamedTuple": None}


HOLDS = Holds(
    dtypes=CORE | orbax_trees.DTYPES,
    containers=(dict, list, tuple),
    values=(type(None), bool, int, float, str, np.generic),
    fits=orbax_trees.fits,
    metadata=orbax_trees.kept,
    arrays=True,
    tags={"jax.key": orbax_trees.random_key},
    shaped=orbax_trees.shaped,
)


def looks_like(probe: Probe) -> bool:
    if not probe.is_directory:
        return False
    if {ABOUT, METADATA_FILE} & probe.entries:
        return True
    return any(os.path.isfile(os.path.join(probe.path, item, METADATA_FILE)) for item in ITEMS)


class _Items(NamedTuple):
    """What a checkpoint consists of, by name: directories of trees, and the values of JSON files. `others` are the
    directories of other handlers."""

    trees: dict[str, str]
    values: dict[str, Any]
    others: list[str]


def _items(path: str) -> _Items:
    found = _Items({}, {}, [])
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        if not entry.is_dir():
            continue
        if os.path.exists(os.path.join(entry.path, ABOUT)):  # a checkpoint of its own
            found.others.append(entry.name)
            continue
        files = [name for name in JSON_FILES if os.path.isfile(os.path.join(entry.path, name))]
        if os.path.isfile(os.path.join(entry.path, METADATA_FILE)):
            found.trees[entry.name] = entry.path
        elif len(files) == 1:
            found.values[entry.name] = os.path.join(entry.path, files[0])
        else:
            found.others.append(entry.name)
    return found


def read(path: str) -> OpenedSource:
    tensorstore = package("tensorstore", "Orbax")
    check_folder(path)
    about = _document(os.path.join(path, ABOUT)) if os.path.exists(os.path.join(path, ABOUT)) else {}
    _check_finished(path, about)
    if os.path.isfile(os.path.join(path, METADATA_FILE)):
        reader = _OrbaxReader(tensorstore, path)
        return OpenedSource(reader.tree(), _metadata(about, {"": reader.about}, {}), ours=reader.ours(()))
    items = _items(path)
    if not items.trees:
        raise ValueError(f"there is no {METADATA_FILE}, which says what the tree is, here or in a directory in it")
    readers = {name: _OrbaxReader(tensorstore, folder) for name, folder in items.trees.items()}
    trees = {name: reader.tree() for name, reader in readers.items()}
    values = {name: _document(file) for name, file in items.values.items()}
    named = about.get("item_handlers")
    absent = set(named) - {*trees, *values, *items.others} if isinstance(named, dict) else ()
    losses = [Loss("metadata", name, "the item is left out") for name in items.others]
    losses += [Loss("missing", name, "the checkpoint names this item, which is not there") for name in sorted(absent)]
    single = len(trees) == 1
    tags: dict[Path, Any] = {}
    for name, reader in readers.items():
        tags |= reader.ours(() if single else (name,)).tags
    metadata = _metadata(about, {"" if single else name: reader.about for name, reader in readers.items()}, values)
    return OpenedSource(
        next(iter(trees.values())) if single else trees, metadata, tuple(losses), ours=Ours(None, tags, {})
    )


def write(path: str, tree: Tree, metadata: Tree, advance: Advance) -> None:
    """Write with `orbax.checkpoint`, which makes a folder of its own: what is in it goes up to `path`. Every tensor of
    `tree` must be an array; one after another is written, from where it is."""
    inside = os.path.join(path, ".saved")
    value = rebuild(tree, lambda _, leaf: leaf)  # with random keys for what is tagged so
    orbax_trees.save(inside, value, (metadata or {}).get(orbax_trees.TREE_METADATA))
    for name in os.listdir(inside):
        os.rename(os.path.join(inside, name), os.path.join(path, name))
    os.rmdir(inside)
    advance(sum(nbytes(leaf) for _, leaf in walk(tree) if is_tensor(leaf)))


def _check_finished(path: str, about: dict[str, Any]) -> None:
    """Refuse a directory that a save has not finished, or an item in one; raises `temporary`."""
    *_, parent, name = ("", *os.path.abspath(path).split(os.sep))
    unnamed = about.get("init_timestamp_nsecs") is not None and about.get("commit_timestamp_nsecs", 0) is None
    unfinished = unnamed and not os.path.exists(os.path.join(path, COMMITTED))
    if TEMPORARY in name or TEMPORARY in parent or unfinished:
        raise fault("temporary", "Orbax has not finished this checkpoint")


def _metadata(about: dict[str, Any], trees: dict[str, Any], values: dict[str, Any]) -> dict[str, Any] | None:
    """What the checkpoint says about itself, its trees (by item, "" where there is one) and in its JSON items, beside
    its times."""
    found = {name: about.get(name) for name in ("metrics", "custom_metadata")}
    found["metrics"] = values.pop(METRICS, None) or found["metrics"]
    said = {name: value for name, value in trees.items() if value}
    found["tree_metadata"] = said.get("", said)
    found["items"] = values
    return {f"orbax.{name}": value for name, value in found.items() if value} or None


def _document(path: str) -> Any:
    """The value of a JSON file, in which no key may stand twice."""
    return read_json(path, _distinct)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {shown(twice)} stands twice")
    return found


class _OrbaxLeaf(NamedTuple):
    """An entry of `_METADATA`: its path in the tree, the name under which Orbax stores it, and what it is."""

    place: Path
    name: str
    kind: str
    skipped: bool


class _OrbaxReader:
    """Reads the tree of one directory. `about` is what the one who saved it said of it."""

    def __init__(self, tensorstore: Any, root: str) -> None:
        self.tensorstore, self.root = tensorstore, os.path.abspath(root)
        self.size = folder_size(root)
        document = _document(os.path.join(root, METADATA_FILE))
        self.about = document.get("custom_metadata")
        self.driver = "zarr3" if document.get("use_zarr3") else "zarr"
        ocdbt = document.get("use_ocdbt")
        self.ocdbt = os.path.exists(os.path.join(root, "manifest.ocdbt")) if ocdbt is None else bool(ocdbt)
        # Orbax stores what equals the fill value, too, since it says so: then what is not there is lost, as it is where
        # there is no fill value
        self.fills = not document.get("store_array_data_equal_to_fill_value")
        self.context = tensorstore.Context({"file_io_concurrency": {"limit": 8}})
        self.leaves = _leaves(document["tree_metadata"])
        self.keys = self._keys()
        self.strings: Any = None

    def _keys(self) -> dict[str, str]:
        """The generators of typed random keys, by the names of the arrays that hold their data."""
        folder = os.path.join(self.root, ARRAYS)
        found: dict[str, str] = {}
        for file in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            for row in _document(os.path.join(folder, file)).get("array_metadatas", ()):
                said = row["array_metadata"]
                generator = (said.get("ext_metadata") or {}).get("random_key_impl")
                if generator is not None:
                    found[said["param_name"]] = str(generator)
        return found

    def tree(self) -> Any:
        return unflatten({leaf.place: self._value(leaf) for leaf in self.leaves})

    def ours(self, above: Path) -> Ours:
        """The tags of random keys, by their paths below `above`."""
        keyed = [leaf for leaf in self.leaves if leaf.kind == "jax.Array" and leaf.name in self.keys]
        return Ours(None, {(*above, *leaf.place): [("jax.key", self.keys[leaf.name])] for leaf in keyed}, {})

    def _value(self, leaf: _OrbaxLeaf) -> Any:
        label = path_label(leaf.place)
        if leaf.kind in EMPTY:
            return EMPTY[leaf.kind]
        if leaf.kind not in KINDS or leaf.skipped:
            raise fault("unsupported-source", f"{label!r} is of the kind {leaf.kind}", tensor=label)
        if leaf.kind == "string":
            return self._string(leaf.name, label)
        tensor = self._tensor(leaf.name, label)
        return _scalar(tensor) if leaf.kind == "scalar" else tensor

    def _string(self, name: str, label: str) -> str:
        """What the name points to, as a JSON pointer (RFC 6901)."""
        if self.strings is None:
            self.strings = _document(os.path.join(self.root, STRINGS))
        found = self.strings
        for part in name.split("/"):
            part = part.replace("~1", "/").replace("~0", "~")
            found = found.get(part) if isinstance(found, dict) else None
        if not isinstance(found, str):
            raise fault("bad-source", f"{STRINGS} has no string for {label!r}", tensor=label)
        return found

    @contextmanager
    def _reading(self, label: str) -> Iterator[None]:
        """Errors of TensorStore, which ends them with all of its options, as faults of a tensor."""
        try:
            with parsing(self.root):
                yield
        except CkptError as error:
            error.tensor, error.message = label, error.message.partition(" [tensorstore_spec=")[0]
            raise

    def _tensor(self, name: str, label: str) -> LazyArray:
        if not self.ocdbt and (os.path.isabs(name) or ".." in name.split("/")):
            raise fault("unsafe-source", f"{name!r} lies outside the directory")
        store: Any = {"driver": "file", "path": f"{self.root}/" if self.ocdbt else f"{self.root}/{name}/"}
        if self.ocdbt:
            store = {"driver": "ocdbt", "base": store, "path": orbax_trees.folder(name)}
        spec = {"driver": self.driver, "kvstore": store, "fill_missing_data_reads": False}
        with self._reading(label):
            unit = self._claimed(store, label)
            array = self.tensorstore.open(spec, read=True, open=True, context=self.context).result()
            if self.fills and array.fill_value is not None:
                spec["fill_missing_data_reads"] = True
                array = self.tensorstore.open(spec, read=True, open=True, context=self.context).result()
        dtype = array.dtype.numpy_dtype
        if dtype_of(dtype) is None:
            raise fault("unsupported-source", f"{label!r} has the dtype {array.dtype.name}", tensor=label)
        if name in self.keys and dtype != np.uint32:
            raise fault("bad-source", f"{label!r} are random keys of {dtype}, which are uint32", tensor=label)
        chunk = array.chunk_layout.read_chunk.shape

        def part(index: tuple[slice, ...]) -> Any:
            with self._reading(label):
                return np.asarray(array[index].read().result())

        return LazyArray(tuple(array.shape), dtype, part, (chunk[0] or 1) if chunk else 1, unit=unit)

    def _claimed(self, store: dict[str, Any], label: str) -> int:
        """Hold what an array says of itself against the bytes that there are, before TensorStore believes it; gives the
        bytes of a chunk."""
        found = self.tensorstore.KvStore.open(store, context=self.context).result()
        file = "zarr.json" if self.driver == "zarr3" else ".zarray"
        raw = found.read(file).result()
        if raw.state != "value":
            raise ValueError(f"there is no {file} of {label!r}")
        document = json_document(raw.value)
        if document.get("zarr_format") != (3 if self.driver == "zarr3" else 2):
            raise ValueError(f"{file} of {label!r} is of another format")
        return check_array(document, self.size, label)


def _leaves(entries: dict[str, Any]) -> list[_OrbaxLeaf]:
    """The leaves that `_METADATA` lists; raises `bad-source` where two are stored under one name."""
    leaves: dict[Path, _OrbaxLeaf] = {}
    for entry in entries.values():
        keys = [str(key["key"]) for key in entry["key_metadata"]]
        kinds = [key["key_type"] for key in entry["key_metadata"]]
        place = tuple(int(key) if kind == SEQUENCE else key for key, kind in zip(keys, kinds, strict=True))
        value = entry["value_metadata"]
        skipped = bool(value.get("skip_deserialize"))
        if place in leaves:
            raise ValueError(f"{path_label(place)!r} stands twice in {METADATA_FILE}")
        leaves[place] = _OrbaxLeaf(place, ".".join(keys), value["value_type"], skipped)
    stored: dict[tuple[bool, str], _OrbaxLeaf] = {}
    for leaf in leaves.values():
        first = leaf if leaf.kind in EMPTY else stored.setdefault((leaf.kind == "string", leaf.name), leaf)
        if first is not leaf:
            both = f"{path_label(first.place)!r} and {path_label(leaf.place)!r}"
            message = f"Orbax stored {both} under the one name {leaf.name!r}: one has replaced the other"
            raise fault("bad-source", message, tensor=path_label(leaf.place))
    above = {leaf.place[:end] for leaf in leaves.values() for end in range(len(leaf.place))}
    # a container that was empty when it was saved first stays listed once a later save has filled it
    return [leaf for leaf in leaves.values() if not (leaf.kind in EMPTY and leaf.place in above)]


def _scalar(tensor: LazyArray) -> Any:
    """A number as Orbax gives it back: Python's own, but NumPy's where Python has none of its width."""
    if prod(tensor.shape) != 1:
        raise ValueError(f"a scalar has the shape {tensor.shape}")
    number = np.asarray(tensor[()]).reshape(())[()]
    is_python = number.dtype in PYTHON or (number.dtype == np.uint64 and number >= 1 << 63)
    return number.item() if is_python else number
