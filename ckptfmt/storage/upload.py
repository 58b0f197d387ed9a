"""Saving to object stores: an object that is sent in parts, and the attempt in layout `file` (SPEC.md section 11).

Memory holds a few parts, never an object. An object appears whole with one request, which is the commit of
layout `file`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from ..errors import CkptError, fault, os_fault
from . import COMMIT, TEMPORARY_SUFFIX, ObjectWriter, Storage, copy_pieces
from .engine import LEAST_PART, PART, Engine, Upload, storage_fault
from .exclusive import check_exclusive, settle
from .staged import StagedObject

MAX_PARTS = 9_000  # of an upload; S3 has 10,000
IN_MEMORY = 8  # parts for which there is room in memory
MARK = 255  # last bytes of an object, by which it is recognised: as many as a commit record may have


class RemoteObject:
    """A new object. `finished` is called when all of its bytes are given; with `complete` it appears."""

    sequential = True

    def __init__(
        self,
        engine: Engine,
        key: str,
        path: str,
        *,
        exclusive: bool,
        in_flight: int,
        finished: Callable[[RemoteObject], None],
    ) -> None:
        self.key = key
        self._engine, self._path, self._exclusive, self._finished = engine, path, exclusive, finished
        self._in_flight = in_flight
        self._part = max(LEAST_PART, min(PART, in_flight // IN_MEMORY >> 20 << 20))  # whole MiB, as Google's store asks
        self._size, self._mark = 0, b""
        self._waiting = bytearray()  # less than a part
        self._upload: Upload | None = None  # once there is more than a part

    def reserve(self, size: int) -> None:
        """Choose parts by which an object of `size` bytes can be sent."""
        if self._upload is None:
            self._part = max(self._part, -(-size // MAX_PARTS))

    def write(self, offset: int, data: Any) -> None:
        view = memoryview(data).cast("B")
        assert offset == self._size, "objects on stores are written from front to back"
        self._size += len(view)
        self._mark = (self._mark + bytes(view[-MARK:]))[-MARK:]
        while view:
            if not self._waiting and len(view) >= self._part:
                piece, view = view[: self._part], view[self._part :]
                self._send(piece)
                continue
            room = self._part - len(self._waiting)
            self._waiting += view[:room]
            view = view[room:]
            if len(self._waiting) == self._part:
                full, self._waiting = self._waiting, bytearray()
                self._send(memoryview(full))

    def copy(self, offset: int, storage: Storage, name: str, start: int, length: int) -> None:
        copy_pieces(self, offset, storage, name, start, length)

    def _send(self, part: memoryview) -> None:
        try:
            if self._upload is None:
                self._upload = self._engine.upload(
                    self.key, self._part, self._in_flight // self._part, exclusive=self._exclusive
                )
            self._upload.write(part)
        except Exception as error:
            raise storage_fault(error, "cannot upload the checkpoint", self._path) from error

    @property
    def waiting(self) -> bytes:
        """What was not sent yet."""
        return bytes(self._waiting)

    @property
    def is_small(self) -> bool:
        """Whether it is sent in one request, all of which waits in memory."""
        return self._upload is None

    def finish(self, size: int) -> None:
        assert size == self._size
        if self._upload is not None and self._waiting:
            self._send(memoryview(self._waiting))
        self._finished(self)

    def complete(self) -> None:
        """Make the object appear, and know that it did. [PUB-008] [PUB-010]"""
        doing = "cannot complete the upload"
        settle(self._complete, self._is_ours, doing, self._path, exclusive=self._exclusive)
        self._waiting = bytearray()

    def _complete(self) -> None:
        if self._upload is None:
            self._engine.put(self.key, self._waiting, exclusive=self._exclusive)
        else:
            self._upload.complete()

    def _is_ours(self) -> bool | None:
        try:
            seen, end = self._engine.tail(self.key, MARK)
        except FileNotFoundError:
            return None
        return seen.size == self._size and end == self._mark

    def close(self) -> None:
        if self._upload is not None:
            with contextlib.suppress(Exception):  # an upload that stays is removed by the store's own rules
                self._upload.discard()


class RemoteFile:
    """A save of layout `file`, which appears whole when its one upload is completed. [PUB-008]"""

    def __init__(self, engine: Engine, key: str, path: str, *, overwrite: bool, in_flight: int) -> None:
        self.path = path
        self._engine, self._key, self._overwrite, self._in_flight = engine, key, overwrite, in_flight
        self._object: RemoteObject | None = None
        check_name(key, path)
        try:
            if overwrite:
                self._check_replaceable()
            elif engine.exists(key):  # [PUB-003]
                raise fault("exists", "there is something at this path already", path=path)
            else:
                check_exclusive(engine, key, path, "overwrite=True, where only one process saves")
        except Exception as error:
            raise storage_fault(error, "cannot reach the folder to save into", path) from error

    def _check_replaceable(self) -> None:
        """A file would hide a directory of the same name, and leave it. [PUB-014]"""
        with contextlib.suppress(FileNotFoundError):
            self._engine.head(f"{self._key}/{COMMIT}")
            message = "there is a checkpoint of another layout, which no store can replace in one step"
            raise fault("not-replaceable", message, path=self.path)

    def create(self, name: str) -> ObjectWriter:
        return self._begun()

    def _begun(self) -> RemoteObject:
        self._object = RemoteObject(
            self._engine,
            self._key,
            self.path,
            exclusive=not self._overwrite,
            in_flight=self._in_flight,
            finished=lambda _: None,
        )
        return self._object

    def link(self, name: str, storage: Storage, source: str, size: int) -> str:
        return "a file on a store is one object"

    def remove(self, name: str) -> None:
        """There is nothing that was linked."""

    def written(self) -> Storage:
        raise NotImplementedError("the parts of an upload cannot be read; `StagedFile` can")

    def fault(self, error: OSError | CkptError, doing: str) -> CkptError:
        return error if isinstance(error, CkptError) else os_fault(error, doing, self.path)

    def publish(self) -> None:
        """An upload is durable when it is complete."""
        assert self._object is not None
        self._object.complete()

    def abort(self) -> None:
        if self._object is not None:
            self._object.close()


class StagedFile(RemoteFile):
    """The same, made in a temporary file of this machine, where it can be read before it is sent."""

    _staged: StagedObject | None = None

    def create(self, name: str) -> ObjectWriter:
        self._staged = self._staged or StagedObject(self.path)
        return self._staged.create()

    def written(self) -> Storage:
        assert self._staged is not None
        return self._staged.written()

    def publish(self) -> None:
        storage = self.written()
        try:
            out, size = self._begun(), storage.size("")
            out.reserve(size)
            out.copy(0, storage, "", 0, size)
            out.finish(size)
        finally:
            storage.close()
        super().publish()
        self._remove()

    def abort(self) -> None:
        super().abort()
        self._remove()

    def _remove(self) -> None:
        if self._staged is not None:
            self._staged.remove()


def check_name(key: str, path: str) -> None:
    """Refuse the names of temporaries. [PUB-001]"""
    if key.rstrip("/").endswith(TEMPORARY_SUFFIX):
        raise fault("bad-option", f"a checkpoint's name must not end in {TEMPORARY_SUFFIX}", path=path)
