"""NumPy's basic-index notation ("1000:2000,::2,-1,..."), read by a small parser of its own: nothing is evaluated."""

from __future__ import annotations

import re
from types import EllipsisType

from ..errors import fault

IndexItem = int | slice | EllipsisType
Index = tuple[IndexItem, ...]

_INTEGER = r"[+-]?[0-9]{1,40}"
_ITEM = re.compile(
    rf"(?P<dots>\.\.\.)|(?P<int>{_INTEGER})|(?P<start>{_INTEGER})?\s*:\s*(?P<stop>{_INTEGER})?\s*(?::\s*(?P<step>{_INTEGER})?)?"
)


def parse(text: str) -> Index:
    """The index that `text` writes, with or without brackets around it; raises `bad-index`."""
    body = text.strip()
    if body.startswith("[") and body.endswith("]"):
        body = body[1:-1].strip()
    parts = body.split(",")
    if len(parts) > 1 and not parts[-1].strip():
        parts.pop()  # as in a Python tuple, a comma may end the index
    return tuple(_item(part.strip(), text) for part in parts)


def _item(part: str, text: str) -> IndexItem:
    found = _ITEM.fullmatch(part)
    if found is None:
        what = repr(part[:40]) if part else "an empty place"
        raise fault("bad-index", f"cannot read {what} in index {text[:80]!r}, which should be like 0:10,::2,-1")
    if found["dots"]:
        return ...
    if found["int"]:
        return int(found["int"])
    start, stop, step = (None if found[name] is None else int(found[name]) for name in ("start", "stop", "step"))
    return slice(start, stop, step)
