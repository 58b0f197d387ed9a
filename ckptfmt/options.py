"""The options of the public calls, as types: `def restore(path, **options: Unpack[LoadOptions])`.

Each option means the same in every call that takes it; the calls say what.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .migration.options import MigrationOptions
from .reading.options import MatchOptions, NameOptions, StoredOptions, ViewFillOptions, ViewLoadOptions

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .frameworks.adapter import Adapter
    from .signing.keys import SignatureKey

__all__ = [
    "FillOptions",
    "LoadOptions",
    "MatchOptions",
    "OpenOptions",
    "ReadOptions",
]


class ReadOptions(ViewLoadOptions, NameOptions, total=False):
    """What is loaded of an open checkpoint; see `ckptfmt.load`."""


class OpenOptions(StoredOptions, NameOptions, MigrationOptions, total=False):
    """How a checkpoint is opened; see `ckptfmt.open`."""

    framework: str | Adapter | None
    trust: SignatureKey | Iterable[SignatureKey] | None


class FillOptions(OpenOptions, ViewFillOptions, total=False):
    """How a checkpoint is opened, and how it is read, but not into what; see `ckptfmt.load`."""


class LoadOptions(FillOptions, ViewLoadOptions, total=False):
    """How a checkpoint is opened, and what is loaded of it; see `ckptfmt.load`."""


def divided(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of a load as those of opening, and those of loading from what is open. Names are changed when it is
    opened, so that migrations see them; what is verified, and as whose tensors, the load says."""
    of_load = ViewLoadOptions.__optional_keys__
    opening = {name: value for name, value in options.items() if name not in of_load}
    return opening, {name: value for name, value in options.items() if name in of_load}
