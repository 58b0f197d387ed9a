"""Trees to paths and back: which containers a migrated tree has (docs/spec/migrations.md). Pure.

Only dicts, lists and tuples are containers here; whatever else stands in them is a leaf."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..format.names import Path
from ..format.tree import Tree


def leaves_of(tree: Tree, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every leaf with its path; an empty container is a leaf."""
    if isinstance(tree, dict) and tree:
        for key, item in tree.items():
            yield from leaves_of(item, (*path, key))
    elif type(tree) in (list, tuple) and tree:
        for i, item in enumerate(tree):
            yield from leaves_of(item, (*path, i))
    else:
        yield path, tree


def with_leaves(tree: Tree, leaf: Callable[[Path, Any], Any]) -> Tree:
    """The same containers, with every leaf replaced by `leaf(path, leaf)`."""
    return build_tree(((path, leaf(path, found)) for path, found in leaves_of(tree)), tree)


def build_tree(leaves: Iterable[tuple[Path, Any]], like: Tree) -> Tree:
    """The tree with these leaves. Containers are of the kind that `like` has at the same path, if they can be;
    otherwise lists, where the keys are 0, 1, 2 …, and dicts elsewhere. [MIG-015]"""
    root: dict[Any, Any] = {}
    for path, leaf in leaves:
        if not path:
            return leaf
        below = root
        for key in path[:-1]:
            below = below.setdefault(key, _Branch())
        below[path[-1]] = leaf
    return _finished(root, like)


class _Branch(dict[Any, Any]):
    """A container in the making; leaves may be dicts of their own (empty ones)."""


_NOTHING = object()


def _finished(branch: dict[Any, Any], like: Any) -> Tree:
    items = {key: _finished(item, _child(like, key)) if type(item) is _Branch else item for key, item in branch.items()}
    is_sequence = all(type(key) is int for key in items) and sorted(items) == list(range(len(items)))
    kind = type(like)
    if kind in (list, tuple) and is_sequence:
        return kind(items[number] for number in range(len(items)))
    if kind is OrderedDict:
        return OrderedDict(items)
    if kind is not dict and is_sequence and items:
        return [items[number] for number in range(len(items))]
    return items


def _child(tree: Any, key: Any) -> Any:
    if isinstance(tree, dict):
        return tree.get(key, _NOTHING)
    if isinstance(tree, list | tuple) and type(key) is int and 0 <= key < len(tree):
        return tree[key]
    return _NOTHING
