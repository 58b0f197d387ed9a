"""Dicts with a default that no name stands for, in the states of objects: stored as dicts, and given back as what the
object has. Counters and other defaultdicts were stored so, too, before they had tags."""

from __future__ import annotations

import copy
from collections import Counter, OrderedDict, defaultdict

from ..format.tree import Tree
from .values import parts_of

_OWN_DICTS = (Counter, defaultdict)


def without_own_dicts(state: Tree) -> Tree:
    """A state as it is stored: with dicts for those whose default has no name; itself where it has none."""
    kind = type(state)
    if isinstance(state, dict) and kind in (dict, OrderedDict, *_OWN_DICTS):
        changed = {key: new for key, value in state.items() if (new := without_own_dicts(value)) is not value}
        if kind is defaultdict and parts_of(state) is None:
            return {**state, **changed}
        if changed:
            made = copy.copy(state)  # with what it says besides
            made.update(changed)
            return made
    elif kind in (list, tuple):
        items = list(map(without_own_dicts, state))
        if any(new is not old for new, old in zip(items, state, strict=True)):
            return kind(items)
    return state


def with_own_dicts(state: Tree, own: Tree) -> Tree:
    """A loaded state, whose dicts are counters or have defaults where the object's own are such."""
    if isinstance(state, dict) and isinstance(own, dict):
        for key in state.keys() & own.keys():
            state[key] = with_own_dicts(state[key], own[key])
        if type(own) in _OWN_DICTS:
            made = copy.copy(own)
            made.clear()
            made.update(state)
            return made
    elif type(state) in (list, tuple) and type(own) is type(state):
        common = map(with_own_dicts, state, own)
        return type(state)([*common, *state[len(own) :]])
    return state
