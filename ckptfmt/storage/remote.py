"""Reading checkpoints on object stores and other remote file systems (SPEC.md section 12).

A file is opened by its end, which has the commit record and mostly the manifest. A reader that is overtaken by a save
that replaces the checkpoint is told so, and never gets bytes of both.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from typing import Any, Self, TypeGuard, TypeVar

from ..errors import CkptError, fault
from . import COMMIT, TAIL, TEMPORARY_SUFFIX
from .engine import MOST_REQUESTS, Engine, ObjectReplaced, SeenObject, engine_for, storage_fault
from .retry import status_of

T = TypeVar("T")

SPAN = 16 << 20  # bytes of one request, in which consecutive blocks are read
READERS = 16  # requests at a time, to begin with


class RemoteStorage:
    """Reads a checkpoint through an engine. What is known of an object is asked for once."""

    span = SPAN
    readers = READERS
    most_readers = MOST_REQUESTS
    is_remote = True

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.path = url
        self.engine, self._root = engine_for(url, options)
        self.held = self.engine.held
        if self._root.rstrip("/").endswith(TEMPORARY_SUFFIX):  # [PUB-021]
            raise fault("temporary", "this is the temporary of a save that has not been committed", path=url)
        self._seen: dict[str, SeenObject] = {}
        self._tails: dict[str, bytes] = {}
        self.is_directory = not self._find("")
        if self.is_directory and not self._find(COMMIT):
            if self._ask(self.engine.exists, self._root):
                raise fault("not-a-checkpoint", "this is a directory without a COMMIT file", path=url)  # [COM-005]
            raise fault("not-found", "there is nothing", path=url)

    @classmethod
    def before_commit(cls, engine: Engine, root: str, path: str, commit: bytes) -> Self:
        """Of a directory that will have these bytes as its `COMMIT`."""
        storage = cls.__new__(cls)
        storage.path, storage.engine, storage._root, storage.is_directory = path, engine, root, True
        storage.held = engine.held
        storage._seen, storage._tails = {COMMIT: SeenObject(len(commit), None)}, {COMMIT: commit}
        return storage

    def _find(self, name: str) -> bool:
        """Read the end of an object; whether there is one."""
        try:
            self._seen[name], self._tails[name] = self._ask(self.engine.tail, self.place(name), TAIL)
        except FileNotFoundError:
            return False
        return True

    def _ask(self, call: Callable[..., T], *arguments: Any) -> T:
        try:
            return call(*arguments)
        except CkptError:
            raise
        except FileNotFoundError as error:
            if not _is_hidden(error.__cause__):
                raise
            raise storage_fault(error.__cause__, "cannot reach the checkpoint", self.path) from error
        except Exception as error:
            raise storage_fault(error, "cannot reach the checkpoint", self.path) from error

    def size(self, name: str) -> int:
        if name not in self._seen:
            try:
                self._seen[name] = self._ask(self.engine.head, self.place(name))
            except FileNotFoundError:
                raise fault("missing-object", f"{name} is missing", path=self.path) from None  # [READ-005]
        return self._seen[name].size

    def seen(self, name: str) -> str:
        self.size(name)
        return f"{zlib.crc32(repr(self._seen[name]).encode()):08x}"

    def read(self, name: str, offset: int, length: int) -> bytes:
        tail = self._tails.get(name, b"")
        if tail and offset >= (start := self._seen[name].size - len(tail)) and offset - start + length <= len(tail):
            return tail[offset - start : offset - start + length]
        data = bytearray(length)
        self.read_into(name, offset, memoryview(data))
        return bytes(data)

    def read_into(self, name: str, offset: int, out: memoryview) -> None:
        if not out:
            return
        what = name or "the file"
        try:
            count = self.engine.read_into(self.place(name), offset, out, self._seen.get(name))
        except FileNotFoundError:
            raise fault("missing-object", f"{what} is missing", path=self.path) from None
        except ObjectReplaced as error:
            message = f"{what} was replaced by another save since it was opened"
            raise fault("missing-object", message, path=self.path) from error
        except Exception as error:
            raise storage_fault(error, f"cannot read {what} at byte {offset}", self.path) from error
        if count < len(out):  # [READ-005]
            raise fault("short-object", f"{what} ends at byte {offset + count}", path=self.path, offset=offset + count)

    def map(self, name: str) -> memoryview:
        raise fault("bad-option", "only files on local disks can be mapped", path=self.path)

    def was_replaced(self) -> bool:
        """Whether another checkpoint has taken the path, or none is there, as far as the store can be asked."""
        name = COMMIT if self.is_directory else ""
        try:
            return self.engine.head(self.place(name)).identity != self._seen[name].identity
        except FileNotFoundError:
            return True
        except Exception:
            return False

    def close(self) -> None:
        """Nothing is held open."""

    def place(self, name: str) -> str:
        """The key of an object."""
        return f"{self._root.rstrip('/')}/{name}" if name else self._root


def _is_hidden(cause: BaseException | None) -> TypeGuard[Exception]:
    """Whether what fsspec calls a missing file was a server that cannot be reached, or fails."""
    is_failure = isinstance(cause, OSError) and not isinstance(cause, FileNotFoundError)
    return is_failure or (isinstance(cause, Exception) and (status_of(cause) or 0) >= 500)
