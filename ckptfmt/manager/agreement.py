"""Many processes, one run: what they must agree on before any of them acts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Protocol, TypeVar

from ..errors import fault
from .steps import Number

Result = TypeVar("Result")


class Coordinator(Protocol):
    """A group of processes. All of them make the same calls in the same order."""

    rank: int
    size: int

    def all_gather(self, value: Any) -> list[Any]:
        """The value of every process, by rank. Values are plain: None, bool, int, float, str, and tuples of these."""


class Alone:
    """The group of one process."""

    rank = 0
    size = 1

    def all_gather(self, value: Any) -> list[Any]:
        return [value]


class Vote(NamedTuple):
    """What one process knows at a step."""

    step: Number
    is_due: bool
    is_preempted: bool
    failure: str | None


class Decision(NamedTuple):
    """What all processes do at a step: save it by the schedule of rank 0; whether any process was preempted."""

    is_due: bool
    is_preempted: bool


def decide(coordinator: Coordinator, vote: Vote, failure: BaseException | None) -> Decision:
    """Agree on a step. A failure of one process is raised in all; raises `bad-option` if the steps differ."""
    votes = [Vote(*gathered) for gathered in coordinator.all_gather(tuple(vote))]
    _raise_any(failure, [each.failure for each in votes])
    steps = [each.step for each in votes]
    if len(set(steps)) > 1:
        raise fault("bad-option", f"the processes are at different steps: {steps}")
    return Decision(votes[0].is_due, any(each.is_preempted for each in votes))


def together(coordinator: Coordinator, acts: bool, call: Callable[[], Result]) -> Result | None:
    """Run `call` in those processes that act, and wait for the others; a failure of one is raised in all."""
    result, failure = None, None
    try:
        result = call() if acts else None
    except BaseException as error:
        failure = error
    _raise_any(failure, coordinator.all_gather(None if failure is None else str(failure)))
    return result


def in_common(coordinator: Coordinator, values: Iterable[Number]) -> set[Number]:
    """What all processes have."""
    gathered = coordinator.all_gather(tuple(values))
    return set(gathered[0]).intersection(*gathered[1:])


def _raise_any(own: BaseException | None, failures: list[str | None]) -> None:
    if own is not None:
        raise own
    for rank, failure in enumerate(failures):
        if failure is not None:
            raise fault("io", f"process {rank} failed: {failure}")
