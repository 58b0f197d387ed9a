"""Steps of rules: operators as documents write them, parsed and checked (docs/spec/migrations.md)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..format.dtypes import DTYPES
from .operators import (
    Add,
    Alias,
    Cast,
    Concat,
    Copy,
    Drop,
    Extern,
    ExternCall,
    Fill,
    Neg,
    Operator,
    Pad,
    Rearrange,
    Scale,
    Slice,
    Split,
    Stack,
    Unstack,
)
from .sizes import is_size

OPERATORS: dict[str, type[Operator]] = {
    "alias": Alias,
    "copy": Copy,
    "drop": Drop,
    "fill": Fill,
    "stack": Stack,
    "unstack": Unstack,
    "concat": Concat,
    "split": Split,
    "rearrange": Rearrange,
    "cast": Cast,
    "slice": Slice,
    "pad": Pad,
    "neg": Neg,
    "scale": Scale,
    "add": Add,
    "extern": ExternCall,
}


def _is_axis(value: Any) -> bool:
    return type(value) is int and 0 <= value < 64


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and -(2**63) <= value < 2**64)


def _is_dtype(value: Any) -> bool:
    return type(value) is str and value in DTYPES


def _are_sizes(value: Any) -> bool:
    return type(value) is list and all(map(is_size, value))


def _is_axes(value: Any) -> bool:
    return type(value) is dict and all(map(is_size, value.values()))


def _is_text(value: Any) -> bool:
    return type(value) is str and bool(value)


class Field(NamedTuple):
    """A key of operators in documents: the attribute that it becomes, which values it takes, in words."""

    attribute: str
    accepts: Callable[[Any], bool]
    expected: str


FIELDS: dict[str, Field] = {
    "axis": Field("axis", _is_axis, "the number of an axis"),
    "sizes": Field("sizes", _are_sizes, "an array of sizes"),
    "shape": Field("shape", _are_sizes, "an array of sizes"),
    "axes": Field("axes", _is_axes, "a map of names to sizes"),
    "before": Field("before", is_size, "a size"),
    "after": Field("after", is_size, "a size"),
    "value": Field("value", _is_number, "a number of 64 bits"),
    "by": Field("by", _is_number, "a number of 64 bits"),
    "pattern": Field("pattern", _is_text, "a pattern such as '(h d) e -> h d e'"),
    "dtype": Field("dtype", _is_dtype, "a dtype of section 3"),
    "from": Field("source", _is_dtype, "a dtype of section 3"),
    "name": Field("name", _is_text, "a name"),
}


class RuleStep(NamedTuple):
    """An operator in a rule, and the numbers of the items that it works on; None for all."""

    operator: Operator
    on: tuple[int, ...] | None = None


def parse_step(document: Any, externs: Mapping[str, Extern]) -> RuleStep:
    """An operator from its map in a document; ValueError says what is wrong, KeyError which extern is missing."""
    match document:
        case {"op": str(name), **rest} if name in OPERATORS:
            kind = OPERATORS[name]
        case _:
            raise ValueError(f"an operator is a map with `op`, one of {', '.join(OPERATORS)}, not {document!r:.80}")
    on = rest.pop("on", None)
    if on is not None and not (type(on) is list and on and all(_is_axis(number) for number in on)):
        raise ValueError(f"{name}: `on` is an array of item numbers, not {on!r:.40}")
    allowed = {item.name for item in dataclasses.fields(kind)}  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}
    for key, value in rest.items():
        row = FIELDS.get(str(key))
        if row is None or row.attribute not in allowed:
            keys = sorted(text for text, row in FIELDS.items() if row.attribute in allowed)
            raise ValueError(f"{name} has no {key!r}: its keys are {', '.join(keys) or 'none'}, and `on`")
        if not row.accepts(value):
            raise ValueError(f"{name}: {key!r} is {row.expected}, not {value!r:.40}")
        arguments[row.attribute] = tuple(value) if type(value) is list else value
    if kind is ExternCall and "name" in arguments:
        extern = externs[arguments["name"]]
        arguments |= {"inverse_name": extern.inverse, "declared": extern.loss}
    try:
        return RuleStep(kind(**arguments), None if on is None else tuple(on))
    except TypeError:
        needed = [item.name for item in dataclasses.fields(kind) if _is_required(item)]  # type: ignore[arg-type]
        raise ValueError(f"{name} requires {', '.join(needed)}") from None


def _is_required(item: dataclasses.Field[Any]) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
