"""Messages between a manager and the process that writes for it: plain values, and with them an open file. Nothing that
is said makes another object than such values; what failed is said by its code and its words."""

from __future__ import annotations

import socket
import struct
import traceback
from typing import Any

import msgpack

from ..errors import CODES, CkptError, fault

# what a save raises besides errors of this package; anything else is a fault in it, or in one that it calls
_OTHERS: dict[str, type[BaseException]] = {
    kind.__name__: kind for kind in (MemoryError, OSError, ValueError, TypeError)
}
_LENGTH = struct.Struct("<Q")
_FLAGS = getattr(socket, "MSG_NOSIGNAL", 0)  # whatever a program does with SIGPIPE


class Channel:
    """One end of a connected socket."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected

    def send(self, message: Any, fd: int | None = None) -> None:
        """Raises OSError if nobody is there."""
        data = msgpack.packb(message, unicode_errors="surrogatepass")
        socket.send_fds(self.socket, [_LENGTH.pack(len(data))], [] if fd is None else [fd], _FLAGS)
        self.socket.sendall(data, _FLAGS)

    def receive(self) -> tuple[Any, int | None]:
        """The next message, and the file that came with it; raises EOFError or OSError if nobody is there any more."""
        head, fds, _, _ = socket.recv_fds(self.socket, _LENGTH.size, 1)
        head += self._read(_LENGTH.size - len(head))
        data = self._read(_LENGTH.unpack(head)[0])
        message = msgpack.unpackb(data, strict_map_key=False, unicode_errors="surrogatepass")
        return message, fds[0] if fds else None

    def _read(self, size: int) -> bytes:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            count = self.socket.recv_into(view)
            if not count:
                raise EOFError
            view = view[count:]
        return bytes(data)


def failure(error: BaseException) -> list[Any]:
    """What failed, as a message."""
    notes = list(getattr(error, "__notes__", ()))
    if isinstance(error, CkptError):
        fields = {**vars(error), "_hint": error.hint, "errno": error.errno}
        plain = {name: _plain(value) for name, value in fields.items() if name not in ("__notes__", "report")}
        return [error.code, error.message, plain, notes]
    trace = "".join(traceback.format_exception(error)).rstrip()
    return ["", str(error), {"class": type(error).__name__}, [*notes, f"in the process that writes:\n{trace}"]]


def raised(code: str, message: str, fields: dict[str, Any], notes: list[str]) -> BaseException:
    """What `failure` told."""
    if code in CODES:
        error: BaseException = fault(code, message)
        for name, value in fields.items():
            setattr(error, name, value)
    else:
        error = _OTHERS.get(fields["class"], RuntimeError)(message or fields["class"])
    for note in notes:
        error.add_note(note)
    return error


def _plain(value: Any) -> Any:
    """A value that a message can hold; the text of another."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    is_small = type(value) is int and -(1 << 63) <= value < 1 << 64
    return value if value is None or is_small or type(value) in (bool, float, str, bytes) else str(value)
