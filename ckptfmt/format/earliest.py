"""The earliest version of the format that has the dtypes of a checkpoint (SPEC.md annex B). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter

import msgpack

from .arrays import ArraySpec
from .dtypes import DTYPES
from .manifest import FORMAT
from .node import Node

_LATER = {row.name: row.since for row in DTYPES.values() if row.since > FORMAT}


def earliest_format(specs: Sequence[ArraySpec], *nodes: Node) -> tuple[int, int]:
    """(major, minor) of the first version that has the dtypes of all tensors, and of the scalars in `nodes`.
    [FMT-001] [DTYPE-011]"""
    of_tensors: set[tuple[int, int]] = set(map(attrgetter("dtype.since"), specs))
    return max(FORMAT, *of_tensors, *map(_of_scalars, nodes))


def _of_scalars(node: Node) -> tuple[int, int]:
    """That of a node, of which there may be very many: most have none of these names anywhere."""
    text = msgpack.packb(node)
    if not any(name.encode() in text for name in _LATER):
        return FORMAT
    found = FORMAT
    waiting = [node]
    while waiting:
        match waiting.pop():
            case ["scalar", str(name), _]:
                found = max(found, _LATER.get(name, FORMAT))
            case ["dict", _, items] | ["list" | "tuple", items]:
                waiting += items
            case ["tag", _, param, child]:
                waiting += param, child
    return found
