"""Checkpoints without a path: in memory, in a file that is open, and through a pipe."""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..errors import CkptError, fault, os_fault
from . import COPIED, Attempt, ObjectWriter, Storage, copy_pieces
from .staged import StagedObject

LONGEST_PATH = 4096  # bytes
_BYTES = (bytes, bytearray, memoryview, mmap.mmap)


class HeldPlace(str):
    """What stands where a path does: bytes, or an open binary file. As text it is what messages call it."""

    value: Any

    @classmethod
    def of(cls, value: Any) -> HeldPlace | None:
        """None for what is neither, and for bytes that are a path; raises `bad-option` for a file that is open for
        text."""
        if isinstance(value, cls):
            return value
        if isinstance(value, bytes) and len(value) < LONGEST_PATH and b"\0" not in value and os.path.lexists(value):
            return None
        if isinstance(value, _BYTES):
            held = cls(f"<{type(value).__name__} of {memoryview(value).nbytes:,} bytes>")
        elif hasattr(value, "read") or hasattr(value, "write"):
            name = getattr(value, "name", None)
            held = cls(f"<open file {name}>" if isinstance(name, str | int) else f"<{type(value).__name__}>")
            if isinstance(value, io.TextIOBase):
                raise fault("bad-option", "this file is open for text", path=held, advice="Open it as binary")
        else:
            return None
        held.value = value
        return held

    def storage(self) -> Storage:
        """Reads it: a file from where it stands to its end, a pipe to its end and into memory. Raises `bad-option` for
        what cannot be read, and `io`."""
        if isinstance(self.value, _BYTES):
            return HeldStorage(self, memoryview(self.value).cast("B"))
        try:
            if not self.value.readable():
                raise io.UnsupportedOperation("it is open to be written alone")
            if self.value.seekable():
                return HeldStorage(self, _OpenFile(self, self.value))
            return HeldStorage(self, memoryview(self.value.read()))
        except OSError as error:
            raise self._failed(error, "cannot read the checkpoint") from error
        except (AttributeError, ValueError) as error:  # no such method, or a closed file
            raise fault("bad-option", f"it cannot be read: {error}", path=self) from error

    def attempt(self, *, durable: bool) -> Attempt:
        """Writes to it, once all is there; raises `bad-option` for what cannot be written."""
        if isinstance(self.value, _BYTES) or not hasattr(self.value, "write"):
            message = "nothing can be saved into this"
            raise fault("bad-option", message, path=self, advice="Give a path, or a binary file that is open to write")
        return HeldAttempt(self, durable)

    @contextmanager
    def at_path(self) -> Iterator[str]:
        """The path of a temporary file with all that it has, as libraries read only files."""
        with staged(self) as place:
            storage, out = self.storage(), place.create()
            size = storage.size("")
            copy_pieces(out, 0, storage, "", 0, size)
            out.finish(size)
            yield place.path

    @contextmanager
    def filled(self, *, durable: bool) -> Iterator[str]:
        """The path of a temporary file, which is empty. What is in it at the end goes into the open file."""
        with staged(self) as place:
            place.create().finish(0)
            yield place.path
            with contextlib.closing(place.written()) as storage:
                self.take(storage, durable=durable)

    def take(self, storage: Storage, *, durable: bool) -> None:
        """Write all that a storage has; raises `io` and `disk-full`."""
        size = storage.size("")
        try:
            for at in range(0, size, COPIED):
                left = memoryview(storage.read("", at, min(COPIED, size - at)))
                while left:  # of a raw file, which may take less; others need not say how much
                    count = self.value.write(left)
                    left = left[len(left) if count is None else count :]
            if hasattr(self.value, "flush"):
                self.value.flush()
            if durable and (number := _number_of(self.value)) is not None:
                os.fsync(number)
        except OSError as error:
            raise self._failed(error, "cannot write the checkpoint") from error
        except (AttributeError, TypeError, ValueError) as error:
            raise fault("bad-option", f"it cannot be written: {error}", path=self) from error

    def _failed(self, error: OSError, doing: str) -> CkptError:
        if isinstance(error, io.UnsupportedOperation):
            return fault("bad-option", f"{doing}: {error}", path=self)
        return os_fault(error, doing, self)


@contextmanager
def staged(path: str) -> Iterator[StagedObject]:
    """A file of this machine that is gone at the end."""
    place = StagedObject(path)
    try:
        yield place
    finally:
        place.remove()


def _number_of(file: Any) -> int | None:
    """The descriptor of an open file on a disk; None for all else, also for what reads such a file in another way, as
    that of gzip does."""
    raw = file.raw if isinstance(file, io.BufferedReader | io.BufferedRandom | io.BufferedWriter) else file
    number = raw.fileno() if isinstance(raw, io.FileIO) else None
    return number if number is not None and stat.S_ISREG(os.fstat(number).st_mode) else None


class _OpenFile:
    """The bytes of an open file from where it stands, and stays. It is read at offsets where the system can, and else
    in turn."""

    def __init__(self, path: str, file: Any) -> None:
        self._path, self._file, self._turn = path, file, threading.Lock()
        if isinstance(file, io.BufferedRandom):
            file.flush()
        self._start, self._number = file.tell(), _number_of(file)
        self.nbytes = max(0, self._end() - self._start)
        if self._start and not self.nbytes:
            raise fault("bad-option", "the file stands at its end", path=path, advice="Go to its beginning: seek(0)")

    def _end(self) -> int:
        if self._number is not None:
            return os.fstat(self._number).st_size
        end: int = self._file.seek(0, io.SEEK_END)
        self._file.seek(self._start)
        return end

    def read_into(self, offset: int, out: memoryview) -> int:
        """Fill `out`, or less of it at the end; gives the bytes read."""
        done = 0
        while done < len(out) and (count := self._some(self._start + offset + done, out[done:])):
            done += count
        return done

    def _some(self, at: int, out: memoryview) -> int:
        if self._number is not None:
            return os.preadv(self._number, [out], at)
        with self._turn:
            self._file.seek(at)
            try:
                data = self._file.read(len(out))
            finally:
                self._file.seek(self._start)
        out[: len(data)] = data
        return len(data)


class HeldStorage:
    """Reads a checkpoint that is in memory, or in an open file. Neither is closed with it."""

    is_directory = is_remote = False
    span = 2 << 20
    readers = most_readers = max(2, min(8, os.cpu_count() or 2))
    held: int | None = 0

    def __init__(self, path: str, data: memoryview | _OpenFile) -> None:
        self.path = path
        self._data: memoryview | _OpenFile | None = data

    def size(self, name: str) -> int:
        return self._found(name).nbytes

    def seen(self, name: str) -> str:
        return f"{self.size(name):x}"

    def read(self, name: str, offset: int, length: int) -> bytes:
        data = bytearray(length)
        self.read_into(name, offset, memoryview(data))
        return bytes(data)

    def read_into(self, name: str, offset: int, out: memoryview) -> None:
        data = self._found(name)
        if isinstance(data, memoryview):
            part = data[offset : offset + len(out)]
            out[: len(part)] = part
            done = len(part)
        else:
            try:
                done = data.read_into(offset, out)
            except OSError as error:
                raise os_fault(error, "cannot read the checkpoint", self.path) from error
            except ValueError as error:
                raise fault("bad-option", f"the file was closed: {error}", path=self.path) from error
        if done < len(out):
            raise fault("short-object", "the file ends too early", path=self.path, offset=offset + done)

    def map(self, name: str) -> memoryview:
        """A copy: nobody else may see what is changed in it."""
        data = bytearray(self.size(name))
        if not data:
            raise fault("short-object", "the file is empty", path=self.path, offset=0)
        self.read_into(name, 0, memoryview(data))
        return memoryview(data)

    def was_replaced(self) -> bool:
        return False

    def close(self) -> None:
        self._data = None

    def _found(self, name: str) -> memoryview | _OpenFile:
        if name:
            raise fault("missing-object", f"{name} is not in a file", path=self.path)
        if self._data is None:
            raise fault("bad-option", "the checkpoint is closed; open it again to read from it", path=self.path)
        return self._data


class HeldAttempt:
    """A save into an open file, which gets all of it at the end, or nothing where the save fails before."""

    def __init__(self, held: HeldPlace, durable: bool) -> None:
        self.path: str = held
        self._held, self._durable, self._staged = held, durable, StagedObject(held)

    def create(self, name: str) -> ObjectWriter:
        return self._staged.create()

    def link(self, name: str, storage: Storage, source: str, size: int) -> str:
        return "an open file is one object"

    def remove(self, name: str) -> None:
        """There is nothing that was linked."""

    def written(self) -> Storage:
        return self._staged.written()

    def fault(self, error: OSError | CkptError, doing: str) -> CkptError:
        return error if isinstance(error, CkptError) else os_fault(error, doing, self.path)

    def publish(self) -> None:
        storage = self._staged.written()
        try:
            self._held.take(storage, durable=self._durable)
        finally:
            storage.close()
        self._staged.remove()

    def abort(self) -> None:
        self._staged.remove()
