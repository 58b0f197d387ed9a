"""Tags (SPEC.md section 13) as the command line shows them, beside the values that they say more of."""

from __future__ import annotations

from typing import Any

from ..format.names import Path
from ..format.tags import NATIVE
from ..format.tree import OMITTED, Tags, Tree
from ..frameworks.values import parts_of
from . import text
from .json_form import JsonEncoder

PARAM = 40  # most characters shown of a param
_GONE = object()


def notes(tags: Tags, tree: Tree) -> dict[Path, str]:
    """What tags say that the values of a tree do not show themselves, by path."""
    found = {}
    for path, here in tags.items():
        value, below = _at(tree, path)
        if value is _GONE or below:
            continue
        parts = parts_of(value)
        evident = NATIVE if parts is None else NATIVE | {parts.tag}
        said = [_words(name, param) for name, param in here if name not in evident]
        if said:
            found[path] = ", ".join(said)
    return found


def documents(tags: Tags, tree: Tree, below: Path = ()) -> list[dict[str, Any]]:
    """The tags of what is in a tree, at a path or below it, for --json."""
    encode = JsonEncoder().value
    return [
        {"path": encode(list(path)), "tag": name, "param": encode(param)}
        for path, here in tags.items()
        if path[: len(below)] == below and _at(tree, path)[0] is not _GONE
        for name, param in here
    ]


def _at(tree: Tree, path: Path) -> tuple[Any, Path]:
    """The value at a path, and what is left of the path where that is one value, such as a set."""
    value = tree
    for number, key in enumerate(path):
        if isinstance(value, dict):
            value = value.get(key, _GONE)
        elif isinstance(value, list | tuple) and type(key) is int and key < len(value):
            value = value[key]
        else:
            return value, path[number:]
        if value is OMITTED or value is _GONE:
            return _GONE, ()
    return value, ()


def _words(name: str, param: Any) -> str:
    shown = text.visible(name if len(name) <= text.KEY else text.quoted(name, text.KEY))
    if param is None:
        return shown
    if isinstance(param, str) and len(param) <= text.KEY:
        return f"{shown}({text.visible(param)})"
    short = text.inline(param, PARAM)
    if short is None:
        short = text.count(len(param), "item") if text.is_container(param) else text.scalar(param, PARAM)
    return f"{shown}({short})"
