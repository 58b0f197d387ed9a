"""`ckptfmt ls`: the steps of a run."""

from __future__ import annotations

import datetime
import os
from typing import Any, NamedTuple

import click
from rich.text import Text

from .. import CkptError
from ..errors import fault
from ..manager.flax_rules import FlaxNames
from ..manager.retention import read_reasons
from ..manager.run import DamagedStep, run_at
from ..manager.steps import FixedNames, Step
from ..storage import is_url
from . import chart
from .console import console, print_json
from .json_form import Encoder
from .text import count, size, visible

HEADS = ("step", "time", "size", "metrics", "kept because")
STYLES = ("bold", "", "green", "yellow", "dim")
RIGHT = (0, 2)  # columns of numbers


class Row(NamedTuple):
    """A step, its metrics, what keeps them from being read, and why it was kept."""

    step: Step | DamagedStep
    metrics: dict[str, float]
    error: str | None
    reasons: tuple[str, ...]

    @property
    def time(self) -> float | None:
        return self.step.time if isinstance(self.step, Step) else None

    @property
    def size(self) -> int | None:
        return self.step.size if isinstance(self.step, Step) else None


@click.command(
    short_help="List the steps of a run: time, size, metrics, why they are kept.",
    epilog="""\b
Examples:
  ckptfmt ls runs/7
  ckptfmt ls runs/7 --plot
  ckptfmt ls runs/7 --json | jq -r '.steps[-1].path'

Why a step is kept is what its manager wrote down when it last deleted something; nothing is known of later steps.

The object of --json has: path, and steps, a list of objects with step, path, time (seconds since the epoch), size
(bytes), metrics, error (the code of what is wrong with its manifest, or null) and reasons. What is named like a step
and is none, or cannot be read, is listed too, with its error; time and size are null then.
""",
)
@click.argument("path", metavar="DIR")
@click.option("--prefix", metavar="TEXT", help='The prefix of the names in a run of mode "flax".')
@click.option("--plot", is_flag=True, help="Also draw the metrics over the steps, as lines of blocks.")
@click.option("--png", metavar="FILE.png", help="Draw the metrics over the steps into a file; it is replaced.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
def ls(path: str, prefix: str | None, plot: bool, png: str | None, as_json: bool) -> None:
    """List the committed steps in the run directory DIR, oldest first, and what is damaged among them.

    Reads manifests only, however large the tensors are.
    """
    if not is_url(path) and not os.path.isdir(path):
        missing = not os.path.exists(path)
        raise fault("not-found" if missing else "not-a-checkpoint", "this is not a run directory", path=path)
    run = run_at(path, FixedNames() if prefix is None else FlaxNames(prefix))
    reasons = read_reasons(run)
    found: list[Step | DamagedStep] = [*run.scan().steps, *run.damaged]
    found.sort(key=lambda step: run.names.key(step.step))
    rows = [_row(step, reasons.get(os.path.basename(step.path), ())) for step in found]
    if png is not None:
        chart.write_png(png, _series(rows))
    if as_json:
        print_json({"path": path, "steps": [_document(row) for row in rows]})
        return
    _show(path, rows)
    if plot:
        out = console()
        for line in chart.lines(_series(rows), ascii_only=out.options.ascii_only):
            out.print(Text(line))


def _row(step: Step | DamagedStep, reasons: tuple[str, ...]) -> Row:
    if isinstance(step, DamagedStep):
        return Row(step, {}, step.error.code, ())
    try:
        _ = step.metadata  # raises what `metrics` hides
    except CkptError as error:
        return Row(step, {}, error.code, reasons)
    return Row(step, dict(step.metrics), None, reasons)


def _series(rows: list[Row]) -> chart.Series:
    names = dict.fromkeys(name for row in rows for name in row.metrics)
    return {name: [(row.step.step, row.metrics.get(name)) for row in rows] for name in names}


def _document(row: Row) -> dict[str, Any]:
    return {
        "step": row.step.step,
        "path": row.step.path,
        "time": row.time,
        "size": row.size,
        "metrics": Encoder().value(row.metrics),
        "error": row.error,
        "reasons": list(row.reasons),
    }


def _show(path: str, rows: list[Row]) -> None:
    out = console()
    cells = [HEADS, *map(_cells, rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADS))]
    for number, line in enumerate(cells if rows else []):
        text = Text()
        for column, cell in enumerate(line):
            padded = f"{cell:>{widths[column]}}" if column in RIGHT else f"{cell:<{widths[column]}}"
            text.append(f"{padded}  ", "bold" if number == 0 else STYLES[column])
        text.rstrip()
        out.print(text)
    total = sum(row.size or 0 for row in rows)
    damaged = sum(isinstance(row.step, DamagedStep) for row in rows)
    more = f", {damaged} damaged or not readable" if damaged else ""
    out.print(Text(f"{visible(path)}: {count(len(rows) - damaged, 'step')}{more}, {size(total)}", "bold"))


def _cells(row: Row) -> tuple[str, ...]:
    time = "" if row.time is None else datetime.datetime.fromtimestamp(row.time).isoformat(" ", "seconds")
    metrics = " ".join(f"{visible(name)}={value:.6g}" for name, value in row.metrics.items())
    reasons = visible(", ".join(row.reasons))
    shown = "" if row.size is None else size(row.size)
    return str(row.step.step), time, shown, row.error or metrics, reasons
