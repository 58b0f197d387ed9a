"""What the suite takes from the text of SPEC.md: its statements and its registry of error codes."""

from __future__ import annotations

import re
from functools import cache

from . import SPEC

_STATEMENT = re.compile(r"^- `\[([A-Z]{2,6}-[0-9]{3})\]` (.*(?:\n  .*)*)", re.MULTILINE)
_CODE = re.compile(r"^\| `([a-z-]+)` \| ([a-z]+) \|", re.MULTILINE)
_MUST = re.compile(r"\bMUST\b")


@cache
def statements() -> dict[str, str]:
    """Every statement: id to text."""
    return dict(_STATEMENT.findall(SPEC.read_text()))


@cache
def binding() -> frozenset[str]:
    """The ids of the statements that say MUST or MUST NOT, or are items of a list that a MUST introduces."""
    listed = {identity for identity in statements() if identity.startswith("FRM-")}
    return frozenset({identity for identity, text in statements().items() if _MUST.search(text)} | listed)


@cache
def sections() -> dict[str, str]:
    """The title of the section in which each group of statements first stands: `TREE` to `The tree`."""
    found: dict[str, str] = {}
    title = ""
    for line in SPEC.read_text().splitlines():
        if line.startswith("## "):
            title = line.partition(". ")[2]
        elif match := _STATEMENT.match(line):
            found.setdefault(match[1].partition("-")[0], title)
    return found


@cache
def codes() -> dict[str, str]:
    """Every error code: code to phase."""
    registry = SPEC.read_text().partition("<!-- registry")[2].partition("<!-- end of registry")[0]
    return dict(_CODE.findall(registry))
