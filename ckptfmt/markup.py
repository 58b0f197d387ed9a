"""HTML forms of objects in notebooks: tables without scripts, in the colours of what is around them, and of bounded
size. Whatever comes in is text, and what is not printable in it an escape."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from .errors import visible

ROWS, CELL = 30, 160  # most rows of a table, and characters of a cell
ITEMS = 6  # of a container in a cell
BIG = 1 << 12  # bits from which an int is not written out
LEFT = ' style="text-align:left"'


def short(value: Any, limit: int = CELL) -> str:
    """A plain value as Python writes it, cut where it is long, of which no more is written out than is shown."""
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else value
        first = [_item(item, limit) if isinstance(value, dict) else short(item, limit) for item in islice(items, ITEMS)]
        more = [f"… {len(value) - ITEMS:,} more"] if len(value) > ITEMS else []
        brackets = "{}" if isinstance(value, dict) else "[]" if isinstance(value, list) else "()"
        found = f"{brackets[0]}{', '.join([*first, *more])}{brackets[1]}"
    elif isinstance(value, str | bytes):
        found = repr(value[: limit + 1])
    elif isinstance(value, int) and value.bit_length() >= BIG:
        found = f"an int of {value.bit_length():,} bits"
    else:
        found = repr(value)
    return found if len(found) <= limit else f"{found[:limit]}…"


def _item(item: tuple[Any, Any], limit: int) -> str:
    return f"{short(item[0], limit)}: {short(item[1], limit)}"


def text(value: Any) -> str:
    """A value as text of HTML, cut where it is long."""
    if isinstance(value, float):
        found = f"{value:.6g}"
    elif isinstance(value, int) and not isinstance(value, bool) and value.bit_length() < BIG:
        found = f"{value:,}"
    else:
        found = value if isinstance(value, str) else "" if value is None else short(value)
    return html.escape(visible(found if len(found) <= CELL else f"{found[:CELL]}…"))


def heading(kind: str, name: str = "") -> str:
    """What an object is, and how it is called."""
    return f"<div><strong>{text(kind)}</strong> {text(name)}</div>"


def facts(pairs: Iterable[tuple[str, Any]]) -> str:
    """Names and values, one below the other."""
    rows = (f"<tr><th{LEFT}>{text(name)}</th><td{LEFT}>{text(value)}</td></tr>" for name, value in pairs)
    return f"<table>{''.join(rows)}</table>"


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], total: int | None = None) -> str:
    """The first rows, and of how many in `total` where there are more."""
    shown = list(islice(rows, ROWS + (total is None)))
    more = (f"and {total - len(shown):,} more" if total and total > len(shown) else "") if total is not None else ""
    if total is None and len(shown) > ROWS:
        shown, more = shown[:ROWS], "and more"
    head = "".join(f'<th scope="col"{LEFT}>{text(name)}</th>' for name in columns)
    body = "".join(f"<tr>{''.join(f'<td{LEFT}>{text(value)}</td>' for value in row)}</tr>" for row in shown)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" + (
        f"<div>{more}</div>" if more else ""
    )


def report(one: Any) -> str:
    """A dataclass of plain fields: those that are not as by default, and of tuples of rows a table each."""
    names = [field for field in dataclasses.fields(one) if getattr(one, field.name) != field.default]
    values = {field.name: getattr(one, field.name) for field in names}
    lists = {name: value for name, value in values.items() if type(value) is tuple and _is_rows(value)}
    told = [(name, _brief(value)) for name, value in values.items() if name not in lists]
    kinds = (f"<div>{text(name)}: {len(rows):,}</div>{_rows(rows)}" for name, rows in lists.items())
    return heading(type(one).__name__) + facts(told) + "".join(kinds)


def _is_rows(value: Sequence[Any]) -> bool:
    return bool(value) and (dataclasses.is_dataclass(value[0]) or isinstance(value[0], tuple | str))


def _brief(value: Any) -> Any:
    return "none" if value == () else value


def _rows(found: Sequence[Any]) -> str:
    """Dataclasses and NamedTuples by their fields, but for those that say nothing in any row; else one value a row."""
    first, shown = found[0], found[:ROWS]
    names = getattr(first, "_fields", None)
    if dataclasses.is_dataclass(first):
        names = [field.name for field in dataclasses.fields(first)]
    if names is None:
        cells = [value if isinstance(value, tuple) else (value,) for value in shown]
        return table([""] * max(map(len, cells)), cells, len(found))
    said = [name for name in names if any(getattr(row, name) is not None for row in shown)]
    return table(said, ([getattr(row, name) for name in said] for row in shown), len(found))
