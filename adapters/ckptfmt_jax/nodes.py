"""Nodes of JAX's pytree registry: flax states and modules, registered dataclasses, `tree_util.Partial` …

A node is stored as the dict of its children. What JAX calls its auxiliary data, such as static fields, is not stored:
it comes from the template."""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from typing import Any

from jax import tree_util

from ckptfmt.errors import fault
from ckptfmt.frameworks.adapter import Tagged

_CORE = {type(None), dict, OrderedDict, defaultdict, list}  # and tuples, with those that have names


def lowered(node: Any) -> Tagged | None:
    """One level of a registered node; None for leaves, and for the containers that the core has itself. Raises
    `unsupported-leaf`."""
    if type(node) in _CORE or isinstance(node, tuple) or tree_util.all_leaves([node]):
        return None
    children, structure = tree_util.tree_flatten_with_path(node, is_leaf=lambda value: value is not node)
    keys = [_key(entry) for (entry,), _ in children]
    name = f"{type(node).__module__}.{type(node).__qualname__}"
    if len(set(keys)) < len(keys):
        raise fault("unsupported-leaf", f"the pytree node {name} has two children with one key")
    child = {key: value for key, (_, value) in zip(keys, children, strict=True)}
    return Tagged("jax.pytree", name, child, lambda values: structure.unflatten([values[key] for key in keys]))


def _key(entry: Any) -> Any:
    """The key of a child, as far as the registration tells."""
    match entry:
        case tree_util.GetAttrKey():
            return entry.name
        case tree_util.SequenceKey():
            return entry.idx
        case tree_util.DictKey() | tree_util.FlattenedIndexKey():
            return entry.key
    return str(entry)
