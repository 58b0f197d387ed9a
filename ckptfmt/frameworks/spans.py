"""Names that are the same but for the number of a layer, as one. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

ALIKE = 3  # names from which they are one

_NUMBER = re.compile(r"(?<![^./])(?:0|[1-9][0-9]{0,8})(?![^./])")


def spans(names: Iterable[str]) -> list[tuple[str, int]]:
    """The names in their order, each with how many it stands for: "layers.{0..31}.w" for 32 that differ by their first
    number alone, which is a segment of its own and runs without a gap; text behind a name counts as part of it."""
    groups: dict[tuple[str, str], list[tuple[int, str]]] = {}
    for name in names:
        found = _NUMBER.search(name)
        form = (name[: found.start()], name[found.end() :]) if found else (name, "")
        groups.setdefault(form if found else (name, "\0"), []).append((int(found[0]) if found else 0, name))
    spanned: list[tuple[str, int]] = []
    for (before, after), members in groups.items():
        numbers = sorted(number for number, _ in members)
        first, last = numbers[0], numbers[-1]
        if len(members) >= ALIKE and numbers == list(range(first, last + 1)):
            spanned.append((f"{before}{{{first}..{last}}}{after}", len(members)))
        else:
            spanned += [(name, 1) for _, name in members]
    return spanned
