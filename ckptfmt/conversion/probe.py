"""A first look at a path, from which formats tell whether it is theirs."""

from __future__ import annotations

import os
from typing import NamedTuple, Self

from ..errors import CkptError, os_fault
from .entries import folder_size, open_file

HEAD = 4096  # bytes


class Probe(NamedTuple):
    """A path, its size in bytes (of all files below a directory), the first bytes of a file, and the names in a
    directory."""

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
                return cls(path, True, folder_size(path), entries=frozenset(os.listdir(path)))
            with open(open_file(path), "rb") as file:
                return cls(path, False, os.fstat(file.fileno()).st_size, file.read(HEAD))
        except CkptError as error:
            error.path = path
            raise
        except OSError as error:
            raise os_fault(error, "cannot open the source", path) from error
