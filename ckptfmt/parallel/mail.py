"""Rounds over a store of keys and values that all ranks reach: a directory, or what torch and JAX have."""

from __future__ import annotations

import atexit
import contextlib
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol, Self

from ..calls import takes
from ..errors import CkptError, fault
from .coordinator import Answer
from .courier import Parcel, pieces
from .presence import is_gone, presence

FIRST_PAUSE, LONGEST_PAUSE = 0.0005, 0.05  # seconds between two looks for a message
LOOK = 0.25  # seconds between two looks whether those that are waited for still run
LINGER = 5.0  # seconds that rank 0 waits at most for its replies to be taken
LOST = "lost"  # the key of why a session has ended early


class Store(Protocol):
    """Keys and values, each there whole or not at all. Whatever its calls raise means that the store is lost."""

    def put(self, key: str, value: bytes) -> None: ...

    def has(self, key: str) -> bool: ...

    def get(self, key: str) -> bytes | None:
        """A value; None if there is none. Nobody else removes it meanwhile."""

    def remove(self, key: str) -> None:
        """Remove a value, if there is one."""

    def below(self, name: str) -> Store:
        """The store of the keys below a name, which no other keys meet."""

    def clear(self) -> None:
        """Remove what is left, as nobody will look any more."""


class StoreCoordinator:
    """Ranks that leave each other messages in a store; `timeout`: seconds that rank 0 waits for messages. The others
    wait twice as long for it, so that they hear from it who is missing.

    Who closes, ends, or is killed on the machine of who waits for it, is missed within a second. After `rank-lost` all
    rounds raise that.
    """

    _is_host = False  # whether the store ends with the process of rank 0

    def __init__(self, store: Store, rank: int, size: int, *, timeout: float) -> None:
        if not 0 <= rank < size:
            raise fault("bad-option", f"rank {rank} of {size}", found=rank, expected=f"0 to {size - 1}")
        self.rank: int = rank
        self.size: int = size
        self.timeout: float = timeout
        self._store = store
        self._round = self._splits = 0
        self._process, self._is_closed = os.getpid(), False
        self.is_lost: bool = False  # after `rank-lost`, or when it was left in the middle of a round
        self._arrive()
        atexit.register(self.close)

    def _arrive(self) -> None:
        self._store.put(f"{self.rank}.here", presence().encode())

    def exchange(self, message: bytes, answer: Answer) -> bytes:
        """Do one round; see `Coordinator.exchange`."""
        number, self._round = self._round, self._round + 1
        try:
            self._check_session()
            return self._lead(number, message, answer) if self.rank == 0 else self._follow(number, message)
        except BaseException as error:  # also KeyboardInterrupt: the others must not wait for this rank
            self.is_lost = True
            self._end_session(error)
            raise

    def split(self) -> StoreCoordinator:
        """Make another coordinator of the same ranks; see `Coordinator.split`."""
        self._splits += 1
        store = self._store.below(f"split-{self._splits}")
        return StoreCoordinator(store, self.rank, self.size, timeout=self.timeout)

    def _lead(self, number: int, message: bytes, answer: Answer) -> bytes:
        messages, waiting = {0: message}, list(range(1, self.size))
        for looks in self._looks(self.timeout):
            self._look_around()
            gone = self._gone(waiting) if looks else {}  # before its message is looked for, which it may have left
            for rank in waiting:
                said = self._take(f"{number}.{rank}.message")
                if said is not None:
                    messages[rank] = said
            waiting = [rank for rank in waiting if rank not in messages]
            if not waiting:
                replies = answer([messages[rank] for rank in range(self.size)])
                for rank in range(1, self.size):
                    self._store.put(f"{number}.{rank}.reply", replies[rank])
                if self._is_host:
                    self._linger(number)
                return replies[0]
            if any(rank in gone for rank in waiting):
                raise _lost({rank: why for rank, why in gone.items() if rank in waiting})
            if looks:
                self._check_session()
        names = ", ".join(map(str, waiting))
        raise fault("rank-lost", f"no message in {self.timeout:g} s from rank {names}", ranks=waiting)

    def _follow(self, number: int, message: bytes) -> bytes:
        self._store.put(f"{number}.{self.rank}.message", message)
        for looks in self._looks(2 * self.timeout):
            gone = self._gone([0]) if looks else {}
            reply = self._take(f"{number}.{self.rank}.reply")
            if reply is not None:
                return reply
            if looks:
                self._check_session()
            if gone:
                raise _lost(gone)
        raise fault("rank-lost", f"rank 0 gave rank {self.rank} no answer in {2 * self.timeout:g} s", ranks=[0])

    def _linger(self, number: int) -> None:
        """Until the others have their replies, or for a while: this process may end now, and the store with it."""
        waiting = list(range(1, self.size))
        for looks in self._looks(LINGER):
            waiting = [rank for rank in waiting if self._store.has(f"{number}.{rank}.reply")]
            if looks:
                gone = self._gone(waiting)
                waiting = [rank for rank in waiting if rank not in gone]
            if not waiting:
                return

    def _look_around(self) -> None:
        """What rank 0 does besides while it waits."""

    def _take(self, key: str) -> bytes | None:
        value = self._store.get(key)
        if value is not None:
            self._store.remove(key)
        return value

    def _gone(self, ranks: Iterable[int]) -> dict[int, str]:
        """Those of `ranks` that will send nothing more, and why."""
        found = {}
        for rank in ranks:
            left, here = self._store.get(f"{rank}.left"), self._store.get(f"{rank}.here")
            if left is not None:
                found[rank] = left.decode(errors="replace")
            elif here is not None and is_gone(here.decode()):
                found[rank] = "its process has ended, or was killed"
        return found

    def _check_session(self) -> None:
        """Raise `rank-lost` if a rank has ended the session."""
        reason = self._store.get(LOST)
        if reason is not None:
            ranks, _, words = reason.decode(errors="replace").partition(" ")
            raise fault("rank-lost", words, ranks=[int(rank) for rank in ranks.split(",") if rank])

    def _end_session(self, error: BaseException) -> None:
        """Tell the others that there is nothing to wait for; the first reason stands."""
        ranks, words = [self.rank], f"rank {self.rank} left: {error!r}"
        if isinstance(error, CkptError) and error.code == "rank-lost":
            ranks, words = error.ranks or [], error.message
        with contextlib.suppress(Exception):
            if not self._store.has(LOST):
                self._store.put(LOST, f"{','.join(map(str, ranks))} {words}".encode(errors="replace"))
            if self._is_host and self.rank == 0:
                time.sleep(4 * LOOK)  # for the others to see it, as this process may end now

    def _looks(self, seconds: float) -> Iterator[bool]:
        """Comes back with growing pauses until the time is up; true at times: to look around, too."""
        begin, pause = time.monotonic(), FIRST_PAUSE
        end, look = begin + seconds, begin + LOOK
        while (now := time.monotonic()) < end:
            looks = now >= look
            if looks:
                look = now + LOOK
            yield looks
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    @takes(name="close() of a coordinator")
    def close(self, why: str = "") -> None:
        """Take part no more: who still waits for this rank is told, and `why`, if something went wrong. The last rank
        that closes removes what all left."""
        if self._is_closed or os.getpid() != self._process:  # a fork is no rank
            return
        self._is_closed = True
        atexit.unregister(self.close)
        with contextlib.suppress(Exception):  # the store may be gone before
            self._store.put(f"{self.rank}.left", (why or "it has closed its coordinator").encode(errors="replace"))
            if all(self._store.has(f"{rank}.left") for rank in range(self.size)):
                self._store.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close(f"it left: {error!r}") if error is not None else self.close()


def _lost(gone: dict[int, str]) -> CkptError:
    told = "; ".join(f"rank {rank} is gone: {why}" for rank, why in gone.items())
    return fault("rank-lost", told, ranks=list(gone))


class StoreCourier:
    """A courier that leaves parcels in the store of a session, one that no other rounds use."""

    def __init__(self, session: StoreCoordinator) -> None:
        self._session = session
        self._counts: dict[tuple[int, int], int] = defaultdict(int)  # of parcels, by sender and receiver

    def carry(self, sent: Sequence[Parcel], received: Sequence[Parcel]) -> None:
        """See `Courier.carry`."""
        own = self._session.rank
        for parcel in pieces(sent):
            self._session._store.put(self._key(own, parcel.rank), bytes(parcel.data))
        for parcel in pieces(received):
            data = self._collected(self._key(parcel.rank, own), parcel.rank)
            if len(data) != len(parcel.data):
                raise fault("ranks-differ", f"rank {parcel.rank} sent {len(data)} bytes", found=len(data),
                            expected=len(parcel.data), ranks=[parcel.rank])  # fmt: skip
            parcel.data[:] = data

    def _key(self, sender: int, receiver: int) -> str:
        number = self._counts[sender, receiver]
        self._counts[sender, receiver] += 1
        return f"{number}.{sender}.{receiver}.parcel"

    def _collected(self, key: str, rank: int) -> bytes:
        """What a rank has left, or will leave; it is waited for as a message is."""
        session = self._session
        for looks in session._looks(session.timeout):
            gone = session._gone([rank]) if looks else {}
            value = session._take(key)
            if value is not None:
                return value
            if looks:
                session._check_session()
            if gone:
                raise _lost(gone)
        raise fault("rank-lost", f"nothing came from rank {rank} in {session.timeout:g} s", ranks=[rank])
