"""What a page shows of a run, or of any folder of checkpoints: metrics, what is kept and why, sizes and times."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Any

from ..errors import CODES
from ..manager.listing import CheckpointRow, by_step
from ..manager.tracking import TrackedSave
from .words import cut, moment, number

ROWS = 20_000
PAUSE, LEAST = 4.0, 60.0  # how many times as long as usual, and seconds, make a pause of the time between two saves
COLUMNS = ("name", "step", "time", "size", "format", "reasons", "error", "metrics")


def run_data(path: str, rows: Sequence[CheckpointRow], on_disk: int, history: Sequence[TrackedSave]) -> dict[str, Any]:
    """The data of a page: the checkpoints that are there, the bytes that they take together, and the saves that a
    history tells of."""
    found = sorted(rows, key=by_step)
    whole = [row for row in found if row.error is None]
    points = _points(whole, history)
    return {
        "kind": "run",
        "path": cut(path),
        "columns": COLUMNS,
        "steps": [_row(row) for row in found[:ROWS]],
        "left": max(0, len(found) - ROWS),
        "totals": {
            "checkpoints": len(whole),
            "damaged": len(found) - len(whole),
            "bytes": number(sum(row.size or 0 for row in found)),
            "onDisk": number(on_disk),
            "saves": len(history),
        },
        "damage": [[cut(row.name), row.error, CODES[row.error].meaning] for row in found if row.error in CODES],
        "metrics": _metrics(whole, history),
        "saves": [
            [number(one.step), moment(one.time), number(one.seconds), number(one.bytes)] for one in history[-ROWS:]
        ],
        "pace": [[number(step), number(pace)] for step, pace in _pace(points)],
        "pauses": _pauses(points),
    }


def _row(row: CheckpointRow) -> list[Any]:
    metrics = {cut(name): number(value) for name, value in row.metrics.items()}
    reasons = [cut(reason) for reason in row.reasons]
    return [cut(row.name), number(row.step), moment(row.time), row.size, row.format, reasons, row.error, metrics]


def _metrics(rows: Sequence[CheckpointRow], history: Sequence[TrackedSave]) -> list[dict[str, Any]]:
    """Of each metric the values by step, also of steps that were deleted since, and which are there now."""
    values: dict[str, dict[Any, float]] = {}
    for step, metrics in [*((one.step, one.metrics) for one in history), *((row.step, row.metrics) for row in rows)]:
        for name, value in metrics.items() if step is not None else ():
            values.setdefault(name, {})[step] = value
    there = {row.step for row in rows}
    return [
        {
            "name": cut(name),
            "points": [[number(step), number(value)] for step, value in sorted(found.items())],
            "kept": [number(step) for step in sorted(found) if step in there],
        }
        for name, found in values.items()
    ]


def _points(rows: Sequence[CheckpointRow], history: Sequence[TrackedSave]) -> list[tuple[Any, float]]:
    """When each step was saved: by the history, and where that says nothing by the time of the file."""
    times = {row.step: row.time for row in rows if row.step is not None and row.time is not None}
    times |= {one.step: one.time for one in history}
    return sorted(times.items())


def _pace(points: Sequence[tuple[Any, float]]) -> list[tuple[Any, float]]:
    """Seconds a step between one save and the next."""
    pairs = pairwise(points)
    return [(step, (time - then) / (step - before)) for (before, then), (step, time) in pairs if step > before]


def _pauses(points: Sequence[tuple[Any, float]]) -> list[list[Any]]:
    """Between which steps far more time went by than usual: step, step, seconds, and how many would be usual."""
    usual = median([pace for _, pace in _pace(points) if pace > 0] or [0.0])
    found = []
    for (before, then), (step, time) in pairwise(points):
        due = usual * (step - before)
        if due > 0 and time - then > max(PAUSE * due, LEAST):
            found.append([number(before), number(step), number(time - then), number(due)])
    return found
