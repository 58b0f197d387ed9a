"""How processes that save together talk: in rounds. A rank that fails says so in its next message, and then every rank
fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import msgpack

from ..errors import CODES, CkptError, ExistsError, InputError, MissingError, StorageError, fault

Answer = Callable[[list[bytes]], list[bytes]]
_PLACE = ("path", "tensor", "found", "expected")  # what an error says besides its message


class Coordinator(Protocol):
    """A group of processes, each with its rank from 0 on. Thin: what is said is not its business."""

    rank: int
    size: int

    def exchange(self, message: bytes, answer: Answer) -> bytes:
        """Do one round, which all ranks call in the same order: rank 0 collects a message from every rank, calls
        `answer` with them in the order of ranks, and sends each rank its reply. Returns this rank's reply.

        Raises `rank-lost` with the numbers of the ranks that did not answer in time.
        """

    def split(self) -> Coordinator:
        """Make another coordinator of the same ranks, whose rounds do not mix with those of this one: for another
        thread. All ranks call it in the same order as `exchange`."""


class Alone:
    """The group of one process."""

    rank = 0
    size = 1

    def exchange(self, message: bytes, answer: Answer) -> bytes:
        return answer([message])[0]

    def split(self) -> Coordinator:
        return self


def all_gather(coordinator: Coordinator, value: Any, call: str = "all_gather") -> list[Any]:
    """The value of every process, by rank. Values are plain: what msgpack has, with lists for tuples."""
    gathered: list[Any] = Rounds(coordinator).round(call, lambda: value, lambda values: [values] * len(values))
    return gathered


class Rounds:
    """Rounds of a `Coordinator` in which failures travel: what one rank raises, all raise."""

    def __init__(self, coordinator: Coordinator) -> None:
        self.coordinator = coordinator

    def round(self, call: str, work: Callable[[], Any], answer: Callable[[list[Any]], list[Any]]) -> Any:
        """Do `work` on every rank, then `answer` on rank 0, which gets what the ranks' work gave and gives a reply for
        each. What is said must be plain values that msgpack has. `call` says what is being done: ranks that do not do
        the same are told so.

        Raises what failed here; `rank-failed`, with the ranks that failed and the error of the first; `ranks-differ`;
        and what `exchange` raises.
        """
        own: BaseException | None = None
        try:
            message = _pack([call, "ok", work()])
        except BaseException as error:  # also KeyboardInterrupt: the others must not wait for this rank
            own, message = error, _pack([call, *_failure(error)])
        raised: list[BaseException] = []

        def reply(messages: list[bytes]) -> list[bytes]:
            try:
                return [_pack(["ok", said]) for said in answer(_agreed(messages))]
            except BaseException as error:
                raised.append(error)
                return [_pack(_failure(error))] * len(messages)

        try:
            replied = self.coordinator.exchange(message, reply)
        except CkptError as error:
            if isinstance(own, StorageError):  # as it may be of files that the others have removed
                raise error from own
            raise own or error from None
        except BaseException as error:
            raise own or (raised[0] if raised else error) from None
        if own is not None or raised:
            raise own or raised[0]
        kind, *said = _unpack(replied)
        if kind != "ok":
            raise _raised(*said)
        return said[0]


def refuse_different(options: list[Sequence[tuple[str, Any]]]) -> None:
    """Refuse options, each with its name, of which a rank has others than rank 0; raises `ranks-differ`."""
    for rank, those in enumerate(options):
        for (name, other), (_, first) in zip(those, options[0], strict=True):
            if repr(other) != repr(first):  # as 1, 1.0 and True are equal in Python, and NaN is not
                raise fault(
                    "ranks-differ",
                    f"ranks 0 and {rank} differ in {name}",
                    found=f"{_short(other)} on rank {rank}",
                    expected=f"{_short(first)} as on rank 0",
                    ranks=[rank],
                )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:99]}…"


def _agreed(messages: list[bytes]) -> list[Any]:
    """What the ranks' work gave, if all did the same and none failed."""
    found = list(map(_unpack, messages))
    calls = [call for call, *_ in found]
    other = next((rank for rank, call in enumerate(calls) if call != calls[0]), None)
    if other is not None:
        raise fault(
            "ranks-differ",
            f"ranks 0 and {other} do not make the same call",
            found=f"{calls[other]} on rank {other}",
            expected=f"{calls[0]} as on rank 0",
            ranks=[other],
        )
    failed = [rank for rank, (_, kind, *_) in enumerate(found) if kind != "ok"]
    if failed:
        _, _, code, message, place = found[failed[0]]
        raise _rank_failed(failed, code, message, place)
    return [said for _, _, said in found]


def _rank_failed(ranks: list[int], code: str, message: str, place: dict[str, str]) -> CkptError:
    others = f"; so did {', '.join(f'rank {rank}' for rank in ranks[1:])}" if ranks[1:] else ""
    cause = f"{message} [{code}]" if code else message
    return fault("rank-failed", f"rank {ranks[0]} failed: {cause}{others}", ranks=ranks, **place)


def _failure(error: BaseException) -> list[Any]:
    """A message that says what failed."""
    if not isinstance(error, CkptError):
        return ["failed", "", f"{type(error).__name__}: {error}".removesuffix(": "), {}]
    place = {name: str(value) for name in _PLACE if (value := getattr(error, name)) is not None}
    return ["failed", error.code, error.message, place | ({"ranks": error.ranks} if error.ranks else {})]


def _raised(code: str, message: str, place: dict[str, Any]) -> CkptError:
    """What `answer` raised on rank 0: what is wrong with that which all asked for, or rank 0's own trouble."""
    if "ranks" in place or (code and issubclass(CODES[code].error, InputError | ExistsError | MissingError)):
        return fault(code, message, **place)
    return _rank_failed([0], code, message, place)


def _pack(said: Any) -> bytes:
    return bytes(msgpack.packb(said, unicode_errors="surrogatepass"))


def _unpack(raw: bytes) -> Any:
    return msgpack.unpackb(raw, strict_map_key=False, unicode_errors="surrogatepass")
