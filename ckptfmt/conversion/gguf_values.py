"""The pairs of GGUF files: keys, and values of types that Python's do not tell apart.

    value := scalar | string | array
    string := u64 bytes, UTF-8
    array := u32 type, u64 length, that many values, each of an array of arrays with its own type

The type of a value is a text: "uint32", "string", "array of float32". That of a value which nothing else says is
`usual`; a checkpoint keeps the types that are others.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..format.tree import Tree

STRING, ARRAY = 8, 9
DEEPEST = 8  # arrays in arrays
_OF = "array of "
# the scalars by their numbers: name, and form for `struct`
SCALARS = {
    0: ("uint8", "B"),
    1: ("int8", "b"),
    2: ("uint16", "H"),
    3: ("int16", "h"),
    4: ("uint32", "I"),
    5: ("int32", "i"),
    6: ("float32", "f"),
    7: ("bool", "?"),
    10: ("uint64", "Q"),
    11: ("int64", "q"),
    12: ("float64", "d"),
}
_NUMBERS = {name: number for number, (name, _) in SCALARS.items()} | {"string": STRING, "array": ARRAY}
_FORMS = dict(SCALARS.values())
_KINDS = {name: bool if name == "bool" else float if "float" in name else int for name in _FORMS}
_INTS, _INTS_OF_ARRAYS = ("uint32", "int32", "uint64", "int64"), ("int32", "int64", "uint64")  # the first that fits


def name_of(number: int) -> str:
    """The name of a type that is no array of something; raises KeyError."""
    return "string" if number == STRING else "array" if number == ARRAY else SCALARS[number][0]


def array_of(kind: str | None) -> str | None:
    """The type of arrays of one; None where their items have several."""
    return None if kind is None else _OF + kind


def usual(value: Any) -> str | None:
    """The type of a value that nothing else says; None where no single type says it: of arrays of several. Raises
    ValueError for what GGUF does not have."""
    if type(value) is list:
        return array_of(_of_items(value))
    if type(value) is str:
        return "string"
    if type(value) is bool:
        return "bool"
    names = {int: _INTS, float: ("float32", "float64")}.get(type(value), ())
    return _first(names, value) or _refuse(value)


def _of_items(items: list[Any]) -> str | None:
    """The usual type of all items of an array; None for arrays of several types."""
    kinds = {type(item) for item in items}
    if len(kinds) > 1:
        raise ValueError("an array has values of several types")
    if not items or kinds == {bool} or kinds == {str}:
        return "int32" if not items else usual(items[0])
    if kinds == {list}:
        found = {usual(item) for item in items}
        return found.pop() if len(found) == 1 else None
    if kinds == {float}:
        return "float32" if _all_single(items) else "float64"
    if kinds != {int}:
        _refuse(items[0])
    return _first(_INTS_OF_ARRAYS, min(items), max(items)) or _refuse(items[0])


def _first(names: tuple[str, ...], *values: Any) -> str | None:
    """The first type that all of some scalars can be of."""
    return next((name for name in names if all(_fits(value, name) for value in values)), None)


def _refuse(value: Any) -> str:
    raise ValueError(f"GGUF cannot hold such a {type(value).__name__}")


def _all_single(items: list[float]) -> bool:
    """Whether floats are the same as floats of 32 bits."""
    values = np.asarray(items, np.float64)
    with np.errstate(all="ignore"):
        return bool(np.array_equal(values.astype(np.float32).astype(np.float64), values, equal_nan=True))


def _fits(value: Any, name: str) -> bool:
    """Whether a scalar can be of that type."""
    if type(value) is not _KINDS[name]:
        return False
    if name == "float32":
        return _all_single([value])
    if type(value) is not int:
        return True
    bounds = np.iinfo(name)
    return int(bounds.min) <= value <= int(bounds.max)


def fits(value: Any, kind: str) -> bool:
    """Whether a value can be of a type, which may be any text."""
    if kind.startswith(_OF):
        inner = kind.removeprefix(_OF)
        if type(value) is not list or (not value and inner not in _NUMBERS and not inner.startswith(_OF)):
            return False
        if inner in ("float32", "float64"):
            return {type(item) for item in value} <= {float} and (inner == "float64" or _all_single(value))
        return all(fits(item, inner) for item in value)
    return type(value) is str if kind == "string" else kind in _FORMS and _fits(value, kind)


def kind_of(value: Any, types: Mapping[str, Any], key: str) -> str | None:
    """The type that a pair is written with: the one that `types` says, if the value can be of it, else the usual."""
    said = types.get(key)
    return said if type(said) is str and fits(value, said) else usual(value)


def packed(pairs: Mapping[str, Any], types: Mapping[str, Any]) -> Iterator[bytes]:
    """The bytes of pairs."""
    for key, value in pairs.items():
        yield from _string(key)
        kind = kind_of(value, types, key)
        yield struct.pack("<I", ARRAY if type(value) is list else _NUMBERS[str(kind)])
        yield from _packed(value, kind)


def _string(text: str) -> Iterator[bytes]:
    raw = text.encode()
    yield struct.pack("<Q", len(raw))
    yield raw


def _packed(value: Tree, kind: str | None) -> Iterator[bytes]:
    if type(value) is list:
        inner = None if kind is None else kind.removeprefix(_OF)
        number = ARRAY if inner is None or inner.startswith(_OF) else _NUMBERS[inner]
        yield struct.pack("<IQ", number, len(value))
        if inner in _FORMS:
            yield struct.pack(f"<{len(value)}{_FORMS[inner]}", *value)
            return
        for item in value:
            yield from _packed(item, usual(item) if inner is None else inner)
    elif type(value) is str:
        yield from _string(value)
    else:
        yield struct.pack(f"<{_FORMS[str(kind)]}", value)
