"""Files that are compressed as a whole, decompressed into temporary files whose size is bounded.

What lies in a source may be compressed again. All that is unpacked of one source counts together, against what it may
expand to, and it is unpacked only so deep.
"""

from __future__ import annotations

import bz2
import lzma
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from zlib_ng import zlib_ng

from ..errors import CkptError, fault
from ..format.dtypes import Array
from ..packages import package
from .archive import Window
from .claims import check_at_once, expanded
from .source import SMALL, OpenedSource, cut_off

PIECE = 1 << 20  # bytes read, and bytes decompressed, at once
DEPTH = 3  # archives within each other
ZSTD_BLOCK = 128 << 10  # most bytes that a block of zstd stands for
DICTIONARY = 128 << 20  # bytes that an xz stream may have its decoder hold


class StreamDecoder(Protocol):
    """What decodes one stream, as those of bz2 and lzma do."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Zlib:
    """A stream of gzip or zlib."""

    def __init__(self) -> None:
        self._stream, self._rest = zlib_ng.decompressobj(32 + zlib_ng.MAX_WBITS), b""

    @property
    def eof(self) -> bool:
        return bool(self._stream.eof)

    @property
    def needs_input(self) -> bool:
        return not self._rest

    @property
    def unused_data(self) -> bytes:
        return bytes(self._stream.unused_data)

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        found = self._stream.decompress(self._rest + data, max_length)
        self._rest = self._stream.unconsumed_tail
        return bytes(found)


class _Lz4:
    """A frame of lz4."""

    def __init__(self) -> None:
        self._frame = package("lz4.frame", "a file that lz4 has compressed").LZ4FrameDecompressor()

    @property
    def eof(self) -> bool:
        return bool(self._frame.eof)

    @property
    def needs_input(self) -> bool:
        return bool(self._frame.needs_input)

    @property
    def unused_data(self) -> bytes:
        return bytes(self._frame.unused_data or b"")

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return bytes(self._frame.decompress(data, max_length))


class CompressedForm(NamedTuple):
    """A way to compress files: what it is called, and how they begin."""

    name: str
    begins: tuple[bytes, ...]


COMPRESSIONS = (
    CompressedForm("gzip", (b"\x1f\x8b\x08",)),
    CompressedForm("bzip2", (b"BZh",)),
    CompressedForm("xz", (b"\xfd7zXZ\0",)),
    CompressedForm("zstd", (b"\x28\xb5\x2f\xfd",)),
    CompressedForm("lz4", (b"\x04\x22\x4d\x18",)),
    CompressedForm("zlib", (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")),  # of joblib, as is the next
    CompressedForm("lzma", (b"\x5d\0\0",)),
)
_SHORT = ("bzip2", "zlib", "lzma")  # whose first bytes other files have, too


_DECODERS: dict[str, Callable[[], StreamDecoder]] = {
    "gzip": _Zlib,
    "zlib": _Zlib,
    "bzip2": bz2.BZ2Decompressor,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, DICTIONARY),
    "lz4": _Lz4,
    "lzma": lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, DICTIONARY),
}


def compression_of(head: bytes) -> CompressedForm | None:
    """How a file is compressed that begins so; what merely has the same first bytes is not."""
    found = next((kind for kind in COMPRESSIONS if head.startswith(kind.begins)), None)
    if found is None or found.name not in _SHORT:
        return found
    try:
        _DECODERS[found.name]().decompress(head, 1)
    except Exception:  # of each module another one
        return None
    return found


def decompressed(data: Array, kind: CompressedForm) -> Iterator[bytes]:
    """The bytes that a file of one stream or several stands for, in pieces."""
    if kind.name == "zstd":
        yield from _zstd(data)
        return
    decoder, at = _DECODERS[kind.name](), 0
    while True:
        part = data[at : at + PIECE].tobytes() if decoder.needs_input else b""
        at += len(part)
        if piece := decoder.decompress(part, PIECE):
            yield piece
        elif not part and decoder.needs_input and not decoder.eof:
            raise cut_off(data.size, data.size + 1, or_more=True)
        if decoder.eof:
            at -= len(decoder.unused_data)
            if not data[at:].any():  # nothing, or padding, as of tapes
                return
            if not data[at : at + 8].tobytes().startswith(kind.begins):
                raise ValueError(f"after the {kind.name} stream {data.size - at:,} other bytes follow")
            decoder = _DECODERS[kind.name]()


def streaming_zstd() -> Callable[[Any], Any] | None:
    """What makes a file to read of one that zstd has compressed, of a package that decodes piece by piece: the newest
    Python has one itself."""
    for module in ("compression.zstd", "backports.zstd", "zstandard"):
        try:
            package: Any = import_module(module)
        except ModuleNotFoundError:
            continue
        if module == "zstandard":
            return partial(package.ZstdDecompressor().stream_reader, read_across_frames=True)
        opener: Callable[[Any], Any] = package.ZstdFile
        return opener
    return None


def _zstd(data: Array) -> Iterator[bytes]:
    """Zstandard: piece by piece where a package does that, else frame by frame."""
    frames, at = list[tuple[int, int, int]](), 0
    while at < data.size:  # of which some packages would not miss the end
        end, size = zstd_frame(data, at)
        frames += [] if size is None else [(at, end, size)]
        at = end
    if (opener := streaming_zstd()) is not None:
        with opener(Window(data)) as stream:
            while piece := stream.read(PIECE):
                yield piece
        return
    decompress = package("numcodecs", "a file compressed with zstd").zstd.decompress
    for begin, end, size in frames:
        check_at_once(size, data.size, "a frame of zstd")
        yield bytes(decompress(data[begin:end]))


def zstd_frame(data: Array, at: int) -> tuple[int, int | None]:
    """Where the frame of zstd at a byte ends, and the size of its content, or what that is at most; None for one that
    has none (RFC 8878, 3.1)."""
    head = data[at : at + 18].tobytes()
    if head[1:4] == b"\x2a\x4d\x18" and head[0] & 0xF0 == 0x50:
        return _within(data, at + 8 + int.from_bytes(head[4:8], "little")), None
    if head[:4] != b"\x28\xb5\x2f\xfd" or len(head) < 6:
        raise ValueError(f"after a frame of zstd {data.size - at:,} other bytes follow")
    descriptor, is_single = head[4], bool(head[4] & 0x20)
    width = (1 if is_single else 0, 2, 4, 8)[descriptor >> 6]
    begin = 5 + (not is_single) + (0, 1, 2, 4)[descriptor & 3]
    said = int.from_bytes(head[begin : begin + width], "little") + (256 if width == 2 else 0)
    end, blocks, is_last = at + begin + width, 0, False
    while not is_last:
        block = int.from_bytes(data[_within(data, end + 3) - 3 :][:3].tobytes(), "little")
        is_last, is_repeated = bool(block & 1), block >> 1 & 3 == 1
        end, blocks = _within(data, end + 3 + (1 if is_repeated else block >> 3)), blocks + 1
    end = _within(data, end + 4) if descriptor & 4 else end
    return end, said if width else blocks * ZSTD_BLOCK


def _within(data: Array, end: int) -> int:
    if end > data.size:
        raise cut_off(data.size, end, or_more=True)
    return end


class _UnpackingRoom:
    """What may still be unpacked of a source: bytes, and how deep."""

    def __init__(self, size: int) -> None:
        self.size = size  # of the source
        self.most = self.left = max(SMALL, expanded(size))
        self.depth = DEPTH


_room: ContextVar[_UnpackingRoom | None] = ContextVar("room", default=None)


@contextmanager
def unpacking(size: int) -> Iterator[Unpacked]:
    """Unpack a source of `size` bytes, or what lies in one: the temporary folder for it, which is removed when that is
    closed, or with an error."""
    room = _room.get()
    token = _room.set(_UnpackingRoom(size)) if room is None else None
    room = _room.get()
    assert room is not None
    room.depth -= 1
    try:
        if room.depth < 0:
            raise fault("limit-exceeded", f"more than {DEPTH} archives within each other")
        with ExitStack() as stack:
            yield Unpacked(room, stack)
    finally:
        room.depth += 1
        if token is not None:
            _room.reset(token)


class Unpacked:
    """A temporary folder for what is unpacked, made when something is written."""

    def __init__(self, room: _UnpackingRoom, stack: ExitStack) -> None:
        self._room, self._stack = room, stack
        self._folder: str | None = None

    @property
    def folder(self) -> str:
        if self._folder is None:
            self._folder = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="ckptfmt-"))
        return self._folder

    @property
    def ratio(self) -> int:
        """How many times larger than the source is what was unpacked of it."""
        return (self._room.most - self._room.left) // max(1, self._room.size)

    def write(self, name: str, pieces: Iterator[bytes]) -> str:
        """Write a file in the folder, or below; its path. Raises `limit-exceeded`."""
        path = Path(self.folder, name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("xb")
        except (FileExistsError, NotADirectoryError) as error:
            raise ValueError(f"{name!r} is file and folder, or stands twice") from error
        with file:
            for piece in pieces:
                self._room.left -= len(piece)
                if self._room.left < 0:
                    message = f"it is unpacked to more than {self._room.most:,} bytes, far more than the source has"
                    raise fault("limit-exceeded", f"{message}; a larger max_expansion allows it")
                file.write(piece)
        return str(path)

    def kept(self, source: OpenedSource) -> OpenedSource:
        """A source that lies in the folder, which closes it."""
        stack = self._stack.pop_all()
        stack.push(source.resources.pop_all())
        source.resources = stack
        return source


@contextmanager
def told_of(path: str, folder: str) -> Iterator[None]:
    """What is wrong with something in a temporary folder is told of the source that it is from."""
    try:
        yield
    except CkptError as error:
        if error.path is not None and Path(error.path).is_relative_to(folder):
            inner = str(Path(error.path).relative_to(folder))
            error.path = path
            if inner == ".":
                error.message = error.message.replace("this folder", "this archive")
                error.advice = "Unpack it, and give the path of one" if folder in error.advice else error.advice
            else:
                error.message = f"in {inner!r} of it: {error.message}"
        raise
