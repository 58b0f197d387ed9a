"""Many processes, one run: what they must agree on before any of them acts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from ..errors import fault
from ..parallel.coordinator import Coordinator, all_gather
from .steps import Number

Result = TypeVar("Result")


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
    votes = [Vote(*gathered) for gathered in all_gather(coordinator, tuple(vote))]
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
    _raise_any(failure, all_gather(coordinator, None if failure is None else str(failure)))
    return result


def in_common(coordinator: Coordinator, values: Iterable[Number]) -> set[Number]:
    """What all processes have."""
    gathered = all_gather(coordinator, tuple(values))
    return set(gathered[0]).intersection(*gathered[1:])


def _raise_any(own: BaseException | None, failures: list[str | None]) -> None:
    if own is not None:
        raise own
    for rank, failure in enumerate(failures):
        if failure is not None:
            raise fault("io", f"process {rank} failed: {failure}")
