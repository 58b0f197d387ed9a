"""Deleting: the plan, and its execution.

A step vanishes at once, and is never half there. A file is unlinked. A directory first takes the name of a temporary,
which every reader refuses, and that is flushed; then its bytes go. What a crash leaves, of deletions and of saves, are
temporaries, which the next `sweep` removes.

What is being read is not deleted (`leases`). Temporaries of saves that still run are known by the lease that a save
holds on the run directory: while there is one, nothing is swept.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import os_fault
from ..storage.disk import Disk
from ..storage.local import TEMPORARY_SUFFIX
from .leases import claim, is_leased, lease
from .policies import Policy, reasons_to_keep
from .steps import Number, RunDirectory, Scan, Step

REASONS = "kept.json"  # why each step was kept when last something was deleted; for people, nothing depends on it
BEING_READ = "being read"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is kept, and for which reasons; what is to be deleted, and why."""

    kept: dict[Number, tuple[str, ...]]
    deleted: dict[Number, str]


def plan(steps: Sequence[Step], policies: Sequence[Policy]) -> Plan:
    """What to do with `steps`. Changes nothing."""
    kept = reasons_to_keep(steps, policies)
    read = {step.step: (BEING_READ,) for step in steps if step.step not in kept and is_leased(step.path)}
    why = f"kept by none of: {', '.join(map(str, policies))}"
    return Plan(
        {step.step: (kept | read)[step.step] for step in steps if step.step in kept | read},
        {step.step: why for step in steps if step.step not in kept | read},
    )


def prune(run: RunDirectory, policies: Sequence[Policy]) -> Plan:
    """Delete what no policy keeps and nobody reads, and what crashes have left; gives what was done."""
    found = run.scan()
    planned = plan(found.steps, policies)
    by_number = {step.step: step for step in found.steps}
    if planned.deleted:
        with lease(run.path):
            for number in planned.deleted:
                _retire(run, by_number[number])
    sweep(run, found)
    _write_reasons(run, planned)
    return planned


def rewind(run: RunDirectory, step: Number) -> None:
    """Delete every step after `step`, also those being read: their bytes stay for as long as that takes."""
    later = [found for found in run.scan().steps if run.names.key(found.step) > run.names.key(step)]
    with lease(run.path):
        for found in reversed(later):  # so that a crash leaves no gap
            hidden = _hide(run, found)
            with claim(hidden) as is_mine:
                if is_mine:
                    destroy(hidden)


def sweep(run: RunDirectory, found: Scan | None = None) -> list[str]:
    """Remove temporaries of saves and deletions that died; gives their names."""
    found = found or run.scan()
    removed: list[str] = []
    if not found.temporaries:
        return removed
    with claim(run.path) as nobody_saves:
        for name in found.temporaries if nobody_saves else ():
            path = os.path.join(run.path, name)
            with claim(path) as is_mine:
                if is_mine:
                    destroy(path)
                    removed.append(name)
    return removed


def _retire(run: RunDirectory, step: Step) -> None:
    """Delete a step unless it is being read."""
    with claim(step.path) as is_mine:
        if is_mine:
            destroy(_hide(run, step))


def _hide(run: RunDirectory, step: Step) -> str:
    """Give a step the name of a temporary; gives its new path."""
    hidden = run.temporary_of(os.path.basename(step.path))
    disk = Disk()
    try:
        disk.replace(step.path, hidden)
        if os.path.isdir(hidden):
            disk.flush_directory(run.path)  # else a power loss may bring the name back without the bytes
    except FileNotFoundError:
        pass  # somebody else was faster
    except OSError as error:
        raise os_fault(error, "cannot delete the step", step.path) from error
    return hidden


def destroy(path: str) -> None:
    """Remove a file, or a folder with all that is in it; nothing if it is gone. No link is followed. Raises
    `StorageError`."""
    disk = Disk()
    try:
        if os.path.isdir(path) and not os.path.islink(path):
            disk.remove_tree(path)
        else:
            disk.unlink(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise os_fault(error, "cannot delete", path) from error


# ---- why, for people


def _write_reasons(run: RunDirectory, planned: Plan) -> None:
    temporary = os.path.join(run.path, f".{REASONS}{TEMPORARY_SUFFIX}")
    with contextlib.suppress(OSError):
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump({run.names.name(step): reasons for step, reasons in planned.kept.items()}, file)
        os.replace(temporary, os.path.join(run.path, REASONS))


def read_reasons(run: RunDirectory) -> dict[str, tuple[str, ...]]:
    """Why each name was kept, as last written; nothing if that cannot be read."""
    try:
        with open(os.path.join(run.path, REASONS), encoding="utf-8") as file:
            return {str(name): tuple(map(str, reasons)) for name, reasons in json.load(file).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
