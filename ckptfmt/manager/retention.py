"""Deleting: the plan, and its execution."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ..errors import CkptError, StorageError
from .policies import Policy, reasons_to_keep
from .run import REASONS, RunDirectory
from .steps import Number, Step

BEING_READ, UNREADABLE = "being read", "its metrics cannot be read now"
PERHAPS_BASE = "what others are read through cannot be told now"


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
    stays = kept | read
    stays |= _bases(steps, stays)
    why = f"kept by none of: {', '.join(map(str, policies))}"
    return RetentionPlan(
        {step.step: stays[step.step] for step in steps if step.step in stays},
        {step.step: why for step in steps if step.step not in stays},
    )


def _bases(steps: Sequence[Step], stays: Collection[Number]) -> dict[Number, tuple[str, ...]]:
    """What those that stay are read through, and is kept by nothing else."""
    by_sha256 = {step.sha256: step for step in steps}
    found: dict[Number, tuple[str, ...]] = {}
    waiting = [step for step in steps if step.step in stays]
    try:
        while waiting:
            step = waiting.pop()
            base = None if step.base is None else by_sha256.get(step.base)
            if base is not None and base.step not in stays and base.step not in found:
                found[base.step] = (f"base of step {step.step}",)
                waiting.append(base)
    except StorageError:
        return {step.step: (PERHAPS_BASE,) for step in steps if step.step not in stays}
    return found


def prune(run: RunDirectory, policies: Sequence[Policy], remarks: Mapping[Number, str] | None = None) -> RetentionPlan:
    """Delete what no policy keeps and nobody reads, and what crashes have left; gives what was done. `remarks`: what
    else to note of some steps beside why they are kept."""
    found = run.scan()
    planned = plan(found.steps, policies)
    _delete(run, [step for step in found.steps if step.step in planned.deleted])
    run.sweep(found.leftovers)
    more = {step: (remark,) for step, remark in (remarks or {}).items()}
    with contextlib.suppress(CkptError):
        reasons = {run.names.name(step): (*reasons, *more.get(step, ())) for step, reasons in planned.kept.items()}
        run.write_note(REASONS, json.dumps(reasons))
    return planned


def _delete(run: RunDirectory, steps: Sequence[Step]) -> None:
    """Delete steps: none before those that are read through it, which stay where somebody began to read them."""
    left = list(steps)
    while any(step.base is not None for step in left):
        bases = {step.base for step in run.scan().steps}
        going = [step for step in left if step.sha256 not in bases]
        if not going:
            return
        run.delete(going, for_good=True)  # else after a power loss they may be there, and their bases not
        left = [step for step in left if step not in going]
    bases = {step.base for step in run.scan().steps} if len(left) < len(steps) else set()
    run.delete([step for step in left if step.sha256 not in bases])


def rewind(run: RunDirectory, step: Number) -> None:
    """Delete every step after `step`, also those being read."""
    later = [found for found in run.scan().steps if run.names.key(found.step) > run.names.key(step)]
    make_independent(run, [found.step for found in later])
    run.delete(later[::-1], even_if_read=True)  # backwards, so that a crash leaves no gap


def make_independent(run: RunDirectory, going: Collection[Number]) -> None:
    """Make whole what stays of a run, and is read through steps that are about to go. What is damaged stays as it is.
    Raises `StorageError`."""
    steps = run.scan().steps
    gone = {step.sha256 for step in steps if step.step in going}
    found: list[Step] = []
    while more := [step for step in steps if step not in found and step.step not in going and step.base in gone]:
        found += more
        gone = {step.sha256 for step in more}
    for step in found[::-1]:  # who is read through another first, as that becomes another checkpoint
        from .rewriting import make_whole  # here, as most runs have no patches

        make_whole(run, step)


def read_reasons(run: RunDirectory) -> dict[str, tuple[str, ...]]:
    """Why each name was kept, as last written; nothing if that cannot be read."""
    try:
        found = json.loads(run.read_note(REASONS) or "{}")
        return {str(name): tuple(map(str, reasons)) for name, reasons in found.items()}
    except (ValueError, AttributeError, TypeError):
        return {}
