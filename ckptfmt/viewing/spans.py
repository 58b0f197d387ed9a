"""The `Range` of a request (RFC 9110, section 14): one span of bytes."""

from __future__ import annotations

import re
from typing import NamedTuple

_RANGE = re.compile(r"bytes=([0-9]{0,19})-([0-9]{0,19})", re.ASCII).fullmatch


class ByteRange(NamedTuple):
    """Bytes from `start` to before `stop`."""

    start: int
    stop: int


def span_of(header: str | None, size: int) -> ByteRange | None:
    """The bytes that a request asks for of an object of `size` bytes: all of them where it names no range, or ranges in
    another form than one, as a server may ignore those. None for a range that lies outside."""
    found = None if header is None else _RANGE(header.strip())
    if found is None or found[0] == "bytes=-" or (found[1] and found[2] and int(found[1]) > int(found[2])):
        return ByteRange(0, size)
    if not found[1]:
        last = min(int(found[2]), size)
        return ByteRange(size - last, size) if last else None
    start = int(found[1])
    stop = min(int(found[2]) + 1, size) if found[2] else size
    return ByteRange(start, stop) if start < size else None
