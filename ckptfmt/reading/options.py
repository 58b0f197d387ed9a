"""The options of opening and of loading, which many calls share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

from ..errors import CkptError
from ..format.renaming import Renaming

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ..format.limits import Limits
    from ..format.names import Key, Path
    from ..format.tree import Tree
    from ..frameworks.adapter import Adapter
    from ..frameworks.target import MatchReport
    from ..patterns import Patterns
    from ..progress import Progress
    from .bases import PatchBase
    from .mismatched import Mismatched


class NameOptions(TypedDict, total=False):
    """Other names for what is stored; see `ckptfmt.load`."""

    prefix: Key | Path | None
    strip_prefix: str | Iterable[str] | None
    add_prefix: str | None


class StoreOptions(TypedDict, total=False):
    """How a place is reached; see `ckptfmt.open`."""

    storage_options: Mapping[str, Any] | None
    follow_links: bool


class StoredOptions(StoreOptions, total=False):
    """How a checkpoint is opened; see `ckptfmt.open`."""

    verify: bool | None
    limits: Limits
    base: PatchBase


class MatchOptions(NameOptions, total=False):
    """What of a checkpoint is compared with a target; see `ckptfmt.load`."""

    select: Patterns
    cast: bool


class ViewFillOptions(TypedDict, total=False):
    """What is read of an open checkpoint, and how; see `ckptfmt.load`."""

    select: Patterns
    framework: str | Adapter | None
    mmap: bool
    verify: bool | None
    strict: bool
    cast: bool
    mismatched: Mismatched
    progress: Progress | None
    max_bytes_in_flight: int
    on_match: Callable[[MatchReport], None] | None


class ViewLoadOptions(ViewFillOptions, total=False):
    """The same, and into what; see `ckptfmt.load`."""

    into: Tree
    like: Tree


def taken_names(options: dict[str, Any], path: str) -> Renaming:
    """What the options of a call about the checkpoint at `path` say of names, which are taken out of them; raises
    `bad-option`."""
    asked = [options.pop(name, None) for name in NameOptions.__annotations__]
    try:
        return Renaming.of(*asked)
    except CkptError as error:
        error.path = path
        raise
