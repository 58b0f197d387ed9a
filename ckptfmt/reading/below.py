"""Leaves of a checkpoint that stand below places of a target. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..format.names import Path
from ..format.tree import Tree
from .tensor import is_tensor


def below(stored: Mapping[Path, Any], places: Iterable[Path]) -> list[dict[Path, Any]]:
    """The leaves at and below each place."""
    found: dict[Path, dict[Path, Any]] = {at: {} for at in places}
    depths = {len(at) for at in found}
    for path, leaf in stored.items():
        for depth in depths:
            if path[:depth] in found:
                found[path[:depth]][path] = leaf
    return list(found.values())


def blanks(target: Tree, stored: Mapping[Path, Any]) -> dict[Path, frozenset[Path]]:
    """The places of a target that have nothing yet, such as a history that begins, where plain values are stored, and
    the paths of these."""
    blank = [path for path in _blank(target, ()) if path not in stored]
    found = dict(zip(blank, below(stored, blank), strict=True)) if blank else {}
    return {
        at: frozenset(leaves) for at, leaves in found.items() if leaves and not any(map(is_tensor, leaves.values()))
    }


def _blank(tree: Tree, path: Path) -> Iterator[Path]:
    """Where None or an empty container stands in plain ones."""
    if tree is None or (type(tree) in (dict, list, tuple, OrderedDict) and not tree):
        yield path
    elif type(tree) in (dict, OrderedDict):
        for key, item in tree.items():
            yield from _blank(item, (*path, key))
    elif type(tree) in (list, tuple):
        for number, item in enumerate(tree):
            yield from _blank(item, (*path, number))
