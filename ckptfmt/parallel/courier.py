"""What carries many bytes between processes: the rounds of a coordinator are for short messages, and pass rank 0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ..errors import fault
from .coordinator import Coordinator

PIECE = 64 << 20  # bytes of one message


class Parcel(NamedTuple):
    """Bytes to or from a rank; what is received is written into `data`, which has the size of what was sent."""

    rank: int
    data: memoryview


class Courier(Protocol):
    """Carries bytes from rank to rank."""

    def carry(self, sent: Sequence[Parcel], received: Sequence[Parcel]) -> None:
        """Send and receive at once. Two ranks exchange as many parcels as each of them says, in the order that both
        give them. Raises `rank-lost`."""


def courier_of(coordinator: Coordinator) -> Courier:
    """A courier between the ranks of a group, all of which call this in the same order as rounds; raises `bad-option`
    where its engine has none."""
    make = getattr(coordinator, "courier", None)
    if make is None:
        raise fault(
            "bad-option", f"{type(coordinator).__name__} has only short messages, and carries no checkpoints",
            expected="a FileCoordinator, MPICoordinator or TorchCoordinator",
        )  # fmt: skip
    carrier: Courier = make()
    return carrier


def pieces(parcels: Sequence[Parcel]) -> list[Parcel]:
    """The same bytes in pieces that an engine can send."""
    return [
        Parcel(parcel.rank, parcel.data[start : start + PIECE])
        for parcel in parcels
        for start in range(0, len(parcel.data), PIECE)
    ]
