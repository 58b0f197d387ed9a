"""What the steps of a run share with each other: each that is saved, with the newest before it that can be read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from ..errors import CkptError
from ..parallel.coordinator import Coordinator, Rounds
from ..writing.sharing import layout_asked
from ..writing.writer import SaveReport
from .options import one_of
from .run import RunDirectory
from .steps import Number


class SharingWarning(UserWarning):
    """A step shares nothing, or not all that it could, with the one before it: the whole of it was written. The message
    says why; a manager gives it once."""


def check_sharing(options: Mapping[str, Any]) -> None:
    """Refuse `share=` of a manager that is no bool, and a layout that cannot share; raises `bad-option`."""
    one_of("share", options.get("share", False), False, True)
    if options.get("share"):
        layout_asked(options.get("layout"))


def saved_with_base(
    run: RunDirectory, savers: Coordinator, options: Mapping[str, Any], save: Callable[[Mapping[str, Any]], SaveReport]
) -> SaveReport:
    """What `save` gives with the options for a step that shares with the newest one, for all savers alike. That is
    leased meanwhile; where one of them cannot read it, all is written."""
    rest = {name: value for name, value in options.items() if name != "share"}
    if not options.get("share"):
        return save(rest)
    rest["layout"] = rest.get("layout") or "packed"
    rounds = Rounds(savers)
    with ExitStack() as held:
        number, why = rounds.round("the step to share with", lambda: _newest(run, savers, held), _first)
        if number is not None and not why:
            found = f"step {number}, to share with"
            why = rounds.round(found, lambda: _unreadable(run, number), lambda said: [max(said)] * len(said))
        if number is None:
            return save(rest)
        if why:
            why = f"step {number}, the one before, cannot be read: {why}"
            return dataclasses.replace(save(rest), not_shared=why)
        return save({**rest, "share_with": run.path_of(number)})


def _first(said: list[Any]) -> list[Any]:
    """What rank 0 says, to all."""
    return [said[0]] * len(said)


def _newest(run: RunDirectory, savers: Coordinator, held: ExitStack) -> tuple[Number | None, str]:
    """The newest step, which rank 0 leases, or why it cannot."""
    step = run.latest() if savers.rank == 0 else None
    if step is None:
        return None, ""
    try:
        held.enter_context(run.lease(step))
    except CkptError as error:
        return step.step, error.message
    return step.step, ""


def _unreadable(run: RunDirectory, number: Number) -> str:
    """Why a step cannot be opened here; "" if it can."""
    step = run.find(number)
    if step is None:
        return "it is not there"
    try:
        with run.opened(step):
            return ""
    except CkptError as error:
        return error.message


def told(step: Number, report: SaveReport) -> str | None:
    """What a `SharingWarning` says of a step that was saved."""
    if report.not_shared is None:
        return None
    how = f"shares {report.shared:,} of {report.bytes:,} bytes" if report.shared else "shares nothing"
    return f"step {step} {how} with the one before it: {report.not_shared}"
