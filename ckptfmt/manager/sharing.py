"""What the steps of a run share with each other: each that is saved, with the newest before it that can be read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from ..errors import CkptError
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
    run: RunDirectory, options: Mapping[str, Any], save: Callable[[Mapping[str, Any]], SaveReport]
) -> SaveReport:
    """What `save` gives with the options for a step that shares with the newest one. That is leased meanwhile; where it
    cannot be read, all is written."""
    rest = {name: value for name, value in options.items() if name != "share"}
    if not options.get("share"):
        return save(rest)
    rest["layout"] = rest.get("layout") or "packed"
    base = run.latest()
    if base is None:
        return save(rest)
    with ExitStack() as held:
        try:
            held.enter_context(run.lease(base))
            with run.opened(base):
                pass
        except CkptError as error:
            why = f"step {base.step}, the one before, cannot be read: {error.message}"
            return dataclasses.replace(save(rest), not_shared=why)
        return save({**rest, "share_with": base.path})


def told(step: Number, report: SaveReport) -> str | None:
    """What a `SharingWarning` says of a step that was saved."""
    if report.not_shared is None:
        return None
    how = f"shares {report.shared:,} of {report.bytes:,} bytes" if report.shared else "shares nothing"
    return f"step {step} {how} with the one before it: {report.not_shared}"
