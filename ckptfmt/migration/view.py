"""A checkpoint as it is at another version of its schema: nothing is written, and what is read is the source's blocks
that hold what is asked for (SPEC.md section 20)."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Hashable, Iterator, Mapping
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple, Self, Unpack

import numpy as np

from ..errors import CkptError, UnknownTagWarning, fault
from ..format import tree as trees
from ..format.arrays import Shape
from ..format.dtypes import Array
from ..format.grid import select as normalise
from ..format.limits import DEFAULT, Limits
from ..format.manifest import Schema
from ..format.names import Key, Path, PathIndex, path_label, path_text, value_at
from ..format.tags import TAGS
from ..format.tree import Tree
from ..frameworks.adapter import Tagged
from ..frameworks.overflows import Kind, Tally, place_of
from ..frameworks.sources import Region
from ..reading.reader import Checkpoint
from ..reading.tensor import ArrayLike, Tensor, finished
from . import nodes
from .containers import leaves_of, with_leaves
from .graph import MigrationSet
from .nodes import Copied, Leaf, Mapped, Node, Rounded, Rounding
from .operators import Extern
from .options import MigrationOptions
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

    def read(self, out: Array | None = None, *, region: Region | None = None) -> Array:
        """The whole tensor as an array of its own, or just a region of it; also into `out`, an array of that shape."""
        wanted = nodes.whole(self.shape) if region is None else tuple(slice(a.start, a.stop, 1) for a in region)
        array = np.asarray(self._read(wanted))
        if out is not None:
            out[...] = array
            return out
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


class MigratedCheckpoint:
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
                return entry.value.child if isinstance(entry.value, Tagged) else entry.value
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

    @cached_property
    def _paths(self) -> PathIndex:
        return PathIndex(self.leaves)

    def __getitem__(self, path: Key | Path) -> Any:
        """The tensor, plain value or container at a path text or an exact typed path."""
        return value_at(self.tree, self._paths.find(path, self.path))

    def __iter__(self) -> Iterator[str]:
        """The path texts of all tensors."""
        return (path_text(path) for path in self.tensors)

    def __repr__(self) -> str:
        return f"<MigratedCheckpoint {self.path!r} at {self.schema.id} {self.schema.version}>"

    def load(self, **options: Any) -> Tree:
        """The migrated tree, or the part of it that `select` names, with NumPy arrays, a framework's tensors, or into a
        target; the options and errors are those of `Checkpoint.load`."""
        from .loading import ViewLoader  # here, as reading a slice needs none of it

        return ViewLoader(self, **options).load()

    def match(self, target: Tree, *, select: Patterns = None, cast: bool = False) -> MatchReport:
        """How a target tree differs from the migrated one, without reading or writing anything."""
        from .loading import ViewLoader

        return ViewLoader(self, into=target, select=select, cast=cast).match()

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


def open_migrated(
    path: str | os.PathLike[str],
    *,
    schema: str,
    verify: bool = True,
    limits: Limits = DEFAULT,
    storage_options: Mapping[str, Any] | None = None,
    follow_links: bool = False,
    **options: Unpack[MigrationOptions],
) -> MigratedCheckpoint:
    """`ckptfmt.open` with `schema`: reads the manifest, plans, and reads nothing else."""
    checkpoint = Checkpoint(
        path, verify=verify, limits=limits, storage_options=storage_options, follow_links=follow_links
    )
    try:
        return _planned(checkpoint, schema, **options)
    except BaseException as error:
        checkpoint.close()
        if isinstance(error, CkptError):
            error.path = error.path or checkpoint.path
        raise


def _planned(
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

    def kept(name: str, param: Any, child: Any) -> Any:
        if any(isinstance(leaf, Tensor) for _, leaf in leaves_of(child)):
            if name not in TAGS or TAGS[name].hint:
                lost.setdefault(name, str(param) if name in TAGS else "")
            return child
        return Tagged(name, param, child, lambda child: child)

    names = {name for _, name, _ in trees.tags(checkpoint.manifest.tree)}
    restores = {name: partial(kept, name) for name in names if name not in TAGS or TAGS[name].restore is None}
    tree = trees.decode(checkpoint.manifest.tree, checkpoint.handles.__getitem__, restores=restores)
    for name, param in lost.items():
        text = f"the tag {f'{name} {param}'.strip()!r} over tensors is left out: its child is migrated [MIG-021]"
        warnings.warn(text, UnknownTagWarning, stacklevel=2)
    return tree


def schema_of(checkpoint: Checkpoint, given: Schema | tuple[str, str] | None) -> Schema:
    """The schema of a checkpoint, or the one given for a checkpoint without; raises `no-migration`."""
    if checkpoint.schema is not None:
        return checkpoint.schema
    if given is None:
        message = "the checkpoint does not say its schema: give source_schema=(id, version)"
        raise fault("no-migration", message, path=checkpoint.path)
    return given if isinstance(given, Schema) else Schema(*given)
