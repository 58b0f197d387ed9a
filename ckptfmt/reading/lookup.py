"""Finding the values of an open checkpoint by their paths, as in a dict of its tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, Generic, TypeVar

from ..errors import CkptError
from ..format.names import Key, Path, PathIndex, value_at
from ..format.tree import Tree

T = TypeVar("T")


class Lookup(Generic[T]):
    """Base of what has a tree with tensors that have not been read."""

    path: str

    @property
    def tree(self) -> Tree:
        raise NotImplementedError

    @property
    def tensors(self) -> Mapping[Path, T]:
        """Every path at which a tensor stands, aliases included."""
        raise NotImplementedError

    @property
    def leaves(self) -> Mapping[Path, Any]:
        raise NotImplementedError

    @cached_property
    def _paths(self) -> PathIndex:
        return PathIndex(self.leaves)

    def __getitem__(self, path: Key | Path) -> Any:
        """The tensor, plain value or container at a path text ("model/wte"), as messages name it ("model/'0'" is the
        str key "0"), or at an exact typed path ("model", 0)."""
        return value_at(self.tree, self._paths.find(path, self.path))

    def __contains__(self, path: Key | Path) -> bool:
        return bool(self._paths.fits(path))

    def __iter__(self) -> Iterator[str | Path]:
        """What finds each tensor: its path text; where that fits more than one value, its exact path."""
        return map(self._paths.name, self.tensors)

    def keys(self) -> list[str | Path]:
        """What finds each tensor, as iterating gives it."""
        return list(self)

    def values(self) -> list[T]:
        """The tensors, none of them read; as often as they have names."""
        return list(self.tensors.values())

    def items(self) -> list[tuple[str | Path, T]]:
        """What finds each tensor, and the tensor."""
        return list(zip(self, self.tensors.values(), strict=True))

    def get(self, path: Key | Path, default: Any = None) -> Any:
        """As indexing, but `default` where there is nothing at the path; raises `ambiguous-path`."""
        try:
            return self[path]
        except CkptError as error:
            if error.code == "no-such-path":
                return default
            raise
