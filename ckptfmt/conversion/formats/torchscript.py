"""TorchScript: archives of `torch.jit.save`, of which the state is read and the program passed over.

`data.pkl` names script classes, which are nothing but their attributes here: a dict of them, and of an object with a
state of its own (`__getstate__`), that. `constants.pkl` has the tensors that the program calls `CONSTANTS.c0` and so
on, and so does the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from ...errors import fault
from ...format.names import Path
from ..archive import Archive, Window, folder_of
from ..pickles import SCRIPT, Record
from ..probe import Probe
from ..source import OpenedSource, mapped_file
from ..torch_archive import CONSTANTS, MAIN, Together, byteorder_of, source_of, storages_of
from ..torch_pickle import LEFT, TensorPickle

CALLED = "CONSTANTS"  # what a program calls its constants
EXTRA = "torchscript.extra"  # metadata: the files that `torch.jit.save(_extra_files=)` put in
_MACHINERY = {"training", "_is_full_backward_hook"}  # of every module, and not of its state_dict()


class ScriptObject(Record):
    """An object of a script class."""


class _Names(dict[str, Callable[..., Any]]):
    """The table of a pickle, where any name of a script class stands for its objects."""

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and name.startswith(SCRIPT))

    def __missing__(self, name: str) -> Callable[..., Any]:
        return partial(_object, name)


def _object(name: str, *arguments: Any) -> ScriptObject:
    return ScriptObject(name, arguments)


_BUILT = ("intlist", "tensorlist", "doublelist", "boollist")  # what lists were before they had tags


class ScriptPickle(TensorPickle):
    """Reads pickles of TorchScript."""

    def _table(self) -> Mapping[str, Callable[..., Any]]:
        kept: dict[str, Callable[..., Any]] = {"torch.jit._pickle.restore_type_tag": lambda value, _: value}
        kept |= {f"torch.jit._pickle.build_{name}": lambda items: items for name in _BUILT}
        return _Names({**super()._table(), **kept})

    def _named(self, value: Any, path: Path) -> Any:
        if not isinstance(value, ScriptObject):
            return super()._named(value, path)
        if value.arguments:
            self._lose("value", path, f"a {value.name.removeprefix(SCRIPT)} becomes its value")
            return self._plain(value.arguments[0], path)
        state = value.state
        is_module = isinstance(state, dict) and type(state.get("training")) is bool
        if is_module:
            state = {name: item for name, item in state.items() if name not in _MACHINERY}
        of_dict = state is None or isinstance(state, dict)
        plain = self._dict(state or {}, path) if of_dict else self._plain(state, path)
        return LEFT if is_module and not plain and path else plain  # such as a ReLU


def looks_like(probe: Probe) -> bool:
    if not probe.head.startswith(b"PK\3\4"):
        return False
    members = Archive(mapped_file(probe.path)).members
    folder = folder_of(members, MAIN)
    return folder is not None and f"{folder}{CONSTANTS}" in members


def read(path: str) -> OpenedSource:
    archive = Archive(mapped_file(path))
    folder = folder_of(archive.members, MAIN)
    if folder is None:
        raise ValueError(f"the archive has no {MAIN}")
    together = Together()
    tree = together.add(_read_one(archive, folder, MAIN, "data/", ()))
    called = together.add(_read_one(archive, folder, CONSTANTS, "constants/", (CALLED,)))
    if called:
        if not isinstance(tree, dict) or CALLED in tree:
            message = f"there is no room for the constants of the program at {CALLED!r}"
            raise fault("name-collision", message, tensor=CALLED)
        tree[CALLED] = called
    together.metadata[EXTRA] = together.texts(archive, f"{folder}extra/")
    return together.source(tree)


def _read_one(archive: Archive, folder: str, name: str, tensors: str, root: Path) -> OpenedSource:
    """What a pickle of the archive holds, which stands at `root`: the program itself, or its constants."""
    reader = ScriptPickle(storages_of(archive, f"{folder}{tensors}"), byteorder_of(archive, folder), root)
    value = reader.load(Window(archive.stored(f"{folder}{name}")))
    return source_of(reader, {f"c{i}": item for i, item in enumerate(value)} if root else value, root)
