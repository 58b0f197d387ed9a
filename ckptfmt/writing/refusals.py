"""What a save refuses of a tree: every place, with the kind of value and what helps for it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, NoReturn

from ..calls import takes
from ..errors import CkptError, fault
from ..patterns import Patterns

SHOWN = 10  # places that a message names


@dataclass(frozen=True, slots=True)
class Refusal:
    """A place of a tree that no checkpoint can hold: the label of its path, what stands there, what to do about it, and
    the code of the error that a save raises."""

    path: str
    found: str
    advice: str
    code: str = "unsupported-leaf"

    def __str__(self) -> str:
        place = f"at {self.path!r}" if self.path else "at the root"
        return f"cannot store {self.found} {place}: {self.advice}" if self.advice else f"{self.found}, {place}"


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a save would refuse: `refused`, all of it; `ok` if there is nothing."""

    refused: tuple[Refusal, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether a save would refuse nothing."""
        return not self.refused

    def __str__(self) -> str:
        if not self.refused:
            return "all of it can be saved"
        more = len(self.refused) - SHOWN
        return "; ".join(map(str, self.refused[:SHOWN])) + (f"; and at {more:,} more places" if more > 0 else "")

    @takes()
    def raise_refusals(self, path: str | os.PathLike[str] | None = None) -> None:
        """Raise the `InputError` that a save to `path` would, if there is something."""
        if self.refused:
            raise_for(self.refused, path)


def raise_for(refused: tuple[Refusal, ...], path: str | os.PathLike[str] | None = None) -> NoReturn:
    """Raise the error for refusals, whose `report` has all of them; its code and tensor are those of the first."""
    first = refused[0]
    report = CheckReport(refused)
    raise fault(first.code, str(report), path=path, tensor=first.path, report=report)


def refused_by(error: CkptError) -> tuple[Refusal, ...]:
    """What an error of a save says of the tree."""
    if isinstance(error.report, CheckReport):
        return error.report.refused
    return (Refusal(error.tensor or "", error.message, "", error.code),)


@takes()
def check(tree: Any, *, metadata: Any = None, skip: Patterns = None) -> CheckReport:
    """Say what `save` would refuse of a tree and metadata with `skip`, all at once, without writing anything or reading
    a tensor: before a run, of what it is going to save.

    `report.ok` is True if everything can be saved; else `report.refused` has each place with what stands there and what
    to do about it, and `report.raise_refusals()` raises what `save` would.
    """
    from .request import request  # which encodes

    try:
        request(tree, compression=None, schema=None, metadata=metadata, digest="sha256", skip=skip)
    except CkptError as error:
        return CheckReport(refused_by(error))
    return CheckReport()
