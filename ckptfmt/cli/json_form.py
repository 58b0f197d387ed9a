"""The JSON form of trees, for `--json`.

None, bool, str, finite floats and ints of at most 53 bits are JSON's own; a list is an array; a dict whose keys are
strings that do not begin with `$` is an object. Everything else is an object with one key that begins with `$`:

    {"$int": "9007199254740993"}           an int beyond 53 bits; from 4096 bits on in hexadecimal, "0x..."
    {"$float": "nan" | "inf" | "-inf"}     the bits of a NaN are not kept
    {"$complex": [re, im]}                 two floats
    {"$bytes": "AAEC"}                     base64
    {"$scalar": value, "dtype": "int8"}    a NumPy scalar
    {"$tuple": [item, ...]}
    {"$dict": [[key, value], ...]}         any other dict, in its order
    {"$ordered": [[key, value], ...]}      a collections.OrderedDict
    {"$tag": name, "param": p, "child": c} a value that a tag of SPEC.md section 13 stands for
    {"$tensor": 3}                         row of the table `tensors` that stands beside; aliases have the same row
    {"$tensor": 3, "view": "datetime64[s]"}
    {"$omitted": true}                     a list item that --select left out

Elements and scalars of datetime64 are ISO 8601 strings ("NaT" is none), or all of them numbers where one has no date:
it has no unit, or lies beyond the calendar of NumPy. Those of timedelta64 are numbers of their unit.

A row of `tensors` has `path` (typed: strings and ints), `name` (Zarr node), `dtype`, `shape`, `elements`, `bytes`,
`stored_bytes`, `chunks` and `codec`; of other formats the last three are null, null and "".
"""

from __future__ import annotations

import base64
import math
from collections import OrderedDict
from typing import Any

import numpy as np

from .. import OMITTED, Tensor
from ..format.dtypes import Array, dtype_of
from ..format.names import Path
from ..frameworks.values import parts_of
from . import text
from .tensors import Foreign, is_tensor

Json = Any


class JsonEncoder:
    """Encodes values, and collects the tensors that it meets in `tensors`."""

    def __init__(self) -> None:
        self.tensors: list[dict[str, Json]] = []
        self._rows: dict[str, int] = {}

    def value(self, value: Any) -> Json:
        kind = type(value)
        if value is None or kind is bool or kind is str:
            return value
        if kind is int:
            return value if value.bit_length() <= 53 else {"$int": text.integer(value)}
        if kind is float:
            return value if math.isfinite(value) else {"$float": str(value)}
        if kind is list:
            return [self.value(item) for item in value]
        if kind is tuple:
            return {"$tuple": [self.value(item) for item in value]}
        if kind is dict and all(type(key) is str and not key.startswith("$") for key in value):
            return {key: self.value(item) for key, item in value.items()}
        if kind in (dict, OrderedDict):
            pairs = [[self.value(key), self.value(item)] for key, item in value.items()]
            return {"$dict" if kind is dict else "$ordered": pairs}
        if kind is complex:
            return {"$complex": [self.value(value.real), self.value(value.imag)]}
        if kind is bytes:
            return {"$bytes": base64.b64encode(value).decode()}
        if is_tensor(value):
            return self.tensor(value)
        if value is OMITTED:
            return {"$omitted": True}
        parts = parts_of(value)
        if parts is not None:
            return {"$tag": parts.tag, "param": self.value(parts.param), "child": self.value(parts.child)}
        if isinstance(value, np.str_ | np.bytes_):
            return {"$scalar": self.value(value.item()), "dtype": type(value).__name__.rstrip("_")}
        return {"$scalar": self.array(np.asarray(value)), "dtype": value.dtype.name}

    def tensor(self, tensor: Tensor | Foreign) -> Json:
        row = self._rows.setdefault(tensor.name, len(self.tensors))
        if row == len(self.tensors):
            self.tensors.append(
                {
                    "path": self.value(list(tensor.path)),
                    "name": tensor.name,
                    "dtype": tensor.dtype_name,
                    "shape": list(tensor.shape),
                    "elements": tensor.size,
                    "bytes": tensor.nbytes,
                    "stored_bytes": tensor.stored_bytes,
                    "chunks": tensor.chunks,
                    "codec": tensor.codec,
                }
            )
        is_view = tensor.dtype.kind in "mM"
        return {"$tensor": row, "view": str(tensor.dtype)} if is_view else {"$tensor": row}

    def array(self, array: Array) -> Json:
        """The elements as nested lists."""
        array = text.printable(array)
        if array.dtype.kind == "M":
            return self.value(array.astype(str).tolist())
        if array.dtype.kind == "m":
            return self.value(array.view(np.int64).tolist())
        row = dtype_of(array.dtype)
        if row is None or row.is_core:
            return self.value(array.tolist())
        wide = "complex128" if "complex" in row.name else "int64" if "int" in row.name else "float64"
        return self.value(array.astype(wide).tolist())


def path(keys: Path) -> Json:
    """A typed path: strings and ints."""
    return JsonEncoder().value(list(keys))
