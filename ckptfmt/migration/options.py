"""The options of whatever takes a checkpoint to another version of its schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from ..reading.options import NameOptions
from ..writing.options import PublishOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..format.manifest import Schema
    from .graph import Documents
    from .operators import Extern


class ChainOptions(TypedDict, total=False):
    """How migrations lead to a version; see `ckptfmt.open`."""

    source_schema: Schema | tuple[str, str] | None
    down: bool
    lossy: bool
    parameters: Mapping[str, int] | None
    externs: Mapping[str, Extern] | None


class MigrateOptions(ChainOptions, NameOptions, PublishOptions, total=False):
    """How a migrated checkpoint is written; see `ckptfmt.migrate`."""


class UpgradeOptions(PublishOptions, total=False):
    """How an upgraded checkpoint is written; see `ckptfmt.upgrade`."""


class MigrationOptions(ChainOptions, total=False):
    """The version, the migrations, and how they lead there; see `ckptfmt.open`."""

    schema: Schema | tuple[str, str] | str | None
    migrations: Documents
