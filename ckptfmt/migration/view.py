"""A checkpoint as it is at another version of its schema: nothing is written, and what is read is the source's blocks
that hold what is asked for (docs/spec/migrations.md)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from ..errors import UnknownTagWarning, fault
from ..format import tree as trees
from ..format.arrays import Shape
from ..format.dtypes import Array
from ..format.grid import select as normalise
from ..format.manifest import Schema
from ..format.names import Key, Path, path_label
from ..format.renaming import Renaming
from ..format.tags import CHILDREN, NATIVE, TAGS
from ..format.tree import Tree
from ..frameworks.adapter import kept
from ..frameworks.overflows import Kind, Tally, place_of
from ..frameworks.sources import Region
from ..frameworks.target import untagged
from ..reading.checkpoint import Checkpoint
from ..reading.filling import read_into
from ..reading.lookup import Lookup
from ..reading.tensor import ArrayLike, Tensor, finished
from ..warning import warn
from . import nodes
from .containers import leaves_of, renamed, with_leaves
from .graph import MigrationSet
from .nodes import Copied, Leaf, Mapped, Node, Rounded, Rounding
from .operators import Extern
from .plan import Entry, Plain, Plan, plan_chain

if TYPE_CHECKING:
    from ..frameworks.target import MatchReport
    from ..patterns import Patterns


class MigratedTensor(ArrayLike):
    """A tensor of the migrated checkpoint that has not been read. Index it to read a part (as NumPy's basic indexing),
    `read()` it whole, or give it to `np.asarray`. Raises `bad-index`, and `CorruptError` for damage in what is read."""

    __slots__ = ("_checkpoint", "_tally", "_verify", "node", "path")

    def __init__(
        self, path: Path, node: Node, checkpoint: Checkpoint, verify: bool | None = None, tally: Tally | None = None
    ) -> None:
        self.path, self.node, self._checkpoint, self._tally = path, node, checkpoint, tally
        self._verify = checkpoint.verifies if verify is None else verify

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
        return type(self)(self.path, self.node, self._checkpoint, verify, self._tally)

    def counted(self, tally: Tally) -> Self:
        """The same tensor, which tells a tally of elements beyond the range of a cast, and does not warn of them."""
        return type(self)(self.path, self.node, self._checkpoint, self._verify, tally)

    def _of(self, node: Node) -> Self:
        return type(self)(self.path, node, self._checkpoint, self._verify, self._tally)

    def __repr__(self) -> str:
        return f"<MigratedTensor {path_label(self.path)!r} {self.dtype} {self.shape}>"

    def __getitem__(self, index: Any) -> Any:
        selection = normalise(index, self.shape)
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

    def _read(self, region: nodes.Region) -> Array:
        tally = self._tally or Tally()
        values = nodes.read(self.node, region, _Reading(self, tally, self._checkpoint, self._verify))
        if self._tally is None:
            tally.warn()
        return values


class _Reading(NamedTuple):
    """One read of a tensor."""

    tensor: MigratedTensor
    tally: Tally
    checkpoint: Checkpoint
    verify: bool

    def fetch(self, key: Hashable, region: nodes.Region) -> Array:
        tensor = self.checkpoint.tensors[key].verified(self.verify)  # type: ignore[index]
        values: Array = tensor[(*region, ...)]
        return values

    def met(self, node: Rounding, region: nodes.Region, beyond: int) -> None:
        if beyond:
            kind = Kind(path_label(self.tensor.path), node.found, node.dtype, math.prod(self.tensor.shape))
            self.tally.add(kind, (node, place_of(region)), beyond)


class MigratedCheckpoint(Lookup[MigratedTensor]):
    """A checkpoint seen at another version of its schema; see `ckptfmt.open`. Use it as a context manager, or
    `close` it."""

    def __init__(self, checkpoint: Checkpoint, plan: Plan, schema: Schema) -> None:
        self.checkpoint, self.plan, self.schema = checkpoint, plan, schema
        self.path = checkpoint.path

    @property
    def metadata(self) -> Tree:
        """The user's plain values, as they are in the source."""
        return self.checkpoint.metadata

    @cached_property
    def tree(self) -> Tree:
        """The migrated tree with a `MigratedTensor` for each tensor leaf; aliases are one."""
        known: dict[Node, MigratedTensor] = {}

        def leaf(path: Path, entry: Any) -> Any:
            if isinstance(entry, Plain):
                return untagged(entry.value, CHILDREN)
            return known.setdefault(entry, MigratedTensor(path, entry, self.checkpoint)) if entry else entry

        return with_leaves(self.plan.tree, leaf)

    @cached_property
    def tensors(self) -> dict[Path, MigratedTensor]:
        """Every path at which a tensor stands, aliases included."""
        return {path: leaf for path, leaf in self.leaves.items() if isinstance(leaf, MigratedTensor)}

    @cached_property
    def leaves(self) -> dict[Path, Any]:
        """Every leaf of the tree by its path; an empty container is a leaf."""
        return dict(leaves_of(self.tree))

    def moved(self, tensor: MigratedTensor) -> Tensor | None:
        """The tensor of the source that a tensor of the result is, or is a copy of; None for what is computed."""
        node = tensor.node.input if isinstance(tensor.node, Copied) else tensor.node
        return self.checkpoint.tensors[node.key] if isinstance(node, Leaf) else None  # type: ignore[index]

    def __repr__(self) -> str:
        return f"<MigratedCheckpoint {self.path!r} at {self.schema.id} {self.schema.version}>"

    def __len__(self) -> int:
        """Number of tensors, aliases counted once."""
        return len({id(tensor) for tensor in self.tensors.values()})

    def renamed(
        self,
        prefix: Key | Path | None = None,
        strip_prefix: str | Iterable[str] | None = None,
        add_prefix: str | None = None,
    ) -> MigratedCheckpoint:
        """The same view, with other names for what it has; see `ckptfmt.load`. Closing one closes both."""
        renaming = Renaming.of(prefix, strip_prefix, add_prefix)
        if renaming == Renaming():
            return self
        tree = renamed(self.plan.tree, renaming, self.path)
        return MigratedCheckpoint(self.checkpoint, replace(self.plan, tree=tree), self.schema)

    def load(
        self,
        *,
        prefix: Key | Path | None = None,
        strip_prefix: str | Iterable[str] | None = None,
        add_prefix: str | None = None,
        **options: Any,
    ) -> Tree:
        """The migrated tree, or the part of it that `select` names, with NumPy arrays, a framework's tensors, or into a
        target; the options and errors are those of `Checkpoint.load`. Names are those of the view."""
        from .loading import ViewLoader  # here, as reading a slice needs none of it

        return ViewLoader(self.renamed(prefix, strip_prefix, add_prefix), **options).load()

    def match(
        self,
        target: Tree,
        *,
        prefix: Key | Path | None = None,
        strip_prefix: str | Iterable[str] | None = None,
        add_prefix: str | None = None,
        select: Patterns = None,
        cast: bool = False,
    ) -> MatchReport:
        """How a target tree differs from the migrated one, without reading or writing anything."""
        from .loading import ViewLoader

        named = self.renamed(prefix, strip_prefix, add_prefix)
        return ViewLoader(named, into=target, select=select, cast=cast).match()

    def was_replaced(self) -> bool:
        """Whether the path no longer leads to the source, because another save replaced it or it was removed."""
        return self.checkpoint.was_replaced()

    def close(self) -> None:
        """Close the source; arrays that were read stay valid."""
        self.checkpoint.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def migrated(
    checkpoint: Checkpoint,
    version: str,
    *,
    migrations: Any = (),
    source_schema: Schema | tuple[str, str] | None = None,
    down: bool = False,
    lossy: bool = False,
    parameters: Mapping[str, int] | None = None,
    externs: Mapping[str, Extern] | None = None,
) -> MigratedCheckpoint:
    """An open checkpoint at a version of its schema: plans, and reads nothing."""
    known = migrations if isinstance(migrations, MigrationSet) else MigrationSet(migrations, externs=externs)
    start = schema_of(checkpoint, source_schema)
    chain = known.chain(start.id, start.version, version, down=down, lossy=lossy)
    plan = plan_chain(chain, entries_of(checkpoint), checkpoint.metadata, parameters or {}, known.externs)
    return MigratedCheckpoint(checkpoint, plan, Schema(start.id, version))


def entries_of(checkpoint: Checkpoint) -> Tree:
    """The tree of a checkpoint with entries as its leaves, as plans see it; aliases are equal."""
    first: dict[int, Path] = {}

    def entry(path: Path, leaf: Any) -> Entry:
        if isinstance(leaf, Tensor):
            return Leaf(first.setdefault(id(leaf), path), leaf.shape, leaf.dtype)
        return Plain(leaf)

    return with_leaves(_with_tags(checkpoint), entry)


def _with_tags(checkpoint: Checkpoint) -> Tree:
    """The tree of a checkpoint, in which a tagged node without tensors is one leaf, whatever its tag; of any other tag
    that NumPy knows nothing of there is the child. [MIG-021]"""
    lost: dict[str, str] = {}

    def kept_or_lost(name: str, param: Any, child: Any) -> Any:
        if any(isinstance(leaf, Tensor) for _, leaf in leaves_of(child)):
            lost.setdefault(name, str(param or "") if name in TAGS and not isinstance(param, dict) else "")
            return child
        return kept(name)(param, child)

    names = {name for _, name, _ in trees.tags(checkpoint.manifest.tree)} - NATIVE
    restores = {name: partial(kept_or_lost, name) for name in names}
    tree = trees.decode(checkpoint.manifest.tree, checkpoint.handles.__getitem__, restores=restores)
    for name, param in lost.items():
        text = f"the tag {f'{name} {param}'.strip()!r} over tensors is left out: its child is migrated [MIG-021]"
        warn(text, UnknownTagWarning)
    return tree


def schema_of(checkpoint: Checkpoint, given: Schema | tuple[str, str] | None) -> Schema:
    """The schema of a checkpoint, or the one given for a checkpoint without; raises `no-migration`."""
    if checkpoint.schema is not None:
        return checkpoint.schema
    if given is None:
        message = "the checkpoint does not say its schema: give source_schema=(id, version)"
        raise fault("no-migration", message, path=checkpoint.path)
    return given if isinstance(given, Schema) else Schema(*given)
