"""The dtype table (SPEC.md section 3): logical names, storage types, and the packing of sub-byte elements.

The in-memory form of a dtype is NumPy's own or that of ml_dtypes, which keeps one sub-byte element in a byte;
the stored form is always a core type of Zarr v3, little-endian.
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import numpy as np

from ..errors import fault

Array = np.ndarray[Any, np.dtype[Any]]


def bytes_of(array: Array) -> memoryview:
    """The memory of a C-contiguous array of any dtype, as bytes."""
    flat: Any = array.reshape(-1).view(np.uint8)
    return memoryview(flat)


class _Row(NamedTuple):
    name: str
    bits: int
    storage: str
    per: int = 1


class DType(_Row):
    """One row of the dtype table. `bits` of an element, `storage` (Zarr core type), `per` elements in a storage
    element."""

    @cached_property
    def numpy(self) -> np.dtype[Any]:
        """The in-memory dtype; imports ml_dtypes for those that NumPy lacks."""
        if self.is_core:
            return np.dtype(self.name)
        import ml_dtypes

        extended: np.dtype[Any] = np.dtype(getattr(ml_dtypes, self.name))
        return extended

    @cached_property
    def stored(self) -> np.dtype[Any]:
        """The stored dtype, little-endian."""
        return np.dtype(self.storage).newbyteorder("<")

    @property
    def is_core(self) -> bool:
        """Whether the logical dtype is its own storage type."""
        return self.name == self.storage

    def storage_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """`shape` (elements) as a shape of storage elements. [DTYPE-003]"""
        if self.per == 1 or not shape:
            return shape
        return (*shape[:-1], -(-shape[-1] // self.per))


_CORE = [
    ("bool", 8),
    ("int8", 8),
    ("int16", 16),
    ("int32", 32),
    ("int64", 64),
    ("uint8", 8),
    ("uint16", 16),
    ("uint32", 32),
    ("uint64", 64),
]
_CORE += [("float16", 16), ("float32", 32), ("float64", 64), ("complex64", 64), ("complex128", 128)]
_FLOAT8 = ["e3m4", "e4m3", "e4m3b11fnuz", "e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz", "e8m0fnu"]
DTYPES: dict[str, DType] = {
    d.name: d
    for d in [
        *(DType(name, bits, name) for name, bits in _CORE),
        DType("bfloat16", 16, "uint16"),
        DType("complex32", 32, "uint32"),
        DType("bcomplex32", 32, "uint32"),
        *(DType(f"float8_{kind}", 8, "uint8") for kind in _FLOAT8),
        DType("float6_e2m3fn", 6, "uint8"),
        DType("float6_e3m2fn", 6, "uint8"),
        DType("float4_e2m1fn", 4, "uint8", 2),
        DType("int4", 4, "uint8", 2),
        DType("uint4", 4, "uint8", 2),
        DType("int2", 2, "uint8", 4),
        DType("uint2", 2, "uint8", 4),
        DType("int1", 1, "uint8", 8),
        DType("uint1", 1, "uint8", 8),
    ]
}


@lru_cache(maxsize=256)
def dtype_of(dtype: np.dtype[Any]) -> DType | None:
    """The table's row for an in-memory dtype of any byte order, or None if it has none."""
    if dtype.hasobject or dtype.names is not None or dtype.subdtype is not None:
        return None
    native = dtype.newbyteorder("=")
    row = DTYPES.get(native.name)
    return row if row is not None and row.numpy == native else None


def dtype_named(name: str) -> DType:
    """The table's row for a logical name; raises `unknown-dtype` [DTYPE-001]."""
    try:
        return DTYPES[name]
    except (KeyError, TypeError):
        raise fault("unknown-dtype", f"unknown dtype {name!r}") from None


def pack(array: Array, dtype: DType) -> Array:
    """Elements (…, n) as storage elements, uint8 of shape (…, ceil(n / per)), lowest bits first. [DTYPE-004]"""
    values = np.ascontiguousarray(array).view(np.uint8) & np.uint8((1 << dtype.bits) - 1)
    if not array.shape:
        return values.reshape(())
    last = array.shape[-1]
    padded = -(-last // dtype.per) * dtype.per
    if padded != last:
        values = np.concatenate([values, np.zeros((*array.shape[:-1], padded - last), np.uint8)], axis=-1)
    cells = values.reshape(*array.shape[:-1], padded // dtype.per, dtype.per)
    packed = cells[..., 0].copy()
    for position in range(1, dtype.per):
        packed |= cells[..., position] << np.uint8(position * dtype.bits)
    return packed


def unpack(packed: Array, dtype: DType, last: int | None) -> Array:
    """The inverse of `pack`: `last` is the length of the last axis in elements, None for a 0-d tensor."""
    mask = np.uint8((1 << dtype.bits) - 1)
    if last is None:
        return np.asarray(packed & mask).view(dtype.numpy)
    cells = np.empty((*packed.shape, dtype.per), np.uint8)
    for position in range(dtype.per):
        cells[..., position] = (packed >> np.uint8(position * dtype.bits)) & mask
    values = cells.reshape(*packed.shape[:-1], packed.shape[-1] * dtype.per)[..., :last]
    return np.ascontiguousarray(values).view(dtype.numpy)
