"""The dtype table (SPEC.md section 3): logical names, storage types, ranges, and the packing of sub-byte elements.

The in-memory form of a dtype is NumPy's own or that of ml_dtypes, which keeps one sub-byte element in a byte;
the stored form is always a core type of Zarr v3, little-endian.
"""

from __future__ import annotations

import sys
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from .._version import FORMAT
from ..errors import CkptError, fault
from ..tuples import NamedTuple

Array = np.ndarray[Any, np.dtype[Any]]


def bytes_of(array: Array) -> memoryview:
    """The memory of a C-contiguous array of any dtype, as bytes."""
    flat: Any = array.reshape(-1).view(np.uint8)
    return memoryview(flat)


class Range(NamedTuple):
    """The real numbers of a dtype, from `least` to `greatest`, and what a cast makes of others. [DTYPE-007]

    What lies `beyond` becomes "inf", "nan" or the "nearest" number, or, of integers, what "wraps" to it. Floats have
    that many bits of `exponent` and `mantissa`, and a NaN of the code `nan`; a dtype without NaNs has −0 there, and one
    of "inf" all the NaNs of IEEE 754.
    """

    least: float
    greatest: float
    beyond: str
    exponent: int = 0
    mantissa: int = 0
    nan: int = 0


class _DTypeFields(NamedTuple):
    name: str
    bits: int
    storage: str
    per: int = 1
    range: Range | None = None
    part: str | None = None
    since: tuple[int, int] = FORMAT


class DType(_DTypeFields):
    """One row of the dtype table. `bits` of an element, `storage` (Zarr core type), `per` elements in a storage
    element, the `range` of a real number, the dtype of the `part`s of a complex one, the version of the format `since`
    which there is this dtype."""

    @cached_property
    def numpy(self) -> np.dtype[Any]:
        """The in-memory dtype; imports ml_dtypes for those that NumPy lacks."""
        if self.is_core:
            return np.dtype(self.name)
        import ml_dtypes

        kind = getattr(ml_dtypes, self.name, None)
        if kind is None:
            raise _outdated(f"arrays of {self.name} require")
        extended: np.dtype[Any] = np.dtype(kind)
        return extended

    def in_order(self, order: str) -> np.dtype[Any]:
        """The in-memory dtype with a byte order, for elements as another machine has them. Raises `missing-package`
        where ml_dtypes swaps a complex number as a whole, and so exchanges its parts."""
        dtype = self.numpy.newbyteorder(order)  # type: ignore[arg-type]
        if self.part is not None and not (self.is_core or dtype.isnative):
            one = np.array([1, 0], DTYPES[self.part].numpy).view(np.uint16).byteswap().view(dtype)
            if complex(one[0]) != 1:
                raise _outdated(f"{self.name} of another byte order requires")
        return dtype

    @cached_property
    def stored(self) -> np.dtype[Any]:
        """The stored dtype, little-endian."""
        return np.dtype(self.storage).newbyteorder("<")

    @property
    def is_core(self) -> bool:
        """Whether the logical dtype is its own storage type."""
        return self.name == self.storage

    @property
    def used(self) -> int:
        """How many low bits of a storage element with one element may be set."""
        return 1 if self.name == "bool" else self.bits

    @property
    def is_narrow(self) -> bool:
        """Whether a storage element holds one element, and not every byte in it is one."""
        return self.per == 1 and self.used < 8

    def storage_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """`shape` (elements) as a shape of storage elements. [DTYPE-003]"""
        if self.per == 1 or not shape:
            return shape
        return (*shape[:-1], -(-shape[-1] // self.per))


def _ieee(exponent: int, mantissa: int, greatest: float) -> Range:
    return Range(-greatest, greatest, "inf", exponent, mantissa, ((2 << exponent) - 1) << (mantissa - 1))


def _int(name: str, bits: int) -> DType:
    unsigned = name.startswith("u")
    least, greatest = (0, 2**bits - 1) if unsigned else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    per = max(1, 8 // bits)
    return DType(name, bits, name if bits >= 8 else "uint8", per, Range(least, greatest, "wraps"))


_FLOATS = {
    "float16": _ieee(5, 10, 65504.0),
    "float32": _ieee(8, 23, (2 - 2**-23) * 2.0**127),
    "float64": _ieee(11, 52, sys.float_info.max),
    "bfloat16": _ieee(8, 7, (2 - 2**-7) * 2.0**127),
    "float8_e3m4": _ieee(3, 4, 15.5),
    "float8_e4m3": _ieee(4, 3, 240.0),
    "float8_e4m3b11fnuz": Range(-30.0, 30.0, "nan", 4, 3, 0x80),
    "float8_e4m3fn": Range(-448.0, 448.0, "nan", 4, 3, 0x7F),
    "float8_e4m3fnuz": Range(-240.0, 240.0, "nan", 4, 3, 0x80),
    "float8_e5m2": _ieee(5, 2, 57344.0),
    "float8_e5m2fnuz": Range(-57344.0, 57344.0, "nan", 5, 2, 0x80),
    "float8_e5m3fnu": Range(0.0, 114688.0, "nan", 5, 3, 0xFF),
    "float8_e8m0fnu": Range(2.0**-127, 2.0**127, "nan", 8, 0, 0xFF),
    "float6_e2m3fn": Range(-7.5, 7.5, "nearest", 2, 3, 0x20),
    "float6_e3m2fn": Range(-28.0, 28.0, "nearest", 3, 2, 0x20),
    "float4_e2m1fn": Range(-6.0, 6.0, "nearest", 2, 1, 0x8),
}


_SINCE = {"float8_e5m3fnu": (1, 2)}


def _outdated(what: str) -> CkptError:
    """The exception where `what` takes a later ml_dtypes than the least that pyproject.toml asks for."""
    import ml_dtypes

    needed = "ml_dtypes>=0.7"
    found, advice = f"ml_dtypes {ml_dtypes.__version__}", f"Install it: pip install '{needed}'"
    return fault("missing-package", f"{what} {needed}", found=found, expected=needed, advice=advice)


def _real(name: str) -> DType:
    range_ = _FLOATS[name]
    bits = (range_.least < 0) + range_.exponent + range_.mantissa
    storage = name if name in ("float16", "float32", "float64") else f"uint{max(8, bits)}"
    return DType(name, bits, storage, 2 if bits == 4 else 1, range_, since=_SINCE.get(name, FORMAT))


DTYPES: dict[str, DType] = {
    d.name: d
    for d in [
        DType("bool", 8, "bool", 1, Range(0, 1, "nearest")),
        *(_int(f"{sign}int{bits}", bits) for sign in ("", "u") for bits in (8, 16, 32, 64)),
        *map(_real, ("float16", "float32", "float64")),
        DType("complex64", 64, "complex64", part="float32"),
        DType("complex128", 128, "complex128", part="float64"),
        _real("bfloat16"),
        DType("complex32", 32, "uint32", part="float16"),
        DType("bcomplex32", 32, "uint32", part="bfloat16"),
        *map(_real, [name for name in _FLOATS if "_" in name]),
        *(_int(f"{sign}int{bits}", bits) for bits in (4, 2, 1) for sign in ("", "u")),
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
    packed = values[..., :: dtype.per].copy()  # by steps, as NumPy may have no axis more
    for position in range(1, dtype.per):
        packed |= values[..., position :: dtype.per] << np.uint8(position * dtype.bits)
    return packed


def unpack(packed: Array, dtype: DType, last: int | None) -> Array:
    """The inverse of `pack`: `last` is the length of the last axis in elements, None for a 0-d tensor."""
    mask = np.uint8((1 << dtype.bits) - 1)
    if last is None:
        return np.asarray(packed & mask).view(dtype.numpy)
    values = np.empty((*packed.shape[:-1], packed.shape[-1] * dtype.per), np.uint8)
    for position in range(dtype.per):
        values[..., position :: dtype.per] = (packed >> np.uint8(position * dtype.bits)) & mask
    return np.ascontiguousarray(values[..., :last]).view(dtype.numpy)


def settled(storage: Array, dtype: DType) -> Array:
    """Storage elements of a dtype with one in each. Raises ValueError for a bool byte other than 0 and 1 [DTYPE-005];
    bits that mean nothing become 0, in place where that can be [DTYPE-010]."""
    if not dtype.is_narrow or not storage.size:
        return storage
    data = storage.view(np.uint8)
    if data.max() >> dtype.used == 0:
        return storage
    if dtype.name == "bool":
        raise ValueError("a bool byte is neither 0 nor 1")
    mask = np.uint8((1 << dtype.used) - 1)
    found = np.bitwise_and(data, mask, out=data if data.flags.writeable else None)
    return np.asarray(found).view(storage.dtype)
