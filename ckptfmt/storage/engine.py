"""Object stores through a client library: one small protocol, and the choice of the library.

`fsspec` is the usual engine and knows every protocol for which a file system is installed; `obstore` is faster, and is
asked for by `storage_options={"engine": "obstore"}`. A key is the whole name of an object in its store. All methods
may be called from several threads and raise OSError: FileNotFoundError where there is no such object, FileExistsError
where a conditional create was refused, `ObjectReplaced`, PermissionError, errno EBUSY for a conflict, and others, after
which it is not known whether the store has carried the request out. Requests that may succeed later are made again
before that.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from ..errors import CkptError, fault, os_fault
from ..packages import is_there, missing_for

ENGINES = ("fsspec", "obstore")  # each a module of this package, named after it, imported when used
PART, LEAST_PART = 16 << 20, 5 << 20  # bytes of one part of an upload; S3 takes no smaller ones
MOST_REQUESTS = 64  # that read at a time


class SeenObject(NamedTuple):
    """An object as it was seen: its size in bytes, what changes when another takes its place, and when it was written,
    in seconds since the epoch by the store's clock, if that was told."""

    size: int
    identity: object
    changed: float | None = None


class Child(NamedTuple):
    """What is directly in a folder: its name there, and an object as it was seen, or None for a folder."""

    name: str
    seen: SeenObject | None


class ListedObject(NamedTuple):
    """An object in a listing: its key, its size in bytes, and when it was written, in seconds since the epoch by the
    store's clock, if it says so."""

    key: str
    size: int
    changed: float | None


class Unfinished(NamedTuple):
    """An upload in parts that was begun and neither completed nor aborted, and when its last part came. `abandon`
    aborts it; it does nothing if that was done."""

    key: str
    changed: float | None
    abandon: Callable[[], None]


class ObjectReplaced(OSError):
    """Another object has taken the place of the one that was seen."""


class Upload(Protocol):
    """An object that is sent in parts, from front to back, and appears whole with `complete`."""

    def write(self, part: memoryview) -> None: ...

    def complete(self) -> None:
        """Make it appear; may be called again after a failure."""

    def discard(self) -> None:
        """Leave nothing of it; harmless after `complete`."""


class Engine(Protocol):
    """One store, through one client library."""

    name: str
    """Tells this store from others, credentials included; never shown."""
    writable: bool
    held: int | None
    """Most bytes of memory that a read takes beside its destination; None: as many as it reads."""

    def head(self, key: str) -> SeenObject: ...

    def tail(self, key: str, length: int) -> tuple[SeenObject, bytes]:
        """The last `length` bytes of an object (all, if it has fewer), in one request where the store can."""

    def read_into(self, key: str, offset: int, out: memoryview, seen: SeenObject | None) -> int:
        """Fill `out` from an object, of the identity that was `seen` where the store can tell; gives the bytes that
        there were."""

    def put(self, key: str, data: bytes | bytearray, *, exclusive: bool) -> None:
        """Create an object in one request, only if there is none where `exclusive`."""

    def upload(self, key: str, part: int, room: int, *, exclusive: bool) -> Upload:
        """Begin an object that is sent in parts of `part` bytes, of which `room` may be in memory; raises what `put`
        does."""

    def exists(self, key: str) -> bool:
        """Whether there is an object of this name, or one in the folder of this name."""

    def children(self, folder: str) -> list[Child]:
        """What is directly in a folder; nothing if there is no such folder."""

    def entries(self, folder: str) -> list[ListedObject]:
        """All objects in a folder and below, by key."""

    def unfinished(self, folder: str) -> list[Unfinished]:
        """Uploads in parts below a folder that have not ended; none where the store cannot be asked."""

    def copy(self, source: str, target: str) -> None:
        """Have the store copy an object, whatever is in the target's place; NotImplementedError where it cannot."""

    def delete(self, key: str) -> None:
        """Delete an object; FileNotFoundError, or nothing, if there is none."""


CHECK_THE_STORE = "Check the store, its address and the credentials (storage_options=), then try again"


def engine_for(url: str, options: Mapping[str, Any]) -> tuple[Engine, str]:
    """The engine for a URL, and the key in its store; raises `bad-option` and `missing-package`."""
    asked = options.get("engine", "fsspec")
    rest = {name: value for name, value in options.items() if name != "engine"}
    if asked not in ENGINES:
        raise fault("bad-option", f"there is no engine {asked!r}", path=url, found=asked, expected=" or ".join(ENGINES))
    protocol = url.partition("://")[0]
    if not is_there("tenacity"):
        raise missing_for(protocol, asked)
    try:
        if asked == "obstore":
            from . import obstore_engine

            return obstore_engine.connect(url, rest)
        from . import fsspec_engine

        return fsspec_engine.connect(url, rest)
    except CkptError:
        raise
    except ImportError as error:
        raise missing_for(protocol, asked, error) from error
    except (ValueError, TypeError) as error:
        raise fault("bad-option", f"cannot reach {protocol}:// by {asked}: {error}", path=url) from error


def storage_fault(error: Exception, doing: str, path: str) -> CkptError:
    """The exception for a failure of a store met while `doing` something."""
    if isinstance(error, CkptError):
        return error
    if isinstance(error, FileNotFoundError):
        return fault("not-found", f"{doing}: {error}", path=path, errno=errno.ENOENT)
    if isinstance(error, PermissionError):
        return fault("permission", f"{doing}: {error}", path=path, errno=error.errno or errno.EACCES)
    if isinstance(error, OSError) and error.errno != errno.EEXIST:
        found = os_fault(error, doing, path)
    else:
        found = fault("io", f"{doing}: {type(error).__name__}: {error}", path=path)
    if found.code == "io":  # whose own advice is about disks
        found.advice = CHECK_THE_STORE
    return found
