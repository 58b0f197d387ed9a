"""The commit record (SPEC.md section 10): the one line, written last, that makes a checkpoint exist."""

from __future__ import annotations

import re
import zlib
from typing import NamedTuple

from ..errors import fault

MAX_LENGTH = 255

_RECORD = re.compile(
    rb"ckptfmt/(?P<major>0|[1-9][0-9]{0,2})\.(?P<minor>0|[1-9][0-9]{0,2}) (?P<layout>file|packed|loose) "
    rb"manifest=(?P<offset>0|[1-9][0-9]{0,18})\+(?P<length>0|[1-9][0-9]{0,18}) "
    rb"sha256=(?P<sha256>[0-9a-f]{64}) frame=(?P<frame>[0-9a-f]{32}|[0-9a-f]{64}) crc32=(?P<crc32>[0-9a-f]{8})\n"
)
_VERSION = re.compile(rb"ckptfmt/(0|[1-9][0-9]*)\.")
_START = re.compile(rb"ckptfmt/(?=[0-9])")


class CommitRecord(NamedTuple):
    """The parsed line. `offset` and `length` (bytes) and `sha256` are the manifest's; `frame` is the frame digest."""

    format: tuple[int, int]
    layout: str
    offset: int
    length: int
    sha256: bytes
    frame: bytes

    def encode(self) -> bytes:
        """The line, with its line feed. [COM-001]"""
        body = (
            f"ckptfmt/{self.format[0]}.{self.format[1]} {self.layout} manifest={self.offset}+{self.length} "
            f"sha256={self.sha256.hex()} frame={self.frame.hex()} "
        ).encode()
        return body + b"crc32=%08x\n" % zlib.crc32(body)


def find(tail: bytes) -> bytes | None:
    """The bytes from the last `ckptfmt/` and a digit in the final 255 bytes of a file, or None. [COM-004]"""
    tail = tail[-MAX_LENGTH:]
    starts = [match.start() for match in _START.finditer(tail)]
    return tail[starts[-1] :] if starts else None


def decode(line: bytes, major: int) -> CommitRecord:
    """Parse a record for a reader of `major` and of earlier ones; raises `newer-format` or `bad-record`."""
    version = _VERSION.match(line)
    if version and int(version[1]) > major:  # [VER-002]
        raise fault(
            "newer-format", f"format version {int(version[1])}", found=int(version[1]), expected=f"at most {major}"
        )
    found = _RECORD.fullmatch(line)
    if found is None:
        raise fault("bad-record", "the commit record does not match its grammar [COM-001]")
    if zlib.crc32(line[: found.start("crc32") - len(b"crc32=")]) != int(found["crc32"], 16):
        raise fault("bad-record", "the commit record does not match its crc32 [COM-001]")
    if int(found["offset"]) + int(found["length"]) >= 1 << 63:
        raise fault("bad-record", "the manifest's extent is out of range [COM-001]")
    return CommitRecord(
        (int(found["major"]), int(found["minor"])),
        found["layout"].decode(),
        int(found["offset"]),
        int(found["length"]),
        bytes.fromhex(found["sha256"].decode()),
        bytes.fromhex(found["frame"].decode()),
    )
