"""The commit record (SPEC.md section 10): the one line, written last, that makes a checkpoint exist."""

from __future__ import annotations

import zlib

from ..errors import fault
from ..tuples import NamedTuple

MAX_LENGTH = 255

_MAGIC = b"ckptfmt/"
_LAYOUTS = ("file", "loose", "packed")
_CRC32 = len("00000000\n")


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
    start = tail.rfind(_MAGIC)
    while start >= 0 and not tail[start + len(_MAGIC) : start + len(_MAGIC) + 1].isdigit():
        start = tail.rfind(_MAGIC, 0, start)
    return tail[start:] if start >= 0 else None


def decode(line: bytes, major: int) -> CommitRecord:
    """Parse a record for a reader of `major` and of earlier ones; raises `newer-format` or `bad-record`."""
    version = _major(line)
    if version is not None and version > major:  # [VER-002]
        raise fault("newer-format", f"format version {version}", found=version, expected=f"at most {major}")
    try:
        found = _parsed(line)
    except ValueError:
        found = None
    written = found.encode() if found is not None and _fits(found) else b""
    # there is one way to write each record, so what is written otherwise is none
    if found is None or written[:-_CRC32] != line[:-_CRC32]:
        raise fault("bad-record", "the commit record does not match its grammar [COM-001]")
    if written != line:
        raise fault("bad-record", "the commit record does not match its crc32 [COM-001]")
    if found.offset + found.length >= 1 << 63:
        raise fault("bad-record", "the manifest's extent is out of range [COM-001]")
    return found


def _major(line: bytes) -> int | None:
    """The number of the major version, where the line begins as records of all versions do."""
    digits, point, _ = line.removeprefix(_MAGIC).partition(b".")
    is_version = line.startswith(_MAGIC) and point and digits.isdigit() and (digits == b"0" or digits[:1] != b"0")
    return int(digits) if is_version else None


def _parsed(line: bytes) -> CommitRecord:
    """The values of a record in any form that Python reads them in; ValueError where there are none."""
    head, layout, manifest, sha256, frame, _ = line.decode("ascii").split(" ")
    major, minor = head.removeprefix("ckptfmt/").split(".")
    offset, length = manifest.removeprefix("manifest=").split("+")
    digests = bytes.fromhex(sha256.removeprefix("sha256=")), bytes.fromhex(frame.removeprefix("frame="))
    return CommitRecord((int(major), int(minor)), layout, int(offset), int(length), *digests)


def _fits(record: CommitRecord) -> bool:
    """Whether values are in the ranges of the grammar."""
    return (
        all(0 <= number < 1000 for number in record.format)
        and record.layout in _LAYOUTS
        and all(0 <= number < 10**19 for number in (record.offset, record.length))
        and len(record.sha256) == 32
        and len(record.frame) in (16, 32)
    )
