"""Steps in another form: one that is whole as a patch of another, and a patch as what it makes. Each takes the place of
the other at once, as a save that replaces does, and keeps the time at which the step was written."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from ..errors import DAMAGED, CkptError, os_fault
from ..patching.applying import applied
from ..patching.making import PatchReport, made
from ..patching.publishing import attempt_at
from ..reading.checkpoint import StoredCheckpoint
from ..storage import disk as disks
from ..storage import leases
from ..storage.attempt import LocalAttempt
from .run import RunDirectory
from .steps import Step, as_stored

LARGEST = 0.9  # of the bytes of a step; a larger patch of it is none


class NotSmallerError(Exception):
    """A patch would take almost as much as the step, of which it has this share."""

    def __init__(self, share: float) -> None:
        super().__init__(share)
        self.share = share


class BeingReadError(Exception):
    """Somebody reads the step, and may not know yet that it becomes a patch."""


def make_patch(run: RunDirectory, step: Step, base: Step, *, durable: bool, check: Callable[[], Any]) -> PatchReport:
    """Have a patch take the place of a step, which is whole, as `base` is; both are read and verified as a whole.
    `check` is called now and then, and may raise. Raises `NotSmallerError`, `BeingReadError`, and what
    `ckptfmt.patch` raises."""
    attempt = attempt_at(step.path, "file", {"overwrite": True, "durable": durable}, None)
    assert isinstance(attempt, LocalAttempt)
    held = ExitStack()

    def before_commit() -> None:
        check()
        share = os.stat(attempt.temporary).st_size / max(1, step.size)
        if share > LARGEST:
            raise NotSmallerError(share)
        if not held.enter_context(leases.claim(step.path)) or run.find(step.step) != step:
            raise BeingReadError
        _keep_time(attempt, step)

    with held, run.saving(step.step), run.lease(base), as_stored(base) as old, as_stored(step) as new:
        return made(old, new, step.path, attempt=attempt, before_commit=before_commit, progress=lambda *_: check())


def make_whole(run: RunDirectory, step: Step) -> None:
    """Have what a patch makes take its place; nothing where it is damaged, or its base. Raises `StorageError`."""
    bases = [base.path for base in run.bases_of(step)]
    options: dict[str, Any] = {"storage_options": run.options}
    try:
        with (
            run.saving(step.step),
            run.lease(step),
            StoredCheckpoint(step.path, base=bases or None, **options) as patch,
        ):
            attempt = attempt_at(step.path, "file", {"overwrite": True}, run.options)

            def before_commit() -> None:
                if isinstance(attempt, LocalAttempt):
                    _keep_time(attempt, step)

            applied(patch, step.path, attempt=attempt, before_commit=before_commit, verify=True)
    except DAMAGED:
        return
    except CkptError as error:
        if error.code != "missing-base":
            raise


def _keep_time(attempt: LocalAttempt, step: Step) -> None:
    """By which policies tell steps apart."""
    try:
        disks.current().set_time(attempt.temporary, step.time)
    except OSError as error:
        raise os_fault(error, "cannot set the time of the step", step.path) from error
