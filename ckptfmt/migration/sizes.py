"""Sizes in migrations: integers, or sums and products of integers and parameters such as `2*heads*head_dim`. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

Size = int | str

_ATOM = r"[A-Za-z_][A-Za-z0-9_]*|[0-9]{1,18}"
_SIZE = re.compile(rf"\s*(?:{_ATOM})\s*(?:[-+*/]\s*(?:{_ATOM})\s*)*")
_TOKEN = re.compile(rf"[-+*/]|{_ATOM}")


def is_size(value: object) -> bool:
    """Whether a value has the form of a size."""
    if type(value) is int:
        return value >= 0
    return isinstance(value, str) and _SIZE.fullmatch(value) is not None


def evaluate(size: Size, parameters: Mapping[str, int]) -> int:
    """The value of a size; ValueError for a parameter without value, a division with remainder, a negative result."""
    if isinstance(size, int):
        return size
    tokens = ["+", *_TOKEN.findall(size)]
    terms: list[int] = []
    for operator, atom in zip(tokens[::2], tokens[1::2], strict=True):
        if not atom.isdigit() and atom not in parameters:
            raise ValueError(f"the parameter {atom!r} has no value")
        value = int(atom) if atom.isdigit() else parameters[atom]
        match operator:
            case "*":
                terms[-1] *= value
            case "/":
                if value == 0 or terms[-1] % value:
                    raise ValueError(f"{size!r} does not divide evenly")
                terms[-1] //= value
            case _:
                terms.append(value if operator == "+" else -value)
    if sum(terms) < 0:
        raise ValueError(f"{size!r} is negative")
    return sum(terms)
