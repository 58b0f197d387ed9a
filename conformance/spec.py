"""What the suite takes from the text of SPEC.md and its companions: statements, their classes, and error codes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from . import DOCUMENTS, SPEC

_STATEMENT = re.compile(r"^- `\[([A-Z]{2,6}-[0-9]{3})\]` (.*(?:\n  .*)*)", re.MULTILINE)
_CODE = re.compile(r"^\| `([a-z-]+)` \| ([a-z]+) \|", re.MULTILINE)
_REGISTRY = re.compile(r"^<!-- registry.*?^<!-- end of registry", re.MULTILINE | re.DOTALL)
_MUST = re.compile(r"\bMUST\b")


@cache
def statements() -> dict[str, str]:
    """Every statement: id to text."""
    return {identity: text for page in DOCUMENTS for identity, text in _STATEMENT.findall(page.read_text())}


@cache
def binding() -> frozenset[str]:
    """The ids of the statements that say MUST or MUST NOT."""
    return frozenset(identity for identity, text in statements().items() if _MUST.search(text))


@cache
def classes() -> dict[str, tuple[str, ...]]:
    """Every conformance class of annex D: its name to the ids of its statements."""
    rows = SPEC.read_text().partition("| class | statements |")[2].partition("\n\n")[0].splitlines()[2:]
    cells = [row.strip("| ").split(" | ") for row in rows]
    return {name: tuple(_identities(listed)) for name, listed in cells}


@cache
def least_reader() -> frozenset[str]:
    """The statements of annex D that the least reader needs."""
    listed = SPEC.read_text().partition("<!-- the least reader")[2].partition("\n")[2].rstrip(".\n")
    return frozenset(_identities(listed.replace("\n", " ")))


def _identities(listed: str) -> Iterator[str]:
    """The ids in `TREE-001, 005–009; NAME-006`."""
    for group in listed.split("; "):
        prefix, _, numbers = group.partition("-")
        for one in numbers.split(", "):
            first, _, last = one.partition("–")
            for number in range(int(first), int(last or first) + 1):
                yield f"{prefix}-{number:03d}"


@cache
def sections() -> dict[str, str]:
    """The title of the section in which each group of statements first stands: `TREE` to `The tree`."""
    found: dict[str, str] = {}
    title = ""
    for line in (line for page in DOCUMENTS for line in page.read_text().splitlines()):
        if line.startswith("## "):
            title = line.partition(". ")[2]
        elif match := _STATEMENT.match(line):
            found.setdefault(match[1].partition("-")[0], title)
    return found


@cache
def codes() -> dict[str, str]:
    """Every error code: code to phase."""
    registries = [_REGISTRY.findall(page.read_text()) for page in DOCUMENTS]
    return {code: phase for found in registries for text in found for code, phase in _CODE.findall(text)}
