"""The way of bytes from a source to an object: pieces that nobody else has, and their digests."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zlib_ng import zlib_ng

import ckptfmt
from ckptfmt.format.digests import digest_named
from ckptfmt.frameworks.sources import Buffers
from ckptfmt.layouts import staging
from ckptfmt.layouts.staging import BEHIND, Checks, WriteBehind, staged
from ckptfmt.storage.attempt import LocalFile
from ckptfmt.storage.disk import Disk
from ckptfmt.threads import Pool


@given(st.lists(st.binary(max_size=50)), st.integers(1, 64), st.integers(1, 16), st.integers(1, 40), st.booleans())
def test_pieces_and_checks(parts: list[bytes], piece: int, step: int, block: int, crc32: bool) -> None:
    """Whatever the sizes of parts, steps, pieces and blocks. [BLK-001]"""
    data, digest = b"".join(parts), digest_named("xxh3-128")
    checks = Checks(digest, block, crc32=crc32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(staging, "STAGED", piece)
        patch.setattr(staging, "STEP", step)
        arrays = (np.frombuffer(part, np.uint8) for part in parts)
        pieces = list(staged(arrays, checks, Buffers(piece)))
    assert b"".join(pieces) == data
    assert all(each.size == piece for each in pieces[:-1])
    assert checks.digests == digest.of_blocks(memoryview(data), block) if data else checks.digests == b""
    assert checks.crc32 == (zlib_ng.crc32(data) if crc32 else 0)


def test_pieces_are_copies() -> None:  # [BLK-008]
    array = np.zeros(100, np.uint8)
    checks = Checks(digest_named("xxh3-128"), 4096)
    (piece,) = staged([array], checks, Buffers(staging.STAGED))
    array[:] = 1
    assert not piece.any()
    assert checks.digests == digest_named("xxh3-128").of(bytes(100))


class Slow:
    """An object whose writes wait until they may go on."""

    sequential = False

    def __init__(self) -> None:
        self.may, self.written = threading.Semaphore(0), bytearray()

    def write(self, offset: int, data: bytes) -> None:
        self.may.acquire()
        if not data:
            raise OSError("no room")
        assert offset == len(self.written)
        self.written += data


def test_few_writes_wait() -> None:
    out = Slow()
    with Pool(1, "test") as pool, ThreadPoolExecutor(1) as caller:
        behind = WriteBehind(out, pool)  # type: ignore[arg-type]
        for i in range(BEHIND):
            behind.write(i, b"x")
        one_more = caller.submit(behind.write, BEHIND, b"x")
        assert not one_more.done()
        out.may.release(BEHIND + 1)
        one_more.result(10)
        behind.wait()
    assert out.written == b"x" * (BEHIND + 1)


def test_a_write_that_fails_is_told_with_a_later_one() -> None:
    out = Slow()
    out.may.release(100)
    with Pool(1, "test") as pool:
        behind = WriteBehind(out, pool)  # type: ignore[arg-type]
        behind.write(0, b"")
        behind.write(0, b"x")
        with pytest.raises(OSError, match="no room"):
            behind.wait()


def test_a_file_that_is_given_up_while_a_thread_writes_to_it(tmp_path: Path) -> None:
    """Its descriptor stays its own until the write is over: another file could have been given the number."""
    writing, may = threading.Event(), threading.Event()

    class Slow(Disk):
        def write(self, fd: int, data: memoryview, offset: int) -> int:
            writing.set()
            assert may.wait(10)
            return super().write(fd, data, offset)

    file = LocalFile(str(tmp_path / "x"), Slow(), False, "x.ckpt")
    thread = threading.Thread(target=file.write, args=(0, b"mine"))
    thread.start()
    assert writing.wait(10)
    file.close()
    with open(tmp_path / "other", "wb") as other:
        may.set()
        thread.join()
        assert other.fileno() >= 0
    assert (tmp_path / "x").read_bytes() == b"mine"
    assert (tmp_path / "other").read_bytes() == b""
    with pytest.raises(ckptfmt.CkptError, match="given up") as raised:
        file.write(4, b"late")
    assert raised.value.code == "io"
