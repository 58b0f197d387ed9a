"""Classes that a program has named, so that what a checkpoint holds of them comes back as such. Nothing is looked up
anywhere else. [TAG-002]"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any, TypeVar

from ..calls import takes
from ..errors import fault
from ..format.node import Restore

K = TypeVar("K", bound=type)

_classes: dict[str, type] = {}


@takes()
def register(kind: K) -> K:
    """Register an Enum, a NamedTuple or a dataclass: its values come back as such wherever a load meets its name; also
    as a decorator of the class. Raises `bad-option` for another class.

    Loading calls the class: an Enum by the value, the others by the fields. What it does not take is given as it is
    without the class, with a warning.
    """
    is_record = dataclasses.is_dataclass(kind) or (issubclass(kind, tuple) and hasattr(kind, "_fields"))
    if not is_record and not issubclass(kind, enum.Enum):
        expected = "an Enum, a NamedTuple or a dataclass"
        raise fault("bad-option", "register() takes a class", found=kind.__qualname__, expected=expected)
    _classes[f"{kind.__module__}.{kind.__qualname__}"] = kind
    return kind


def _member(name: Any, value: Any) -> Any:
    kind = _classes.get(name)
    try:
        return kind(value) if kind is not None and issubclass(kind, enum.Enum) else NotImplemented
    except (ValueError, TypeError):
        return NotImplemented


def _record(name: Any, fields: Any) -> Any:
    kind: Any = _classes.get(name)
    if kind is None or issubclass(kind, enum.Enum):
        return NotImplemented
    others = {field.name for field in dataclasses.fields(kind) if not field.init} if not issubclass(kind, tuple) else ()
    try:
        made = kind(**{key: value for key, value in fields.items() if key not in others})
    except TypeError:
        return NotImplemented
    for key in others:
        if key in fields:
            object.__setattr__(made, key, fields[key])
    return made


RESTORES: Mapping[str, Restore] = {
    "python.enum": _member,
    "python.namedtuple": _record,
    "python.dataclass": _record,
}
