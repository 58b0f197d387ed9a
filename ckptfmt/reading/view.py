"""What is loaded from: a checkpoint as it is stored, or one seen at another version of its schema."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Self, TypeVar, Unpack

from .lookup import Lookup

if TYPE_CHECKING:
    from ..format.manifest import Schema
    from ..format.renaming import Renaming
    from ..format.tree import Tags, Tree
    from .checkpoint import StoredCheckpoint
    from .loading import Loader
    from .options import ViewLoadOptions
    from .supply import Reads, Supply

T = TypeVar("T")


class CheckpointView(Lookup[T]):
    """A tree with tensors that have not been read, and what a load of it needs."""

    @property
    @abstractmethod
    def path(self) -> str:
        """The path or URL of what is stored."""

    @property
    @abstractmethod
    def stored(self) -> StoredCheckpoint:
        """What is stored."""

    @property
    @abstractmethod
    def schema(self) -> Schema | None:
        """Id and version of the parameter layout."""

    @property
    @abstractmethod
    def metadata(self) -> Tree:
        """The user's plain values."""

    @property
    @abstractmethod
    def tags(self) -> Tags:
        """The tags over the values of the tree, by path."""

    @abstractmethod
    def renamed(self, renaming: Renaming) -> Self:
        """The same with other names for its tensors. Closing one closes both."""

    @property
    @abstractmethod
    def renaming(self) -> Renaming:
        """How its names were changed."""

    @abstractmethod
    def supply(self, reads: Reads) -> Supply:
        """What one load takes from."""

    def loader(self, **options: Unpack[ViewLoadOptions]) -> Loader:
        """What loads from it once."""
        from .loading import Loader  # here, as reading a slice needs none of it

        return Loader(self, **options)
