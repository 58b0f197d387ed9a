"""Tensors of a target that the checkpoint has in another shape, passed over where that is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args

from ..errors import fault
from ..format.names import Path, path_label
from ..frameworks.receiving import Intake
from ..frameworks.target import Difference
from .tensor import is_tensor

Mismatched = Literal["raise", "skip"]


def skips(mismatched: Mismatched, checkpoint: str) -> bool:
    """Whether tensors of other shapes are passed over; raises `bad-option`."""
    if mismatched not in get_args(Mismatched):
        expected = " or ".join(map(repr, get_args(Mismatched)))
        raise fault("bad-option", "mismatched= has no such value", path=checkpoint, found=mismatched, expected=expected)
    return mismatched == "skip"


def skip(
    leaves: dict[Path, Any], asks: dict[Path, Any], stored: dict[Path, Any], intakes: Iterable[Intake] = ()
) -> Mapping[Path, Difference]:
    """Take the tensors that are stored in another shape than a target or template asks for out of all three, and say
    how they differ; the target's objects are told."""
    skipped = {
        path: (path_label(path), stored[path].shape, ask.shape)
        for path, ask in asks.items()
        if ask is not None and is_tensor(stored.get(path)) and stored[path].shape != ask.shape
    }
    for path in skipped:
        del leaves[path], asks[path], stored[path]
    for intake in intakes:
        intake.skip(skipped.keys())
    return skipped
