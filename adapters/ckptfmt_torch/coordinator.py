"""A coordinator over torch.distributed: the ranks of a process group save one checkpoint together."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from ckptfmt.errors import fault

if TYPE_CHECKING:
    from ckptfmt.parallel.coordinator import Answer


class TorchCoordinator:
    """The ranks of a process group (the default one if None), which talk over gloo, whatever the group's own backend.

    `timeout`: seconds that a rank waits for the others in a round; a round lasts as long as the slowest rank writes.
    """

    def __init__(self, group: Any = None, *, timeout: float = 1800.0) -> None:
        self._timeout = timedelta(seconds=timeout)
        if dist.get_backend(group) != "gloo":
            ranks = None if group is None else dist.get_process_group_ranks(group)
            group = dist.new_group(ranks, backend="gloo", timeout=self._timeout)
        self._group = group
        self._root = 0 if group is None else dist.get_global_rank(group, 0)
        self.rank: int = dist.get_rank(group)
        self.size: int = dist.get_world_size(group)

    def exchange(self, message: bytes, answer: Answer) -> bytes:
        try:
            dist.monitored_barrier(self._group, self._timeout, wait_all_ranks=True)  # which names who is missing
            messages = self._gather(message)
            return self._scatter(None if messages is None else answer(messages))
        except RuntimeError as error:
            words = str(error).splitlines()[0]
            raise fault("rank-lost", f"rank {self.rank} lost contact: {words}", found=words) from error

    def split(self) -> TorchCoordinator:
        group = dist.new_group(dist.get_process_group_ranks(self._group), backend="gloo", timeout=self._timeout)
        return TorchCoordinator(group, timeout=self._timeout.total_seconds())

    def _gather(self, message: bytes) -> list[bytes] | None:
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(sizes, torch.tensor([len(message)]), group=self._group)
        longest = max(int(size) for size in sizes)
        data = _padded(message, longest)
        gathered = [torch.empty(longest, dtype=torch.uint8) for _ in sizes] if self.rank == 0 else None
        dist.gather(data, gathered, dst=self._root, group=self._group)
        if gathered is None:
            return None
        return [got[: int(size)].numpy().tobytes() for got, size in zip(gathered, sizes, strict=True)]

    def _scatter(self, replies: list[bytes] | None) -> bytes:
        lengths = (
            torch.tensor([len(reply) for reply in replies]) if replies else torch.zeros(self.size, dtype=torch.int64)
        )
        dist.broadcast(lengths, src=self._root, group=self._group)
        longest = int(lengths.max())
        data = torch.empty(longest, dtype=torch.uint8)
        scattered = [_padded(reply, longest) for reply in replies] if replies else None
        dist.scatter(data, scattered, src=self._root, group=self._group)
        return data[: int(lengths[self.rank])].numpy().tobytes()


def _padded(message: bytes, length: int) -> torch.Tensor:
    return torch.frombuffer(bytearray(message.ljust(length, b"\0")), dtype=torch.uint8)


def coordinator() -> TorchCoordinator | None:
    """The coordinator of the default process group, or None where there is none or it has one rank."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        return TorchCoordinator()
    return None
