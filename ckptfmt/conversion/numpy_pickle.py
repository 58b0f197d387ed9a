"""What pickles of NumPy name: dtypes, scalars and arrays, as records that become values of NumPy.

NumPy makes none of them from a pickle itself: the bytes are looked at as an array, if the record is of numbers, bools,
times or text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from ..format.dtypes import DTYPES, Array, dtype_of
from .claims import shape_of
from .pickles import Record, Unknown, record

_CODE = re.compile(r"[?biufcMmSU][0-9]{0,9}").fullmatch
_UNIT = re.compile(r"generic|[a-zA-Z]{1,2}").fullmatch
SCALAR, ARRAY, BUFFER = "a NumPy scalar", "a NumPy array", "a NumPy array of a buffer"


def _reconstruct(kind: Any, *_: Any) -> Any:
    """An array to be, which its state makes; of other classes than NumPy's own nothing is known."""
    is_array = getattr(kind, "name", "") == "numpy.ndarray"
    return Record(ARRAY, ()) if is_array else Unknown(getattr(kind, "name", "an array of a class"))


TABLE: Mapping[str, Callable[..., Any]] = {
    "numpy.dtype": record("numpy.dtype"),
    "numpy.ndarray": record("numpy.ndarray"),
    **{f"numpy.{core}.multiarray.scalar": record(SCALAR) for core in ("core", "_core")},
    **{f"numpy.{core}.multiarray._reconstruct": _reconstruct for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": record(BUFFER) for core in ("core", "_core")},
    **{f"ml_dtypes.{row.name}": record(f"ml_dtypes.{row.name}") for row in DTYPES.values() if not row.is_core},
}


def value_of(found: Record) -> Array | np.generic | None:
    """The array or scalar of a record; None if it has elements that are no numbers, bools, times or text. Raises
    ValueError where its bytes are not what it says."""
    match found:
        case Record(name, (dtype, bytes(raw)), _) if name == SCALAR:
            array = _array(dtype, (), raw, "C")
            return None if array is None else array[()]
        case Record(name, (raw, dtype, shape, order), _) if name == BUFFER:
            return _array(dtype, shape, raw, order)
        case Record(name, _, (_, shape, dtype, bool(is_fortran), raw)) if name == ARRAY:
            return _array(dtype, shape, raw, "F" if is_fortran else "C")
    return None


def _array(dtype: Any, shape: Any, raw: Any, order: Any) -> Array | None:
    found = _dtype(dtype)
    if found is None or not isinstance(raw, bytes | bytearray) or order not in ("C", "F"):
        return None
    shape = shape_of(shape)
    if not found.itemsize or prod(shape) * found.itemsize != len(raw):
        raise ValueError(f"an array of shape {shape} and dtype {found} has {len(raw)} bytes")
    return np.frombuffer(bytes(raw), found).reshape(shape, order=order)


def _dtype(found: Any) -> np.dtype[Any] | None:
    """The dtype of a record; None for records, objects, subarrays and what else is unknown."""
    match found:
        case Record("numpy.dtype", (kind, *_), (_, order, None, None, None, _, _, _, *more)):
            pass
        case _:
            return None
    name = getattr(kind, "name", "")
    if name.startswith("ml_dtypes."):
        return DTYPES[name.removeprefix("ml_dtypes.")].numpy.newbyteorder(order if order in ("<", ">") else "=")
    if not isinstance(kind, str) or not _CODE(kind):
        return None
    if kind[0] in "Mm":
        unit = _unit(more)
        if unit is None:
            return None
        kind += unit
    dtype = np.dtype(kind).newbyteorder(order if order in ("<", ">") else "=")
    return dtype if dtype.kind in "SUMm" or dtype_of(dtype) is not None else None


def _unit(more: list[Any]) -> str | None:
    """How the unit of times is written in their dtype."""
    match more:
        case [(_, (unit, int(number), 1, *_))]:
            text = unit.decode("latin1") if isinstance(unit, bytes) else unit
            if isinstance(text, str) and _UNIT(text) and 0 < number < 1 << 31:
                return "" if text == "generic" else f"[{number}{text}]"
    return None
