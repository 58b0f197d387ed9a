"""A coordinator over torch.distributed: the ranks of a process group save one checkpoint together.

Messages go through the store by which the processes found each other, so that no collective operation of a program,
and no backend, is in the way, and one rank can tell the others that another is missing.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist

from ckptfmt.calls import takes
from ckptfmt.errors import fault
from ckptfmt.parallel.courier import Parcel, pieces
from ckptfmt.parallel.mail import StoreCoordinator

_made: weakref.WeakKeyDictionary[Any, dict[str, int]] = weakref.WeakKeyDictionary()  # by the default group
_automatic: weakref.WeakKeyDictionary[Any, TorchCoordinator] = weakref.WeakKeyDictionary()


class _TorchStore:
    """The keys below a prefix in a store of torch.distributed."""

    def __init__(self, store: Any, prefix: str) -> None:
        self._store, self._prefix = store, prefix
        self._keys: set[str] = set()  # that this rank has put

    def put(self, key: str, value: bytes) -> None:
        self._do("set", key, b"+" + value)  # as a store of files cannot tell an empty value from none
        self._keys.add(key)

    def has(self, key: str) -> bool:
        try:
            return bool(self._store.check([self._prefix + key]))
        except RuntimeError as error:
            raise _lost(error) from error

    def get(self, key: str) -> bytes | None:
        return self._do("get", key)[1:] if self.has(key) else None  # it waits for what is not there

    def remove(self, key: str) -> None:
        self._do("delete_key", key)
        self._keys.discard(key)

    def below(self, name: str) -> _TorchStore:
        return _TorchStore(self._store, f"{self._prefix}{name}/")

    def clear(self) -> None:
        for key in list(self._keys):
            self.remove(key)

    def _do(self, call: str, key: str, *value: bytes) -> Any:
        try:
            return getattr(self._store, call)(self._prefix + key, *value)
        except RuntimeError as error:
            raise _lost(error) from error


def _lost(error: RuntimeError) -> Exception:
    words = str(error).splitlines()[0]
    return fault(
        "rank-lost", f"the store of torch.distributed is gone, and its process, mostly rank 0: {words}", ranks=[0]
    )


class TorchCoordinator(StoreCoordinator):
    """The ranks of a `process_group` (the default one if None), whatever its backend. All of them make it, and as many,
    in the same order.

    `timeout`: seconds that rank 0 of the group waits for the others in a round, and they twice as long for it; a round
    lasts as long as the slowest rank writes. It has nothing to do with the timeout of the group. Raises `bad-option`
    without `init_process_group`, and in a rank that is not of the group.
    """

    _is_host = True

    @takes()
    def __init__(self, process_group: Any = None, *, timeout: float = 1800.0) -> None:
        if not dist.is_available() or not dist.is_initialized():
            raise fault("bad-option", "torch.distributed is not initialised", expected="init_process_group() first")
        rank = dist.get_rank(process_group)
        if rank < 0:
            raise fault("bad-option", "this rank is not of the process group", found=dist.get_rank())
        ranks = dist.get_process_group_ranks(process_group or dist.group.WORLD)
        named = hashlib.sha256(repr(ranks).encode()).hexdigest()[:16]
        counts = _made.setdefault(dist.group.WORLD, {})
        counts[named] = number = counts.get(named, 0) + 1
        store = dist.distributed_c10d._get_default_store()  # it has no public name
        self._ranks = ranks
        super().__init__(_TorchStore(store, f"ckptfmt/{named}/{number}/"), rank, len(ranks), timeout=timeout)

    def courier(self) -> TorchCourier:
        """Make what carries checkpoints from rank to rank: a group of gloo of its own. All ranks call it in the same
        order as `exchange`. Raises `bad-option` where torch has no gloo."""
        if not dist.is_gloo_available():
            raise fault("bad-option", "this torch has no gloo, which carries checkpoints", expected="a torch with gloo")
        return TorchCourier(self._ranks, self.timeout)


class TorchCourier:
    """Carries bytes between the ranks of a group, given by their numbers in the default one, over gloo."""

    def __init__(self, ranks: list[int], timeout: float) -> None:
        self._ranks = ranks
        self._group = dist.new_group(ranks, timedelta(seconds=timeout), backend="gloo", use_local_synchronization=True)

    def carry(self, sent: Sequence[Parcel], received: Sequence[Parcel]) -> None:
        """See `Courier.carry`."""
        works = []
        try:
            for call, parcels in ((dist.irecv, pieces(received)), (dist.isend, pieces(sent))):
                for parcel in parcels:
                    tensor = torch.from_numpy(np.frombuffer(parcel.data, np.uint8))
                    works.append(cast("dist.Work", call(tensor, self._ranks[parcel.rank], self._group)))
            for work in works:
                work.wait()
        except RuntimeError as error:
            words = str(error).splitlines()[0]
            raise fault("rank-lost", f"gloo has lost a rank: {words}", ranks=[]) from error


def coordinator() -> TorchCoordinator | None:
    """The coordinator of the default process group, or None where there is none or it has one rank."""
    if not dist.is_available() or not dist.is_initialized() or dist.get_world_size() == 1:
        return None
    group = dist.group.WORLD
    if group not in _automatic or _automatic[group].is_lost:
        _automatic[group] = TorchCoordinator()
    return _automatic[group]
