"""Checksums as LevelDB and TensorFlow store them: CRC-32C, turned and moved, so that one of bytes that hold such a
checksum means something."""

from __future__ import annotations

from ..format.dtypes import Array
from ..packages import package

PIECE = 1 << 20  # bytes checked at once
_MOVED_BY = 0xA282EAD8


def extended(crc: int, data: Array | bytes) -> int:
    """The CRC-32C of bytes before, and of `data` behind them; raises `missing-package`."""
    extend = package("google_crc32c", "a TensorFlow checkpoint").extend
    for start in range(0, len(data), PIECE):
        crc = extend(crc, data[start : start + PIECE])
    return crc


def masked(crc: int) -> int:
    """A CRC-32C as it is stored."""
    return ((crc >> 15 | crc << 17) + _MOVED_BY) & 0xFFFFFFFF


def check(data: Array | bytes, stored: int, what: str) -> None:
    """Refuse bytes whose stored checksum is another one; raises ValueError."""
    compare(masked(extended(0, data)), stored, what)


def compare(found: int, stored: int, what: str) -> None:
    """Refuse a masked checksum that is not the one stored; raises ValueError."""
    if found != stored:
        raise ValueError(f"{what} is damaged: its CRC-32C is {found:08x}, not {stored:08x}")
