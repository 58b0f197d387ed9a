"""How many requests are made of a store at a time: more and more, while they do not take longer for it.

A store that answers each request after a time of its own gives twice the bytes to twice the requests; one that is
already busy, or a client that is, only lets each of them wait longer. So some more are tried, and that is taken back
where requests take longer than before.
"""

from __future__ import annotations

import _thread
import math
from collections import deque
from time import monotonic

from ..storage.retry import Tries

SLOWER = 1.3  # times the least mean of a round, beyond which requests wait for each other


class Pace:
    """Of one load: `threads` to begin with, and `most` at most. A round is over when as many jobs that it has begun
    have ended as there are threads more than before. No thread waits here, so that an interrupt anywhere costs no more
    than further growth."""

    def __init__(self, threads: int, most: int) -> None:
        self.threads, self._most = threads, most
        self._former = threads  # where it is taken back to
        self._least = math.inf  # mean seconds of a job in the best round
        self._since = monotonic()  # when the round began
        self._seconds: deque[float] = deque()  # of the jobs of the round
        self._needed = threads  # of them
        self._again = Tries.again
        self._turn = _thread.allocate_lock()  # held by the thread that counts a round; for good once it is over

    def ended(self, begun: float, room: int) -> bool:
        """Say that a job which was begun at a time by `monotonic` has ended, and that there is `room` for so many;
        whether there are to be more from now on."""
        now = monotonic()
        if begun < self._since:  # in the round before
            return False
        self._seconds.append(now - begun)
        if len(self._seconds) < self._needed or not self._turn.acquire(False):
            return False
        before = self.threads
        if len(self._seconds) >= self._needed and not self._count(now, room):
            return False  # and keeps its turn
        self._turn.release()
        return self.threads > before

    def _count(self, now: float, room: int) -> bool:
        """Count a round; whether there are to be others."""
        mean = sum(self._seconds) / len(self._seconds)
        if mean > SLOWER * self._least or Tries.again != self._again:
            self.threads = self._former
            return False
        self._least, self._former = min(self._least, mean), self.threads
        if self.threads == self._most:
            return False
        self.threads = max(self.threads, min(self._most, room, self.threads * 3 // 2))
        self._since, self._seconds = now, deque()
        self._needed = self.threads - self._former or self.threads
        return True
