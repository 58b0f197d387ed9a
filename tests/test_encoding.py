"""Compressed chunks are encoded ahead: in order, few at a time, on threads that end whatever happens."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import ckptfmt
from ckptfmt.format.arrays import ArraySpec
from ckptfmt.format.codecs import RAW, Codec, codec_asked
from ckptfmt.format.dtypes import dtype_named
from ckptfmt.layouts.encoding import THREADS, Chunk, encoded

ZSTD = codec_asked("zstd")


def chunk(number: int, codec: Codec = ZSTD) -> Chunk:
    spec = ArraySpec(dtype_named("uint8"), (1000,), (1000,), codec)
    return Chunk(str(number), spec, np.full(1000, number % 251, np.uint8), 0)


def test_they_come_in_order_with_their_bytes() -> None:
    asked = [chunk(number, RAW if number % 5 == 0 else ZSTD) for number in range(700)]
    found = list(encoded(iter(asked)))
    assert [given.name for given, _ in found] == [one.name for one in asked]
    for given, data in found:
        assert (data is None) == given.spec.is_raw
        if data is not None:
            assert (given.spec.codec.decode(memoryview(data), 1000) == int(given.name) % 251).all()


def test_few_are_taken_ahead() -> None:
    taken = 0

    def chunks() -> Iterator[Chunk]:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield chunk(number)

    for given, (one, _) in enumerate(encoded(chunks())):
        assert taken - given <= THREADS + 1
        assert one.name == str(given)


def test_raw_ones_start_no_thread() -> None:
    before = threading.active_count()
    for _ in encoded(chunk(number, RAW) for number in range(10)):
        assert threading.active_count() == before


def _own() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("ckptfmt")}


@pytest.mark.parametrize("layout", ["file", "packed", "loose"])
def test_threads_end_when_a_save_fails(tmp_path: Path, layout: str) -> None:
    def progress(done: int, total: int) -> None:
        raise KeyboardInterrupt

    tree = {str(n): np.zeros(1 << 20, np.uint8) for n in range(20)}
    before = _own()
    with pytest.raises(KeyboardInterrupt):
        ckptfmt.save(tmp_path / "c", tree, compression="zstd", layout=layout, progress=progress)
    end = time.monotonic() + 10
    while _own() - before and time.monotonic() < end:  # some may not have begun yet, and cannot be joined
        time.sleep(0.01)
    assert not _own() - before
    assert not list(tmp_path.iterdir())
