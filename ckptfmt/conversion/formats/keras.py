"""Keras 3: models in an archive (`.keras`), and weights in several files with an index (`.weights.json`). Read only.

    archive := metadata.json, config.json, model.weights.h5, files below assets/
    index   := {"metadata": {"total_size": bytes}, "weight_map": {"/layers/dense/vars": [name of a file, ...]}}

Trees are what lies in the HDF5 files, whose names say what Keras knows when it loads them: `layers/dense/vars/0` is the
first variable of the first Dense, in the order of its class. The names of layers are attributes of `vars`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from ...errors import fault
from ...format.names import path_label, path_text
from ...format.tree import Tree
from ..archive import Archive
from ..claims import json_document, shown
from ..entries import check_inside, read_json
from ..hdf5_attributes import ATTRIBUTES
from ..probe import Probe
from ..shards import INDEX_METADATA, distinct
from ..source import Loss, OpenedSource, is_tensor, mapped_file, nbytes, walk
from . import hdf5
from .hdf5 import KERAS_INDEX

WEIGHTS = "model.weights.h5"
CONFIG, METADATA = "keras.config", "keras.metadata"  # metadata: what these documents say
_DOCUMENTS = {"config.json": CONFIG, "metadata.json": METADATA}


def looks_like(probe: Probe) -> bool:
    if probe.path.endswith(KERAS_INDEX) and not probe.is_directory:
        return True
    if not probe.head.startswith(b"PK\3\4"):
        return False
    members = Archive(mapped_file(probe.path)).members.keys()
    return WEIGHTS in members or _DOCUMENTS.keys() <= members


def read(path: str) -> OpenedSource:
    return _read_index(path) if path.endswith(KERAS_INDEX) else _read_archive(path)


def _read_archive(path: str) -> OpenedSource:
    archive = Archive(mapped_file(path))
    if WEIGHTS not in archive.members:
        raise fault("unsupported-source", f"an archive of Keras without {WEIGHTS}", path=path)
    said = {
        key: json_document(archive.whole(name), distinct) for name, key in _DOCUMENTS.items() if name in archive.members
    }
    source = hdf5.read_file(path, archive.mapped(WEIGHTS))
    source.metadata = {**(source.metadata or {}), **said} or None
    others = [name for name in archive.members if name not in (WEIGHTS, *_DOCUMENTS) and not name.endswith("/")]
    lost = (Loss("value", path_label((name,)), "a file in the archive is left out") for name in others)
    source.losses = (*source.losses, *lost)
    return source


def _read_index(path: str) -> OpenedSource:
    """All files that an index names. Each must hold variables in exactly the groups that the index says."""
    document = read_json(path, distinct)
    about, groups = dict(document.get("metadata") or {}), _groups(document["weight_map"])
    total = about.pop("total_size", None)
    tree: dict[str, Any] = {}
    attributes: dict[str, dict[str, Tree]] = {}
    losses, size = list[Loss](), 0
    with ExitStack() as stack:
        for name, expected in groups.items():
            shard = os.path.join(os.path.dirname(path), name)
            if not os.path.lexists(shard):
                raise fault("bad-source", f"the index names {name}, which is missing", path=path)
            check_inside(shard, os.path.dirname(path) or ".")
            source = stack.enter_context(hdf5.read_file(shard))
            held = {f"/{path_text(place[:-1])}" for place, leaf in walk(source.tree) if is_tensor(leaf)}
            if held != expected:
                raise ValueError(f"{name} and the index differ about the variables of {shown(min(held ^ expected))}")
            _merge(tree, source.tree, name)
            losses += (*source.losses, *_merge_attributes(attributes, source.metadata, name))
            size += os.path.getsize(shard)
        losses += _size_told(total, tree)
        metadata: dict[str, Tree] = {ATTRIBUTES: attributes} if attributes else {}
        if about:
            metadata[INDEX_METADATA] = json.dumps(about, ensure_ascii=False)
        return OpenedSource(tree, metadata or None, tuple(losses), resources=stack.pop_all(), size=size)


def _groups(weight_map: dict[str, Any]) -> dict[str, set[str]]:
    """The groups with variables by the file that an index names for them; raises `unsafe-source`."""
    groups: dict[str, set[str]] = {}
    for group, names in weight_map.items():
        for name in names if isinstance(names, list) else [names]:
            if type(name) is not str or name != os.path.basename(name) or name in ("", ".", ".."):
                raise fault("unsafe-source", f"the index names {shown(name)}, which is not beside it")
            groups.setdefault(name, set()).add(group)
    return groups


def _merge(tree: dict[str, Any], more: dict[str, Any], file: str) -> None:
    """Add what is in a file to what was in those before it."""
    for key, item in more.items():
        if isinstance(item, dict) and isinstance(tree.get(key, {}), dict):
            _merge(tree.setdefault(key, {}), item, file)
        elif key in tree:
            raise ValueError(f"a variable {shown(key)} of {file} stands in a file before it, too")
        else:
            tree[key] = item


def _merge_attributes(attributes: dict[str, dict[str, Tree]], metadata: Any, file: str) -> Iterator[Loss]:
    for place, named in (metadata or {}).get(ATTRIBUTES, {}).items():
        known = attributes.setdefault(place, {})
        for name, value in named.items():
            if known.setdefault(name, value) != value:
                yield Loss("metadata", place, f"the attribute {name!r} differs in {file} from the files before it")


def _size_told(told: Any, tree: Tree) -> list[Loss]:
    """What is to be said of the bytes that an index counts, for which a bool is a bit."""
    tensors = [leaf for _, leaf in walk(tree) if is_tensor(leaf)]
    found = sum(nbytes(tensor) / (8 if tensor.dtype == bool else 1) for tensor in tensors)
    if told is None or told == found:
        return []
    return [Loss("missing", "", f"the index counts {told!s:.40} bytes of variables, where its files have {found:,}")]
