"""The options of conversions, which several calls share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..reading.options import StoreOptions
from ..writing.options import RequestOptions

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping

    from ..patterns import Patterns
    from ..reading.bases import PatchBase
    from .losses import AllowLoss


class SourceOptions(StoreOptions, total=False):
    """How a source is read; see `ckptfmt.convert`."""

    max_expansion: int
    dequantize: str | None
    base: PatchBase


class OwnOptions(RequestOptions, total=False):
    """What is said of a checkpoint of this format that is written; see `ckptfmt.save`."""

    layout: str | None
    before_commit: Callable[[], Any] | None
    max_bytes_in_flight: int
    extra: Mapping[str, Any] | None


class EachOptions(SourceOptions, OwnOptions, total=False):
    """How one checkpoint of several is converted; see `ckptfmt.convert`."""

    source_format: str | None
    select: Patterns
    root: str | None
    nest: bool
    template: str | os.PathLike[str] | None
    allow_loss: AllowLoss
    verify: bool
    overwrite: bool
    durable: bool
    max_shard_size: int | str | None
