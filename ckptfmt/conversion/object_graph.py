"""Names of tensors in checkpoints of TensorFlow 2, whose keys are paths through the objects of a program.

    key  := path "/.ATTRIBUTES/" name                     the value of an object: its name is VARIABLE_VALUE
    path := names joined with "/", in which "." is ".." and "/" is ".S"
    path := path "/.OPTIMIZER_SLOT/" path "/" slot        what the optimizer of the second path keeps for the first

Of an object at many paths the shortest is taken, so paths say enough, and the graph of objects that TensorFlow stores
beside the tensors, which may have cycles, is never followed: only the names of variables are taken from it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from itertools import pairwise

import numpy as np

from ..errors import fault
from ..format.names import Path
from ..format.tree import MAX_DEPTH
from .claims import shown
from .protobuf import PARTS, TEXT, WireReader

KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"  # of the graph
VALUE = "VARIABLE_VALUE"
SLOTS = "slots"  # below an optimizer, as its own values can be called like its slots
_ATTRIBUTE, _SLOT = "/.ATTRIBUTES/", "/.OPTIMIZER_SLOT/"
_PART = 64  # bytes of memory that a part of a path takes
_LONGEST = 256  # characters of a name that takes the place of a position

_unescaped = re.compile(r"\.([.S])").sub


def full_names(graph: bytes) -> dict[str, str]:
    """The names of variables by their keys, as a graph of objects has them; raises ValueError."""
    reader, names = WireReader(np.frombuffer(graph, np.uint8)), dict[str, str]()
    for node in reader.read(reader.whole, {1: ("nodes", PARTS)}).get("nodes", ()):
        for attribute in reader.read((node,), {2: ("attributes", PARTS)}).get("attributes", ()):
            said = reader.read((attribute,), {2: ("name", TEXT), 3: ("key", TEXT)})
            if said.get("name") and said.get("key"):
                names[said["key"]] = said["name"]
    return names


def paths(keys: Collection[str], names: Mapping[str, str], room: int) -> dict[str, Path]:
    """The path of each key in a tree, all of which take `room` bytes of memory at most. Positions in a list become the
    names of variables, where these tell all that are in it apart. Where a tensor would stand at the place of another,
    or above it, all are called as they are stored. Raises `too-deep` and `limit-exceeded`."""
    for key in keys:
        parts = key.count("/") + 1
        if parts > MAX_DEPTH:
            raise fault("too-deep", f"{shown(key)} has {parts:,} parts", expected=MAX_DEPTH)
        if (room := room - _PART * parts) < 0:
            raise fault("limit-exceeded", f"the parts of {len(keys):,} keys take too much memory")
    found = {key: _path(key, {}) for key in keys}
    in_lists = _in_lists(found, names)
    for candidate in ({key: _path(key, in_lists) for key in keys}, found):
        if _are_distinct(candidate.values()):
            return candidate
    return {key: (key,) for key in keys}


def _path(key: str, known: Mapping[str, Path]) -> Path:
    """The path of a key, if the paths of some variables are known."""
    if key in known:
        return known[key]
    where, mark, attribute = key.rpartition(_ATTRIBUTE)
    if not mark:
        return _parts(key)
    last = () if attribute == VALUE else (attribute,)
    variable, mark, slot = where.rpartition(_SLOT)
    if not mark:
        return (*_parts(where), *last)
    *optimizer, name = _parts(slot)
    return (*optimizer, SLOTS, name, *_path(f"{variable}{_ATTRIBUTE}{VALUE}", known), *last)


def _parts(path: str) -> Path:
    return tuple(_unescaped(lambda found: "/" if found[1] == "S" else ".", part) for part in path.split("/"))


def _in_lists(found: Mapping[str, Path], names: Mapping[str, str]) -> dict[str, Path]:
    """The paths of the variables that stand in a list, with their names in place of the positions."""
    lists: dict[Path, dict[str, str]] = {}
    for key, path in found.items():
        if key.endswith(_ATTRIBUTE + VALUE) and _SLOT not in key and path and str(path[-1]).isdecimal():
            lists.setdefault(path[:-1], {})[key] = names.get(key, "")
    return {
        key: (*above, *name.split("/"))
        for above, named in lists.items()
        if len(set(named.values())) == len(named) and all(0 < len(name) < _LONGEST for name in named.values())
        for key, name in named.items()
    }


def _are_distinct(found: Iterable[Path]) -> bool:
    """Whether no path is another one, or above it."""
    return all(
        after[: len(path)] != path for path, after in pairwise(sorted(found, key=lambda path: [*map(str, path)]))
    )
