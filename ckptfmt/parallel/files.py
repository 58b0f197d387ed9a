"""A coordinator over a directory that all processes share: for any launcher, and without another library."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator

from ..errors import CkptError, fault, os_fault
from ..storage.leases import Lease, hold
from .coordinator import Answer

FIRST_PAUSE, LONGEST_PAUSE = 0.0005, 0.05  # seconds between two looks
LOST = "lost"  # the file that says why a session has ended early


class FileCoordinator:
    """Ranks exchange small files in `directory`, which must exist and may be used again and again.

    A rank other than 0 asks rank 0 for the session by a random word, so files that an earlier run left behind confuse
    nobody. `timeout`: seconds that rank 0 waits for messages; the others wait twice as long for it, so that they hear
    from it who is missing. It must be longer than the slowest rank writes. After `rank-lost` make a new coordinator.
    Every rank uses it as a context manager, or calls `close`.
    """

    def __init__(self, directory: str | os.PathLike[str], rank: int, size: int, *, timeout: float = 600.0) -> None:
        if not 0 <= rank < size:
            raise fault("bad-option", f"rank {rank} of {size}", found=rank, expected=f"0 to {size - 1}")
        self.rank, self.size, self.timeout = rank, size, timeout
        self._directory = os.fspath(directory)
        self._round = self._splits = 0
        self._answered: set[str] = set()  # the requests to join that rank 0 has answered
        self._session: str | None = None
        if not os.path.isdir(self._directory):
            raise fault("not-found", "there is no such directory for ranks to meet in", path=self._directory)
        if rank == 0:
            self._session = os.path.join(self._directory, f"session-{secrets.token_hex(8)}")
            try:
                os.mkdir(self._session)
            except OSError as error:
                raise os_fault(error, "ranks cannot meet", self._directory) from error

    def exchange(self, message: bytes, answer: Answer) -> bytes:
        number, self._round = self._round, self._round + 1
        try:
            return self._lead(number, message, answer) if self.rank == 0 else self._follow(number, message)
        except BaseException as error:  # also KeyboardInterrupt: the others must not wait for this rank
            self._end_session(error.message if isinstance(error, CkptError) else f"rank {self.rank} left: {error!r}")
            if isinstance(error, CkptError):
                raise
            if isinstance(error, FileNotFoundError):
                raise fault("rank-lost", "rank 0 has left", path=self._directory) from error
            if isinstance(error, OSError):
                raise os_fault(error, "ranks cannot exchange messages", self._directory) from error
            raise

    def split(self) -> FileCoordinator:
        self._splits += 1
        name = self.exchange(f"split-{self._splits}".encode(), lambda messages: messages[:1] * len(messages)).decode()
        assert self._session is not None  # known after a round
        directory = os.path.join(self._session, name)
        os.makedirs(directory, exist_ok=True)
        return FileCoordinator(directory, self.rank, self.size, timeout=self.timeout)

    def _lead(self, number: int, message: bytes, answer: Answer) -> bytes:
        assert self._session is not None
        messages: dict[int, bytes] = {0: message}
        for _ in self._looks(self.timeout):
            self._let_join()
            there = set(os.listdir(self._session))
            for rank in range(1, self.size):
                name = f"{number}.{rank}.message"
                if name in there:
                    messages[rank] = _take(os.path.join(self._session, name)) or b""
            if len(messages) == self.size:
                replies = answer([messages[rank] for rank in range(self.size)])
                paths = [os.path.join(self._session, f"{number}.{rank}.reply") for rank in range(1, self.size)]
                # all are written before one can be taken: who then closes must not find the folder empty
                hidden = [_hidden(path, reply) for path, reply in zip(paths, replies[1:], strict=True)]
                for temporary, path in zip(hidden, paths, strict=True):
                    os.replace(temporary, path)
                return replies[0]
            self._check_session()
        missing = [rank for rank in range(self.size) if rank not in messages]
        names = ", ".join(map(str, missing))
        raise fault("rank-lost", f"no message in {self.timeout:g} s from rank {names}", found=missing)

    def _follow(self, number: int, message: bytes) -> bytes:
        if self._session is None:
            self._session = self._join()
        _put(os.path.join(self._session, f"{number}.{self.rank}.message"), message)
        for _ in self._looks(2 * self.timeout):
            reply = _take(os.path.join(self._session, f"{number}.{self.rank}.reply"))
            if reply is not None:
                return reply
            self._check_session()
        raise fault("rank-lost", f"rank 0 gave rank {self.rank} no answer in {2 * self.timeout:g} s", found="no answer")

    def _join(self) -> str:
        """The session's folder: rank 0 writes its name into a file that asks for it."""
        request, held = self._ask()
        try:
            for _ in self._looks(self.timeout):
                try:
                    if os.path.getsize(request):
                        with open(request) as file:
                            return os.path.join(self._directory, file.read())
                except FileNotFoundError:  # `gc` took the answer for one to a rank that died
                    held.release()
                    request, held = self._ask()
        finally:
            held.release()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(request)
        raise fault("rank-lost", f"rank 0 did not begin within {self.timeout:g} s", found="no rank 0")

    def _ask(self) -> tuple[str, Lease]:
        """A request to join, which `gc` leaves alone as long as it is held."""
        while True:
            request = os.path.join(self._directory, f"join-{secrets.token_hex(8)}")
            _put(request, b"")
            held = hold(request)
            if held is not None:
                return request, held

    def _let_join(self) -> None:
        assert self._session is not None
        for name in os.listdir(self._directory):
            if name.startswith("join-") and name not in self._answered:
                self._answered.add(name)
                _put(os.path.join(self._directory, name), os.path.basename(self._session).encode())

    def _check_session(self) -> None:
        """Raise `rank-lost` if another rank has ended the session."""
        assert self._session is not None
        with contextlib.suppress(FileNotFoundError), open(os.path.join(self._session, LOST)) as file:
            raise fault("rank-lost", file.read())

    def _end_session(self, reason: str) -> None:
        """Tell the others that there is nothing to wait for; the first reason stands."""
        if self._session is not None and not os.path.exists(path := os.path.join(self._session, LOST)):
            with contextlib.suppress(OSError):
                _put(path, reason.encode())

    def _looks(self, seconds: float) -> Iterator[None]:
        """Comes back with growing pauses until the time is up."""
        end, pause = time.monotonic() + seconds, FIRST_PAUSE
        while time.monotonic() < end:
            yield
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def close(self) -> None:
        """Remove what this rank can: the last rank that closes removes the session's folder. That of a session in which
        a rank was lost stays, as nobody knows who still reads there."""
        for name in self._answered:  # by ranks of earlier runs that did not live to see it
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self._directory, name))
        if self._session is not None:
            with contextlib.suppress(OSError):
                os.rmdir(self._session)

    def __enter__(self) -> FileCoordinator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _put(path: str, data: bytes) -> None:
    """A whole file or none, whoever looks."""
    while True:
        try:
            os.replace(_hidden(path, data), path)
            return
        except FileNotFoundError:
            if not os.path.isdir(os.path.dirname(path)):
                raise  # else `gc` was faster


def _hidden(path: str, data: bytes) -> str:
    """Write what is to be at `path` beside it; gives where."""
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f"tmp-{name}.{secrets.token_hex(4)}")
    with open(temporary, "wb") as file:
        file.write(data)
    return temporary


def _take(path: str) -> bytes | None:
    """Read and remove a file; None if there is none."""
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        return None
    os.unlink(path)
    return data
