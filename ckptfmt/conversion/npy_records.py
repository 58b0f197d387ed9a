"""Records of NumPy's .npy: a header that says dtype, shape and order, and the elements."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.lib import format as npy

from ..errors import fault
from ..format.dtypes import DTYPES, Array, dtype_of
from .claims import shape_of
from .source import LazyArray, LeadingSlices, SourceTensor, array_over, check_strings, cut_off

MAGIC = b"\x93NUMPY"
HEADER = 1 << 16  # bytes in which the header of a record must end
BEGIN = 12  # most bytes before the text of a header
_SHORTEST = 10  # bytes before it
# dtypes of ml_dtypes that NumPy writes and does not read, where no other has the same text; both are as long. Those of
# the complex ones are of 0.7; in 0.6 both had <W4
EXTENDED = {
    **{b"<V2": (b"<u2", "bfloat16"), b"<f1": (b"|u1", "float8_e5m2")},
    **{b"<V4": (b"<u4", "bcomplex32"), b"<c4": (b"<u4", "complex32")},
}


class NpyHeader(NamedTuple):
    """What the header of a record says, and where the elements begin."""

    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype[Any]
    begin: int

    @property
    def order(self) -> tuple[int, ...]:
        """The shape in C order."""
        return self.shape[::-1] if self.fortran else self.shape


def header_of(head: bytes, what: str, label: str = "", *, with_fields: bool = False) -> NpyHeader:
    """The header of a record that begins with `head`, which may have the dtype of records only `with_fields`. `what` it
    is and its `label` are told in errors: of a dtype that cannot be read `unsupported-source`, of Python objects
    `unsafe-source`. Raises ValueError."""
    try:
        shape, fortran, dtype, begin = _parsed(head)
    except ValueError as error:
        if not str(error).startswith("descr is not a valid dtype descriptor"):
            raise
        why = f"{what} has a dtype that NumPy lacks: {error}"
        raise fault("unsupported-source", why, tensor=label) from error
    if dtype.hasobject:
        raise fault("unsafe-source", f"{what} is an array of objects, which is a pickle", tensor=label)
    if dtype.kind in "SU":
        check_strings(shape, dtype, label)
    elif not _is_known(dtype) and not (with_fields and _has_known_fields(dtype)):
        why = ": NumPy kept the bits alone" if dtype.kind == "V" and dtype.names is None else ""
        raise fault("unsupported-source", f"{what} has the dtype {dtype}{why}", tensor=label)
    return NpyHeader(shape_of(shape), fortran, dtype, begin)


def record_at(data: Array, at: int, what: str, label: str = "") -> tuple[Array, int]:
    """The array of the record at a byte, and where that ends. `what` and `label` as of `header_of`."""
    head = bytes(data[at : at + BEGIN])
    width = 2 if head[6:7] == b"\1" else 4
    text = int.from_bytes(head[8 : 8 + width], "little")
    if len(head) < _SHORTEST or at + 8 + width + text > data.size:
        raise cut_off(data.size, at + max(_SHORTEST, 8 + width + text), or_more=True)
    if text > HEADER:
        raise ValueError(f"the header of {what} has {text:,} bytes")
    shape, fortran, dtype, begin = header = header_of(bytes(data[at : at + 8 + width + text]), what, label)
    end = at + begin + prod(shape) * dtype.itemsize
    if end > data.size:
        raise cut_off(data.size, end, or_more=True)
    array = array_over(data, at + begin, dtype, header.order)
    return array.T if fortran else array, end


def _is_known(dtype: np.dtype[Any]) -> bool:
    return dtype.kind in "mM" or dtype_of(dtype) is not None


def _has_known_fields(dtype: np.dtype[Any]) -> bool:
    return dtype.fields is not None and all(_is_known(field[0]) for field in dtype.fields.values())


def fields_of(tensor: SourceTensor) -> dict[str, SourceTensor]:
    """The fields of an array of records, each as an array that is made when it is read, as they lie between each
    other."""
    read = tensor.read if isinstance(tensor, LazyArray) else tensor.__getitem__
    more: Any = {"rows": tensor.rows, "unit": tensor.decoded_at_once} if isinstance(tensor, LazyArray) else {}
    return {
        name: LazyArray(tensor.shape, tensor.dtype[name], partial(_field, read, name), **more)
        for name in tensor.dtype.names or ()
    }


def _field(read: Callable[[LeadingSlices], Array], name: str, index: LeadingSlices) -> Array:
    part = read(index)[name]
    return np.ascontiguousarray(part).reshape(part.shape)


def _parsed(head: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    extended = None
    for descr, (storage, name) in EXTENDED.items():
        begin = b"{'descr': '%b'," % descr
        at = head.find(begin, 0, BEGIN + len(begin))
        if at >= 0:
            head = head[:at] + begin.replace(descr, storage) + head[at + len(begin) :]
            extended = DTYPES[name].numpy
    file = io.BytesIO(head)
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f".npy of version {version}")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(file, max_header_size=HEADER)
    return shape, fortran, dtype if extended is None else extended, file.tell()
