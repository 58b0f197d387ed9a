"""What to say of patterns that select nothing. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from ..errors import CkptError, fault
from ..format.names import Path
from ..format.renaming import Renaming
from ..patterns import Patterns, as_patterns, near_selection, selector


def no_match(select: Patterns, paths: Iterable[Path], renaming: Renaming, checkpoint: str) -> CkptError:
    """`no-match`, with what to write: the patterns for the names that a renaming leaves, if they match these, or near
    ones."""
    message, patterns, there = f"select={select!r} matches nothing", as_patterns(select), list(paths)
    after = [renaming.pattern(pattern) for pattern in patterns]
    if after != patterns and any(map(selector(after), there)):
        way = after[0] if isinstance(select, str) else after
        advice = f"select= takes the names that {renaming} leaves: write select={way!r}"
        return fault("no-match", message, path=checkpoint, advice=advice)
    return fault("no-match", message, path=checkpoint, hint=partial(near_selection, patterns, there))
