"""A consistent copy of a tree, taken while training waits, to be saved while training goes on.

What matters is how long training waits. The first copy of a tree walks it as a save does. A later one of the same
arrays, as of a run that updates them in place, needs no more than a look at each: the loops over the arrays of a dict
or list, and over the tensors of a framework that can copy many at once, are then in C.
"""

from __future__ import annotations

import operator
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import InputError
from ..format import tree as trees
from ..format.dtypes import Array
from ..format.limits import uncollected
from ..format.node import Node
from ..format.tree import Tree
from ..frameworks.adapter import KEPT, Plain, Tagged, lower, seen
from ..frameworks.sources import Shard, Sharded, Source, whole
from ..patterns import Patterns
from ..writing.encoder import encode
from ..writing.request import skipped
from .shared_memory import SharedCopies

_ITSELF = {type(None), bool, float, bytes}  # values that are their nodes
_PLAIN = {*_ITSELF, int, complex, np.bool_, np.int32, np.int64, np.float32, np.float64}
_ABOUT = tuple(map(operator.attrgetter, ("dtype", "ndim", "nbytes")))  # what can be set; a copy tells other shapes


class Snapshot(NamedTuple):
    """A tree as its node and copies of its tensors, and the groups of paths whose arrays overlapped in it, as
    `SaveReport.copied_views` has them. `shared`: the memory of the copies, where another process sees it."""

    node: Node
    tensors: Sequence[Source]
    copied_views: tuple[tuple[str, ...], ...]
    shared: SharedCopies | None = None

    @property
    def tree(self) -> Tree:
        """A tree of its own, equal to that which it was taken from, aliases included."""
        return trees.decode(self.node, self.tensors.__getitem__, None, KEPT)


class _TensorGroup(NamedTuple):
    """Tensors of a framework that stand together in a tree: how they are seen there, their nodes, and what they are
    copied into, as tensors of that framework."""

    adapter: Any
    look: Any
    nodes: list[Node]
    tensors: list[Any]


class SnapshotBuffers:
    """What a snapshot copied into, and from where; for the next one, once nobody needs it any more. `is_shared`: into
    memory that another process can see, too."""

    def __init__(self, *, is_shared: bool = False) -> None:
        self._shared = SharedCopies() if is_shared else None
        self._targets: list[Any] = []
        self._forget()

    def _forget(self) -> None:
        # NumPy arrays that stand in the tree themselves, by id, while they live (NumPy resizes none that has a weak
        # reference, so their memory stays); what each is copied into, and its node
        self._arrays: dict[int, weakref.ref[Array]] = {}
        self._target_of: dict[int, Array] = {}
        self._node_of: dict[int, Node] = {}
        # tensors of frameworks, by where they are in memory: a `state_dict()` makes new objects that see the same
        self._groups: dict[tuple[int, ...], _TensorGroup] = {}
        self._keys: dict[tuple[Any, ...], list[Node]] = {}  # of dicts, which were checked, and their nodes

    def take(self, tree: Tree, skip: Patterns = None) -> Snapshot:
        """Copy `tree`, but for what a save is to skip. Raises what `save` raises for a tree that cannot be saved, and
        `no-memory`."""
        if self._shared is not None and self._shared.is_of_a_fork:
            self._forget()
            self._targets, self._shared = [], SharedCopies()
        if self._keys or self._arrays or self._groups:
            again = _Again(self._arrays, self._target_of, self._node_of, self._groups, self._keys)
            try:
                node = again.node(tree, 0)
                again.copy()
                return Snapshot(node, self._targets, (), self._shared)
            except (_OtherError, ValueError):
                pass
        return self._take_new(tree, skip)

    @uncollected()
    def _take_new(self, tree: Tree, skip: Patterns) -> Snapshot:
        encoded = encode(tree, skip=skipped(skip))
        self._forget()
        self._copy(encoded.sources)
        if not encoded.copied_views and skip is None:  # else they are found anew each time
            for number, (source, target) in enumerate(zip(encoded.sources, self._targets, strict=True)):
                if type(source) is np.ndarray:
                    self._arrays[id(source)] = weakref.ref(source)
                    self._target_of[id(source)] = target
                    self._node_of[id(source)] = ["tensor", number]
            self._learn(tree, encoded.node)
        return Snapshot(encoded.node, self._targets, encoded.copied_views, self._shared)

    def _copy(self, sources: list[Source]) -> None:
        if self._shared is not None:
            self._targets = []  # first, as they keep the memory that is given back where it does not fit
            self._targets = self._shared.take(sources)
            return
        reused = [*self._targets, *[None] * (len(sources) - len(self._targets))]
        self._targets = [copied(source, buffer) for source, buffer in zip(sources, reused, strict=False)]

    def _learn(self, value: Any, node: Any) -> None:
        """Learn the keys of dicts, and which tensors of frameworks stand together, from a tree and its node."""
        kind = type(value)
        if kind is OrderedDict and node[1] != "collections.OrderedDict":
            value, node = lower(value).child, node[3]  # type: ignore[union-attr]  # of a tag of its own
        if kind is OrderedDict:
            node = node[3]  # of its tag
        if kind is dict or kind is OrderedDict:
            self._keys[tuple(value)] = node[1]
            values, nodes = list(value.values()), node[2]
        elif kind is list or kind is tuple:
            values, nodes = list(value), node[1]
        elif type(node) is list and kind is not np.ndarray:
            if node[0] == "tensor":
                self._learn_group([value], [node])
            elif isinstance(lowered := lower(value), Plain):
                self._learn(lowered.value, node)
            return
        else:
            return
        if not self._learn_group(values, nodes):
            for item, below in zip(values, nodes, strict=True):
                self._learn(item, below)

    def _learn_group(self, values: list[Any], nodes: list[Any]) -> bool:
        found = seen(values) if values else None
        if found is None:
            return False
        adapter, addresses, look = found
        arrays = [self._targets[node[1]] for node in nodes]
        self._groups[addresses] = _TensorGroup(adapter, look, nodes, list(map(adapter.wrap, arrays)))
        return True


class _OtherError(Exception):
    """The tree holds something that the one before did not."""


class _Again:
    """The node of a tree whose arrays are all known, and what is to be copied for it."""

    def __init__(
        self,
        arrays: dict[int, weakref.ref[Array]],
        target_of: dict[int, Array],
        node_of: dict[int, Node],
        groups: dict[tuple[int, ...], _TensorGroup],
        keys: dict[tuple[Any, ...], list[Node]],
    ) -> None:
        self._arrays, self._target_of, self._node_of = arrays, target_of, node_of
        self._groups, self._keys = groups, keys
        self._from: list[Array] = []
        self._to: list[Array] = []
        self._tensors: list[tuple[_TensorGroup, list[Any]]] = []

    def node(self, value: Tree, depth: int) -> Node:
        kind = type(value)
        if kind is OrderedDict and vars(value) and isinstance(lowered := lower(value), Tagged):
            return ["tag", lowered.tag, _plain_node(lowered.param), self.node(lowered.child, depth + 1)]
        if kind is dict or kind is OrderedDict:
            node = ["dict", self._keys_of(value), self._nodes(list(value.values()), depth)]
            return node if kind is dict else ["tag", "collections.OrderedDict", None, node]
        if kind is list or kind is tuple:
            return [kind.__name__, self._nodes(list(value), depth)]
        if kind is np.ndarray:
            found = self._known([value])
            if found is not None:
                return found[0]
        if kind in _ITSELF or (kind is str and value.isascii()):
            return value
        if kind in _PLAIN:
            return _plain_node(value)
        group = self._group([value])
        if group is not None:
            return group[0]
        lowered = lower(value)
        if isinstance(lowered, Plain):
            return self.node(lowered.value, depth)
        if isinstance(lowered, Tagged):
            return _plain_node(value)
        raise _OtherError

    def _keys_of(self, value: dict[Any, Any]) -> list[Node]:
        """The nodes of a dict's keys, if it was checked; True is equal to 1, and no key."""
        nodes = self._keys.get(tuple(value))
        if nodes is None or list(map(type, value)) != list(map(type, nodes)):
            raise _OtherError
        return nodes

    def _nodes(self, values: list[Any], depth: int) -> list[Node]:
        found = self._known(values)
        if found is None and values and type(values[0]) not in _PLAIN:
            found = self._group(values)
        if found is not None:
            return found
        if depth >= trees.MAX_DEPTH:
            raise _OtherError
        return [self.node(value, depth + 1) for value in values]

    def _known(self, values: list[Any]) -> list[Node] | None:
        """The nodes of these, if all are arrays that are known."""
        numbers = list(map(id, values))
        try:
            alive = map(operator.call, map(self._arrays.__getitem__, numbers))
            if not all(map(operator.is_, alive, values)):
                return None
        except KeyError:
            return None
        targets = list(map(self._target_of.__getitem__, numbers))
        for about in _ABOUT:
            if list(map(about, values)) != list(map(about, targets)):
                raise _OtherError
        self._from += values
        self._to += targets
        return list(map(self._node_of.__getitem__, numbers))

    def _group(self, values: list[Any]) -> list[Node] | None:
        """The nodes of these, if all are tensors of one framework that were together before."""
        found = seen(values)
        if found is None:
            return None
        adapter, addresses, look = found
        group = self._groups.get(addresses)
        if group is None or group.adapter is not adapter or group.look != look:
            raise _OtherError
        self._tensors.append((group, values))
        return group.nodes

    def copy(self) -> None:
        any(map(np.copyto, self._to, self._from))  # which gives None
        for group, values in self._tensors:
            group.adapter.copy(group.tensors, values)


def _plain_node(value: Any) -> Node:
    """The node of a value that has no tensors."""
    if type(value) is int and -(1 << 63) <= value < 1 << 63:  # of which there may be many
        return value
    try:
        return encode(value, allow_tensors=False).node
    except InputError:
        raise _OtherError from None


def copied(source: Source, buffer: Any) -> Source:
    """What a tensor is now, whatever happens to it later: a copy on the host, in `buffer` if that is of its kind;
    itself, if its framework never changes tensors."""
    if getattr(source, "immutable", False):
        return source.view(np.ndarray) if isinstance(source, np.ndarray) else source
    if isinstance(source, Sharded):
        parts = buffer.shards if isinstance(buffer, Sharded) else ()
        reused = [*(part.source for part in parts), *[None] * (len(source.shards) - len(parts))]
        shards = (Shard(s.start, copied(s.source, b)) for s, b in zip(source.shards, reused, strict=False))
        return Sharded(source.shape, source.dtype, tuple(shards), source.identity)
    native = source.dtype.newbyteorder("=")  # as tags expect their arrays
    if not isinstance(buffer, np.ndarray) or buffer.dtype != native or buffer.shape != source.shape:
        buffer = np.empty_like(source, native, subok=False) if isinstance(source, np.ndarray) else None
    elements: Array = source if isinstance(source, np.ndarray) else source[whole(source.shape)]
    if buffer is None:
        return elements.copy()
    np.copyto(buffer, elements)
    return buffer  # type: ignore[no-any-return]
