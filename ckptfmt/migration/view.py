"""A checkpoint as it is at another version of its schema: nothing is written, and what is read is the source's blocks
that hold what is asked for (docs/spec/migrations.md)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from ..errors import CkptError, UnknownTagWarning, fault
from ..format import tree as trees
from ..format.dtypes import Array
from ..format.grid import Shape
from ..format.grid import select as normalise
from ..format.manifest import Schema
from ..format.names import Path, path_label
from ..format.renaming import Renaming
from ..format.tags import CHILDREN, NATIVE
from ..format.tree import Tags, Tree
from ..frameworks.adapter import kept
from ..frameworks.overflows import Tally, TensorCast, place_of
from ..frameworks.sources import Region
from ..frameworks.target import untagged
from ..reading.checkpoint import StoredCheckpoint
from ..reading.fetch import Fetcher
from ..reading.filling import read_into
from ..reading.tensor import ArrayLike, Tensor, finished
from ..reading.view import CheckpointView
from ..warning import warn
from . import nodes
from .containers import leaves_of, with_leaves
from .graph import Documents, MigrationSet
from .nodes import Copied, LazyNode, Leaf, Mapped, Rounded, Rounding
from .operators import Extern
from .plan import Entry, MigrationPlan, PlainLeaf, plan_chain
from .tags import TagNodes, followed, over_tensors, plain_value, renamed, said

if TYPE_CHECKING:
    from ..reading.supply import Reads
    from .supply import ViewSupply


class MigratedTensor(ArrayLike):
    """A tensor of the migrated checkpoint that has not been read. Index it to read a part (as NumPy's basic indexing),
    `read()` it whole, or give it to `np.asarray`. Raises `bad-index`, and `CorruptError` for damage in what is read."""

    __slots__ = ("_checkpoint", "_way", "node", "path")

    def __init__(self, path: Path, node: LazyNode, checkpoint: StoredCheckpoint, way: Way | None = None) -> None:
        self.path, self.node, self._checkpoint = path, node, checkpoint
        self._way = way or Way(checkpoint.verifies)

    @property
    def shape(self) -> Shape:
        return self.node.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of arrays read from it, in native byte order."""
        return self.node.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of its elements in memory."""
        return nodes.nbytes(self.node)

    @property
    def identity(self) -> Hashable:
        """Equal for tensors that are aliases. [TREE-010]"""
        return (self.node,)

    def view(self, dtype: np.dtype[Any]) -> Self:
        """The same elements as another dtype of the same width."""
        return self._of(Mapped(self.node, dtype, ("view", dtype), lambda array: array.view(dtype)))

    def astype(self, dtype: np.dtype[Any]) -> Self:
        """The same tensor, whose elements are converted after they are read."""
        return self._of(Rounded(self.node, dtype))

    def verified(self, verify: bool) -> Self:
        """The same tensor, read with or without verification."""
        return type(self)(self.path, self.node, self._checkpoint, self._way._replace(verify=verify))

    def within(self, tally: Tally, fetcher: Fetcher | None = None) -> Self:
        """The same tensor as part of a load or save, which reads it with a `fetcher`: a tally is told of elements
        beyond the range of a cast, and nobody is warned of them."""
        return type(self)(self.path, self.node, self._checkpoint, self._way._replace(tally=tally, fetcher=fetcher))

    def _of(self, node: LazyNode) -> Self:
        return type(self)(self.path, node, self._checkpoint, self._way)

    def __repr__(self) -> str:
        return f"<MigratedTensor {path_label(self.path)!r} {self.dtype} {self.shape}>"

    def __getitem__(self, index: Any) -> Any:
        try:
            selection = normalise(index, self.shape)
        except CkptError as error:
            error.path, error.tensor = self._checkpoint.path, path_label(self.path)
            raise
        region = tuple(slice(axis.start, axis.start + axis.length * axis.step, axis.step) for axis in selection.axes)
        region = tuple(slice(a.start, min(a.stop, n), a.step) for a, n in zip(region, self.shape, strict=True))
        return finished(self._read(region), selection, index)

    def read(self, out: Any = None, *, region: Region | None = None) -> Any:
        """The whole tensor as an array of its own, or just a region of it; also into `out`, as `Tensor.read`."""
        if out is not None:
            return read_into(self, out, region, self._checkpoint.path)
        wanted = nodes.whole(self.shape) if region is None else tuple(slice(a.start, a.stop, 1) for a in region)
        array = np.asarray(self._read(wanted))
        return np.array(array, order="C", copy=None if array.base is None and array.flags.writeable else True)

    def _read(self, region: Region) -> Array:
        tally = self._way.tally or Tally()
        values = nodes.read(self.node, region, _StoredReading(self, tally, self._checkpoint, self._way))
        if self._way.tally is None:
            tally.warn()
        return values


class Way(NamedTuple):
    """How tensors are read: verified or not, and within a load, or a save, for which they are counted."""

    verify: bool
    tally: Tally | None = None
    fetcher: Fetcher | None = None


class _StoredReading(NamedTuple):
    """One read of a tensor."""

    tensor: MigratedTensor
    tally: Tally
    checkpoint: StoredCheckpoint
    way: Way

    def fetch(self, key: Hashable, region: Region) -> Array:
        tensor = self.checkpoint.tensors[key].verified(self.way.verify)  # type: ignore[index]
        if self.way.fetcher is not None:
            tensor = tensor.within(self.way.fetcher)
        values: Array = tensor[(*region, ...)]
        return values

    def met(self, node: Rounding, region: Region, beyond: int) -> None:
        if beyond:
            kind = TensorCast(path_label(self.tensor.path), node.found, node.dtype, math.prod(self.tensor.shape))
            self.tally.add(kind, (node, place_of(region)), beyond)


class MigratedView(CheckpointView[MigratedTensor]):
    """A checkpoint seen at another version of its schema; see `ckptfmt.open`."""

    def __init__(self, stored: StoredCheckpoint, plan: MigrationPlan, schema: Schema, tags: TagNodes) -> None:
        """`tags`: those over tensors."""
        self._stored, self.plan, self._schema, self.tag_nodes = stored, plan, schema, tags
        self._renaming = stored.renaming

    @property
    def path(self) -> str:
        return self._stored.path

    @property
    def stored(self) -> StoredCheckpoint:
        return self._stored

    @property
    def schema(self) -> Schema:
        return self._schema

    @property
    def renaming(self) -> Renaming:
        return self._renaming

    @property
    def metadata(self) -> Tree:
        """The user's plain values, as they are in the source."""
        return self._stored.metadata

    @property
    def tags(self) -> Tags:
        """Those over tensors; others are in their values. [MIG-021]"""
        over = self.tag_nodes.items()
        return {path: [(name, plain_value(param)) for name, param in tags] for path, tags in over}

    @cached_property
    def tree(self) -> Tree:
        known: dict[LazyNode, MigratedTensor] = {}

        def leaf(path: Path, entry: Any) -> Any:
            if isinstance(entry, PlainLeaf):
                return untagged(entry.value, CHILDREN)
            return known.setdefault(entry, MigratedTensor(path, entry, self._stored)) if entry else entry

        return with_leaves(self.plan.tree, leaf)

    @cached_property
    def tensors(self) -> dict[Path, MigratedTensor]:
        return {path: leaf for path, leaf in self.leaves.items() if isinstance(leaf, MigratedTensor)}

    @cached_property
    def leaves(self) -> dict[Path, Any]:
        return dict(leaves_of(self.tree))

    def moved(self, tensor: MigratedTensor) -> Tensor | None:
        """The tensor of the source that a tensor of the result is, or is a copy of; None for what is computed."""
        node = tensor.node.input if isinstance(tensor.node, Copied) else tensor.node
        return self._stored.tensors[node.key] if isinstance(node, Leaf) else None  # type: ignore[index]

    def __repr__(self) -> str:
        return f"<MigratedView {self.path!r} at {self.schema.id} {self.schema.version}>"

    def __len__(self) -> int:
        return len({id(tensor) for tensor in self.tensors.values()})

    def renamed(self, renaming: Renaming) -> Self:
        if renaming == Renaming():
            return self
        tree, tags = renamed(self.plan.tree, self.tag_nodes, renaming, self.path)
        other = type(self)(self._stored, replace(self.plan, tree=tree), self._schema, tags)
        other._renaming = renaming
        return other

    def supply(self, reads: Reads) -> ViewSupply:
        from .supply import ViewSupply  # here, as reading a slice needs none of it

        return ViewSupply(self, reads)


def migrated(
    checkpoint: StoredCheckpoint,
    asked: Schema | tuple[str, str] | str,
    *,
    migrations: Documents = (),
    source_schema: Schema | tuple[str, str] | None = None,
    down: bool = False,
    lossy: bool = False,
    parameters: Mapping[str, int] | None = None,
    externs: Mapping[str, Extern] | None = None,
) -> MigratedView:
    """An open checkpoint at the version of its schema that is `asked` for: plans, and reads nothing."""
    known = migrations if isinstance(migrations, MigrationSet) else MigrationSet(migrations, externs=externs)
    start = schema_of(checkpoint, source_schema)
    version = _version(asked, start, checkpoint.path)
    chain = known.chain(start.id, start.version, version, down=down, lossy=lossy)
    entries = entries_of(checkpoint)
    plan = plan_chain(chain, entries, checkpoint.metadata, parameters or {}, known.externs)
    return MigratedView(checkpoint, plan, Schema(start.id, version), _tags(checkpoint, entries, plan))


def _tags(checkpoint: StoredCheckpoint, entries: Tree, plan: MigrationPlan) -> TagNodes:
    """The tags over tensors of the result; warns of those that are left out. [MIG-021]"""
    found = followed(over_tensors(checkpoint.manifest.tree), entries, plan.tree)
    for text in said(found.lost):
        message = f"the tag {text!r} over tensors is left out, as other names are below it: its child is migrated"
        warn(f"{message} [MIG-021]", UnknownTagWarning)
    if found.modules:
        more = f" and {len(found.modules) - 8} more" if len(found.modules) > 8 else ""
        modules = ", ".join(map(repr, found.modules[:8])) + more
        warn(
            f"the versions of modules are left out, as their tensors went apart: {modules} [MIG-021]", UnknownTagWarning
        )
    return found.tags


def _version(asked: Any, start: Schema, path: str) -> str:
    """The version that a `schema=` means of a checkpoint; raises `bad-option`, and `no-migration` for another id."""
    match asked:
        case str(version):
            return version
        case (str(identity), str(version)):
            if identity != start.id:
                message = "migrations lead to other versions of the same schema"
                raise fault("no-migration", message, path=path, found=start.id, expected=identity)
            return version
    expected = "a version, or a pair of id and version"
    raise fault("bad-option", f"schema= is {asked!r:.200}", path=path, found=type(asked).__name__, expected=expected)


def entries_of(checkpoint: StoredCheckpoint) -> Tree:
    """The tree of a checkpoint with entries as its leaves, as plans see it; aliases are equal."""
    first: dict[int, Path] = {}

    def entry(path: Path, leaf: Any) -> Entry:
        if isinstance(leaf, Tensor):
            return Leaf(first.setdefault(id(leaf), path), leaf.shape, leaf.dtype)
        return PlainLeaf(leaf)

    return with_leaves(_with_tags(checkpoint), entry)


def _with_tags(checkpoint: StoredCheckpoint) -> Tree:
    """The tree of a checkpoint, in which a tagged node without tensors is one leaf, whatever its tag; of any other tag
    that NumPy knows nothing of there is the child. [MIG-021]"""

    def kept_or_child(name: str, param: Any, child: Any) -> Any:
        has_tensors = any(isinstance(leaf, Tensor) for _, leaf in leaves_of(child))
        return child if has_tensors else kept(name)(param, child)

    names = {name for _, name, _ in trees.tags(checkpoint.manifest.tree)} - NATIVE
    restores = {name: partial(kept_or_child, name) for name in names}
    return trees.decode(checkpoint.manifest.tree, checkpoint.handles.__getitem__, restores=restores)


def schema_of(checkpoint: StoredCheckpoint, given: Schema | tuple[str, str] | None) -> Schema:
    """The schema of a checkpoint, or the one given for a checkpoint without; raises `no-migration`."""
    if checkpoint.schema is not None:
        return checkpoint.schema
    if given is None:
        message = "the checkpoint does not say its schema: give source_schema=(id, version)"
        raise fault("no-migration", message, path=checkpoint.path)
    return given if isinstance(given, Schema) else Schema(*given)
