"""Where bytes live: the two small protocols between storage and the rest, and the choice of storage for a path.

`Storage` reads the objects of one checkpoint; `Attempt` writes a new one and publishes it, or leaves no trace. An
object is named by its path relative to the checkpoint; the empty name is the checkpoint's own file, in layout `file`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import CkptError, fault

if TYPE_CHECKING:
    from typing import BinaryIO

    from ..format.digests import Buffer
    from .engine import Engine
    from .held import HeldPlace

    Place = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
    """Where a checkpoint is: a path or a URL, or the bytes or the open binary file that hold it."""


TEMPORARY_SUFFIX = ".ckptfmt-tmp"  # [PUB-001]
COMMIT, MANIFEST = "COMMIT", "manifest.msgpack"  # the objects of a directory that are written last
CLAIM = "CLAIM"  # on object stores, the one that is written first [PUB-012]
TAIL = 64 << 10  # bytes of the first read of a file: record, end record, directory and manifest of most checkpoints

IN_FLIGHT = 256 << 20  # bytes of host memory for what is on its way, to a device or over a network
COPIED = 8 << 20  # bytes copied through memory at a time
_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_OF_SCHEMES = _LETTERS | frozenset("0123456789+.-")


def path_of(path: Any, following: Any = None) -> str:
    """A path or URL that a caller gave, as text. A `~` at the beginning of a path stands for the home directory, as in
    a shell, and `./~` for a file of that name. Raises `bad-option` for anything else, such as an open file, or what
    should be `following` it in a call."""
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if isinstance(text, str):
        return os.path.expanduser(text) if text.startswith("~") else text
    is_file = hasattr(path, "read") or isinstance(text or path, bytes)
    if isinstance(following, str | os.PathLike):
        message = f"a {type(path).__name__} stands where the path should"
        raise fault("bad-option", message, advice=f"The path comes first: save({os.fspath(following)!r}, tree)")
    advice = "Give a path as text, or write to a file what is no path" if is_file else "Give a path or a URL"
    raise fault("bad-option", f"this is to be a path or a URL, not a {type(path).__name__}", advice=advice)


def place_of(place: Any, following: Any = None) -> str:
    """As `path_of`; and for bytes and open binary files, which one checkpoint may be in, what stands for them
    (`held.HeldPlace`)."""
    if not isinstance(place, str | os.PathLike):
        from .held import HeldPlace  # here, as most are at a path

        if (held := HeldPlace.of(place)) is not None and not isinstance(following, str | os.PathLike):
            return held
    return path_of(place, following)


def _held(place: Any) -> HeldPlace | None:
    """What stands for bytes or an open file; None for a path."""
    if type(place) is str or not isinstance(place, str):
        return None
    from .held import HeldPlace

    return place if isinstance(place, HeldPlace) else None


class Storage(Protocol):
    """Reads one checkpoint. Every method may be called from several threads."""

    path: str
    is_directory: bool
    span: int
    """Bytes that are best read in one request."""
    readers: int
    """Requests that are best made at a time."""
    is_remote: bool
    """Whether requests mostly wait, so that small ones, too, are best made many at a time."""
    most_readers: int
    """Requests that may be made at a time where more of them take no longer."""
    held: int | None
    """Most bytes of memory that a request takes beside its destination; None: as many as it reads."""

    def size(self, name: str) -> int:
        """Size of an object in bytes; raises `missing-object`."""

    def seen(self, name: str) -> str:
        """What changes when an object does, as far as the storage can tell; raises `missing-object`."""

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes; raises `missing-object` or `short-object`."""

    def read_into(self, name: str, offset: int, out: memoryview) -> None:
        """Fill `out` (bytes); raises as `read` does."""

    def map(self, name: str) -> memoryview:
        """The whole object as private, copy-on-write memory."""

    def was_replaced(self) -> bool:
        """Whether the path no longer leads to the checkpoint that was opened."""

    def close(self) -> None: ...


class ObjectWriter(Protocol):
    """Writes one new object."""

    sequential: bool
    """Whether it must be written from front to back."""

    def reserve(self, size: int) -> None:
        """Make room for `size` bytes to come, where the storage can; raises `disk-full`."""

    def write(self, offset: int, data: Buffer) -> None:
        """Put bytes at an offset; they need not come in order, unless `sequential`."""

    def copy(self, offset: int, storage: Storage, name: str, start: int, length: int) -> None:
        """Put bytes of another checkpoint's object at an offset, unread where the system can; raises `missing-object`
        or `short-object` too."""

    def finish(self, size: int) -> None:
        """Cut to `size` bytes, make them durable if the attempt is, and close."""

    def close(self) -> None:
        """Close without more, after a failure; harmless after `finish`."""


class Attempt(Protocol):
    """One attempt at writing a checkpoint: invisible until `publish`, gone after `abort`."""

    path: str

    def create(self, name: str) -> ObjectWriter: ...

    def link(self, name: str, storage: Storage, source: str, size: int) -> str:
        """Make an object of an object of another checkpoint, of `size` bytes, without sending these: the very file, or
        a copy that the store makes. Gives why that cannot be, else ""; raises what writing raises. [MIG-020]
        [LAY-008]"""

    def remove(self, name: str) -> None:
        """Remove an object that was linked."""

    def written(self) -> Storage:
        """What was written, all of it, to be read before it is published."""

    def fault(self, error: OSError | CkptError, doing: str) -> CkptError:
        """The exception for an error met while `doing` something with what was written; `temporary-lost` if that is
        gone."""

    def publish(self) -> None:
        """Make it the checkpoint at the path, all at once; raises `exists` or `not-replaceable`. [PUB-003] [PUB-004]"""

    def abort(self) -> None:
        """Remove what was written; does nothing after `publish`. [PUB-007]"""


class SharedAttempt(Attempt, Protocol):
    """An attempt at a directory, which many processes may make together."""

    def share(self, folders: list[str]) -> str:
        """Make folders, and give a word by which another process can join this attempt."""

    def flush(self) -> None:
        """Make the names in all folders durable, if the attempt is. What `publish` does for a single process, each of
        many does before."""


def copy_pieces(out: ObjectWriter, offset: int, storage: Storage, name: str, start: int, length: int) -> None:
    """`ObjectWriter.copy`, through memory."""
    for at in range(0, length, COPIED):
        out.write(offset + at, storage.read(name, start + at, min(COPIED, length - at)))


Options = Mapping[str, Any]


def storage_for(path: str | os.PathLike[str], options: Options | None = None, *, follow_links: bool = False) -> Storage:
    """The storage that reads the checkpoint at `path`, a path or a URL, for which `options` go to the client library.
    `follow_links`: also through links in its folder [CHK-010]. Raises `not-found` or `temporary`."""
    if (held := _held(path)) is not None:
        return held.storage()
    if is_url(path):
        from .remote import RemoteStorage

        return RemoteStorage(os.fspath(path), options or {})
    from .local import LocalStorage

    return LocalStorage(_local(path, options), follow_links=follow_links)


def attempt_for(
    path: str | os.PathLike[str],
    *,
    directory: bool,
    overwrite: bool,
    durable: bool,
    options: Options | None = None,
    in_flight: int = IN_FLIGHT,
    is_read: bool = False,
) -> Attempt:
    """An attempt at `path`, a path or a URL, whose uploads take at most `in_flight` bytes of memory. `is_read`: what is
    `written` will be asked for, which of a file on a store nobody can read: it is made on this machine first. Raises
    `exists`, `not-replaceable`, `not-found` or `exclusive-unsupported` before anything is written."""
    if (held := _held(path)) is not None:
        if directory:
            raise fault("bad-option", "an open file holds a checkpoint of layout 'file' alone", path=held)
        return held.attempt(durable=durable)
    if directory:
        return directory_attempt_for(path, overwrite=overwrite, durable=durable, options=options, in_flight=in_flight)
    if is_url(path):
        from .upload import RemoteFile, StagedFile

        kind = StagedFile if is_read else RemoteFile
        return kind(*_writable(path, options), os.fspath(path), overwrite=overwrite, in_flight=in_flight)
    from .attempt import LocalAttempt

    return LocalAttempt(_local(path, options), directory=False, overwrite=overwrite, durable=durable)


def directory_attempt_for(
    path: str | os.PathLike[str],
    *,
    overwrite: bool,
    durable: bool,
    options: Options | None = None,
    in_flight: int = IN_FLIGHT,
) -> SharedAttempt:
    """The same at a directory."""
    if is_url(path):
        from .remote_directory import RemoteDirectory

        return RemoteDirectory.begin(
            *_writable(path, options), os.fspath(path), overwrite=overwrite, in_flight=in_flight
        )
    from .attempt import LocalAttempt

    return LocalAttempt(_local(path, options), directory=True, overwrite=overwrite, durable=durable)


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a path names its own file system: "s3://bucket/model.ckpt", "file:///model.ckpt"."""
    scheme, colon, _ = path_of(path).partition("://")
    is_scheme = len(scheme) > 1 and scheme[0] in _LETTERS and _OF_SCHEMES.issuperset(scheme)
    return bool(colon) and is_scheme and scheme != "file"


def options_at(path: str | os.PathLike[str], options: Options | None) -> Options | None:
    """What of `storage_options` that two places share is for this one: a local one takes none."""
    return options if is_url(path) else None


def join_attempt(
    path: str | os.PathLike[str],
    token: str,
    *,
    durable: bool,
    options: Options | None = None,
    in_flight: int = IN_FLIGHT,
) -> SharedAttempt:
    """Another process's attempt at `path`, to create objects in; that process publishes it, or aborts it."""
    if is_url(path):
        from .remote_directory import RemoteDirectory

        return RemoteDirectory.join(*_writable(path, options), os.fspath(path), token, in_flight=in_flight)
    from .attempt import LocalAttempt

    return LocalAttempt.join(_local(path, options), token, durable=durable)


def _writable(path: str | os.PathLike[str], options: Options | None) -> tuple[Engine, str]:
    from .engine import engine_for

    engine, key = engine_for(os.fspath(path), options or {})
    if not engine.writable:
        protocol = os.fspath(path).partition("://")[0]
        raise fault("bad-option", f"{protocol}:// can be read, not written", path=path, expected="a path or a store")
    return engine, key


def _local(path: str | os.PathLike[str], options: Options | None = None) -> str:
    name = path_of(path)
    if options:
        raise fault("bad-option", "storage_options= are for URLs", path=name, found=sorted(options))
    name = name.removeprefix("file://")
    try:
        nameable = name and b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        nameable = False
    if not nameable:
        raise fault("not-found", "no file can have this path", path=ascii(name))
    return name
