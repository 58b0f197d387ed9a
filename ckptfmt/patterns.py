"""Globs over path texts, as `select=` and `compression=` take them.

`*` matches within a segment, `**` across segments, `?` one character; a pattern without wildcards also stands for
everything below it, and so the empty one, which names the root, for everything.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable

Patterns = str | Iterable[str] | None

_TOKEN = re.compile(r"(\*\*|\*|\?)")
_REGEX = {"**": ".*", "*": "[^/]*", "?": "[^/]"}


@functools.lru_cache(maxsize=1024)
def _compile(pattern: str) -> re.Pattern[str]:
    if not pattern:
        return re.compile(".*", re.DOTALL)  # the root, and so everything
    parts = _TOKEN.split(pattern)
    body = "".join(_REGEX.get(part) or re.escape(part) for part in parts)
    return re.compile(body if len(parts) > 1 else f"{body}(?:/.*)?", re.DOTALL)


def matches(pattern: str, text: str) -> bool:
    """Whether a path text matches a pattern."""
    return _compile(pattern).fullmatch(text) is not None


def matches_any(patterns: Iterable[str], text: str) -> bool:
    """Whether a path text matches one of the patterns."""
    return any(matches(pattern, text) for pattern in patterns)
