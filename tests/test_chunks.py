"""Arrays to the stored bytes of their chunks, and back (SPEC.md sections 3 and 5)."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ckptfmt
from ckptfmt.format.arrays import ArraySpec, grid_for
from ckptfmt.format.chunks import decoded_chunk, logical
from ckptfmt.format.codecs import RAW, Codec, codec_asked
from ckptfmt.format.dtypes import DTYPES, dtype_of, settled
from ckptfmt.layouts import pieces as piecewise
from ckptfmt.layouts.pieces import is_direct, stored_parts
from ckptfmt.testing import assert_same_tree
from ckptfmt.testing.strategies import arrays, dtypes, shapes

TENSOR_DTYPES = dtypes().filter(lambda dtype: dtype.kind not in "mM")


def spec_of(array: Any, grid: tuple[int, ...] | None = None, codec: Codec = RAW) -> ArraySpec:
    row = dtype_of(array.dtype)
    assert row is not None
    whole = grid_for(row.storage_shape(array.shape), row.stored.itemsize, None)
    return ArraySpec(row, array.shape, whole if grid is None else grid, codec.for_itemsize(row.stored.itemsize))


def stored(array: Any, spec: ArraySpec, chunk: int = 0) -> bytes:
    parts = []
    for part in stored_parts(array, spec, chunk):
        assert part.dtype == np.uint8
        assert part.ndim == 1
        parts.append(part.tobytes())
    return b"".join(parts)


@st.composite
def stored_arrays(draw: st.DrawFn) -> tuple[Any, ArraySpec]:
    array = draw(arrays(TENSOR_DTYPES, shapes(4, 9)))
    whole = spec_of(array)
    grid = draw(st.just(whole.grid) | st.tuples(*(st.integers(1, side) for side in whole.grid)))
    codec = draw(st.sampled_from([RAW, RAW, RAW, codec_asked("zstd"), codec_asked("gzip"), codec_asked("blosc")]))
    return array, spec_of(array, grid, codec)


def read_back(data: list[bytes], spec: ArraySpec) -> Any:
    """A whole array from all of its chunks."""
    counts = spec.chunk_counts
    cells = np.zeros([count * side for count, side in zip(counts, spec.grid, strict=True)], spec.dtype.stored)
    for chunk, raw in enumerate(data):
        corner = [slice(i * side, (i + 1) * side) for i, side in zip(spec.chunk_index(chunk), spec.grid, strict=True)]
        cells[tuple(corner)] = decoded_chunk(memoryview(raw), spec)
    inside = cells[(*(slice(0, n) for n in spec.storage_shape), ...)]
    return np.asarray(logical(inside, spec, spec.shape[-1] if spec.shape else None))


@given(stored_arrays(), st.sampled_from([piecewise.PART, 128]))
def test_chunks_decode_to_the_array(drawn: tuple[Any, ArraySpec], part: int) -> None:
    """In parts of any size; raw chunks have exactly their size. [ZARR-007]"""
    array, spec = drawn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(piecewise, "PART", part)
        data = [stored(array, spec, chunk) for chunk in range(spec.chunks)]
    if spec.is_raw:
        assert all(len(raw) == spec.chunk_nbytes for raw in data)
    assert_same_tree(read_back(data, spec), array.astype(array.dtype.newbyteorder("=")))


def test_chunks_at_the_far_edge_are_filled_with_zeros() -> None:  # [ZARR-004]
    array = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], np.uint8)
    spec = spec_of(array, (2, 2))
    assert [stored(array, spec, chunk) for chunk in range(4)] == [
        b"\x01\x02\x04\x05",
        b"\x03\x00\x06\x00",
        b"\x07\x08\x00\x00",
        b"\x09\x00\x00\x00",
    ]


def test_elements_are_stored_little_endian() -> None:  # [DTYPE-002]
    for dtype in ("<i4", ">i4"):
        array = np.array([0x01020304], dtype)
        assert stored(array, spec_of(array)) == b"\x04\x03\x02\x01"
    array = np.array([1 + 2j], ">c8")
    assert stored(array, spec_of(array)) == bytes.fromhex("0000803f00000040")
    array = np.array([1.0], ml_dtypes.bfloat16)
    assert stored(array, spec_of(array)) == b"\x80\x3f"


def test_no_bit_of_a_nan_is_changed() -> None:  # [DTYPE-002]
    for bits, dtype in itertools.product([0x7FA00001, 0xFFC12345, 0x80000000], ["<f4", ">f4"]):
        array = np.array([bits], dtype.replace("f", "u")).view(dtype)
        assert stored(array, spec_of(array)) == bits.to_bytes(4, "little")


def test_plain_arrays_give_their_own_memory() -> None:
    array = np.arange(12, dtype="<f8").reshape(3, 4)
    assert is_direct(array, spec_of(array))
    (part,) = stored_parts(array, spec_of(array), 0)
    assert np.shares_memory(part, array)
    assert not is_direct(array.T, spec_of(array.T))
    assert not is_direct(array.astype(">f8"), spec_of(array))
    assert not is_direct(array, spec_of(array, (1, 4)))


def test_other_arrays_are_converted_part_by_part() -> None:
    array = np.arange((piecewise.PART + 4096) // 4, dtype=">u4")
    parts = list(stored_parts(array, spec_of(array), 0))
    assert [part.size for part in parts] == [piecewise.PART, 4096]
    assert b"".join(parts) == array.astype("<u4").tobytes()


@pytest.mark.parametrize("value", [2, 255])
def test_bytes_that_are_no_bool_are_damage(value: int) -> None:  # [DTYPE-005]
    spec = ArraySpec(DTYPES["bool"], (3,), (3,), RAW)
    with pytest.raises(ValueError, match="bool"):
        logical(decoded_chunk(memoryview(bytes([0, 1, value])), spec), spec, 3)
    settled(np.array([True, False]), DTYPES["bool"])
    settled(np.zeros(0, bool), DTYPES["bool"])


STRAY = np.array([0x43, 0xC1, 0x3F, 0x11], np.uint8)


def test_bits_that_mean_nothing_are_0_in_memory_of_any_kind() -> None:  # [DTYPE-010]
    """ml_dtypes takes the bits above the sixth of a float for its sign."""
    dtype = DTYPES["float6_e2m3fn"]
    for array in (STRAY.copy(), np.frombuffer(STRAY.tobytes(), np.uint8), STRAY[1:2].reshape(())):
        assert settled(array.copy() if array.flags.writeable else array, dtype).tolist() == (array & 63).tolist()
    spec = ArraySpec(dtype, (4,), (4,), RAW)
    assert logical(STRAY.copy(), spec, 4).astype(np.float32).tolist() == [0.375, 0.125, -7.5, 2.25]


@pytest.mark.parametrize("paged", [False, True])
def test_no_way_of_reading_gives_bits_that_mean_nothing(paged: bool, tmp_path: Path) -> None:  # [DTYPE-010]
    large = np.tile(STRAY & 63, 1 << 18).view(DTYPES["float6_e2m3fn"].numpy)
    tree = {"large": large, **{f"small-{n}": large[:4] for n in range(40)}, "one": large[:1].reshape(())}
    ckptfmt.save(tmp_path / "x.ckpt", {key: value.copy() for key, value in tree.items()}, paged=paged)
    data = (tmp_path / "x.ckpt").read_bytes()
    clean = bytes(STRAY & 63)
    assert data.count(clean) >= 1 << 18
    (tmp_path / "x.ckpt").write_bytes(data.replace(clean, bytes(STRAY)))
    into = {key: np.zeros_like(value) for key, value in tree.items()}
    ways = [ckptfmt.load(tmp_path / "x.ckpt", verify=False)]
    ckptfmt.load(tmp_path / "x.ckpt", into=into, verify=False)
    with ckptfmt.open(tmp_path / "x.ckpt", verify=False) as checkpoint:
        ways += [into, {key: checkpoint[key][...] for key in tree}]
        assert checkpoint["large"][5:8].tobytes() == (STRAY & 63)[1:].tobytes()
    for found in ways:
        assert {key: np.asarray(value).tobytes() for key, value in found.items()} == {
            key: value.tobytes() for key, value in tree.items()
        }


def test_bools_of_any_memory_are_stored_as_0_or_1() -> None:  # [DTYPE-005]
    """NumPy takes every byte but 0 as true; such bytes come from other libraries' memory."""
    array = np.array([0, 1, 2, 255], np.uint8).view(bool)
    assert stored(array, spec_of(array)) == b"\x00\x01\x01\x01"


def test_unused_bits_of_packed_elements_are_stored_as_0() -> None:  # [DTYPE-004]
    array = np.array([0xFF, 0xF1, 0x02], np.uint8).view(ml_dtypes.int4)
    assert stored(array, spec_of(array)) == b"\x1f\x02"


def test_a_compressed_chunk_of_another_size_does_not_decode() -> None:  # [ZARR-011]
    array = np.arange(10, dtype=np.int16)
    spec = spec_of(array, codec=codec_asked("zstd"))
    raw = stored(array, spec)
    assert (decoded_chunk(memoryview(raw), spec) == array).all()
    for shape in ((9,), (11,)):
        with pytest.raises(ValueError, match="declares 20 bytes"):
            decoded_chunk(memoryview(raw), spec_of(np.zeros(shape, np.int16), codec=spec.codec))
