"""Archives of `torch.export.save` (.pt2): weights and constants by their names, the program is passed over.

Since torch 2.8 each storage is a member of raw bytes, and a JSON document says which tensors lie in it; before, the
weights are one file of `torch.save`, the constants another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ...errors import fault
from ...format.dtypes import DTYPES
from ...format.names import Path
from ...format.tree import Tree
from ..archive import Archive, MemberBytes, folder_of
from ..checked import checked
from ..claims import count, json_document, shape_of, shown
from ..entries import JSON
from ..probe import Probe
from ..shards import distinct
from ..source import Loss, OpenedSource, SourceTensor, is_tensor, mapped_file
from ..torch_archive import Together, byteorder_of, read_archive

EXTRA = "torch.export.extra"  # metadata: the files that `torch.export.save(extra_files=)` put in
_FORMAT = "archive_format"
_PARTS = {"weights": "weights_config.json", "constants": "constants_config.json"}  # folders of data/, and their lists
# files of torch.save before torch 2.8; torch 2.1 gave them the name of JSON
_BEFORE = tuple(f"serialized_{part}.{suffix}" for part in ("state_dict", "constants") for suffix in ("pt", "json"))
_STRIDED = 7  # of torch's enumeration of layouts
# torch's enumeration of dtypes, as these archives number them
_DTYPES: Mapping[int, str] = {
    **dict(enumerate(("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"), 1)),
    **dict(enumerate(("complex32", "complex64", "complex128", "bool", "bfloat16"), 9)),
    **dict(enumerate(("uint16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz"), 28)),
    **dict(enumerate(("float8_e8m0fnu", "uint32", "uint64"), 33)),
}


def looks_like(probe: Probe) -> bool:
    if not probe.head.startswith(b"PK\3\4"):
        return False
    members = Archive(mapped_file(probe.path)).members
    return not members.keys().isdisjoint(_BEFORE) or folder_of(members, _FORMAT) is not None


def read(path: str) -> OpenedSource:
    archive = Archive(mapped_file(path))
    folder = folder_of(archive.members, _FORMAT)
    return _read_before(archive) if folder is None else _ExportReader(archive, folder).source()


def _read_before(archive: Archive) -> OpenedSource:
    """The form of before torch 2.8."""
    together, tree = Together(), dict[str, Any]()
    for name in _BEFORE:
        if name in archive.members:
            found = together.add(read_archive(archive.stored(name)))
            if not isinstance(found, dict):
                raise ValueError(f"{name} holds no dict")
            _add(tree, found)
    together.metadata[EXTRA] = together.texts(archive, "extra_files/")
    return together.source(tree)


def _add(tree: dict[str, Any], more: Mapping[str, Any]) -> None:
    if twice := tree.keys() & more.keys():
        raise ValueError(f"the name {shown(min(twice))} stands twice")
    tree.update(more)


class _ExportReader:
    def __init__(self, archive: Archive, folder: str) -> None:
        self.archive, self.folder = archive, folder
        self.byteorder = byteorder_of(archive, folder)
        self.together = Together()
        self.storages: dict[str, MemberBytes] = {}
        self.tensors: dict[Any, SourceTensor] = {}  # those of one place in a storage are one

    def source(self) -> OpenedSource:
        """All models of the archive: the tensors of one, or of each under its name."""
        models: dict[str, dict[str, dict[str, Any]]] = {}
        for part, ending in _PARTS.items():
            place = f"{self.folder}data/{part}/"
            for member in self.archive.members:
                if member.startswith(place) and member.endswith(f"_{ending}"):
                    model = member[len(place) : -len(ending) - 1]
                    models.setdefault(model, {})[place] = self.listed(member)
        if not models:
            raise fault("unsupported-source", "this archive has no weights, as of a program that was compiled")
        tree: dict[str, Any] = {}
        for model, places in models.items():
            root: Path = (model,) if len(models) > 1 else ()
            tensors: dict[str, Any] = {}
            for place, entries in places.items():
                _add(tensors, self.read(place, entries, root))
            tree |= {model: tensors} if root else tensors
        self.together.metadata[EXTRA] = self.together.texts(self.archive, f"{self.folder}extra/")
        return self.together.source(tree)

    def listed(self, member: str) -> dict[str, Any]:
        """What a JSON document of the archive lists."""
        if self.archive.members[member].file_size > JSON:
            raise fault("limit-exceeded", f"{member!r} is larger than {JSON:,} bytes")
        document = json_document(bytes(self.archive.stored(member)), distinct)
        entries: dict[str, Any] = document["config"]
        return entries

    def read(self, place: str, entries: dict[str, Any], root: Path) -> dict[str, Any]:
        """The tensors of a folder of members, by their names."""
        found: dict[str, Any] = {}
        for name, entry in entries.items():
            path, about = (*root, name), entry["tensor_meta"]
            value = self.pickled(place, name, entry, path) if entry["use_pickle"] else self.raw(place, entry, about)
            if value is None:
                continue
            if entry["is_param"] is True and is_tensor(value):
                self.together.tags[path] = [("torch.Parameter", about["requires_grad"] is True)]
            found[name] = value
        return found

    def pickled(self, place: str, name: str, entry: dict[str, Any], path: Path) -> Tree:
        """A tensor that is a file of `torch.save`; None, and a loss, for an object of a class."""
        if entry["tensor_meta"] is None:
            self.together.losses.append(Loss("value", name, "an object of a class is left out"))
            return None
        return self.together.add(read_archive(self.archive.stored(f"{place}{entry['path_name']}"), path))

    def raw(self, place: str, entry: dict[str, Any], about: dict[str, Any]) -> SourceTensor:
        """A tensor in the bytes of its storage."""
        if about["layout"] != _STRIDED:
            raise fault("unsupported-source", f"a tensor of the layout {shown(about['layout'])}")
        name = _DTYPES.get(count(about["dtype"]))
        if name not in DTYPES:
            raise fault("unsupported-source", f"a tensor of torch's dtype {name or about['dtype']}")
        dtype = DTYPES[name].in_order(self.byteorder)
        shape, strides = shape_of(map(_int, about["sizes"])), shape_of(map(_int, about["strides"]))
        if len(shape) != len(strides):
            raise ValueError(f"a tensor of shape {shape} and strides {strides}")
        member, offset = f"{place}{entry['path_name']}", count(_int(about["storage_offset"]))
        if member not in self.storages:
            self.storages[member] = self.archive.unchecked(member)
        identity = (member, name, shape, strides, offset)
        if identity not in self.tensors:
            steps = [step * dtype.itemsize for step in strides]
            octets, at = self.storages[member], offset * dtype.itemsize
            # NumPy checks that it lies within the storage
            array = np.empty(shape, dtype) if 0 in shape else np.ndarray(shape, dtype, octets.data, at, steps)
            self.tensors[identity] = checked(array, octets.check)
        return self.tensors[identity]


def _int(found: Any) -> int:
    """A number that torch can know as a symbol, too."""
    if "as_int" not in found:
        raise fault("unsupported-source", f"a tensor with {shown(found)} for a length")
    number: int = found["as_int"]
    return number
