"""Casts between dtypes: which are allowed, which are exact, and what becomes of NaNs (SPEC.md section 20). Pure."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..format.dtypes import DTYPES, Array

_EXPONENT_MANTISSA = {"float16": (5, 10), "bfloat16": (8, 7), "float32": (8, 23), "float64": (11, 52)}  # bits
_KINDS = ("int", "float", "complex")


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
    if kind_of(found) == kind_of(wanted) == "int":
        one, other = np.iinfo(DTYPES[found].numpy), np.iinfo(DTYPES[wanted].numpy)
        return other.min <= one.min and one.max <= other.max
    if found in _EXPONENT_MANTISSA and wanted in _EXPONENT_MANTISSA:
        pairs = zip(_EXPONENT_MANTISSA[found], _EXPONENT_MANTISSA[wanted], strict=True)
        return all(one <= other for one, other in pairs)
    return False


def cast(array: Array, dtype: np.dtype[Any]) -> Array:
    """Round to the nearest value, ties to even; ints wrap. NaNs keep their sign and the high bits of their payload."""
    with np.errstate(all="ignore"):
        out = np.array(array.astype(dtype))
        if {array.dtype.name, dtype.name} <= _EXPONENT_MANTISSA.keys():
            nans = np.isnan(array)
            if nans.any():
                out[nans] = _cast_nans(np.atleast_1d(array[nans]), dtype)
    return out


def _cast_nans(nans: Array, dtype: np.dtype[Any]) -> Array:
    size = nans.dtype.itemsize
    bits = nans.view(f"u{size}").astype(np.uint64)
    exponent, mantissa = _EXPONENT_MANTISSA[dtype.name]
    shift = mantissa - _EXPONENT_MANTISSA[nans.dtype.name][1]
    payload = bits & np.uint64((1 << _EXPONENT_MANTISSA[nans.dtype.name][1]) - 1)
    payload = payload << np.uint64(shift) if shift >= 0 else payload >> np.uint64(-shift)
    payload[payload == 0] = 1 << (mantissa - 1)  # all zeros would be an infinity
    sign = (bits >> np.uint64(8 * size - 1)) << np.uint64(8 * dtype.itemsize - 1)
    infinity = np.uint64(((1 << exponent) - 1) << mantissa)
    return (sign | infinity | payload).astype(f"u{dtype.itemsize}").view(dtype)
