"""Chunks as byte planes: c-blosc decodes them, never larger than raw ones, and changing memory does no harm."""

from __future__ import annotations

import threading
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numcodecs.blosc import Blosc

from ckptfmt.format.codecs import PLANE, Codec
from ckptfmt.format.planes import HEADER, encode_planes, split
from ckptfmt.format.weights import PLANES

WIDTHS = (1, 2, 4, 8, 16, 3)


def decoded(stored: bytes) -> bytes:
    """What c-blosc makes of a buffer."""
    return bytes(Blosc().decode(stored))


def gaussian(count: int, dtype: Any, seed: int = 0) -> Any:
    """Elements as trained weights have them, as bytes."""
    values = np.random.default_rng(seed).standard_normal(count, np.float32) * np.float32(0.02)
    return values.astype(dtype).view(np.uint8)


@given(
    st.sampled_from(WIDTHS),
    st.one_of(st.integers(1, 400), st.integers(PLANE - 2, PLANE + 2), st.integers(2 * PLANE, 2 * PLANE + 200)),
    st.sampled_from([1, 3, 40, 256]),
    st.integers(0, 99),
)
def test_c_blosc_decodes_it(width: int, count: int, values: int, seed: int) -> None:
    data = np.random.default_rng(seed).integers(0, values, width * count, np.uint8)
    stored = encode_planes(data, width)
    assert decoded(stored) == data.tobytes()
    assert encode_planes(data.copy(), width) == stored  # [MAN-009]
    assert len(stored) <= HEADER.size + data.size


@pytest.mark.parametrize(
    ("dtype", "most"),
    [(ml_dtypes.bfloat16, 0.68), (np.float32, 0.84), (np.float16, 0.85), (ml_dtypes.float8_e5m2, 0.72)],
)
def test_weights_shrink_by_their_exponents(dtype: Any, most: float) -> None:
    data = gaussian(1 << 20, dtype)
    ours = encode_planes(data, np.dtype(dtype).itemsize)
    assert len(ours) < most * data.size
    assert len(ours) < len(Blosc("zstd", 5, Blosc.SHUFFLE, 0, typesize=np.dtype(dtype).itemsize).encode(data))


def test_what_does_not_shrink_is_stored_as_it_is() -> None:
    data = np.random.default_rng(0).integers(0, 256, 4 * PLANE, np.uint8)
    stored = encode_planes(data, 4)
    assert len(stored) == data.size + HEADER.size
    assert decoded(stored) == data.tobytes()


def test_some_blocks_shrink_and_others_do_not() -> None:
    data = np.random.default_rng(0).integers(0, 256, 8 * PLANE, np.uint8)
    data[2 * PLANE : 4 * PLANE] = 0
    stored = encode_planes(data, 2)
    assert 6 * PLANE < len(stored) < 6 * PLANE + 500
    assert decoded(stored) == data.tobytes()


@given(st.sampled_from(WIDTHS), st.integers(1, 300), st.integers(0, 99))
def test_planes_are_the_bytes_of_each_significance(width: int, count: int, seed: int) -> None:
    data = np.random.default_rng(seed).integers(0, 256, width * count, np.uint8)
    planes = np.empty((width, count), np.uint8)
    split(data, planes)
    assert planes.tobytes() == data.reshape(count, width).T.tobytes()


def test_memory_that_changes_meanwhile_gives_what_decodes() -> None:  # [BLK-008]
    data = gaussian(1 << 20, ml_dtypes.bfloat16).copy()
    over = threading.Event()

    def change() -> None:
        number = 0
        while not over.is_set():
            data[number % 4096 :: 4096] = number % 256
            number += 1

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(5):
            assert len(decoded(encode_planes(data, 2))) == data.size
    finally:
        over.set()
        thread.join()


def test_the_codec_is_stored_as_blosc() -> None:
    codec = PLANES.for_itemsize(4)
    assert codec.stored == Codec("blosc", codec.options)
    configuration = codec.chain[1]["configuration"]
    assert (codec.chain[1]["name"], configuration["typesize"], configuration["blocksize"]) == ("blosc", 4, 4 * PLANE)
    data = np.arange(3 * PLANE, dtype="<u4").view(np.uint8)
    assert codec.stored.decode(memoryview(codec.encode(data)), data.size).tobytes() == data.tobytes()
