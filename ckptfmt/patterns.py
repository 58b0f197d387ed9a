"""Globs over paths, as `select=` and `compression=` take them.

`*` matches within a segment, `**` across segments, `?` one character; a pattern without wildcards also stands for
everything below it, and so the empty one, which names the root, for everything. A pattern matches the text of a path,
and with quotes in it the label too, as messages and the command line show it: `vars/'0'` is the str key "0" alone.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable

from .format.names import Path, path_label, path_text
from .near import near_pattern, suggestion

Patterns = str | Iterable[str] | None

_WILD = re.compile(r"\*\*|\*|\?")
_REGEX = {"**": ".*", "*": "[^/]*", "?": "[^/]"}


@functools.lru_cache(maxsize=1024)
def _compile(pattern: str) -> re.Pattern[str]:
    if not pattern:
        return re.compile(".*", re.DOTALL)  # the root, and so everything
    parts = re.split(f"({_WILD.pattern})", pattern)
    body = "".join(_REGEX.get(part) or re.escape(part) for part in parts)
    return re.compile(body if len(parts) > 1 else f"{body}(?:/.*)?", re.DOTALL)


def as_patterns(patterns: Patterns) -> list[str]:
    """One pattern or several as a list."""
    return [patterns] if isinstance(patterns, str) else list(patterns or ())


def matches(pattern: str, text: str) -> bool:
    """Whether the text of a path matches a pattern."""
    return _compile(pattern).fullmatch(text) is not None


def selector(patterns: str | Iterable[str]) -> Callable[[Path], bool]:
    """What tells whether a path, by its text or its label, matches one of the patterns."""
    given = as_patterns(patterns)
    quoted = [pattern for pattern in given if "'" in pattern or '"' in pattern]

    def is_selected(path: Path) -> bool:
        text = path_text(path)
        if any(matches(pattern, text) for pattern in given):
            return True
        return bool(quoted) and any(matches(pattern, path_label(path)) for pattern in quoted)

    return is_selected


def near_selection(patterns: str | Iterable[str], paths: Iterable[Path]) -> str:
    """What to add to a message that says that none of the patterns matches one of the paths."""
    labels = list(dict.fromkeys(path_label(path[:n]) for path in paths for n in range(1, len(path) + 1)))
    given = as_patterns(patterns)
    found = [near_pattern(pattern, _WILD, labels, _matches_any) for pattern in given]
    return suggestion(dict.fromkeys(name for names in found for name in names))


def _matches_any(pattern: str, texts: Iterable[str]) -> bool:
    return any(matches(pattern, text) for text in texts)
