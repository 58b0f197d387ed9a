"""A coordinator over a directory that all processes share: for any launcher, and without another library."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil

from ..calls import takes
from ..errors import fault, os_fault
from ..storage import path_of
from ..storage.leases import Lease, hold
from .coordinator import Answer
from .mail import LOST as LOST  # by which a session that failed is known
from .mail import StoreCoordinator, StoreCourier


class Folder:
    """The files of a directory as a store."""

    def __init__(self, path: str) -> None:
        self.path = path

    def put(self, key: str, value: bytes) -> None:
        """A whole file or none, whoever looks."""
        try:
            os.replace(self._hidden(key, value), os.path.join(self.path, key))
        except OSError as error:
            raise self._fault(error) from error

    def put_leased(self, key: str, value: bytes) -> Lease:
        """As `put`, a file that `gc` leaves alone as long as the lease is held."""
        try:
            while True:
                hidden = self._hidden(key, value)
                lease = hold(hidden)
                if lease is not None:  # else `gc` was faster
                    os.replace(hidden, os.path.join(self.path, key))
                    return lease
        except OSError as error:
            raise self._fault(error) from error

    def _hidden(self, key: str, value: bytes) -> str:
        """Write what is to be at a key beside it; gives where."""
        temporary = os.path.join(self.path, f"tmp-{key}.{secrets.token_hex(4)}")
        with open(temporary, "wb") as file:
            file.write(value)
        return temporary

    def has(self, key: str) -> bool:
        return os.path.exists(os.path.join(self.path, key))

    def get(self, key: str) -> bytes | None:
        try:
            with open(os.path.join(self.path, key), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._fault(error) from error

    def remove(self, key: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.path, key))

    def below(self, name: str) -> Folder:
        path = os.path.join(self.path, name)
        os.makedirs(path, exist_ok=True)
        return Folder(path)

    def clear(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)

    def _fault(self, error: OSError) -> Exception:
        if isinstance(error, FileNotFoundError):
            return fault("rank-lost", "the session is over: its folder is gone", path=self.path)
        return os_fault(error, "ranks cannot exchange messages", self.path)


class FileCoordinator(StoreCoordinator):
    """Ranks exchange small files in `directory`, which must exist and may be used again and again.

    A rank other than 0 asks rank 0 for the session by a random word, so files that an earlier run left behind confuse
    nobody. `timeout`: seconds that rank 0 waits for messages; the others wait twice as long for it, so that they hear
    from it who is missing. It must be longer than the slowest rank writes. A rank of the same machine that ends is
    missed at once. After `rank-lost` make a new coordinator. Every rank uses it as a context manager, or calls `close`.
    """

    @takes()
    def __init__(self, directory: str | os.PathLike[str], rank: int, size: int, *, timeout: float = 600.0) -> None:
        self._meeting = Folder(path_of(directory))
        self._answered: dict[str, Lease] = {}  # of rank 0: its answers to requests to join, which are to stay
        self._has_joined = False
        if not os.path.isdir(self._meeting.path):
            raise fault("not-found", "there is no such directory for ranks to meet in", path=self._meeting.path)
        super().__init__(self._meeting, rank, size, timeout=timeout)

    def _arrive(self) -> None:
        if self.rank == 0:
            try:
                self._enter(f"session-{secrets.token_hex(8)}")
            except OSError as error:
                raise os_fault(error, "ranks cannot meet", self._meeting.path) from error

    def _enter(self, session: str) -> None:
        self._store, self._session, self._has_joined = self._meeting.below(session), session, True
        super()._arrive()

    def exchange(self, message: bytes, answer: Answer) -> bytes:
        """Do one round; see `Coordinator.exchange`."""
        self._join()
        return super().exchange(message, answer)

    def split(self) -> StoreCoordinator:
        """Make another coordinator of the same ranks; see `Coordinator.split`."""
        self._join()
        return super().split()

    def courier(self) -> StoreCourier:
        """Make what carries checkpoints from rank to rank: by files of the directory. All ranks call it in the same
        order as `exchange`."""
        self.exchange(b"", lambda messages: messages)  # all have joined the session
        return StoreCourier(self.split())

    def _join(self) -> None:
        """Find the session's folder: rank 0 writes its name into a file that asks for it."""
        if self._has_joined:
            return
        request = f"join-{secrets.token_hex(8)}"
        lease = self._meeting.put_leased(request, b"")
        try:
            for _ in self._looks(self.timeout):
                name = self._meeting.get(request)
                if name:
                    return self._enter(name.decode())
        finally:
            lease.release()
            self._meeting.remove(request)
        raise fault("rank-lost", f"rank 0 did not begin within {self.timeout:g} s", ranks=[0])

    def _look_around(self) -> None:
        for name in os.listdir(self._meeting.path) if self.rank == 0 else ():
            if name.startswith("join-") and name not in self._answered:
                self._answered[name] = self._meeting.put_leased(name, self._session.encode())

    @takes()
    def close(self, why: str = "") -> None:
        """Take part no more: who still waits for this rank is told, and `why`, if something went wrong. The last rank
        that closes removes the session's folder; where one was killed it stays, for `ckptfmt gc`."""
        for name, lease in self._answered.items():  # to ranks of earlier runs, too, that did not live to see it
            lease.release()
            with contextlib.suppress(OSError):
                self._meeting.remove(name)
        self._answered.clear()
        if self._has_joined:
            super().close(why)
