"""ZIP archives of other formats (.npz, torch's .pt), read from mapped bytes and believed in nothing.

Stored members are given as parts of the mapping. Names must be distinct, members must not overlap, sizes must fit the
file, and the CRC-32 of whatever is read is checked.
"""

from __future__ import annotations

import io
import mmap
import struct
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from zlib_ng import zlib_ng

from ..format.dtypes import Array, bytes_of
from .claims import check_at_once

LOCAL_HEADER = struct.Struct("<4s5H3L2H")
PIECE = 1 << 20  # bytes checked at once
ENCRYPTED = 1
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class Archive:
    """The members of a ZIP archive that fills `data` (uint8). Raises ValueError and `zipfile.BadZipFile`."""

    def __init__(self, data: Array) -> None:
        self.data = data
        self._zip = zipfile.ZipFile(Window(data))
        members, end = self._zip.infolist(), self._zip.start_dir
        self.members = {member.filename: member for member in members}
        if len(self.members) != len(members):
            raise ValueError("two members of the archive have the same name")
        self._starts: dict[str, int] = {}
        before = 0
        for member in sorted(members, key=lambda member: member.header_offset):
            if (
                member.compress_type not in METHODS
            ):  # of others, such as LZMA, a few bytes say how much memory they take
                raise ValueError(f"member {member.filename!r} is compressed by the method {member.compress_type}")
            if member.header_offset < before:
                raise ValueError(f"member {member.filename!r} overlaps the one before it")
            start = self._starts[member.filename] = self._payload(member)
            before = start + member.compress_size
            if before > end:
                raise ValueError(f"member {member.filename!r} reaches into the directory of the archive")

    def _payload(self, member: zipfile.ZipInfo) -> int:
        """Where a member's bytes begin, from its own header."""
        at = member.header_offset
        fields = LOCAL_HEADER.unpack(bytes(self.data[at : at + LOCAL_HEADER.size]))
        signature, _, flags, method = fields[:4]
        name = bytes(self.data[at + LOCAL_HEADER.size : at + LOCAL_HEADER.size + fields[9]])
        if signature != b"PK\3\4" or flags & ENCRYPTED or method != member.compress_type:
            raise ValueError(f"member {member.filename!r} is encrypted, or its two headers differ")
        if name.decode("utf-8" if flags & 0x800 else "cp437") != member.orig_filename:
            raise ValueError(f"member {member.filename!r} has another name in its own header")
        return at + LOCAL_HEADER.size + int(fields[9]) + int(fields[10])

    def is_stored(self, name: str) -> bool:
        return self.members[name].compress_type == zipfile.ZIP_STORED

    def stored(self, name: str) -> Array:
        """The bytes of a member that is not compressed, checked, as a part of the mapping."""
        octets = self.unchecked(name)
        octets.check()
        return octets.data

    def unchecked(self, name: str) -> MemberBytes:
        """The same, to be checked when they are read."""
        member, start = self.members[name], self._starts[name]
        if not self.is_stored(name) or member.file_size != member.compress_size:
            raise ValueError(f"member {name!r} is compressed, where the format stores it as it is")
        return MemberBytes(self.data[start : start + member.file_size], member.CRC, name)

    def head(self, name: str, size: int) -> bytes:
        """The first bytes of a member, unchecked."""
        with self._zip.open(name) as file:
            return file.read(size)

    def whole(self, name: str) -> bytes:
        """All bytes of a small member; raises `limit-exceeded`."""
        check_at_once(self.members[name].file_size, self.data.size, f"member {name!r}")
        return b"".join(self.pieces(name))

    def mapped(self, name: str) -> Array:
        """The bytes of a member, checked: as a part of the mapping, or of an unnamed temporary file to which it is
        decompressed. Raises `limit-exceeded`."""
        if self.is_stored(name):
            return self.stored(name)
        check_at_once(self.members[name].file_size, self.data.size, f"member {name!r}")
        with tempfile.TemporaryFile() as file:
            for piece in self.pieces(name):
                file.write(piece)
            file.flush()
            return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), np.uint8)

    def pieces(self, name: str) -> Iterator[bytes]:
        """The bytes of a member that may be compressed, at most as many as its header says, checked at the end."""
        left = self.members[name].file_size
        with self._zip.open(name) as file:
            while piece := file.read(PIECE):
                left -= len(piece)
                yield piece
        if left:
            raise ValueError(f"member {name!r} has not the size that its header says")


class MemberBytes:
    """The bytes of a member as a part of the mapping, of which nothing is to be believed before `check`."""

    def __init__(self, data: Array, crc: int, name: str) -> None:
        self.data, self._crc, self._name = data, crc, name
        self._is_checked = False

    def check(self) -> None:
        """Refuse bytes of another CRC-32; raises ValueError. They are looked at once."""
        if self._is_checked:
            return
        crc = 0
        for at in range(0, self.data.size, PIECE):
            crc = zlib_ng.crc32(bytes_of(self.data[at : at + PIECE]), crc)
        if crc != self._crc:
            raise ValueError(f"member {self._name!r} is damaged: its CRC-32 is {crc:08x}, not {self._crc:08x}")
        self._is_checked = True


def folder_of(members: Iterable[str], name: str) -> str | None:
    """The outermost folder that has a member of that name, with a slash at its end: archives of torch have all in
    one."""
    return next((found[: -len(name)] for found in members if found.partition("/")[2] == name), None)


class Window(io.RawIOBase):
    """A part of a mapping as a file to read."""

    def __init__(self, data: Array) -> None:
        self._data, self._position = data, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._data.size}[whence]
        if base + offset < 0:
            raise OSError("seek before the start of the file")  # as zipfile expects of files
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int | None = -1) -> bytes:
        end = self._data.size if size is None or size < 0 else self._position + size
        data = self._data[self._position : end].tobytes()
        self._position += len(data)
        return data

    def readline(self, size: int | None = -1) -> bytes:
        limit = self._data.size if size is None or size < 0 else self._position + size
        at = self._position
        while at < min(limit, self._data.size):
            found = np.flatnonzero(self._data[at : min(at + 4096, limit)] == ord("\n"))
            if found.size:
                return self.read(at + int(found[0]) + 1 - self._position)
            at += 4096
        return self.read(limit - self._position)
