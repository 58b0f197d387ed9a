"""The dtype table and the packing of sub-byte elements (SPEC.md section 3)."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptfmt.errors import UnsupportedError
from ckptfmt.format.dtypes import DTYPES, DType, bytes_of, dtype_named, dtype_of, pack, unpack
from ckptfmt.testing.strategies import arrays, shapes

SUB_BYTE = [row for row in DTYPES.values() if row.per > 1]


@pytest.mark.parametrize("row", DTYPES.values(), ids=DTYPES)
def test_rows_agree_with_numpy(row: DType) -> None:
    assert row.numpy.name == row.name
    assert dtype_of(row.numpy) is row
    assert dtype_named(row.name) is row
    assert row.numpy.itemsize == max(1, row.bits // 8)
    assert row.stored.itemsize * 8 >= row.bits * row.per
    assert row.stored.newbyteorder("<") == row.stored
    assert np.dtype(row.storage).isbuiltin == 1  # a core type of Zarr is one of NumPy's own


def test_byte_order_is_no_part_of_a_dtype() -> None:
    assert dtype_of(np.dtype(">f4")) is DTYPES["float32"]
    assert dtype_of(np.dtype(">c16")) is DTYPES["complex128"]
    assert dtype_of(np.dtype(np.longlong)) is DTYPES["int64"]


@pytest.mark.parametrize("name", ["O", "U3", "S3", "V2", "V1", "M8[s]", "m8", "g", "G", "i4,i4", "(2,)i4"])
def test_dtypes_that_the_table_lacks(name: str) -> None:
    assert dtype_of(np.dtype(name)) is None


@pytest.mark.parametrize("name", ["float7", "", "Bool", "float32 ", "M8[s]", ["float32"], None])
def test_unknown_names_are_refused(name: Any) -> None:  # [DTYPE-001]
    with pytest.raises(UnsupportedError) as raised:
        dtype_named(name)
    assert raised.value.code == "unknown-dtype"


PACKED = [
    ("int4", [1, 2, 3], b"\x21\x03"),
    ("int4", [-1, -8, 7], b"\x8f\x07"),
    ("uint4", [15, 0, 1, 2], b"\x0f\x21"),
    ("float4_e2m1fn", [0.5, -6.0, 1.0], b"\xf1\x02"),
    ("uint2", [1, 2, 3, 0, 1], b"\x39\x01"),
    ("int2", [-1, -2, 1, 0], b"\x1b"),
    ("uint1", [1, 0, 0, 0, 0, 0, 0, 1, 1], b"\x81\x01"),
    ("int1", [-1, 0, -1], b"\x05"),
    ("uint2", [[1, 2, 3], [3, 2, 1]], b"\x39\x1b"),  # rows do not share a byte
    ("uint4", 9, b"\x09"),
    ("uint1", np.zeros((2, 0)), b""),
]


@pytest.mark.parametrize(("name", "values", "expected"), PACKED, ids=[f"{n}-{v}" for n, v, _ in PACKED])
def test_packing(name: str, values: Any, expected: bytes) -> None:  # [DTYPE-003] [DTYPE-004]
    row = DTYPES[name]
    array = np.array(values).astype(row.numpy)
    packed = pack(array, row)
    assert packed.tobytes() == expected
    assert packed.dtype == np.uint8
    assert packed.shape == row.storage_shape(array.shape)


@given(
    st.sampled_from(SUB_BYTE).flatmap(lambda row: st.tuples(st.just(row), arrays(st.just(row.numpy), shapes(4, 20))))
)
def test_unpacking_is_the_inverse_of_packing(drawn: tuple[DType, Any]) -> None:
    row, array = drawn
    packed = pack(array, row)
    assert packed.shape == row.storage_shape(array.shape)
    found = unpack(packed, row, array.shape[-1] if array.shape else None)
    mask = np.uint8((1 << row.bits) - 1)
    assert found.shape == array.shape
    assert found.dtype == row.numpy
    assert (found.view(np.uint8) == (np.ascontiguousarray(array).view(np.uint8).reshape(array.shape) & mask)).all()
    if array.shape and array.size:  # [DTYPE-004] unused high bits are 0
        used = (array.shape[-1] - 1) % row.per + 1
        assert not (packed[..., -1].astype(int) >> (used * row.bits)).any()


def test_a_scalar_unpacks_to_an_array_without_axes() -> None:  # [DTYPE-003]
    found = unpack(np.array(0xF9, np.uint8), DTYPES["uint4"], None)
    assert isinstance(found, np.ndarray)
    assert found == 9


def test_storage_shapes() -> None:  # [DTYPE-003]
    assert DTYPES["int4"].storage_shape((3, 5)) == (3, 3)
    assert DTYPES["uint1"].storage_shape((16,)) == (2,)
    assert DTYPES["uint2"].storage_shape((4, 0)) == (4, 0)
    assert DTYPES["int4"].storage_shape(()) == ()
    assert DTYPES["bfloat16"].storage_shape((3, 5)) == (3, 5)


def test_bytes_of_gives_the_memory_itself() -> None:
    array = np.array([[1, 2]], ml_dtypes.bfloat16)
    view = bytes_of(array)
    assert bytes(view) == b"\x80\x3f\x00\x40"
    view[1] = 0xBF
    assert array[0, 0] == -1
