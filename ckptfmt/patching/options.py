"""The options of making and applying patches, as types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..writing.options import PublishOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..writing.request import Compression


class PatchOptions(PublishOptions, total=False):
    """How a patch is made and written; see `ckptfmt.patch`."""

    compression: Mapping[str, Any] | str
    verify: bool


class ApplyOptions(PublishOptions, total=False):
    """How what a patch makes is written; see `ckptfmt.apply`."""

    layout: str | None
    compression: Compression | Mapping[str, Compression]
    digest: str | None
    verify: bool
