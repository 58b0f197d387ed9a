"""A coordinator over a directory that all processes share: for any launcher, and without another library."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Iterator

from ..errors import fault
from .coordinator import Answer

FIRST_PAUSE, LONGEST_PAUSE = 0.0005, 0.05  # seconds between two looks


class FileCoordinator:
    """Ranks exchange small files in `directory`, which must exist and may be used again and again.

    A rank other than 0 asks rank 0 for the session with a random word, so files that an earlier run left behind
    confuse nobody. `timeout`: seconds that a rank waits for others. Use it as a context manager, or `close` it.
    """

    def __init__(self, directory: str | os.PathLike[str], rank: int, size: int, *, timeout: float = 600.0) -> None:
        if not 0 <= rank < size:
            raise fault("bad-option", f"rank {rank} of {size}", found=rank, expected=f"0 to {size - 1}")
        self.rank, self.size, self.timeout = rank, size, timeout
        self._directory = os.fspath(directory)
        self._round = 0
        self._word = secrets.token_hex(8)
        self._session = os.path.join(self._directory, f"session-{self._word}") if rank == 0 else None
        if self._session:
            os.makedirs(self._session)

    def exchange(self, message: bytes, answer: Answer) -> bytes:
        number, self._round = self._round, self._round + 1
        if self.rank == 0:
            return self._lead(number, message, answer)
        session = self._join()
        _put(os.path.join(session, f"{number}.{self.rank}.message"), message)
        reply = os.path.join(session, f"{number}.{self.rank}.reply")
        for _ in self._looks():
            if os.path.exists(reply):
                with open(reply, "rb") as file:
                    data = file.read()
                os.unlink(reply)
                return data
        raise fault("rank-lost", f"rank 0 gave rank {self.rank} no answer in {self.timeout:g} s", found="no answer")

    def _lead(self, number: int, message: bytes, answer: Answer) -> bytes:
        assert self._session is not None
        messages: dict[int, bytes] = {0: message}
        for _ in self._looks():
            self._welcome()
            for rank in range(1, self.size):
                path = os.path.join(self._session, f"{number}.{rank}.message")
                if rank not in messages and os.path.exists(path):
                    with open(path, "rb") as file:
                        messages[rank] = file.read()
                    os.unlink(path)
            if len(messages) == self.size:
                replies = answer([messages[rank] for rank in range(self.size)])
                for rank in range(1, self.size):
                    _put(os.path.join(self._session, f"{number}.{rank}.reply"), replies[rank])
                return replies[0]
        missing = [rank for rank in range(self.size) if rank not in messages]
        names = ", ".join(map(str, missing))
        raise fault("rank-lost", f"no message in {self.timeout:g} s from rank {names}", found=missing)

    def _join(self) -> str:
        """The session's folder, as rank 0 says it."""
        if self._session is None:
            _put(os.path.join(self._directory, f"join-{self._word}"), b"")
            welcome = os.path.join(self._directory, f"welcome-{self._word}")
            for _ in self._looks():
                if os.path.exists(welcome):
                    with open(welcome) as file:
                        self._session = os.path.join(self._directory, file.read())
                    os.unlink(welcome)
                    return self._session
            raise fault("rank-lost", f"rank 0 did not begin within {self.timeout:g} s", found="no rank 0")
        return self._session

    def _welcome(self) -> None:
        """Tell the session to whoever asks."""
        assert self._session is not None
        for name in os.listdir(self._directory):
            if name.startswith("join-"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(self._directory, name))
                    _put(os.path.join(self._directory, f"welcome-{name[5:]}"), os.path.basename(self._session).encode())

    def _looks(self) -> Iterator[None]:
        """Comes back with growing pauses until the time is up."""
        end, pause = time.monotonic() + self.timeout, FIRST_PAUSE
        while time.monotonic() < end:
            yield
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def close(self) -> None:
        """Remove the session's folder, if this is rank 0; all ranks must be done."""
        if self.rank == 0 and self._session is not None:
            shutil.rmtree(self._session, ignore_errors=True)
            self._session = None

    def __enter__(self) -> FileCoordinator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _put(path: str, data: bytes) -> None:
    """A whole file or none, whoever looks."""
    temporary = f"{path}.{secrets.token_hex(4)}.tmp"
    with open(temporary, "wb") as file:
        file.write(data)
    os.replace(temporary, path)
