"""How torch's distributed checkpoints flatten a state dict, and what of that comes back.

torch makes text of the keys of dicts, joins them with periods, and leaves out empty dicts; a list without tensors or
dicts in it, like a tuple or any other value, is stored as one value. Ints come back as keys where a checkpoint says
itself that there were some: in the states of optimizers, whose groups have them, and in the milestones of schedulers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from ..errors import fault
from ..format.names import Key, Path, is_int_text, path_label, path_text
from ..format.tree import Tree
from .fit import ONLY, ShapedTree
from .source import Loss, is_tensor, unflatten

Params = Callable[[str], Any]  # the plain value of a name; None for a tensor


# ---- ints that come back


def int_keys(paths: Mapping[str, Path], params: Params) -> set[Path]:
    """The dicts whose keys were ints: the `state` of an optimizer, whose groups say so, and the `milestones` of a
    scheduler."""
    keys, found = keys_of(paths.values()), set[Path]()
    ids: dict[Path, set[str]] = {}
    for name, path in paths.items():
        if path[-1:] == ("params",) and path[-3:-2] == ("param_groups",):
            group = params(name)
            if type(group) is list and all(type(param) is int for param in group):
                ids.setdefault(path[:-3], set()).update(map(str, group))
        is_schedule = path[-2:-1] == ("milestones",) and "last_epoch" in keys[path[:-2]]
        if is_schedule and all(map(is_int_text, keys[path[:-1]])):
            found.add(path[:-1])
    return found | {(*at, "state") for at, known in ids.items() if keys.get((*at, "state"), set()) <= known}


def empty_states(paths: Iterable[Path]) -> list[Path]:
    """Where optimizers have groups and no state."""
    keys = keys_of(paths)
    return [(*at, "state") for at, found in keys.items() if found == {"param_groups"} and _has_groups(keys, at)]


def _has_groups(keys: dict[Path, set[Key]], at: Path) -> bool:
    return "params" in keys.get((*at, "param_groups", 0), ())


def keys_of(paths: Iterable[Path]) -> dict[Path, set[Key]]:
    """The keys right below each place."""
    found: dict[Path, set[Key]] = {}
    for path in paths:
        for depth, key in enumerate(path):
            found.setdefault(path[:depth], set()).add(key)
    return found


def with_ints(path: Path, ints: set[Path]) -> Path:
    return tuple(int(key) if path[:depth] in ints else key for depth, key in enumerate(path))


def rekeyed(tree: Tree, ints: set[Path], at: Path = ()) -> Tree:
    """The tree with ints for the keys of some dicts."""
    if isinstance(tree, dict):
        items = ((key, rekeyed(item, ints, (*at, key))) for key, item in tree.items())
        return {int(key) if at in ints else key: item for key, item in items}
    if isinstance(tree, list):
        return [rekeyed(item, ints, (*at, i)) for i, item in enumerate(tree)]
    return tree


# ---- what is to be written


def shaped(tree: Tree) -> ShapedTree:
    """A tree as it is once torch has written it; raises `name-collision` where torch would give two leaves one name."""
    if not isinstance(tree, dict):
        inner = shaped({ONLY: tree})
        loss = Loss("nesting", "", f"a tree that is no dict gets the name {ONLY!r}")
        return ShapedTree(inner.tree, (loss, *inner.losses), lambda path: inner.place((ONLY, *path)))
    losses: list[Loss] = []
    found = list(_leaves(tree, (), (), losses))
    names: dict[str, Path] = {}
    for old, path, _ in found:
        name = ".".join(map(str, path))
        if name in names:
            message = f"torch joins keys with periods: two leaves would both be called {name!r}"
            raise fault("name-collision", message, tensor=path_label(old))
        names[name] = path
    values = {path: value for _, path, value in found}
    ints = int_keys(names, lambda name: values[names[name]])
    places = {old[:depth]: with_ints(path[:depth], ints) for old, path, _ in found for depth in range(len(path) + 1)}
    empty = empty_states(values)
    losses = [loss for loss in losses if loss.path not in {path_label(at) for at in empty}]
    rest = unflatten({**values, **{at: {} for at in empty}}) if values else {}
    return ShapedTree(rekeyed(rest, ints), (*losses, *_changed(places)), partial(_moved, {(): (), **places}))


def _moved(places: Mapping[Path, Path], path: Path) -> Path:
    known = next(path[:end] for end in range(len(path), -1, -1) if path[:end] in places)
    return (*places[known], *path[len(known) :])


def _leaves(tree: Tree, old: Path, path: Path, losses: list[Loss]) -> Iterator[tuple[Path, Path, Any]]:
    """What torch stores as one value each: its path, that which torch gives it, and the value."""
    if isinstance(tree, dict):
        if not tree and path:
            losses.append(Loss("nesting", path_label(old), "an empty dict is left out"))
        for key, item in tree.items():
            yield from _leaves(item, (*old, key), (*path, path_text((key,))), losses)
    elif type(tree) is list and not _is_value(tree):
        for i, item in enumerate(tree):
            if isinstance(item, dict) and not any(True for _ in _leaves(item, (), ("",), [])):
                losses.append(Loss("nesting", path_label((*old, i)), "an empty dict in a list becomes None"))
                item = None
            yield from _leaves(item, (*old, i), (*path, i), losses)
    else:
        yield old, path, tree


def _is_value(tree: Tree) -> bool:
    """Whether torch stores it as it is: all but dicts, tensors, and lists that have some in them."""
    if isinstance(tree, dict) or is_tensor(tree):
        return False
    return type(tree) is not list or all(map(_is_value, tree))


def _changed(places: Mapping[Path, Path]) -> Iterator[Loss]:
    """The keys that come back as another kind than they were."""
    for old, path in places.items():
        if path and old[-1:] != path[-1:] and type(old[-1]) is int:
            yield Loss("nesting", path_label(old), "an int key becomes a string")
        elif path and old[-1:] != path[-1:]:
            yield Loss("nesting", path_label(old), "a string becomes an int key, as in the state of an optimizer")
