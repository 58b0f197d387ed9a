"""The commit record (section 10), the three layouts on disk (section 8), and nothing of what is inside."""

import errno
import os
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from faults import Fault, need

NUMBER = rb"(0|[1-9][0-9]{0,18})"
SMALL = rb"(0|[1-9][0-9]{0,2})"
RECORD = re.compile(
    rb"ckptfmt/%b\.%b (file|packed|loose) manifest=%b\+%b sha256=([0-9a-f]{64}) "
    rb"frame=([0-9a-f]{32}|[0-9a-f]{64}) crc32=([0-9a-f]{8})\n" % (SMALL, SMALL, NUMBER, NUMBER)
)
LONGEST_RECORD = 255


class Record(NamedTuple):
    """A commit record. The manifest lies at `offset` of the file, or is `manifest.msgpack` of the directory."""

    version: list[int]
    layout: str
    offset: int
    length: int
    sha256: bytes
    frame: bytes
    size: int  # of the record itself

    @classmethod
    def parse(cls, line: bytes) -> "Record":
        version = re.match(rb"ckptfmt/(0|[1-9][0-9]*)\.", line)
        need(version, "COM-001", "the commit record does not begin with a version", "bad-record")
        assert version
        need(version[1] != b"0", "FMT-003", "a version of the format before 1.0", "older-format")
        need(version[1] == b"1", "VER-002", f"major version {version[1].decode()}; 1 is known", "newer-format")
        match = RECORD.fullmatch(line)
        need(match and len(line) <= LONGEST_RECORD, "COM-001", "the commit record has another form", "bad-record")
        assert match
        major, minor, layout, offset, length, sha256, frame, crc32 = match.groups()
        good = zlib.crc32(line[: line.index(b"crc32=")]) == int(crc32, 16)
        need(good, "COM-001", "the commit record's crc32 is another", "bad-record")
        need(max(int(offset), int(length)) < 1 << 63, "COM-001", "a number is 2⁶³ or more", "bad-record")
        digests = bytes.fromhex(sha256.decode()), bytes.fromhex(frame.decode())
        return cls([int(major), int(minor)], layout.decode(), int(offset), int(length), *digests, len(line))


class Storage:
    """The objects of the checkpoint at `path`, after its commit record has been found valid."""

    def __init__(self, path: str) -> None:
        temporary = os.path.normpath(path).endswith(".ckptfmt-tmp")
        need(not temporary, "PUB-001", f"{path} is the temporary of an unfinished save", "temporary")
        self.path = path
        with system(path, "not-found"):
            mode = os.stat(path).st_mode
            self.is_folder = stat.S_ISDIR(mode)
            need(self.is_folder or stat.S_ISREG(mode), "COM-004", "neither file nor directory", "not-a-checkpoint")
            self.file = -1 if self.is_folder else os.open(path, os.O_RDONLY)
        self.record = self._record_of_folder() if self.is_folder else self._record_of_file()

    def close(self) -> None:
        if self.file >= 0:
            os.close(self.file)
            self.file = -1

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Bytes of an object (the file itself is ""); fewer than `length` only where the object ends [LIM-003]."""
        with system(name or self.path, "missing-object"):
            file = os.open(self._step_to(name), os.O_RDONLY) if self.is_folder else self.file
            try:
                data = bytearray(max(0, min(length, os.fstat(file).st_size - offset)))
                os.lseek(file, offset, os.SEEK_SET)
                view, filled = memoryview(data), 0
                while filled < len(data) and (count := os.readv(file, [view[filled:]])):
                    filled += count
                return bytes(data[:filled])
            finally:
                if self.is_folder:
                    os.close(file)

    def size(self, name: str) -> int:
        with system(name or self.path, "missing-object"):
            return os.lstat(self._step_to(name)).st_size if self.is_folder else os.fstat(self.file).st_size

    def _step_to(self, name: str) -> str:
        """The system's path of an object, after making sure that no link lies on the way [CHK-007]."""
        path = self.path
        for segment in name.split("/"):
            path = os.path.join(path, segment)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                raise Fault("linked-object", f"{name} is or lies behind a symbolic link [CHK-007]", object=name)
        if not stat.S_ISREG(mode):
            raise Fault("missing-object", f"{name} is no file [READ-005]", object=name)
        return path

    def _record_of_folder(self) -> Record:
        try:
            line = self.read("COMMIT", 0, LONGEST_RECORD + 1)
        except Fault as fault:
            need(fault.code != "missing-object", "COM-004", "the directory has no COMMIT", "not-a-checkpoint")
            raise
        record = Record.parse(line)
        need(record.layout != "file", "LAY-006", "layout `file` in a directory", "bad-record")
        need(record.offset == 0, "COM-002", "the manifest of a directory begins at 0", "bad-record")
        return record

    def _record_of_file(self) -> Record:
        size = self.size("")
        tail = self.read("", max(0, size - LONGEST_RECORD), LONGEST_RECORD)
        starts = [match.start() for match in re.finditer(rb"ckptfmt/[0-9]", tail)]
        if not starts:
            head = self.read("", 0, 38)
            begun = head.startswith(b"PK\3\4") and head.endswith(b"tensors/")
            need(not begun, "COM-004", "begins like a checkpoint and has no commit record", "truncated")
            need(False, "COM-004", "there is no commit record", "not-a-checkpoint")
        line = tail[starts[-1] :]
        record = Record.parse(line)
        need(record.layout == "file", "LAY-006", f"layout `{record.layout}` in a file", "bad-record")
        fits = record.offset + record.length <= size - len(line)
        need(fits, "COM-002", "the manifest's extent does not fit into the file", "bad-record")
        return record


@contextmanager
def system(name: str, absent: str) -> Iterator[None]:
    """Turn the system's errors into faults; `absent` is the code for what is not there."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            raise Fault(absent, f"{name} is not there", object=name) from error
        code = "permission" if isinstance(error, PermissionError) else "io"
        raise Fault(code, f"{name}: {error.strerror}", object=name) from error
