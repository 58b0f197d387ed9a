"""A coordinator over jax.distributed: the processes of a cluster save one checkpoint together.

Messages go through the key-value store of JAX's coordination service, as no device takes part.
"""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

import jax
from jax._src import distributed  # the store has no public name; Orbax reaches it in the same way

from ckptfmt.errors import fault

if TYPE_CHECKING:
    from ckptfmt.parallel.coordinator import Answer

PIECE = 1 << 20  # bytes of one value, well below the limit of the store's messages
_sessions = itertools.count()


class JaxCoordinator:
    """The processes of an initialised jax.distributed cluster. All must make their coordinators in the same order.

    `timeout`: seconds that a process waits for the others in a round; a round lasts as long as the slowest writes.
    """

    def __init__(self, *, timeout: float = 1800.0) -> None:
        self._client: Any = distributed.global_state.client
        if self._client is None:
            raise fault(
                "bad-option", "jax.distributed is not initialised", expected="jax.distributed.initialize() first"
            )
        self.rank: int = jax.process_index()
        self.size: int = jax.process_count()
        self.timeout = timeout
        self._prefix = f"ckptfmt/{next(_sessions)}"
        self._rounds = itertools.count()

    def exchange(self, message: bytes, answer: Answer) -> bytes:
        prefix = f"{self._prefix}/{next(self._rounds)}"
        end = time.monotonic() + self.timeout
        if self.rank != 0:
            self._put(f"{prefix}/message/{self.rank}", message)
            reply = self._take(f"{prefix}/reply/{self.rank}", end)
            if reply is None:
                raise fault("rank-lost", f"rank 0 gave no answer in {self.timeout:g} s", found="no answer")
            return reply
        found = [message, *(self._take(f"{prefix}/message/{rank}", end) for rank in range(1, self.size))]
        missing = [rank for rank, got in enumerate(found) if got is None]
        if missing:
            names = ", ".join(map(str, missing))
            raise fault("rank-lost", f"no message in {self.timeout:g} s from rank {names}", found=missing)
        replies = answer([got for got in found if got is not None])
        for rank in range(1, self.size):
            self._put(f"{prefix}/reply/{rank}", replies[rank])
        return replies[0]

    def split(self) -> JaxCoordinator:
        return JaxCoordinator(timeout=self.timeout)

    def _put(self, key: str, message: bytes) -> None:
        pieces = [message[start : start + PIECE] for start in range(0, len(message), PIECE)] or [b""]
        for number, piece in enumerate(pieces):
            self._client.key_value_set_bytes(f"{key}/{number}", b"+" + piece)  # the store takes no empty values
        self._client.key_value_set_bytes(f"{key}/count", str(len(pieces)).encode())

    def _take(self, key: str, end: float) -> bytes | None:
        """A message, which is then removed; None if it does not come in time."""
        left = max(1, int(1000 * (end - time.monotonic())))
        try:
            count = int(self._client.blocking_key_value_get_bytes(f"{key}/count", left))
        except jax.errors.JaxRuntimeError:
            return None
        pieces = [self._client.blocking_key_value_get_bytes(f"{key}/{n}", 60_000)[1:] for n in range(count)]
        self._client.key_value_delete(f"{key}/")
        return b"".join(pieces)


def coordinator() -> JaxCoordinator | None:
    """The coordinator of the cluster, or None where there is none or it has one process."""
    return JaxCoordinator() if distributed.global_state.client is not None and jax.process_count() > 1 else None
