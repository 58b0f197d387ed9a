"""Pickles of ordinary Python programs: arrays and plain values, and objects of classes, of which nothing is known but
what the pickle puts into them: their attributes.

joblib writes the elements of arrays behind the records that stand for them, where they stay; gensim writes large
arrays as files beside the pickle, which are read with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from math import prod
from typing import Any, NoReturn

import numpy as np

from ..format.dtypes import Array
from ..format.names import Path, path_label
from ..format.tree import Tree
from . import numpy_pickle
from .archive import Window
from .beside import FilesBeside
from .claims import shape_of
from .npy_records import fields_of, record_at
from .pickles import Behind, FollowedRecord, Global, ObjectRecord, RawBytearray, RawBytes, Record, Unknown
from .source import LazyArray, Loss, OpenedSource, array_over, check_strings, cut_off, mapped_file, plain_text
from .torch_archive import read_in_a_row, source_of
from .torch_pickle import TensorPickle, TorchStorage
from .torch_values import Nothing, Replaced

ARGUMENTS, STATE, ITEMS = "arguments", "state", "items"  # of an object, beside its attributes
_ARRAYS = {"numpy.ndarray", "numpy.memmap"}


class JoblibArray(FollowedRecord):
    """joblib's `NumpyArrayWrapper`: dtype, shape and order of an array, whose elements follow."""

    def value(self, behind: Behind) -> Any:
        about = self.state
        if numpy_pickle.is_of_objects(about["dtype"]):
            return behind.pickle()
        dtype = numpy_pickle.dtype_of_record(about["dtype"])
        if dtype is None:
            dtype = numpy_pickle.dtype_with_fields(about["dtype"])
        if dtype is None:
            raise ValueError("joblib has written an array of an unknown dtype")
        at, shape = behind.at, shape_of(about["shape"])
        if about.get("numpy_array_alignment_bytes") is not None:
            at += 1 + int(behind.data[at])
        end = at + prod(shape) * dtype.itemsize
        if end > behind.data.size:
            raise cut_off(behind.data.size, end, or_more=True)
        behind.go(end)
        is_fortran = about["order"] == "F"
        array = array_over(behind.data, at, dtype, shape[::-1] if is_fortran else shape)
        array = array.T if is_fortran else array
        kind = _name(about["subclass"])
        return array if kind in _ARRAYS else Replaced(f"a {kind} becomes a plain array", array)


def _name(found: Any) -> str:
    return found.name if isinstance(found, Global | Unknown) else type(found).__name__


def _reconstructed(kind: Any, base: Any = None, state: Any = None) -> ObjectRecord:
    """An object as protocols 0 and 1 make it: with the value of a base class."""
    made = ObjectRecord(_name(kind), ())
    if isinstance(state, dict):
        made.mapping = state
    elif isinstance(state, list):
        made.sequence = state
    elif state is not None:
        made.arguments = (state,)
    return made


def _array_to_be(kind: Any, *_: Any) -> Record:
    """An array that its state makes; of another class than NumPy's own, with the name of that."""
    name = _name(kind)
    return Record(numpy_pickle.ARRAY, () if name in _ARRAYS else (name,))


class ObjectPickle(TensorPickle):
    """Reads pickles of programs. Objects become dicts of their attributes, which is a loss."""

    def __init__(self, path: str) -> None:
        super().__init__(_no_storage)
        self._name, self.files = os.path.basename(path), FilesBeside(os.path.dirname(os.path.abspath(path)))
        self._within: set[int] = set()  # the objects in which a value stands
        self._torch: list[bytes] = []

    def _table(self) -> Mapping[str, Callable[..., Any]]:
        name = "joblib.numpy_pickle.NumpyArrayWrapper"
        table: dict[str, Callable[..., Any]] = {
            name: lambda *arguments: JoblibArray(name, arguments),
            "copyreg._reconstructor": _reconstructed,
            "torch.storage._load_from_bytes": self._storage,
        }
        table |= {f"numpy.{core}.multiarray._reconstruct": _array_to_be for core in ("core", "_core")}
        return {**super()._table(), **table}

    def _storage(self, raw: Any) -> TorchStorage:
        """A storage that torch pickles as a file of its own."""
        _, found = read_in_a_row(np.frombuffer(raw, np.uint8))
        if not isinstance(found, TorchStorage):
            raise ValueError("the pickle has a file of torch that is no storage")
        self._torch.append(raw)
        found.key = str(len(self._torch))  # which is an address of memory, and may be that of another one
        return found

    def _array(self, value: Any, path: Path) -> Any:
        if isinstance(value, RawBytearray):
            return self._plain(bytearray(value.tobytes()), path)
        return value.tobytes() if isinstance(value, RawBytes) else self._converted(value, path)

    def _named(self, value: Any, path: Path) -> Any:
        if not isinstance(value, ObjectRecord):
            return super()._named(value, path)
        if id(value) in self._within:
            return self._plain(Nothing(f"a {value.name} that stands within itself"), path)
        self._within.add(id(value))
        parts, what = _parts(value)
        if isinstance(value.state, dict):
            parts |= self._apart(value.state, path)
        self._lose("value", path, f"a {value.name} becomes {what}")
        plain = self._dict(parts, path) if type(parts) is dict else self._plain(parts, path)
        self._within.remove(id(value))
        return plain

    def _apart(self, state: Mapping[str, Any], path: Path) -> dict[str, Array]:
        """The attributes that gensim has put into files, which are called as the pickle and the way to them is."""
        found: dict[str, Array] = {}
        for kind in ("__numpys", "__scipys"):  # arrays, and sparse matrices
            for name in state[kind] if isinstance(state.get(kind), list) else ():
                file = ".".join(map(str, (self._name, *path, name, "npy")))
                if kind == "__numpys" and self.files.has(file):
                    found[name], _ = record_at(self.files.bytes_of(file, name), 0, file)
                else:
                    self._lose("missing", (*path, name), "it lies in files beside the pickle, which are not read")
        return found

    def _of_numpy(self, found: Record) -> Any:
        if id(found) not in self._numpy:
            self._numpy[id(found)] = numpy_pickle.value_of(found, with_fields=True)
        return self._numpy[id(found)]

    def _numpy_value(self, value: Record, path: Path) -> Any:
        found = self._of_numpy(value)
        if value.name == numpy_pickle.ARRAY and value.arguments:
            self._lose("value", path, f"a {value.arguments[0]} becomes a plain array")
        if found is None and (items := numpy_pickle.objects_of(value)) is not None:
            self._lose("value", path, "an array of objects becomes nested lists")
            return self._plain(items, path)
        if found is None:
            return self._plain(Nothing(value.name), path)
        return self._converted(found, path)

    def _converted(self, found: Any, path: Path) -> Tree:
        """What a tree can hold of an array or scalar: text, and the fields of records."""
        if isinstance(found, np.ndarray | LazyArray) and found.dtype.kind in "SU":
            check_strings(found.shape, found.dtype, path_label(path))
            self._lose("value", path, "a NumPy array of text becomes nested lists")
            return plain_text(found[()])
        if found.dtype.names:
            self._lose("value", path, "an array of records becomes a dict of their fields")
            return {name: self._converted(field, (*path, name)) for name, field in fields_of(np.asarray(found)).items()}
        return found


def _parts(value: ObjectRecord) -> tuple[Any, str]:
    """What an object is made of, and how that is called."""
    state, held = value.state, {}
    if type(state) is tuple and len(state) == 2 and all(part is None or isinstance(part, dict) for part in state):
        state = {**(state[0] or {}), **(state[1] or {})}  # with slots
    if state is not None and not isinstance(state, dict):
        held[STATE] = state
    items = value.mapping or value.sequence
    beside = {ARGUMENTS: value.arguments, ITEMS: items} | held
    beside = {name: part for name, part in beside.items() if not isinstance(part, dict | list | tuple) or part}
    if isinstance(state, dict):
        free = {name: part for name, part in beside.items() if name not in state}
        return {**state, **free}, "a dict of its attributes"
    if len(beside) != 1:
        return beside, "a dict of its parts"
    ((name, part),) = beside.items()
    return (part[0], "its argument") if name == ARGUMENTS and len(part) == 1 else (part, f"its {name}")


def _no_storage(key: str) -> NoReturn:
    raise ValueError(f"the pickle refers to the storage {key}, which is not in it")


def read_pickle(path: str) -> OpenedSource:
    """What the pickle at the beginning of a file holds."""
    data = mapped_file(path)
    reader, file = ObjectPickle(path), Window(data)
    try:
        value = reader.load(file, data)
    except EOFError as error:
        raise cut_off(data.size, data.size + 1, or_more=True) from error
    source = source_of(reader, value)
    if more := data.size - file.tell():
        source.losses = (*source.losses, Loss("missing", "", f"{more:,} bytes follow the pickle, and are not read"))
    source.size = data.size + reader.files.size
    return source
