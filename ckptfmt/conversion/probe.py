"""A first look at a path, from which formats tell whether it is theirs."""

from __future__ import annotations

import os
from typing import NamedTuple, Self

from ..errors import CkptError, os_fault
from .entries import open_file, part_of

HEAD = 4096  # bytes


class CheckpointPlace(NamedTuple):
    """A checkpoint: its path, the name of its format, and where it was found in a folder, the names of what else lies
    there: what looks like weights or the state of a run comes first."""

    path: str
    format: str
    passed_over: tuple[str, ...] = ()


class Probe(NamedTuple):
    """A path, its size in bytes (of a file), the first bytes of a file, and the names in a directory."""

    path: str
    is_directory: bool
    size: int
    head: bytes = b""
    entries: frozenset[str] = frozenset()

    @classmethod
    def of(cls, path: str) -> Self:
        """Look at a path; raises `not-found`, `permission`, `io`, and
        `unsafe-source` for a pipe, a device or a socket."""
        try:
            if os.path.isdir(path):
                return cls(path, True, 0, entries=frozenset(os.listdir(path)))
            with open(open_file(path), "rb") as file:
                if (part := part_of(path)) is not None:
                    head = os.pread(file.fileno(), min(HEAD, part.size), part.offset)
                    return cls(path, False, part.size, head)
                return cls(path, False, os.fstat(file.fileno()).st_size, file.read(HEAD))
        except CkptError as error:
            error.path = path
            raise
        except OSError as error:
            raise os_fault(error, "cannot open the source", path) from error

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the file."""
        begin = 0 if (part := part_of(self.path)) is None else part.offset
        with open(open_file(self.path), "rb") as file:
            return os.pread(file.fileno(), max(0, min(length, self.size - offset)), begin + offset)
