"""A consistent copy of a tree, taken while training waits, to be saved while training goes on."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import numpy as np

from .. import tree as trees
from ..adapter import Tagged
from ..dtypes import Array
from ..encoder import encode
from ..sources import Shard, Sharded, Source, whole
from ..tags import TAGS
from ..tree import Tree


class Snapshot(NamedTuple):
    """A tree of its own, equal to that which it was taken from, aliases included; and the groups of paths whose arrays
    overlapped in it, as `SaveReport.copied_views` has them."""

    tree: Tree
    copied_views: tuple[tuple[str, ...], ...]


def take(tree: Tree, buffers: list[Any]) -> Snapshot:
    """Copy `tree`. `buffers` are what an earlier snapshot copied into and nobody needs any more, or none; afterwards
    they are those of this one. Raises what `save` raises for a tree that cannot be saved."""
    encoded = encode(tree)
    reused = [*buffers, *[None] * (len(encoded.tensors) - len(buffers))]
    buffers[:] = [copied(leaf.source, buffer) for leaf, buffer in zip(encoded.tensors, reused, strict=False)]
    restores = {name: partial(_tagged, name) for name, tag in TAGS.items() if tag.restore is None}
    return Snapshot(trees.decode(encoded.node, buffers.__getitem__, None, restores), encoded.copied_views)


def copied(source: Source, buffer: Any) -> Source:
    """What a tensor is now, whatever happens to it later: a copy on the host, in `buffer` if that is of its kind;
    itself, if its framework never changes tensors."""
    if getattr(source, "immutable", False):
        return source
    if isinstance(source, Sharded):
        parts = buffer.shards if isinstance(buffer, Sharded) else ()
        reused = [*(part.source for part in parts), *[None] * (len(source.shards) - len(parts))]
        shards = (Shard(s.start, copied(s.source, b)) for s, b in zip(source.shards, reused, strict=False))
        return Sharded(source.shape, source.dtype, tuple(shards), source.identity)
    if not isinstance(buffer, np.ndarray) or buffer.dtype != source.dtype or buffer.shape != source.shape:
        buffer = np.empty_like(source, subok=False) if isinstance(source, np.ndarray) else None
    elements: Array = source if isinstance(source, np.ndarray) else source[whole(source.shape)]
    if buffer is None:
        return elements.copy()
    np.copyto(buffer, elements)
    return buffer  # type: ignore[no-any-return]


def _tagged(name: str, param: Any, child: Any) -> Tagged:
    """A tagged value that is saved again as it was."""
    return Tagged(name, param, child, lambda value: value)
