"""Metrics over steps as a picture: lines of blocks for the terminal, or a PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence

import click

from ..packages import install
from .text import visible

BLOCKS = "▁▂▃▄▅▆▇█"
FULL, EIGHTHS = "█", " ▏▎▍▌▋▊▉"
GAP = "·"  # where a metric is missing, NaN or infinite
WIDTH = 72  # most columns of a line

# metric to (step, value), every step in order; None where it is missing
Series = dict[str, list[tuple[float, float | None]]]


def lines(series: Series, *, ascii_only: bool) -> list[str]:
    """For each metric its name, a line of blocks, and the least and greatest value."""
    name_width = max((len(visible(name)) for name in series), default=0)
    levels = "_.-=+*#@" if ascii_only else BLOCKS
    found = []
    for name, points in series.items():
        values = [math.nan if value is None else value for _, value in points]
        finite = [value for value in values if math.isfinite(value)]
        low, high = (min(finite), max(finite)) if finite else (math.nan, math.nan)
        cells = "".join(_block(value, low, high, levels) for value in _thinned(values))
        found.append(f"{visible(name):<{name_width}}  {cells}  {low:.6g} to {high:.6g}")
    return found


def _block(value: float, low: float, high: float, levels: str) -> str:
    if not math.isfinite(value):
        return GAP if levels is BLOCKS else " "
    share = (value - low) / (high - low) if high > low else 0.0
    return levels[min(int(share * len(levels)), len(levels) - 1)]


def _thinned(values: Sequence[float]) -> Sequence[float]:
    """At most `WIDTH` values, evenly taken, the last among them."""
    count = min(len(values), WIDTH)
    return [values[(place + 1) * len(values) // count - 1] for place in range(count)]


def bar(share: float, width: int, *, ascii_only: bool) -> str:
    """A bar that fills a share of a width, to an eighth of a column."""
    if ascii_only:
        return "#" * round(share * width)
    eighths = max(round(share * width * 8), 1 if share > 0 else 0)
    return (FULL * (eighths // 8) + EIGHTHS[eighths % 8]).rstrip()


def write_png(path: str, series: Series) -> None:
    """One panel for each metric, one above the other. Replaces the file."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise click.UsageError(f"--png requires matplotlib: {install('matplotlib')}") from error
    figure = Figure(figsize=(8, 1 + 2 * max(1, len(series))), layout="constrained")
    axes = None
    for place, (name, points) in enumerate(series.items()):
        axes = figure.add_subplot(len(series), 1, place + 1, sharex=axes)
        there = [(step, value) for step, value in points if value is not None]  # a gap is a NaN
        axes.plot([step for step, _ in there], [value for _, value in there], marker=".")
        axes.set_ylabel(visible(name), parse_math=False)
        axes.grid(alpha=0.3)
    if axes is not None:
        axes.set_xlabel("step")
    figure.savefig(path, format="png", dpi=120)
