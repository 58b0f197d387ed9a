"""A coordinator over MPI (mpi4py)."""

from __future__ import annotations

from typing import Any

from ..calls import takes
from .coordinator import Answer


class MPICoordinator:
    """The processes of an mpi4py `communicator`. MPI itself ends the job when a process dies, so there is no
    timeout."""

    @takes()
    def __init__(self, communicator: Any) -> None:
        self._communicator = communicator
        self.rank: int = communicator.Get_rank()
        self.size: int = communicator.Get_size()

    def split(self) -> MPICoordinator:
        """Make another coordinator of the same ranks; see `Coordinator.split`."""
        return MPICoordinator(self._communicator.Dup())

    def exchange(self, message: bytes, answer: Answer) -> bytes:
        """Do one round; see `Coordinator.exchange`."""
        messages = self._communicator.gather(message, root=0)
        reply: bytes = self._communicator.scatter(None if messages is None else answer(messages), root=0)
        return reply
