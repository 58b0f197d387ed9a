"""Reprs that fit a screen, of what may hold a lot."""

from __future__ import annotations

import dataclasses
import reprlib
from typing import Any

ITEMS = 3  # of each tuple

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100
_SHORT.maxdict = _SHORT.maxlist = ITEMS


class Brief:
    """Base of dataclasses without a repr of their own: it names the fields that are not as by default, and of tuples
    the first items and how many more there are."""

    __slots__ = ()

    def __repr__(self) -> str:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        pairs = ((field, getattr(self, field.name)) for field in fields)
        shown = (f"{field.name}={_brief(value)}" for field, value in pairs if value != field.default)
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def _repr_html_(self) -> str:
        from .markup import report  # here, as notebooks alone ask for it

        return report(self)


def _brief(value: Any) -> str:
    if type(value) is not tuple:
        return _SHORT.repr(value)
    items = list(map(_SHORT.repr, value[:ITEMS]))
    if len(value) > ITEMS:
        items.append(f"and {len(value) - ITEMS} more")
    return f"({', '.join(items)}{',' * (len(value) == 1)})"
