"""The options of writing, which many calls share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np

from ..errors import fault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..format.manifest import Schema
    from ..format.tree import Tree
    from ..patterns import Patterns
    from ..progress import Progress
    from .request import Compression

OnNan = Literal["warn", "refuse"]


class FormOptions(TypedDict, total=False):
    """What is stored of a tree, and how; see `ckptfmt.save`."""

    compression: Compression | Mapping[str, Compression]
    schema: Schema | tuple[str, str] | None
    digest: str
    skip: Patterns


class RequestOptions(FormOptions, total=False):
    """The same, and what is stored beside the tree."""

    metadata: Tree


class WatchOptions(TypedDict, total=False):
    """What is looked at as it is written; see `ckptfmt.save`."""

    statistics: bool
    on_nan: OnNan | None


class FlowOptions(TypedDict, total=False):
    """How bytes are written; see `ckptfmt.save`."""

    durable: bool
    progress: Progress | None
    max_bytes_in_flight: int


class PublishOptions(FlowOptions, total=False):
    """The same, and how a checkpoint takes its place."""

    overwrite: bool
    before_commit: Callable[[], Any] | None


class WriteOptions(RequestOptions, PublishOptions, WatchOptions, total=False):
    """What one process may say of what it saves; see `ckptfmt.save`."""

    layout: str | None
    storage_options: Mapping[str, Any] | None
    extra: Mapping[str, Any] | None
    paged: bool | None


def paged_asked(paged: Any) -> bool | None:
    """What `paged=` means; raises `bad-option`."""
    if paged is None:
        return None
    if not isinstance(paged, bool | np.bool_):
        raise fault("bad-option", "paged=", found=paged, expected="True, False or None")
    return bool(paged)
