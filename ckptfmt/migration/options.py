"""The options of whatever takes a checkpoint to another version of its schema, for annotations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from ..format.manifest import Schema
from .operators import Extern


class ChainOptions(TypedDict, total=False):
    """How migrations lead to a version; see `ckptfmt.open`."""

    source_schema: Schema | tuple[str, str] | None
    down: bool
    lossy: bool
    parameters: Mapping[str, int] | None
    externs: Mapping[str, Extern] | None


class MigrationOptions(ChainOptions, total=False):
    """The migrations, and how they lead to a version."""

    migrations: Any
