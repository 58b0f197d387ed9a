"""Tensors of a target that the checkpoint has in another shape, passed over where that is asked for."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Literal, get_args

from ..errors import fault
from ..format.names import Path, path_label
from ..frameworks.receiving import Intake
from ..frameworks.target import Difference, MatchReport, match
from .tensor import is_tensor

Mismatched = Literal["raise", "skip"]


def skips(mismatched: Mismatched, checkpoint: str) -> bool:
    """Whether tensors of other shapes are passed over; raises `bad-option`."""
    if mismatched not in get_args(Mismatched):
        expected = " or ".join(map(repr, get_args(Mismatched)))
        raise fault("bad-option", "mismatched= has no such value", path=checkpoint, found=mismatched, expected=expected)
    return mismatched == "skip"


def matched(
    leaves: dict[Path, Any],
    asks: dict[Path, Any],
    stored: dict[Path, Any],
    cast: bool,
    is_skipping: bool,
    intakes: Iterable[Intake] = (),
) -> tuple[MatchReport, Collection[Path]]:
    """Compare a target or template with a checkpoint, as `match` does. If `is_skipping`, tensors that are stored in
    another shape are taken out of all three before, the target's objects are told, and their paths are given."""
    skipped = _differences(asks, stored) if is_skipping else {}
    for path in skipped:
        del leaves[path], asks[path], stored[path]
    for intake in intakes if skipped else ():
        intake.skip(skipped.keys())
    report = match(leaves, asks, stored, is_tensor, cast)
    return report + MatchReport(skipped=tuple(skipped.values())), skipped.keys()


def _differences(asks: Mapping[Path, Any], stored: Mapping[Path, Any]) -> dict[Path, Difference]:
    """How shapes differ."""
    return {
        path: (path_label(path), stored[path].shape, ask.shape)
        for path, ask in asks.items()
        if ask is not None and is_tensor(stored.get(path)) and stored[path].shape != ask.shape
    }
