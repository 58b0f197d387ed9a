"""A consistent copy of a tree, taken while training waits, to be saved while training goes on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .. import tree as trees
from ..dtypes import Array
from ..tree import Tree


class Snapshot(NamedTuple):
    """A tree of its own, equal to that which it was taken from, aliases included; and the groups of paths whose arrays
    overlapped in it, as `SaveReport.copied_views` has them."""

    tree: Tree
    copied_views: tuple[tuple[str, ...], ...]


def take(tree: Tree, buffers: list[Array]) -> Snapshot:
    """Copy `tree`. `buffers` are arrays of an earlier snapshot that nobody needs any more, or none; afterwards they are
    those of this one. Raises what `save` raises for a tree that cannot be saved."""
    encoded = trees.encode(tree)
    reused = [*buffers, *[None] * (len(encoded.tensors) - len(buffers))]
    buffers[:] = [copied(leaf.array, buffer) for leaf, buffer in zip(encoded.tensors, reused, strict=False)]
    return Snapshot(trees.decode(encoded.node, buffers.__getitem__), encoded.copied_views)


def copied(array: Array, buffer: Array | None) -> Array:
    """What a tensor is now, whatever happens to it later: a copy, in `buffer` if that is of its kind. The one place to
    know of frameworks whose tensors never change, and need no copy."""
    if buffer is None or buffer.dtype != array.dtype or buffer.shape != array.shape:
        buffer = np.empty_like(array, subok=False)
    np.copyto(buffer, array)
    return buffer
