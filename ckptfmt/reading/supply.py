"""What a load takes values and tensors from, which have numbers here: a checkpoint as it is stored, or what a view
makes of one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..format import tree as trees
from ..format.dtypes import Array, DType
from ..format.names import Path
from ..format.node import Restore
from ..format.tags import TAGS
from ..format.tree import Tree
from ..frameworks.overflows import Tally
from .fetch import Fetcher
from .tensor import ArrayLike, Tensor

if TYPE_CHECKING:
    from .checkpoint import StoredCheckpoint

Keep = Callable[[Path], bool] | None
Restores = Mapping[str, Restore]


class Reads(NamedTuple):
    """How one load reads: with what, verified or not, and who counts elements beyond the range of a cast."""

    fetcher: Fetcher
    verify: bool
    tally: Tally


class Supply(Protocol):
    """Values and tensors for one load."""

    @property
    def leaves(self) -> Mapping[Path, Any]:
        """Every leaf by its path."""

    @property
    def times(self) -> Iterable[Path]:
        """The places of NumPy's times, whose stored elements are int64."""

    def tree(self, keep: Keep, made: Callable[[Iterable[int]], Mapping[int, Any]], restores: Restores) -> Tree:
        """The tree with the tensors that are `made` of numbers; `OMITTED` if nothing is kept."""

    def plain_at(self, at: Path, keep: frozenset[Path] | None, restores: Restores) -> Tree:
        """What stands at a place without tensors, but for all leaves besides those that are kept."""

    def params(self, at: Iterable[Path]) -> dict[Path, dict[str, Any]]:
        """The params of the tags over what is at some paths, by name."""

    def bound(self) -> Mapping[tuple[Path, str], Any]:
        """The params that a template's have to be, by path and tag."""

    def dtype(self, number: int) -> DType:
        """That of the stored elements."""

    def nbytes(self, number: int) -> int: ...

    def label(self, number: int) -> str:
        """The label of a tensor's path."""

    def sources(self, numbers: Iterable[int]) -> Iterable[int]:
        """The numbers in the manifest of those that are stored as they are."""

    def arrays(self, numbers: Iterable[int], stored: Callable[[Iterable[int]], dict[int, Array]]) -> dict[int, Array]:
        """Whole tensors; `stored` gives those of the manifest."""

    def origin(self, tensor: Any) -> Tensor | None:
        """The stored tensor that a tensor is, if it is one."""

    def direct(self, tensor: ArrayLike) -> ArrayLike:
        """The tensor, or the stored one that it is, of which many are read at once."""


class StoredSupply:
    """Those of a checkpoint as it is stored. Its numbers are those of the manifest."""

    def __init__(self, checkpoint: StoredCheckpoint) -> None:
        self._checkpoint = checkpoint
        self._node, self._specs = checkpoint.manifest.tree, checkpoint.manifest.specs
        self.label = checkpoint.describe

    @property
    def leaves(self) -> Mapping[Path, Any]:
        return self._checkpoint.leaves

    @property
    def times(self) -> Iterable[Path]:
        return self._checkpoint.times

    def tree(self, keep: Keep, made: Callable[[Iterable[int]], Mapping[int, Any]], restores: Restores) -> Tree:
        wanted: Iterable[int] = self._checkpoint.numbers
        if keep is not None:
            tensors = ((path, n[1]) for path, n in trees.leaves(self._node) if type(n) is list and n[0] == "tensor")
            wanted = sorted({index for path, index in tensors if keep(path)})
        return trees.decode(self._node, made(wanted).__getitem__, keep, restores)

    def plain_at(self, at: Path, keep: frozenset[Path] | None, restores: Restores) -> Tree:
        kept = None if keep is None else keep.__contains__
        return trees.decode(trees.node_at(self._node, at), lambda _: None, kept, restores, at)

    def params(self, at: Iterable[Path]) -> dict[Path, dict[str, Any]]:
        found: dict[Path, dict[str, Any]] = {path: {} for path in at}
        for path, name, param in trees.tags(self._node) if found else ():
            if path in found:
                found[path][name] = trees.decode(param, lambda _: None)
        return found

    def bound(self) -> Mapping[tuple[Path, str], Any]:
        return {(path, name): param for path, name, param in trees.tags(self._node) if binds(name)}

    def dtype(self, number: int) -> DType:
        return self._specs[number].dtype

    def nbytes(self, number: int) -> int:
        return self._specs[number].nbytes

    def sources(self, numbers: Iterable[int]) -> Iterable[int]:
        return numbers

    def arrays(self, numbers: Iterable[int], stored: Callable[[Iterable[int]], dict[int, Array]]) -> dict[int, Array]:
        return stored(numbers)

    def origin(self, tensor: Any) -> Tensor | None:
        return tensor if isinstance(tensor, Tensor) else None

    def direct(self, tensor: ArrayLike) -> ArrayLike:
        return tensor


def binds(tag: str) -> bool:
    """Whether the param of a tag has to be that of a template."""
    return tag in TAGS and TAGS[tag].binds
