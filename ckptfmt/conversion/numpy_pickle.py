"""What pickles of NumPy name: dtypes, scalars and arrays, as records that become values of NumPy; and JAX's arrays.

NumPy makes none of them from a pickle itself: the bytes are looked at as an array, if the record is of numbers, bools,
times or text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import numpy as np

from ..errors import fault
from ..format.dtypes import DTYPES, Array, dtype_of
from .claims import count, shape_of
from .pickles import Global, RawBytes, Record, Unknown, record

_CODE = re.compile(r"[?biufcMmSU][0-9]{0,9}").fullmatch
_UNIT = re.compile(r"generic|[a-zA-Z]{1,2}").fullmatch
LISTS = 1 << 16  # that an array of objects may become, beside two for each of them
SCALAR, ARRAY, BUFFER = "a NumPy scalar", "a NumPy array", "a NumPy array of a buffer"


def _reconstruct(kind: Any, *_: Any) -> Any:
    """An array to be, which its state makes; of other classes than NumPy's own nothing is known."""
    is_array = getattr(kind, "name", "") == "numpy.ndarray"
    return Record(ARRAY, ()) if is_array else Unknown(getattr(kind, "name", "an array of a class"))


def _of_jax(make: Any, arguments: Any, state: Any, *_: Any) -> Any:
    """An array of JAX, which is pickled as the one of NumPy that has its elements."""
    made = make.make(*arguments) if isinstance(make, Global) and make.name in _RECONSTRUCT else None
    if not isinstance(made, Record):
        return Unknown("an array of JAX")
    made.state = state
    return made


_RECONSTRUCT = tuple(f"numpy.{core}.multiarray._reconstruct" for core in ("core", "_core"))
TABLE: Mapping[str, Callable[..., Any]] = {
    "numpy.dtype": record("numpy.dtype"),
    "numpy.ndarray": record("numpy.ndarray"),
    **{f"numpy.{core}.multiarray.scalar": record(SCALAR) for core in ("core", "_core")},
    **dict.fromkeys(_RECONSTRUCT, _reconstruct),
    "jax._src.array._reconstruct_array": _of_jax,
    "jax._src.device_array.reconstruct_device_array": _of_jax,  # before JAX 0.4
    **{f"numpy.{core}.numeric._frombuffer": record(BUFFER) for core in ("core", "_core")},
    **{f"ml_dtypes.{row.name}": record(f"ml_dtypes.{row.name}") for row in DTYPES.values() if not row.is_core},
}


def value_of(found: Record, *, with_fields: bool = False) -> Array | np.generic | None:
    """The array or scalar of a record; None if it has elements that are no numbers, bools, times or text, or with
    `with_fields` have such fields. Raises ValueError where its bytes are not what it says."""
    match found:
        case Record(name, (dtype, bytes(raw)), _) if name == SCALAR:
            array = _array(dtype, (), raw, "C", with_fields)
            return None if array is None else array[()]
        case Record(name, (raw, dtype, shape, order), _) if name == BUFFER:
            return _array(dtype, shape, raw, order, with_fields)
        case Record(name, _, (_, shape, dtype, bool(is_fortran), raw)) if name == ARRAY:
            return _array(dtype, shape, raw, "F" if is_fortran else "C", with_fields)
    return None


def is_of_objects(dtype: Any) -> bool:
    """Whether a record is the dtype of Python objects."""
    return (
        isinstance(dtype, Record) and dtype.name == "numpy.dtype" and dtype.arguments[:1] in (("O8",), ("O4",), ("O",))
    )


def objects_of(found: Record) -> Any:
    """The elements of an array of Python objects, as nested lists; None if it is none."""
    match found:
        case Record(name, _, (_, shape, dtype, bool(), list(items))) if name == ARRAY and is_of_objects(dtype):
            shape = shape_of(shape)
            if prod(shape) != len(items):
                raise ValueError(f"an array of shape {shape} has {len(items)} objects")
            if (len(shape) - 1) * len(items) > LISTS + 2 * len(items):
                raise fault("limit-exceeded", f"an array of objects with {len(shape)} axes")
            for side in reversed(shape[1:]):
                items = [items[at : at + side] for at in range(0, len(items), side)] if side else []
            return items if shape else items[0]
    return None


def _array(dtype: Any, shape: Any, raw: Any, order: Any, with_fields: bool) -> Array | None:
    found = dtype_of_record(dtype)
    if found is None and with_fields:
        found = dtype_with_fields(dtype)
    if isinstance(raw, str):  # as Python 2 wrote it
        raw = raw.encode("latin1")
    if found is None or not isinstance(raw, bytes | bytearray | RawBytes) or order not in ("C", "F"):
        return None
    shape = shape_of(shape)
    if not found.itemsize or prod(shape) * found.itemsize != len(raw):
        raise ValueError(f"an array of shape {shape} and dtype {found} has {len(raw)} bytes")
    raw = raw.view(np.ndarray) if isinstance(raw, RawBytes) else bytes(raw)
    return np.frombuffer(raw, found).reshape(shape, order=order)


def dtype_with_fields(found: Any) -> np.dtype[Any] | None:
    """The dtype of records whose fields have known ones."""
    match found:
        case Record("numpy.dtype", _, (_, _, None, tuple(names), dict(fields), int(itemsize), *_)) if names:
            formats = [dtype_of_record(fields[name][0]) for name in names]
            if all(dtype is not None for dtype in formats) and all(type(name) is str for name in names):
                offsets = [count(fields[name][1]) for name in names]
                return np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": itemsize})
    return None


def dtype_of_record(found: Any) -> np.dtype[Any] | None:
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
