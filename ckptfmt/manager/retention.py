"""Deleting: the plan, and its execution."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import CkptError
from .policies import Policy, reasons_to_keep
from .run import REASONS, RunDirectory
from .steps import Number, Step

BEING_READ, UNREADABLE = "being read", "its metrics cannot be read now"


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """What is kept, and for which reasons; what is to be deleted, and why."""

    kept: dict[Number, tuple[str, ...]]
    deleted: dict[Number, str]


def plan(steps: Sequence[Step], policies: Sequence[Policy]) -> RetentionPlan:
    """What to do with `steps`. Changes nothing."""
    kept = reasons_to_keep(steps, policies)
    read = {step.step: (UNREADABLE,) for step in steps if step.step not in kept and step.is_unreadable}
    read |= {step.step: (BEING_READ,) for step in steps if step.step not in kept and step.run.is_leased(step)}
    why = f"kept by none of: {', '.join(map(str, policies))}"
    return RetentionPlan(
        {step.step: (kept | read)[step.step] for step in steps if step.step in kept | read},
        {step.step: why for step in steps if step.step not in kept | read},
    )


def prune(run: RunDirectory, policies: Sequence[Policy]) -> RetentionPlan:
    """Delete what no policy keeps and nobody reads, and what crashes have left; gives what was done."""
    found = run.scan()
    planned = plan(found.steps, policies)
    run.delete([step for step in found.steps if step.step in planned.deleted])
    run.sweep(found.leftovers)
    with contextlib.suppress(CkptError):
        reasons = {run.names.name(step): reasons for step, reasons in planned.kept.items()}
        run.write_note(REASONS, json.dumps(reasons))
    return planned


def rewind(run: RunDirectory, step: Number) -> None:
    """Delete every step after `step`, also those being read."""
    later = [found for found in run.scan().steps if run.names.key(found.step) > run.names.key(step)]
    run.delete(later[::-1], even_if_read=True)  # backwards, so that a crash leaves no gap


def read_reasons(run: RunDirectory) -> dict[str, tuple[str, ...]]:
    """Why each name was kept, as last written; nothing if that cannot be read."""
    try:
        found = json.loads(run.read_note(REASONS) or "{}")
        return {str(name): tuple(map(str, reasons)) for name, reasons in found.items()}
    except (ValueError, AttributeError, TypeError):
        return {}
