"""Names near to one that is not there, for what errors suggest. The time is bounded, however many names there are and
however long they are.

A name is a path or a word. Upper and lower case, and `.` and `/`, count as the same; a name that ends in the wanted one
is near to it.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterable
from difflib import SequenceMatcher
from itertools import islice

SHOWN = 3  # most names that are suggested
NAMES = 200_000  # most names that are looked at
LENGTH = 200  # characters of a name that are looked at
COMPARED = 64  # names that are compared at length
ALIKE = 0.6  # share of characters in common that makes two names near, as in difflib
BEHIND = 0.1  # how much less than the nearest a name may have that is suggested too

_SEGMENT = re.compile(r"[^/.]+")


def did_you_mean(wanted: str, names: Iterable[str]) -> str:
    """What to add to a message: "; did you mean 'model/wte' or 'model/wpe'?", or nothing."""
    return suggestion(near(wanted, names))


def suggestion(names: Iterable[str]) -> str:
    """The same for names that were found."""
    found = list(names)
    return f"; did you mean {' or '.join(map(repr, found))}?" if found else ""


def near(wanted: str, names: Iterable[str], count: int = SHOWN) -> list[str]:
    """At most `count` names, the nearest first."""
    asked = _folded(wanted)
    if not asked:
        return []
    pairs = {asked[i : i + 2] for i in range(len(asked) - 1)} or {asked}
    tail = f"/{asked}"

    def shared(name: str) -> float:
        """A cheap bound for `_likeness`, to leave out the many that are far."""
        folded = _folded(name)
        if folded.endswith(tail):
            return 2.0
        found = 0
        for pair in pairs:
            found += pair in folded
        return found / max(len(asked), len(folded))

    candidates = heapq.nlargest(COMPARED, dict.fromkeys(islice(names, NAMES)), key=shared)
    likeness = {name: _likeness(asked, _folded(name)) for name in candidates}
    least = max(ALIKE, max(likeness.values(), default=0.0) - BEHIND)
    return heapq.nlargest(count, (name for name in candidates if likeness[name] >= least), key=likeness.__getitem__)


def near_pattern(
    pattern: str, wild: re.Pattern[str], names: Iterable[str], matches: Callable[[str, list[str]], bool]
) -> list[str]:
    """What a pattern that matches none of `names` may have meant: the pattern with its literal parts mended, or names.
    `wild` finds what in a pattern stands for other texts; `matches(pattern, names)` tells whether one matches any."""
    there = list(dict.fromkeys(islice(names, NAMES)))
    mended = _mended(pattern, wild, there)
    for found in () if mended is None else (mended, mended.replace("/", "."), mended.replace(".", "/")):
        if found != pattern and matches(found, there):
            return [found]
    return near(_literal(wild.sub("", pattern)), there)


def _mended(pattern: str, wild: re.Pattern[str], names: list[str]) -> str | None:
    """The pattern with each literal part replaced by the nearest one that stands in a name; None if a part has none."""
    literals, stars = wild.split(pattern), wild.findall(pattern)
    for place, written in enumerate(literals):
        part = _literal(written)
        if not part:
            continue
        ends = (place == 0 and written.startswith(part), place == len(literals) - 1 and written.endswith(part))
        found = near(part, _parts(names, len(_SEGMENT.findall(part)), *ends), 1)
        if not found:
            return None
        literals[place] = written.replace(part, found[0])
    return "".join([text for pair in zip(literals, [*stars, ""], strict=True) for text in pair])


def _parts(names: list[str], segments: int, at_start: bool, at_end: bool) -> Iterable[str]:
    """Every text of so many segments that stands in a name; only that at its start or at its end where this is said."""
    found: dict[str, None] = {}
    for name in names:
        if len(name) > LENGTH:
            continue
        spans = [match.span() for match in _SEGMENT.finditer(name)]
        first, last = 0, len(spans) - segments
        if at_start:
            last = min(last, 0)
        elif at_end:
            first = max(0, last)
        for start in range(first, last + 1):
            found[name[spans[start][0] : spans[start + segments - 1][1]]] = None
    return found


def _literal(text: str) -> str:
    return text.strip("/.")


def _folded(name: str) -> str:
    return name[-LENGTH:].casefold().replace(".", "/")


def _likeness(asked: str, name: str) -> float:
    if name.endswith(f"/{asked}"):
        return 1.0
    return SequenceMatcher(None, asked, name, autojunk=False).ratio()
