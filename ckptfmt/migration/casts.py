"""Casts of migrations: which are allowed, and which are exact (docs/spec/migrations.md). Pure."""

from __future__ import annotations

from ..format.dtypes import DTYPES

_KINDS = ("int", "float", "complex")
_IEEE = ("float16", "bfloat16", "float32", "float64")
UNSIGNED_FLOATS = {name for name, row in DTYPES.items() if row.range and row.range.exponent and row.range.least >= 0}


def kind_of(name: str) -> str | None:
    """ "int", "float" or "complex" for the dtypes that can be cast, else None."""
    if DTYPES[name].bits < 8 or name in ("bool", "complex32", "bcomplex32"):
        return None
    return name.removeprefix("u").removeprefix("b").rstrip("0123456789") if "_" not in name else "float"


def is_castable(found: str, wanted: str) -> bool:
    """Whether a cast keeps the kind of number or goes from int over float to complex."""
    kinds = [kind_of(found), kind_of(wanted)]
    return None not in kinds and _KINDS.index(kinds[0] or "") <= _KINDS.index(kinds[1] or "")


def is_exact(found: str, wanted: str) -> bool:
    """Whether the cast back gives the same bits for all values."""
    if found == wanted:
        return True
    one, other = DTYPES[found].range, DTYPES[wanted].range
    if one is None or other is None:
        return False
    if kind_of(found) == kind_of(wanted) == "int":
        return other.least <= one.least and one.greatest <= other.greatest
    return found in _IEEE and wanted in _IEEE and one.exponent <= other.exponent and one.mantissa <= other.mantissa
