"""Object stores and other file systems that fsspec knows: s3, gs, az, http (to read), memory and more.

The file systems of large stores make requests again by themselves; those of others do not, so it is done here. On S3
a read takes one request for the end of an object and its size, goes straight into the destination, and says which
object it means.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import threading
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from ..errors import fault
from .engine import MOST_REQUESTS, Child, Engine, ListedObject, ObjectReplaced, SeenObject, Unfinished, Upload
from .retry import retried, status_of

T = TypeVar("T")

READ_ONLY = {"http", "https"}
PATIENT = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl"}  # their clients make requests again
_TIMES = ("LastModified", "last_modified", "mtime", "created", "updated")
_IDENTIFYING = ("ETag", "etag", "md5", "LastModified", "mtime", "created")


def connect(url: str, options: Mapping[str, Any]) -> tuple[Engine, str]:
    """The engine and the key of a URL; raises `bad-option`."""
    try:
        from fsspec.core import url_to_fs

        fs, path = url_to_fs(url, **_with_connections(url, options))
    except ValueError as error:
        raise fault("bad-option", f"cannot reach {url.partition('://')[0]}://: {error}", path=url) from error
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else set(fs.protocol)
    if "memory" in protocols:
        return MemoryEngine(fs, protocols), str(path)
    if "s3" in protocols and hasattr(fs, "_call_s3"):
        return S3Engine(fs, protocols), str(path)
    return FsspecEngine(fs, protocols), str(path)


def _with_connections(url: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options, with which s3fs has a connection for each request: by itself it has ten."""
    if url.partition("://")[0] not in ("s3", "s3a"):
        return options
    return {**options, "config_kwargs": {"max_pool_connections": MOST_REQUESTS, **(options.get("config_kwargs") or {})}}


class FsspecEngine:
    """Any file system, by the calls that all of them have."""

    held: int | None = None

    def __init__(self, fs: Any, protocols: set[str]) -> None:
        self._fs = fs
        self.name: str = fs._fs_token
        self.writable = not protocols & READ_ONLY
        self._is_patient = bool(protocols & PATIENT)

    def head(self, key: str) -> SeenObject:
        self._fs.invalidate_cache(key)
        return _seen(self._do(self._fs.info, key), key)

    def tail(self, key: str, length: int) -> tuple[SeenObject, bytes]:
        seen = self.head(key)
        data = bytearray(min(length, seen.size))
        count = self.read_into(key, seen.size - len(data), memoryview(data), seen)
        return seen, bytes(data[:count])

    def read_into(self, key: str, offset: int, out: memoryview, seen: SeenObject | None) -> int:
        data: bytes = self._do(self._fs.cat_file, key, start=offset, end=offset + len(out))
        if len(data) > len(out):
            raise OSError(errno.EIO, "the server ignores ranges")
        out[: len(data)] = data
        return len(data)

    def put(self, key: str, data: bytes | bytearray, *, exclusive: bool) -> None:
        self._do(self._fs.pipe_file, key, bytes(data), mode="create" if exclusive else "overwrite")

    def upload(self, key: str, part: int, room: int, *, exclusive: bool) -> Upload:
        stream = self._fs.open(key, "xb" if exclusive else "wb", block_size=part, autocommit=False)
        return _FileUpload(stream)

    def exists(self, key: str) -> bool:
        self._fs.invalidate_cache(key)
        return bool(self._do(self._fs.exists, key))

    def children(self, folder: str) -> list[Child]:
        self._fs.invalidate_cache()
        try:
            found = self._do(self._fs.ls, folder, detail=True)
        except FileNotFoundError:
            return []
        return [Child(info["name"].rstrip("/").rpartition("/")[2], self._child(info)) for info in found]

    def _child(self, info: Mapping[str, Any]) -> SeenObject | None:
        if info["type"] != "file":
            return None
        return self.head(info["name"]) if info["size"] is None else _seen(info, info["name"])

    def entries(self, folder: str) -> list[ListedObject]:
        self._fs.invalidate_cache(folder)
        found = self._do(self._fs.find, folder, detail=True)
        return [ListedObject(key, int(found[key]["size"] or 0), _written(found[key])) for key in sorted(found)]

    def unfinished(self, folder: str) -> list[Unfinished]:
        return []

    def copy(self, source: str, target: str) -> None:
        self._do(self._fs.cp_file, source, target)

    def delete(self, key: str) -> None:
        self._do(self._fs.rm_file, key)

    def _do(self, call: Callable[..., T], *arguments: Any, **more: Any) -> T:
        return (call if self._is_patient else retried(call))(*arguments, **more)


class _FileUpload:
    """An upload by a file of a file system."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._failure: Exception | None = None  # of sending the last part

    def write(self, part: memoryview) -> None:
        self._stream.write(part)

    def complete(self) -> None:
        """What a stream could not send when it was closed it has forgotten, so it must not be committed later."""
        if self._failure is not None:
            raise self._failure
        try:
            self._stream.close()
        except Exception as error:
            self._failure = error
            raise
        self._stream.commit()

    def discard(self) -> None:
        self._stream.discard()


class S3Engine(FsspecEngine):
    """S3 through s3fs, with requests that say more than the calls which all file systems have."""

    held: int | None = 1 << 20  # what has come of a body, and is not in its place

    def head(self, key: str) -> SeenObject:
        async def head() -> dict[str, Any]:
            return await self._call("head_object", key)

        found = self._run(head)
        return SeenObject(found["ContentLength"], found["ETag"], found["LastModified"].timestamp())

    def tail(self, key: str, length: int) -> tuple[SeenObject, bytes]:
        async def tail() -> tuple[SeenObject, bytes]:
            found = await self._call("get_object", key, Range=f"bytes=-{length}")
            size = int(found.get("ContentRange", "/0").rpartition("/")[2]) or int(found["ContentLength"])
            if found["ContentLength"] != min(length, size):
                found["Body"].close()
                raise OSError(errno.EIO, "the server ignores ranges")
            data = bytearray(found["ContentLength"])
            count = await _fill(found["Body"], memoryview(data))
            return SeenObject(size, found["ETag"]), bytes(data[:count])

        try:
            return self._run(tail)
        except OSError as error:
            if status_of(error) == 416:  # which has no last byte
                return self.head(key), b""
            raise

    def read_into(self, key: str, offset: int, out: memoryview, seen: SeenObject | None) -> int:
        async def read() -> int:
            condition = {} if seen is None else {"IfMatch": seen.identity}
            try:
                found = await self._call(
                    "get_object", key, Range=f"bytes={offset}-{offset + len(out) - 1}", **condition
                )
            except OSError as error:
                match status_of(error):
                    case 412:
                        raise ObjectReplaced(errno.ESTALE, "another object has taken its place") from error
                    case 416:
                        return 0  # the object ends before
                raise
            if offset and not found.get("ContentRange", "").startswith(f"bytes {offset}-"):
                found["Body"].close()
                raise OSError(errno.EIO, "the server ignores ranges")
            return await _fill(found["Body"], out)

        return self._run(read)

    def unfinished(self, folder: str) -> list[Unfinished]:
        bucket, prefix, _ = self._fs.split_path(folder)
        begin = f"{prefix.rstrip('/')}/".lstrip("/")

        async def pages() -> list[Unfinished]:
            found: list[Unfinished] = []
            after: dict[str, str] = {}
            while True:
                page = await self._fs._call_s3("list_multipart_uploads", Bucket=bucket, Prefix=begin, **after)
                for upload in page.get("Uploads", []):
                    if upload["Key"].startswith(begin):
                        key, name = f"{bucket}/{upload['Key']}", upload["UploadId"]
                        try:
                            parts = (await self._call("list_parts", key, UploadId=name)).get("Parts", [])
                        except FileNotFoundError:
                            continue  # it has ended
                        times = [upload["Initiated"], *(part["LastModified"] for part in parts)]
                        found.append(Unfinished(key, max(times).timestamp(), partial(self._abandon, key, name)))
                if not page.get("IsTruncated"):
                    return found
                after = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

        return self._run(pages)

    def _abandon(self, key: str, upload: str) -> None:
        async def abort() -> None:
            await self._call("abort_multipart_upload", key, UploadId=upload)

        with contextlib.suppress(FileNotFoundError):
            self._run(abort)

    async def _call(self, method: str, key: str, **more: Any) -> dict[str, Any]:
        bucket, name, _ = self._fs.split_path(key)
        found: dict[str, Any] = await self._fs._call_s3(method, Bucket=bucket, Key=name, **more)
        return found

    def _run(self, call: Callable[[], Awaitable[T]]) -> T:
        """Run a request on the loop of the file system, which makes it again until its answer begins; a body that ends
        early is asked for again here."""
        from fsspec.asyn import sync

        def run() -> T:
            result: T = sync(self._fs.loop, call)
            return result

        return retried(run, lambda error: isinstance(error, _CutShort))()


class _CutShort(ConnectionError):
    """The body of an answer ended early, or did not go on."""


async def _fill(body: Any, out: memoryview) -> int:
    """Read a body into `out`; gives its bytes."""
    count = 0
    try:
        while count < len(out):
            piece = await body.read(len(out) - count)
            if not piece:
                break
            out[count : count + len(piece)] = piece
            count += len(piece)
        return count
    except Exception as error:  # of three libraries, below s3fs
        raise _CutShort(errno.ECONNRESET, f"the answer was cut short: {error}") from error
    finally:
        body.close()


class MemoryEngine(FsspecEngine):
    """fsspec's memory, whose exclusive creation looks first and writes then, and whose open files can be seen."""

    _lock = threading.Lock()

    def put(self, key: str, data: bytes | bytearray, *, exclusive: bool) -> None:
        with self._lock:
            super().put(key, data, exclusive=exclusive)

    def upload(self, key: str, part: int, room: int, *, exclusive: bool) -> Upload:
        return _Gathered(self, key, exclusive)


class _Gathered:
    def __init__(self, engine: MemoryEngine, key: str, exclusive: bool) -> None:
        self._engine, self._key, self._exclusive, self._data = engine, key, exclusive, bytearray()

    def write(self, part: memoryview) -> None:
        self._data += part

    def complete(self) -> None:
        self._engine.put(self._key, self._data, exclusive=self._exclusive)

    def discard(self) -> None:
        """There is nothing yet."""


def _written(info: Mapping[str, Any]) -> float | None:
    """Seconds since the epoch at which an object was written, if a listing says it."""
    for value in (info[name] for name in _TIMES if name in info):
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = datetime.datetime.fromisoformat(value)
        if isinstance(value, datetime.datetime):
            return (value if value.tzinfo else value.replace(tzinfo=datetime.UTC)).timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None


def _seen(info: Mapping[str, Any], key: str) -> SeenObject:
    if info["type"] != "file":
        raise FileNotFoundError(errno.ENOENT, "this is a folder", key)
    if info["size"] is None:
        raise OSError(errno.EIO, "the server does not say how long the file is", key)
    identity = tuple((name, info[name]) for name in _IDENTIFYING if name in info)
    return SeenObject(int(info["size"]), (int(info["size"]), *identity), _written(info))
