"""How processes that save together talk: in rounds. A rank that fails says so in its next message, and then every rank
fails."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgpack

from ..errors import CODES, CkptError, fault

Answer = Callable[[list[bytes]], list[bytes]]
_PLACE = ("path", "tensor", "found", "expected")  # what an error says besides its message


class Coordinator(Protocol):
    """A group of processes, each with its rank from 0 on. Thin: what is said is not its business."""

    rank: int
    size: int

    def exchange(self, message: bytes, answer: Answer) -> bytes:
        """One round, which all ranks call in the same order: rank 0 collects a message from every rank, calls
        `answer` with them in the order of ranks, and sends each rank its reply. Gives this rank's reply.

        Raises `rank-lost` with the numbers of the ranks that did not answer in time.
        """

    def split(self) -> Coordinator:
        """Another coordinator of the same ranks, whose rounds do not mix with those of this one: for another thread.
        All ranks call it in the same order as `exchange`."""


class Alone:
    """The group of one process."""

    rank = 0
    size = 1

    def exchange(self, message: bytes, answer: Answer) -> bytes:
        return answer([message])[0]

    def split(self) -> Coordinator:
        return self


def all_gather(coordinator: Coordinator, value: Any) -> list[Any]:
    """The value of every process, by rank. Values are plain: what msgpack has, with lists for tuples."""

    def everything(messages: list[bytes]) -> list[bytes]:
        return [bytes(msgpack.packb(messages))] * len(messages)

    gathered = msgpack.unpackb(coordinator.exchange(bytes(msgpack.packb(value)), everything))
    return [msgpack.unpackb(message, strict_map_key=False) for message in gathered]


class Rounds:
    """Rounds of a `Coordinator` in which failures travel: what one rank raises, all raise."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator

    def round(self, work: Callable[[], Any], answer: Callable[[list[Any]], list[Any]]) -> Any:
        """Do `work` on every rank, then `answer` on rank 0, which gets what the ranks' work gave and gives a reply for
        each. What is said must be plain values that msgpack has."""
        own: BaseException | None = None
        try:
            message = ["ok", work()]
        except BaseException as error:  # also KeyboardInterrupt: the others must not wait for this rank
            own, message = error, _failure(error, self.coordinator.rank)
        raised: list[BaseException] = []

        def reply(messages: list[bytes]) -> list[bytes]:
            found = [msgpack.unpackb(raw, strict_map_key=False) for raw in messages]
            failures = [said for said in found if said[0] != "ok"]
            try:
                replies = (
                    [failures[0]] * len(found) if failures else [["ok", said] for said in answer([f[1] for f in found])]
                )
            except BaseException as error:
                raised.append(error)
                replies = [_failure(error, None)] * len(found)
            return [bytes(msgpack.packb(said)) for said in replies]

        try:
            replied = self.coordinator.exchange(bytes(msgpack.packb(message)), reply)
        finally:
            if own is not None or raised:
                raise own or raised[0]
        kind, *said = msgpack.unpackb(replied, strict_map_key=False)
        if kind != "ok":
            raise _raised(*said)
        return said[0]


def _failure(error: BaseException, rank: int | None) -> list[Any]:
    """A message that says what failed: on one rank, or (None) what all of them asked for."""
    if not isinstance(error, CkptError):
        return ["failed", rank, "", f"{type(error).__name__}: {error}", {}]
    place = {name: str(value) for name in _PLACE if (value := getattr(error, name)) is not None}
    return ["failed", rank, error.code, error.message, place]


def _raised(rank: int | None, code: str, message: str, place: dict[str, str]) -> CkptError:
    if rank is None and code in CODES:
        return fault(code, message, **place)
    where = "rank 0" if rank is None else f"rank {rank}"
    return fault("rank-failed", f"{where} failed: {message}" + (f" [{code}]" if code else ""), **place)
