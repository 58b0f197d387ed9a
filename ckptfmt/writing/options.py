"""The options of writing, which many calls share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..format.manifest import Schema
    from ..format.tree import Tree
    from ..patterns import Patterns
    from ..progress import Progress
    from .request import Compression


class RequestOptions(TypedDict, total=False):
    """What is stored beside the tree, and how; see `ckptfmt.save`."""

    compression: Compression | Mapping[str, Compression]
    schema: Schema | tuple[str, str] | None
    metadata: Tree
    digest: str
    skip: Patterns


class PublishOptions(TypedDict, total=False):
    """How a checkpoint takes its place; see `ckptfmt.save`."""

    overwrite: bool
    durable: bool
    progress: Progress | None
    before_commit: Callable[[], Any] | None
    max_bytes_in_flight: int


class WriteOptions(RequestOptions, PublishOptions, total=False):
    """What one process may say of what it saves; see `ckptfmt.save`."""

    layout: str | None
    storage_options: Mapping[str, Any] | None
    extra: Mapping[str, Any] | None
