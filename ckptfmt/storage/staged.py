"""A file that is made on this machine before it goes where nobody can read what is half there."""

from __future__ import annotations

import os
import shutil
import tempfile

from ..errors import os_fault
from . import disk as disks
from .attempt import LocalFile
from .local import LocalStorage


class StagedObject:
    """One temporary file, which `remove` removes."""

    def __init__(self, path: str) -> None:
        """`path`: of what it is made for, for messages."""
        self._path = path
        self._folder: str | None = None
        self._file: LocalFile | None = None

    @property
    def path(self) -> str:
        """Where it is, once it was created."""
        assert self._folder is not None
        return os.path.join(self._folder, "checkpoint")

    def create(self) -> LocalFile:
        """A new file, in the place of one that was begun before; raises `disk-full`, `permission`, `io`."""
        self.remove()
        try:
            self._folder = tempfile.mkdtemp(prefix="ckptfmt-")
            self._file = LocalFile(self.path, disks.current(), False, self._path)
        except OSError as error:
            raise os_fault(error, "cannot make the checkpoint on this machine before it is sent", self._path) from error
        return self._file

    def written(self) -> LocalStorage:
        """Reads what was written."""
        storage = LocalStorage(self.path)
        storage.path = self._path  # for messages
        return storage

    def remove(self) -> None:
        if self._file is not None:
            self._file.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = self._file = None
