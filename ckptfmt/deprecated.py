"""Spellings that an earlier version published: they go on for a version, with a warning that says the new one."""

from __future__ import annotations

from .warning import warn


def warn_deprecated(old: str, new: str) -> None:
    """Tell the program, at its line that says `old`, to say `new`."""
    warn(f"{old} is deprecated, and goes on for one version: say {new}", DeprecationWarning)
