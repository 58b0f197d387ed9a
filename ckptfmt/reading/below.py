"""Leaves of a checkpoint that stand below places of a target. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from ..format.names import Path
from ..format.tree import Tree
from ..frameworks.adapter import is_stateful
from ..frameworks.target import as_saved, is_blank
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


def taken_whole(
    target: Tree, held: Iterable[Path], stored: Mapping[Path, Any], there: Mapping[Path, Any]
) -> dict[Path, frozenset[Path]]:
    """The places of a target that take plain values as they are stored, and the paths of these: where it has nothing
    yet, such as a history that begins; and where it has a list of plain values of another length, as two lists are
    not to become one. `held` are the paths of what is to be filled or left; `there` is all that is stored, of which
    `stored` is what may be taken."""
    places = dict(_places(target, ()))
    records = (path for path, length in places.items() if length is None)
    kept = {path[:n] for path in (*held, *records) for n in range(len(path) + 1)}
    found: dict[Path, frozenset[Path]] = {}
    for (at, length), inside in zip(places.items(), below(there, places), strict=True):
        if at in kept or any(at[:n] in found for n in range(len(at))):
            continue
        chosen = inside.keys() & stored.keys()
        if not chosen or any(is_tensor(inside[path]) for path in chosen):
            continue
        is_other = len(chosen) == len(inside) and _length(at, inside) not in (None, length)
        if at not in chosen if length == 0 else is_other:
            found[at] = frozenset(chosen)
    return found


def leave_out(whole: Mapping[Path, frozenset[Path]], *trees: dict[Path, Any]) -> None:
    """Take what is taken whole out of the leaves of a target and of what is stored."""
    for leaves in trees if whole else ():
        for path in [path for path in leaves if any(path[:n] in whole for n in range(len(path) + 1))]:
            del leaves[path]


def as_stored(
    at: Path, paths: Collection[Path], stored: Iterable[Path], given: Callable[[Path], Path]
) -> tuple[Path, frozenset[Path]]:
    """A place of a template and paths there as the checkpoint has them; `given` gives a stored path as the template has
    it."""
    found = frozenset(path for path in stored if given(path) in paths)
    return next(iter(found))[: len(at)], found


def _places(tree: Tree, path: Path) -> Iterator[tuple[Path, int | None]]:
    """Where None, an empty container or a list stands, with the length of the list, and what has fields (None)."""
    plain = as_saved(tree, is_stateful, records=False)
    tree = as_saved(plain, is_stateful)
    if plain is not tree:
        yield path, None
    elif is_blank(tree):
        yield path, 0
    elif type(tree) in (list, tuple):
        yield path, len(tree)
    if isinstance(tree, dict):
        for key, item in tree.items():
            yield from _places(item, (*path, key))
    elif type(tree) in (list, tuple):
        for number, item in enumerate(tree):
            yield from _places(item, (*path, number))


def _length(at: Path, inside: Mapping[Path, Any]) -> int | None:
    """How many items a stored list has, by the paths of its leaves; None for what is none."""
    if at in inside:
        return 0 if type(inside[at]) in (list, tuple) and not inside[at] else None
    keys = {path[len(at)] for path in inside}
    return len(keys) if all(type(key) is int and 0 <= key < len(keys) for key in keys) else None
