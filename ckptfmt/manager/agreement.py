"""Many processes, one run: what they must agree on before any of them acts. All this is said in rounds: what fails in
one process is told to all (`rank-failed`), and so is what differs (`ranks-differ`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, TypeVar

from ..parallel.coordinator import Coordinator, Rounds, refuse_different
from .steps import Number

Result = TypeVar("Result")


class Vote(NamedTuple):
    """What one process knows at a step. `asked`: what all must ask for alike, by name."""

    asked: dict[str, Any]
    is_due: bool
    is_preempted: bool
    is_full: bool


class Decision(NamedTuple):
    """What all processes do at a step: save it by the schedule of rank 0; whether any process was preempted; whether
    rank 0 has as many saves in the background as it may have."""

    is_due: bool
    is_preempted: bool
    is_full: bool


def decide(coordinator: Coordinator, call: str, vote: Callable[[], Vote]) -> Decision:
    """Agree on a step in the same `call`. What one process raises in making its vote fails in all."""

    def ballot() -> list[Any]:
        asked, *known = vote()
        return [list(asked.items()), *known]

    def count(votes: list[Any]) -> list[Any]:
        refuse_different([asked for asked, *_ in votes])
        _, is_due, _, is_full = votes[0]
        return [[is_due, any(is_preempted for _, _, is_preempted, _ in votes), is_full]] * len(votes)

    return Decision(*Rounds(coordinator).round(call, ballot, count))


def together(coordinator: Coordinator, acts: bool, call: Callable[[], Result], name: str) -> Result | None:
    """Run `call` in those processes that act, and wait for the others; a failure of one is raised in all. `name` says
    what is being done."""
    results: list[Result] = []

    def work() -> None:
        if acts:
            results.append(call())

    Rounds(coordinator).round(name, work, lambda done: done)
    return results[0] if results else None


def in_common(coordinator: Coordinator, values: Callable[[], Iterable[Number]], name: str) -> set[Number]:
    """What all processes have."""

    def shared(gathered: list[list[Number]]) -> list[list[Number]]:
        return [list(set(gathered[0]).intersection(*gathered[1:]))] * len(gathered)

    return set(Rounds(coordinator).round(name, lambda: list(values()), shared))
