"""What goes into a page: values as JSON has them, and texts that fit."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from ..errors import visible
from ..format.names import Path, path_label
from ..frameworks.target import flatten
from ..markup import short

NAME, VALUE = 240, 300  # most characters of a name, and of a plain value
ENTRIES = 300  # most entries of metadata
EXACT = 1 << 53  # below it a script keeps every int


def cut(text: str, limit: int = NAME) -> str:
    """A text as one line, in which what is not printable stands as an escape, with its middle left out where it is
    long."""
    if len(text) > limit:
        text = f"{text[: limit // 2]} … {text[-limit // 2 :]}"
    return visible(text)


def label(path: Path) -> str:
    """The label of a path, which may be long."""
    return cut(path_label(path))


def number(value: float | int | None) -> float | int | str | None:
    """A number for a script, which `num` there reads: NaN, infinities and large ints as text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < EXACT else str(value)
    if math.isnan(value) or math.isinf(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return float(f"{value:.7g}")


def moment(seconds: float | None) -> int | None:
    """A time since 1970 in whole seconds: seven digits of it would be ten minutes."""
    return None if seconds is None else round(seconds)


def entries(tree: Any) -> list[tuple[str, str]]:
    """Plain values by the labels of their paths, the first ones."""
    found: list[tuple[str, str]] = []
    for path, leaf in flatten(tree):
        if len(found) == ENTRIES:
            return [*found, ("…", "and more")]
        found.append((label(path) or "(root)", cut(short(leaf, VALUE), VALUE + 1)))
    return found


def as_json(data: Mapping[str, Any]) -> str:
    """JSON that can stand in an element of HTML, whatever is in it; raises ValueError for what is no JSON."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
