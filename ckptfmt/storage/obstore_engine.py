"""Object stores through obstore, the bindings of Rust's `object_store`: s3, gs, az, and http to read.

It makes requests again by itself. It can complete an upload in parts under no condition: where that is asked for, the
object is uploaded beside its place and copied there, which object stores do by themselves, under the condition.
"""

from __future__ import annotations

import contextlib
import errno
import queue
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from itertools import islice
from tempfile import TemporaryFile
from typing import Any, Protocol

import obstore
from obstore import exceptions
from obstore.store import HTTPStore, from_url

from . import TEMPORARY_SUFFIX
from .engine import Child, Engine, ListedObject, ObjectReplaced, SeenObject, Unfinished, Upload
from .retry import TRIES, retried

PIECE = 256 << 10  # bytes of a body that are handed on at a time
HELD = 1 << 20  # bytes of memory that a read takes at most: a piece, and what has come of the next
_STATUS = re.compile(r"status code: (\d{3})").search
UPLOADS = 4  # parts of one object under way at a time
WAITING = 4  # others in memory: one that fills, its copy, one in the queue, and one that obstore has taken from there
_RETRY = {
    "max_retries": TRIES - 1,
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=5)},
}


def connect(url: str, options: Mapping[str, Any]) -> tuple[Engine, str]:
    """The engine and the key of a URL; `options` go to `obstore.store.from_url`."""
    scheme, _, rest = url.partition("://")  # no other character of a key means anything
    bucket, _, key = rest.partition("/")
    base = f"{scheme}://{bucket}"
    chosen = {"retry_config": _RETRY, **options}
    chosen["client_options"] = {"timeout": timedelta(minutes=5), **options.get("client_options", {})}
    if scheme in ("s3", "s3a"):
        chosen = {"copy_if_not_exists": "multipart", **chosen}
    try:
        store = from_url(base, **chosen)
    except exceptions.BaseError as error:
        raise ValueError(_first_line(error)) from error
    return ObstoreEngine(store, f"{base} {sorted(options.items(), key=lambda item: item[0])!r}"), key.strip("/")


class ObstoreEngine:
    """A store of obstore."""

    held: int | None = HELD

    def __init__(self, store: Any, name: str) -> None:
        self._store, self.name = store, name
        self.writable = not isinstance(store, HTTPStore)

    def head(self, key: str) -> SeenObject:
        return _seen(_do(obstore.head, self._store, key))

    def tail(self, key: str, length: int) -> tuple[SeenObject, bytes]:
        try:
            found = _do(obstore.get, self._store, key, options={"range": {"suffix": length}})
            return _seen(found.meta), bytes(_do(found.bytes))
        except (FileNotFoundError, PermissionError):
            raise
        except OSError:  # of an empty object, or where a store has no such ranges
            seen = self.head(key)
            data = bytearray(min(length, seen.size))
            count = self.read_into(key, seen.size - len(data), memoryview(data), seen)
            return seen, bytes(data[:count])

    def read_into(self, key: str, offset: int, out: memoryview, seen: SeenObject | None) -> int:
        if not out:
            return 0
        options: dict[str, Any] = {"range": (offset, offset + len(out))}
        if seen is not None and isinstance(seen.identity, str):
            options["if_match"] = seen.identity
        count = 0
        try:
            pieces = iter(_do(obstore.get, self._store, key, options=options).stream(min_chunk_size=PIECE))
            while piece := _do(next, pieces, b""):
                out[count : count + len(piece)] = piece
                count += len(piece)
        except OSError as error:
            if error.errno != errno.ERANGE:  # else the object ends before
                raise
        return count

    def put(self, key: str, data: bytes | bytearray, *, exclusive: bool) -> None:
        mode = "create" if exclusive else "overwrite"
        _do(obstore.put, self._store, key, bytes(data), mode=mode, use_multipart=False)

    def upload(self, key: str, part: int, room: int, *, exclusive: bool) -> Upload:
        return _ObstoreUpload(self._store, key, part, max(1, min(UPLOADS, room - WAITING)), exclusive)

    def exists(self, key: str) -> bool:
        try:
            self.head(key)
            return True
        except FileNotFoundError:
            return self.writable and any(self._pages(key, 1))  # the web has no folders

    def children(self, folder: str) -> list[Child]:
        def found() -> Any:
            return _do(obstore.list_with_delimiter, self._store, folder)

        try:
            there = retried(found)()
        except FileNotFoundError:
            return []
        folders = [Child(key.rstrip("/").rpartition("/")[2], None) for key in there["common_prefixes"]]
        return folders + [Child(meta["path"].rpartition("/")[2], _seen(meta)) for meta in there["objects"]]

    def entries(self, folder: str) -> list[ListedObject]:
        found = (meta for page in self._pages(folder) for meta in page)
        return sorted(ListedObject(meta["path"], meta["size"], meta["last_modified"].timestamp()) for meta in found)

    def unfinished(self, folder: str) -> list[Unfinished]:
        return []  # obstore does not list them

    def _pages(self, folder: str, most: int | None = None) -> list[Any]:
        """The first `most` pages of a list, or all. obstore does not ask again if an answer is cut short."""

        def pages() -> list[Any]:
            found: list[Any] = _do(lambda: [*islice(obstore.list(self._store, folder, chunk_size=1000), most)])
            return found

        try:
            return retried(pages)()
        except FileNotFoundError:
            return []

    def copy(self, source: str, target: str) -> None:
        _do(obstore.copy, self._store, source, target, overwrite=True)

    def delete(self, key: str) -> None:
        _do(obstore.delete, self._store, key)


class _ObstoreUpload:
    """An object that is sent in parts to its place, or beside it and copied there."""

    def __init__(self, store: Any, key: str, part: int, at_once: int, exclusive: bool) -> None:
        self._store, self._key, self._exclusive = store, key, exclusive
        folder, _, name = key.rpartition("/")
        aside = f"{folder}/.{name[:160]}.{secrets.token_hex(6)}{TEMPORARY_SUFFIX}".lstrip("/")
        self._place = aside if exclusive else key
        self._is_sent = self._is_discarded = False
        options = {"use_multipart": True, "chunk_size": part, "max_concurrency": at_once}
        put = partial(_do, obstore.put, store, self._place, **options)
        try:
            self._sender: _Sender = _ThreadSender(put)
        except RuntimeError:  # the process ends, and has no thread for this
            self._sender = _FileSender(put)

    def write(self, part: memoryview) -> None:
        self._sender.give(bytes(part))

    def complete(self) -> None:
        if not self._is_sent:
            self._sender.end()
            self._is_sent = True
        if self._exclusive:
            _do(obstore.copy, self._store, self._place, self._key, overwrite=False)
            self.discard()

    def discard(self) -> None:
        if self._is_discarded:
            return
        self._is_discarded = True
        is_there = self._is_sent or self._sender.stop()
        if self._exclusive and is_there:
            _do(obstore.delete, self._store, self._place)


class _Sender(Protocol):
    """Hands parts on to `put`, which asks for them."""

    def give(self, part: bytes) -> None: ...

    def end(self) -> None:
        """There is no other part: wait until all are sent."""

    def stop(self) -> bool:
        """Send no more; gives whether all was sent before."""


class _ThreadSender:
    """A thread that sends while others are made."""

    def __init__(self, put: Callable[[Iterator[bytes]], Any]) -> None:
        self._parts: queue.Queue[bytes | Exception | None] = queue.Queue(1)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ckptfmt-upload")
        self._sending: Future[Any] = self._thread.submit(put, self._given())

    def _given(self) -> Iterator[bytes]:
        while (part := self._parts.get()) is not None:
            if isinstance(part, Exception):
                raise part
            yield part

    def give(self, part: bytes | Exception | None) -> None:
        while not self._sending.done():
            try:
                self._parts.put(part, timeout=0.1)
                return
            except queue.Full:
                continue
        self._sending.result()  # raises, as it has ended before its parts

    def end(self) -> None:
        self.give(None)
        self._thread.shutdown()
        self._sending.result()

    def stop(self) -> bool:
        with contextlib.suppress(Exception):
            self.give(InterruptedError("the save has ended"))  # upon which obstore aborts the upload
        self._thread.shutdown()
        return self._sending.exception() is None


class _FileSender:
    """A temporary file that is sent in the end."""

    def __init__(self, put: Callable[[Iterator[bytes]], Any]) -> None:
        self._put, self._file = put, TemporaryFile()  # noqa: SIM115

    def give(self, part: bytes) -> None:
        self._file.write(part)

    def end(self) -> None:
        self._file.seek(0)
        self._put(iter(partial(self._file.read, PIECE), b""))
        self._file.close()

    def stop(self) -> bool:
        self._file.close()
        return False


def _do(call: Any, *arguments: Any, **more: Any) -> Any:
    try:
        return call(*arguments, **more)
    except (OSError, exceptions.BaseError) as error:
        raise _translated(error) from error


def _translated(error: Exception) -> OSError:
    """What an error of obstore is to the protocol; some say no more than the status of the answer."""
    message = _first_line(error)
    status = _STATUS(message)
    match error:
        case exceptions.AlreadyExistsError():  # 412 and 409
            return FileExistsError(errno.EEXIST, message)
        case exceptions.PreconditionError():
            return ObjectReplaced(errno.ESTALE, message)
        case exceptions.PermissionDeniedError() | exceptions.UnauthenticatedError():
            return PermissionError(errno.EACCES, message)
        case FileNotFoundError():
            return FileNotFoundError(errno.ENOENT, message)
        case OSError():
            return error
    match status and status[1]:
        case "404":
            return FileNotFoundError(errno.ENOENT, message)
        case "409":
            return OSError(errno.EBUSY, message)
        case "416":
            return OSError(errno.ERANGE, message)
    return OSError(errno.EIO, message)


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _seen(meta: Any) -> SeenObject:
    identity = meta["e_tag"] or (meta["size"], meta["last_modified"])
    return SeenObject(meta["size"], identity, meta["last_modified"].timestamp())
