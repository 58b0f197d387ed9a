"""Object stores and other file systems that fsspec knows: s3, gs, az, http (to read), memory and more.

An object is written in one stream and appears whole when it is closed, which is the commit of layout `file`
[PUB-008]. Exclusive creation is the store's own conditional create, and is tried out once on every store, since some
ignore the condition [PUB-011]. What is retried: requests that failed on the way or that the server refused for load.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import secrets
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

from ..errors import CkptError, fault, os_fault
from . import Storage, copy_pieces

P = ParamSpec("P")
T = TypeVar("T")

SPAN = 16 << 20  # bytes of one request, in which consecutive blocks are read
READERS = 16  # requests at a time
PART = 16 << 20  # bytes of one part of an upload
TRIES = 5
_IDENTIFYING = ("ETag", "etag", "md5", "size", "LastModified", "mtime", "created")
_FINAL = (FileNotFoundError, PermissionError, FileExistsError, IsADirectoryError, NotADirectoryError)
_RETRYABLE_STATUS = {408, 425, 429, 500, 502, 503, 504}


def file_system(url: str, options: Mapping[str, Any]) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it; raises `bad-option`."""
    try:
        from fsspec.core import url_to_fs

        fs, path = url_to_fs(url, **options)
    except (ImportError, ValueError) as error:
        raise fault("bad-option", f"cannot reach {url.partition('://')[0]}://: {error}", path=url) from error
    return fs, str(path)


def _retryable(error: BaseException) -> bool:
    """Whether another try may succeed."""
    if isinstance(error, _FINAL):
        return False
    status = getattr(error, "status", None) or getattr(error, "status_code", None)
    if status is not None:
        return status in _RETRYABLE_STATUS
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.EBUSY, errno.EIO, errno.ETIMEDOUT, errno.ECONNRESET, errno.EPIPE, errno.EAGAIN)
    return isinstance(error, OSError | TimeoutError) or type(error).__module__.startswith(("aiohttp", "botocore"))


def retried(call: Callable[P, T]) -> Callable[P, T]:
    """The call, tried again with growing pauses."""
    from tenacity import retry, retry_if_exception, stop_after_attempt, wait_random_exponential

    return retry(
        retry=retry_if_exception(_retryable),
        stop=stop_after_attempt(TRIES),
        wait=wait_random_exponential(multiplier=0.1, max=5.0),
        reraise=True,
    )(call)


def _storage_error(error: Exception, message: str, path: str) -> CkptError:
    if isinstance(error, OSError):
        return os_fault(error, message, path)
    return fault("io", f"{message}: {type(error).__name__}: {error}", path=path)


class RemoteStorage:
    """Reads a checkpoint on a remote file system. The sizes of objects are asked for once."""

    span = SPAN
    readers = READERS

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.path = url
        self._fs, self._root = file_system(url, options)
        self._sizes: dict[str, int] = {}
        info = self._info(self._root)
        self.is_directory = info is None or info["type"] == "directory"
        if self.is_directory and self._info(f"{self._root}/COMMIT") is None:
            if info is None:
                raise fault("not-found", "there is nothing", path=url)
            raise fault("not-a-checkpoint", "this is a directory without a COMMIT file", path=url)  # [COM-005]
        self._identity = self._seen(info)
        if info is not None and not self.is_directory:
            self._sizes[""] = int(info["size"])

    def _info(self, path: str) -> dict[str, Any] | None:
        try:
            info: dict[str, Any] = retried(self._fs.info)(path)
            return info
        except FileNotFoundError:
            return None
        except Exception as error:
            raise _storage_error(error, "cannot reach the checkpoint", self.path) from error

    def _seen(self, info: dict[str, Any] | None) -> Any:
        """What changes when another object takes the place."""
        if self.is_directory:
            info = self._info(f"{self._root}/COMMIT")
        return info and {
            key: info.get(key) for key in ("ETag", "etag", "md5", "size", "LastModified", "mtime", "created")
        }

    def size(self, name: str) -> int:
        if name not in self._sizes:
            info = self._info(self._place(name))
            if info is None or info["type"] != "file":
                raise fault("missing-object", f"{name} is missing", path=self.path)  # [READ-005]
            self._sizes[name] = int(info["size"])
        return self._sizes[name]

    def read(self, name: str, offset: int, length: int) -> bytes:
        if not length:
            return b""
        try:
            data: bytes = retried(self._fs.cat_file)(self._place(name), start=offset, end=offset + length)
        except FileNotFoundError:
            raise fault("missing-object", f"{name or 'the file'} is missing", path=self.path) from None
        except Exception as error:
            raise _storage_error(error, f"cannot read {name or 'the file'} at byte {offset}", self.path) from error
        if len(data) != length:  # [READ-005]
            message = f"{name or 'the file'} ends at byte {offset + len(data)}"
            raise fault("short-object", message, path=self.path, offset=offset + len(data))
        return data

    def read_into(self, name: str, offset: int, out: memoryview) -> None:
        out[:] = self.read(name, offset, len(out))

    def map(self, name: str) -> memoryview:
        raise fault("bad-option", "only files on local disks can be mapped", path=self.path)

    def was_replaced(self) -> bool:
        self._fs.invalidate_cache()
        info = self._info(self._root)
        return bool(self._seen(info) != self._identity)

    def close(self) -> None:
        """Nothing is held open."""

    def _place(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root


class RemoteFile:
    """The object of an attempt: one stream, which is complete but for its last request until it is published."""

    sequential = True

    def __init__(self, stream: Any, path: str) -> None:
        self._stream, self._path, self._position = stream, path, 0
        self.tail = b""  # the last bytes written, by which the object is recognised

    def reserve(self, size: int) -> None:
        """Stores have no such thing."""

    def write(self, offset: int, data: Any) -> None:
        view = memoryview(data).cast("B")
        assert offset == self._position, "remote objects are written from front to back"
        try:
            for start in range(0, len(view), PART):
                self._stream.write(view[start : start + PART])
        except Exception as error:
            raise _storage_error(error, "cannot upload the checkpoint", self._path) from error
        self._position += len(view)
        self.tail = (self.tail + bytes(view[-255:]))[-255:]

    def copy(self, offset: int, storage: Storage, name: str, start: int, length: int) -> None:
        copy_pieces(self, offset, storage, name, start, length)

    def finish(self, size: int) -> None:
        """Everything is uploaded; the object appears with `commit`."""
        assert size == self._position
        try:
            self._stream.close()
        except Exception as error:
            raise _storage_error(error, "cannot upload the checkpoint", self._path) from error

    def commit(self) -> None:
        """The one request that makes the object appear."""
        self._stream.commit()

    def close(self) -> None:
        self._stream.discard()


class _Memory:
    """A stream of fsspec's memory file system, whose own files can be seen before they are complete."""

    def __init__(self, fs: Any, path: str, mode: str) -> None:
        self._fs, self._path, self._parts = fs, path, bytearray()
        self._mode = "create" if mode == "xb" else "overwrite"

    def write(self, data: memoryview) -> None:
        self._parts += data

    def commit(self) -> None:
        self._fs.pipe_file(self._path, bytes(self._parts), mode=self._mode)

    def close(self) -> None:
        """Everything is here."""

    discard = close


class RemoteAttempt:
    """A save of layout `file` to a remote file system, which appears whole when its upload is completed. [PUB-008]"""

    def __init__(self, url: str, options: Mapping[str, Any], *, overwrite: bool) -> None:
        self.path = url
        self._fs, self._target = file_system(url, options)
        self._overwrite = overwrite
        self._file: RemoteFile | None = None
        if overwrite:
            return
        try:
            is_there, is_exclusive = retried(self._fs.exists)(self._target), _honours(self._fs, _parent(self._target))
        except Exception as error:
            raise _storage_error(error, "cannot reach the folder to save into", url) from error
        if is_there:
            raise fault("exists", "there is something at this path already", path=url)
        if not is_exclusive:  # [PUB-011]
            raise fault(
                "exclusive-unsupported",
                "this store ignores conditional creation, so it cannot be told who saves first",
                path=url,
                expected="overwrite=True, where only one process saves",
            )

    def create(self, name: str) -> RemoteFile:
        mode = "wb" if self._overwrite else "xb"
        try:
            if self._fs.protocol == "memory":
                stream: Any = _Memory(self._fs, self._target, mode)
            else:
                stream = self._fs.open(self._target, mode, block_size=PART, autocommit=False)
        except FileExistsError as error:
            raise fault("exists", "another save put a checkpoint there first", path=self.path) from error
        except Exception as error:
            raise _storage_error(error, "cannot begin the upload", self.path) from error
        self._file = RemoteFile(stream, self.path)
        return self._file

    def link(self, name: str, storage: Storage, source: str) -> bool:
        return False

    def share(self, folders: list[str]) -> str:
        raise fault("bad-option", "many processes save to local disks only", path=self.path)

    def flush(self) -> None:
        """An upload is durable when it is complete."""

    def publish(self) -> None:
        assert self._file is not None
        try:
            self._file.commit()
        except Exception as error:
            if self._is_ours():  # the response was lost, not the request [PUB-010]
                return
            if isinstance(error, FileExistsError) or retried(self._fs.exists)(self._target):
                raise fault("exists", "another save put a checkpoint there first", path=self.path) from error
            raise _storage_error(error, "cannot complete the upload", self.path) from error

    def _is_ours(self) -> bool:
        """Whether the object at the target ends with our commit record, and so is ours. [PUB-010]"""
        assert self._file is not None
        self._fs.invalidate_cache()
        try:
            size = retried(self._fs.info)(self._target)["size"]
            if size != self._file._position:
                return False
            tail: bytes = retried(self._fs.cat_file)(self._target, start=size - len(self._file.tail), end=size)
        except Exception:
            return False
        return tail == self._file.tail

    def abort(self) -> None:
        if self._file is not None:
            with contextlib.suppress(Exception):  # an upload that stays is removed by the store's own rules
                self._file.close()


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


@functools.lru_cache(maxsize=256)
def _honours(fs: Any, parent: str) -> bool:
    """Try a conditional create twice; the second must be refused, and the first bytes stay."""
    probe = f"{parent}/.{secrets.token_hex(8)}.ckptfmt-probe"
    try:
        with fs.open(probe, "xb") as file:
            file.write(b"first")
        try:
            with fs.open(probe, "xb") as file:
                file.write(b"second")
        except FileExistsError:
            return bool(fs.cat_file(probe) == b"first")
        return False
    except (NotImplementedError, ValueError):
        return False
    finally:
        with contextlib.suppress(Exception):  # it may never have been there
            fs.rm_file(probe)
