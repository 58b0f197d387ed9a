"""A checkpoint as it is at another version of its schema: nothing is written, and what is read is the source's blocks
that hold what is asked for (SPEC.md section 20)."""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterator, Mapping
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import numpy as np

from ..arrays import Shape
from ..dtypes import Array
from ..errors import CkptError, fault
from ..grid import select as normalise
from ..limits import DEFAULT, Limits
from ..manifest import Schema
from ..names import Key, Path, PathIndex, path_text, value_at
from ..patterns import Patterns, matches_any
from ..reader import Checkpoint
from ..tensor import ArrayLike, Tensor, finished
from ..tree import OMITTED, Tree
from . import nodes
from .containers import build_tree, leaves_of, with_leaves
from .graph import MigrationSet
from .nodes import Copied, Fetch, Leaf, Mapped, Node
from .operators import Extern
from .plan import Entry, Plain, Plan, plan_chain


class MigratedTensor(ArrayLike):
    """A tensor of the migrated checkpoint that has not been read. Index it to read a part (as NumPy's basic indexing),
    `read()` it whole, or give it to `np.asarray`. Raises `bad-index`, and `CorruptError` for damage in what is read."""

    __slots__ = ("_fetch", "node", "path")

    def __init__(self, path: Path, node: Node, fetch: Fetch) -> None:
        self.path, self.node, self._fetch = path, node, fetch

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

    def view(self, dtype: np.dtype[Any]) -> MigratedTensor:
        """The same elements as another dtype of the same width."""
        return MigratedTensor(
            self.path, Mapped(self.node, dtype, ("view", dtype), lambda a: a.view(dtype)), self._fetch
        )

    def __repr__(self) -> str:
        return f"<MigratedTensor {path_text(self.path)!r} {self.dtype} {self.shape}>"

    def __getitem__(self, index: Any) -> Any:
        selection = normalise(index, self.shape)
        region = tuple(slice(axis.start, axis.start + axis.length * axis.step, axis.step) for axis in selection.axes)
        region = tuple(slice(a.start, min(a.stop, n), a.step) for a, n in zip(region, self.shape, strict=True))
        return finished(nodes.read(self.node, region, self._fetch), selection, index)

    def read(self) -> Array:
        """The whole tensor as an array of its own."""
        array = np.asarray(nodes.read(self.node, nodes.whole(self.shape), self._fetch))
        return np.array(array, order="C", copy=None if array.base is None and array.flags.writeable else True)


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
                return entry.value
            return known.setdefault(entry, MigratedTensor(path, entry, self._fetch)) if entry else entry

        return with_leaves(self.plan.tree, leaf)

    @cached_property
    def tensors(self) -> dict[Path, MigratedTensor]:
        """Every path at which a tensor stands, aliases included."""
        return {path: leaf for path, leaf in self._leaves.items() if isinstance(leaf, MigratedTensor)}

    @cached_property
    def _leaves(self) -> dict[Path, Any]:
        return dict(leaves_of(self.tree))

    def moved(self, tensor: MigratedTensor) -> Tensor | None:
        """The tensor of the source that a tensor of the result is, or is a copy of; None for what is computed."""
        node = tensor.node.input if isinstance(tensor.node, Copied) else tensor.node
        return self.checkpoint.tensors[node.key] if isinstance(node, Leaf) else None  # type: ignore[index]

    def _fetch(self, key: Hashable, region: nodes.Region) -> Array:
        tensor = self.checkpoint.tensors[key]  # type: ignore[index]
        values: Array = tensor[(*region, ...)]
        return values

    @cached_property
    def _paths(self) -> PathIndex:
        return PathIndex(self._leaves)

    def __getitem__(self, path: Key | Path) -> Any:
        """The tensor, plain value or container at a path text or an exact typed path."""
        return value_at(self.tree, self._paths.find(path, self.path))

    def __iter__(self) -> Iterator[str]:
        """The path texts of all tensors."""
        return (path_text(path) for path in self.tensors)

    def __repr__(self) -> str:
        return f"<MigratedCheckpoint {self.path!r} at {self.schema.id} {self.schema.version}>"

    def load(self, *, select: Patterns = None) -> Tree:
        """The migrated tree, or the part of it that `select` names, with NumPy arrays; as `ckptfmt.load` does."""
        patterns = None if select is None else [select] if isinstance(select, str) else list(select)
        arrays: dict[int, Array] = {}
        leaves = []
        for path, leaf in self._leaves.items():
            if patterns is not None and not matches_any(patterns, path_text(path)):
                continue
            if isinstance(leaf, MigratedTensor):
                leaf = arrays[id(leaf)] if id(leaf) in arrays else arrays.setdefault(id(leaf), leaf.read())
            leaves.append((path, leaf))
        if patterns is not None and not leaves:
            raise fault("no-match", f"select={select!r} matches nothing", path=self.path)
        return build_tree(_with_gaps(leaves, self.tree), self.tree)

    def close(self) -> None:
        """Close the source; arrays that were read stay valid."""
        self.checkpoint.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_migrated(
    path: str | os.PathLike[str],
    *,
    schema: str,
    migrations: Any = (),
    source_schema: Schema | tuple[str, str] | None = None,
    down: bool = False,
    lossy: bool = False,
    parameters: Mapping[str, int] | None = None,
    externs: Mapping[str, Extern] | None = None,
    verify: bool = True,
    limits: Limits = DEFAULT,
    storage_options: Mapping[str, Any] | None = None,
) -> MigratedCheckpoint:
    """`ckptfmt.open` with `schema`: reads the manifest, plans, and reads nothing else."""
    known = migrations if isinstance(migrations, MigrationSet) else MigrationSet(migrations, externs=externs)
    checkpoint = Checkpoint(path, verify=verify, limits=limits, storage_options=storage_options)
    try:
        start = schema_of(checkpoint, source_schema)
        chain = known.chain(start.id, start.version, schema, down=down, lossy=lossy)
        plan = plan_chain(chain, entries_of(checkpoint), checkpoint.metadata, parameters or {}, known.externs)
    except BaseException as error:
        checkpoint.close()
        if isinstance(error, CkptError):
            error.path = error.path or checkpoint.path
        raise
    return MigratedCheckpoint(checkpoint, plan, Schema(start.id, schema))


def entries_of(checkpoint: Checkpoint) -> Tree:
    """The tree of a checkpoint with entries as its leaves, as plans see it; aliases are equal."""
    first: dict[int, Path] = {}

    def entry(path: Path, leaf: Any) -> Entry:
        if isinstance(leaf, Tensor):
            return Leaf(first.setdefault(id(leaf), path), leaf.shape, leaf.dtype)
        return Plain(leaf)

    return with_leaves(checkpoint.tree, entry)


def schema_of(checkpoint: Checkpoint, given: Schema | tuple[str, str] | None) -> Schema:
    """The schema of a checkpoint, or the one given for a checkpoint without; raises `no-migration`."""
    if checkpoint.schema is not None:
        return checkpoint.schema
    if given is None:
        message = "the checkpoint does not say its schema: give source_schema=(id, version)"
        raise fault("no-migration", message, path=checkpoint.path)
    return given if isinstance(given, Schema) else Schema(*given)


def _with_gaps(leaves: list[tuple[Path, Any]], tree: Tree) -> list[tuple[Path, Any]]:
    """Also `OMITTED` for the items of lists and tuples that were left out beside others."""
    kept = {path[:n] for path, _ in leaves for n in range(len(path) + 1)}
    found = list(leaves)
    for path in kept:
        value = tree
        for key in path:
            value = value[key]
        if type(value) in (list, tuple):
            found += [((*path, i), OMITTED) for i in range(len(value)) if (*path, i) not in kept]
    return found
