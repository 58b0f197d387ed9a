"""Finding the values of an open checkpoint by their paths, as in a dict of its tensors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from ..calls import takes
from ..errors import CkptError, fault
from ..format.names import Key, Path, PathIndex, value_at

if TYPE_CHECKING:
    from ..format.tree import Tree
    from ..frameworks.sources import Region

T = TypeVar("T")


class Lookup(Generic[T]):
    """Base of what has a tree with tensors that have not been read."""

    @property
    @abstractmethod
    def path(self) -> str:
        """Where it is stored."""

    @property
    @abstractmethod
    def tree(self) -> Tree:
        """The tree with a tensor that has not been read for each tensor leaf; aliases are one."""

    @property
    @abstractmethod
    def tensors(self) -> Mapping[Path, T]:
        """Every path at which a tensor stands, aliases included."""

    @property
    @abstractmethod
    def leaves(self) -> Mapping[Path, Any]:
        """Every leaf of the tree by its path; an empty container is a leaf."""

    @cached_property
    def paths(self) -> PathIndex:
        """The paths of all leaves, to be looked up."""
        return PathIndex(self.leaves)

    def __getitem__(self, path: Key | Path) -> Any:
        """The tensor, plain value or container at a path text ("model/wte"), as messages name it ("model/'0'" is the
        str key "0"), or at an exact typed path ("model", 0)."""
        return value_at(self.tree, self.paths.find(path, self.path))

    @takes(name="Checkpoint.read")
    def read(self, path: Key | Path, out: Any = None, *, region: Region | None = None) -> Any:
        """Read the tensor at a path, whole or a `region` of it: returns an array of its own, or `out`, which is filled;
        as `Tensor.read`. Raises `no-such-path`, also for what is no tensor."""
        found = self[path]
        if not hasattr(found, "read"):
            advice = f"Index with it instead: checkpoint[{path!r}]"
            message = f"{path!r} is a {type(found).__name__}, no tensor"
            raise fault("no-such-path", message, path=self.path, advice=advice)
        return found.read(out, region=region)

    def __contains__(self, path: Key | Path) -> bool:
        return bool(self.paths.fits(path))

    def __iter__(self) -> Iterator[str | Path]:
        """What finds each tensor: its path text; where that fits more than one value, its exact path."""
        return map(self.paths.name, self.tensors)

    def keys(self) -> list[str | Path]:
        """Return what finds each tensor: its path text, or its exact path where that fits more than one value."""
        return list(self)

    def values(self) -> list[T]:
        """Return the tensors, none of them read; as often as they have names."""
        return list(self.tensors.values())

    def items(self) -> list[tuple[str | Path, T]]:
        """Return what finds each tensor, and the tensor, which is not read."""
        return list(zip(self, self.tensors.values(), strict=True))

    @abstractmethod
    def __len__(self) -> int:
        """Number of tensors, aliases counted once."""

    @takes(name="Checkpoint.get")
    def get(self, path: Key | Path, default: Any = None) -> Any:
        """Return what indexing does, but `default` where there is nothing at the path; raises `ambiguous-path`."""
        try:
            return self[path]
        except CkptError as error:
            if error.code == "no-such-path":
                return default
            raise
