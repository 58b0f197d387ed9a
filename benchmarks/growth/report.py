"""Tables and picture of the lines: times, ratios within a round, and slopes."""

from __future__ import annotations

from collections.abc import Iterator
from math import log
from pathlib import Path

import numpy as np

from benchmarks.growth.course import Found
from benchmarks.growth.lines import Line
from benchmarks.report import ABSENT, Table, ratio_text, time_text

TITLES = {"save": "save, not durable", "load": "eager load", "first": "open, find a tensor, read half of it"}


def slope(points: list[tuple[int, float]]) -> float | None:
    """The power of growth, by least squares of the logarithms: 1 where twice as many take twice as long."""
    if len(points) < 2:
        return None
    x, y = np.log(np.array(points, float)).T
    return float(np.polyfit(x, y, 1)[0])


def _points(found: Found, line: Line, action: str, racer: str) -> list[tuple[int, float]]:
    medians = ((line.at(point), found.median(line, line.at(point), action, racer)) for point in line.points)
    return [(at, seconds) for at, seconds in medians if seconds is not None]


def _times(found: Found, line: Line, action: str, racers: list[str]) -> Table:
    rows = []
    for point in line.points:
        at = line.at(point)
        for racer in (*racers, *line.beside):
            seconds = found.median(line, at, action, racer)
            if seconds is None:
                continue
            each = f"{seconds / point.count * 1e6:,.1f} µs" if line.counts else f"{at / seconds / 1e3:.2f} GB/s"
            ratios = (found.ratio(line, at, action, racer, line.baseline, what) for what in ("seconds", "processor"))
            size = found.stored.get(line.title, {}).get(at, {}).get(racer)
            beyond = f"{(size - point.total) / point.count:,.0f} B" if size else ABSENT
            rows.append((f"{at:,}", racer, time_text(seconds), each, *map(ratio_text, ratios), beyond))
    each = f"a {line.unit[:-1]}" if line.counts else "rate"
    beside = f"beside {line.baseline}"
    header = (
        line.unit,
        "contender",
        "median",
        each,
        f"speed {beside}",
        "the same in processor time",
        f"bytes beyond, {each}" if line.counts else "bytes beyond, a tensor",
    )
    return Table(f"{line.title}: {TITLES[action]}", header, tuple(rows))


def _slopes(found: Found, lines: tuple[Line, ...], racers: list[str]) -> Table:
    rows = []
    for line in lines:
        for action in line.actions:
            for racer in (*racers, *line.beside):
                points = _points(found, line, action, racer)
                power = slope(points)
                if power is None:
                    continue
                (first, least), (last, most) = points[0], points[-1]
                span = f"{first:,} to {last:,} {line.unit}"
                local = log(most / points[-2][1]) / log(last / points[-2][0])
                rows.append(
                    (f"{line.title}: {action}", racer, span, f"{power:.2f}", f"{local:.2f}", f"{most / least:,.1f}")
                )
    header = ("line", "contender", "span", "slope", "slope at its end", "time grows by")
    return Table("Slopes: 1 is in proportion, 0 does not grow", header, tuple(rows))


def tables(found: Found, lines: tuple[Line, ...], racers: list[str]) -> Iterator[Table]:
    slopes = _slopes(found, lines, racers)
    if slopes.rows:  # there are two points at least
        yield slopes
    for line in lines:
        for action in line.actions:
            yield _times(found, line, action, racers)


def markdown(found: Found, parts: list[Table]) -> str:
    lines = ["# Growth: many tensors, many bytes\n", *(f"- {key}: {value}" for key, value in found.setting.items()), ""]
    lines += [part.markdown() for part in parts]
    lines += [f"- **{absence.contender}** {absence.reason}" for absence in found.absences]
    return "\n".join(lines).rstrip() + "\n"


def draw(found: Found, lines: tuple[Line, ...], racers: list[str], path: Path) -> None:
    """A row of panels for each line, one for each action: time on logarithmic axes, the slope in the legend."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    columns = max(len(line.actions) for line in lines)
    figure, panels = pyplot.subplots(len(lines), columns, figsize=(5 * columns, 3.8 * len(lines)), squeeze=False)
    for row, line in zip(panels, lines, strict=True):
        for panel in row[len(line.actions) :]:
            panel.set_visible(False)
        for panel, action in zip(row, line.actions, strict=False):
            for racer in (*racers, *line.beside):
                points = _points(found, line, action, racer)
                if points:
                    power = slope(points)
                    label = racer if power is None else f"{racer}, slope {power:.2f}"
                    panel.plot(*zip(*points, strict=True), marker="o", markersize=4, label=label)
            panel.set(xscale="log", yscale="log", xlabel=line.unit, ylabel="seconds")
            panel.set_title(f"{line.title}: {TITLES[action]}", fontsize=9, loc="left")
            panel.legend(fontsize=7)
            panel.grid(alpha=0.3)
            panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
