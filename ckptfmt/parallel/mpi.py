"""A coordinator over MPI (mpi4py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..calls import takes
from .coordinator import Answer
from .courier import Parcel, pieces


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

    def courier(self) -> MPICourier:
        """Make what carries checkpoints from rank to rank. All ranks call it in the same order as `exchange`."""
        return MPICourier(self._communicator.Dup())

    def exchange(self, message: bytes, answer: Answer) -> bytes:
        """Do one round; see `Coordinator.exchange`."""
        messages = self._communicator.gather(message, root=0)
        reply: bytes = self._communicator.scatter(None if messages is None else answer(messages), root=0)
        return reply


class MPICourier:
    """Carries bytes between the processes of a communicator that nobody else uses."""

    def __init__(self, communicator: Any) -> None:
        self._communicator = communicator

    def carry(self, sent: Sequence[Parcel], received: Sequence[Parcel]) -> None:
        """See `Courier.carry`."""
        own = self._communicator
        requests = [own.Irecv(parcel.data, source=parcel.rank) for parcel in pieces(received)]
        requests += [own.Isend(parcel.data, dest=parcel.rank) for parcel in pieces(sent)]
        for request in requests:
            request.Wait()
