"""A coordinator over jax.distributed: the processes of a cluster save one checkpoint together.

Messages go through the key-value store of JAX's coordination service, as no device takes part.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
from jax._src import distributed  # the store has no public name; Orbax reaches it in the same way

from ckptfmt.calls import takes
from ckptfmt.errors import fault
from ckptfmt.parallel.mail import StoreCoordinator

PIECE = 1 << 20  # bytes of one value, well below the limit of the store's messages
_sessions = itertools.count()
_automatic: dict[Any, JaxCoordinator] = {}  # of the client that there is now


class _JaxStore:
    """The keys below a prefix in the store of a cluster."""

    def __init__(self, client: Any, prefix: str) -> None:
        self._client, self._prefix = client, prefix

    def put(self, key: str, value: bytes) -> None:
        pieces = [value[start : start + PIECE] for start in range(0, len(value), PIECE)] or [b""]
        for number, piece in enumerate(pieces):
            self._do("key_value_set_bytes", f"{key}/{number}", b"+" + piece)  # the store takes no empty values
        self._do("key_value_set_bytes", f"{key}/count", str(len(pieces)).encode())

    def has(self, key: str) -> bool:
        return self._do("key_value_try_get_bytes", f"{key}/count") is not None

    def get(self, key: str) -> bytes | None:
        count = self._do("key_value_try_get_bytes", f"{key}/count")
        if count is None:
            return None
        return b"".join(self._do("key_value_try_get_bytes", f"{key}/{n}")[1:] for n in range(int(count)))

    def remove(self, key: str) -> None:
        self._do("key_value_delete", f"{key}/")

    def below(self, name: str) -> _JaxStore:
        return _JaxStore(self._client, f"{self._prefix}{name}/")

    def clear(self) -> None:
        self._do("key_value_delete", "")

    def _do(self, call: str, key: str, *value: bytes) -> Any:
        """The result of a call; None where there is no such key."""
        try:
            return getattr(self._client, call)(self._prefix + key, *value)
        except jax.errors.JaxRuntimeError as error:
            words = str(error).splitlines()[0]
            if words.startswith("NOT_FOUND"):
                return None
            message = f"the store of jax.distributed is gone, and its process, mostly rank 0: {words}"
            raise fault("rank-lost", message, ranks=[0]) from error


class JaxCoordinator(StoreCoordinator):
    """The processes of an initialised jax.distributed cluster. All make it, and as many, in the same order.

    `timeout`: seconds that process 0 waits for the others in a round, and they twice as long for it; a round lasts as
    long as the slowest writes. Raises `bad-option` without `jax.distributed.initialize`.
    """

    @takes()
    def __init__(self, *, timeout: float = 1800.0) -> None:
        client = distributed.global_state.client
        if client is None:
            raise fault(
                "bad-option", "jax.distributed is not initialised", expected="jax.distributed.initialize() first"
            )
        store = _JaxStore(client, f"ckptfmt/{next(_sessions)}/")
        super().__init__(store, jax.process_index(), jax.process_count(), timeout=timeout)


def coordinator() -> JaxCoordinator | None:
    """The coordinator of the cluster, or None where there is none or it has one process."""
    client = distributed.global_state.client
    if client is None or jax.process_count() == 1:
        return None
    if client not in _automatic or _automatic[client].is_lost:
        _automatic.clear()
        _automatic[client] = JaxCoordinator()
    return _automatic[client]
