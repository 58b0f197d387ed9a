"""Files of `torch.save` (.pt, .pth, .bin): the ZIP of today and the pickles in a row of before 1.6.

Also several files with an index (`pytorch_model.bin.index.json`). Written by torch itself.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from ...errors import fault
from ...format.dtypes import Array, dtype_of
from ...format.names import path_text
from ...format.tags import made
from ...format.tree import Tree
from ...format.values import ATOMS, CONTAINERS
from ...frameworks.adapter import Tagged
from ...frameworks.target import rebuild
from ...packages import package
from .. import shards
from ..archive import Archive
from ..fit import Holds, KeptMetadata, keys_of
from ..pairs import packed
from ..probe import Probe
from ..source import Advance, OpenedSource, is_tensor, mapped_file, nbytes, truths, walk
from ..torch_archive import ATTRIBUTES, MAGIC, read_archive, read_in_a_row, source_of
from ..torch_pickle import PACKED, TORCH_DTYPES

INDEX = ".bin.index.json"

CONTAINING = (dict, OrderedDict, list, tuple)


def _dtype(_: Any, name: str) -> Any:
    return getattr(package("torch", "a torch.save file or what lies in one"), name)


def _parameter(requires_grad: Any, tensor: Any) -> Any:
    return package("torch", "a torch.save file or what lies in one").nn.Parameter(tensor, requires_grad)


def _state_dict(versions: Any, items: Any) -> OrderedDict[Any, Any]:
    state = OrderedDict(items)
    state._metadata = OrderedDict(versions)  # type: ignore[attr-defined]
    return state


def _kept(metadata: Tree, tree: Tree) -> KeptMetadata:
    """Of metadata the attributes of the OrderedDicts and tensors of a tree."""
    found = keys_of(metadata, {ATTRIBUTES})
    if found.value is None:
        return found
    said = found.value[ATTRIBUTES]
    if not isinstance(said, dict) or not all(isinstance(named, dict) for named in said.values()):
        return KeptMetadata(None, (*found.lost, f"{ATTRIBUTES!r} is left out: it is no dict of dicts"))
    places = {path_text(path) for path, item in walk(tree) if isinstance(item, OrderedDict) or is_tensor(item)}
    kept = {place: named for place, named in said.items() if place in places}
    message = "are left out: no OrderedDict or tensor stands there"
    lost = [f"attributes of {place!r} {message}" for place in said if place not in kept]
    return KeptMetadata({ATTRIBUTES: kept} if kept else None, (*found.lost, *lost))


HOLDS = Holds(
    dtypes=frozenset(TORCH_DTYPES),
    pairs=frozenset(PACKED.values()),
    containers=CONTAINING,
    int_keys=True,
    values=(type(None), bool, int, float, complex, str, bytes),
    aliases=True,
    metadata=_kept,
    arrays=True,
    tags={
        **{name: partial(made, name) for name in (*ATOMS, *CONTAINERS) if not name.startswith("numpy.")},
        "torch.Parameter": _parameter,
        "torch.state_dict": _state_dict,
        "torch.Size": lambda _, sizes: package("torch", "a torch.save file or what lies in one").Size(sizes),
        "torch.dtype": _dtype,
        "torch.device": lambda _, name: package("torch", "a torch.save file or what lies in one").device(name),
    },
)


def looks_like(probe: Probe) -> bool:
    if probe.path.endswith(INDEX) and not probe.is_directory:
        return True
    if probe.head.startswith(b"PK\3\4"):
        return any(name.endswith("/data.pkl") for name in Archive(mapped_file(probe.path)).members)
    return probe.head[:1] == b"\x80" and MAGIC.to_bytes(10, "little") in probe.head[:32]


def read(path: str) -> OpenedSource:
    if path.endswith(INDEX):
        return shards.read(path, _read_file)
    source = _read_file(path)
    return replace(source, losses=(*shards.alone(path), *source.losses))


def _read_file(path: str) -> OpenedSource:
    data = mapped_file(path)
    return read_archive(data) if bytes(data[:4]) == b"PK\3\4" else source_of(*read_in_a_row(data))


def write(path: str, tree: Tree, metadata: Tree, advance: Advance) -> None:
    """Write with `torch.save`. Every tensor of `tree` must be an array: torch keeps those that are mapped where they
    are while it writes."""
    torch = package("torch", "a torch.save file or what lies in one")
    attributes = (metadata or {}).get(ATTRIBUTES, {})
    value = values(tree)
    for where, holder in walk(value):
        state = attributes.get(path_text(where)) if isinstance(holder, OrderedDict | torch.Tensor) else None
        if state is not None:
            vars(holder).update(state)
    torch.save(value, path, pickle_protocol=4 if _has_fold(tree) else 2)
    advance(sum(nbytes(leaf) for _, leaf in walk(tree) if is_tensor(leaf)))


def values(tree: Tree) -> Any:
    """The same tree with torch's tensors over the memory of its arrays."""
    torch = package("torch", "a torch.save file or what lies in one")
    tensors: dict[int, Any] = {}

    def tensor(array: Array) -> Any:
        if id(array) not in tensors:
            tensors[id(array)] = _tensor(torch, array)
        return tensors[id(array)]

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return rebuild(tree, lambda _, leaf: tensor(leaf) if isinstance(leaf, np.ndarray) else leaf)


def _has_fold(tree: Tree) -> bool:
    """Whether there is a time of which torch's protocol forgets that it is the second of its kind."""
    if isinstance(tree, Tagged):
        return (isinstance(tree.param, dict) and "fold" in tree.param) or _has_fold(tree.child)
    return any(map(_has_fold, tree.values() if isinstance(tree, dict) else tree)) if type(tree) in CONTAINING else False


def _tensor(torch: Any, array: Array) -> Any:
    """A tensor over the memory of an array where it is contiguous and of this machine's byte order."""
    native = np.ascontiguousarray(truths(array), array.dtype.newbyteorder("="))
    row = dtype_of(native.dtype)
    assert row is not None  # what `HOLDS` does not name was replaced by its bits
    if row.is_core:
        return torch.from_numpy(native).reshape(array.shape)
    if row.per > 1:
        name = next(name for name, ours in PACKED.items() if ours == row.name)
        if not hasattr(torch, name):
            raise fault("missing-package", f"torch {torch.__version__} has no {name}: pip install --upgrade torch")
        return torch.from_numpy(np.ascontiguousarray(packed(array, row)[()])).view(getattr(torch, name))
    bits = native.view(row.stored.newbyteorder("=")).reshape(array.shape)
    return torch.from_numpy(bits).view(getattr(torch, row.name))
