"""The picture of a run: for each operation, speed beside the baseline."""

from __future__ import annotations

from math import ceil
from pathlib import Path

from benchmarks.contenders import BY_NAME
from benchmarks.operations import BASELINE, LIMITS, OPERATIONS, OURS
from benchmarks.results import Results

COLUMNS = 3
COLOURS = {"own": "#c2410c", "variant": "#fdba74", "baseline": "#1e3a8a", "peer": "#94a3b8", "limit": "#16a34a"}


def _colour(name: str) -> str:
    if name.startswith(OURS):
        return COLOURS["own" if name == OURS else "variant"]
    return COLOURS[{BASELINE: "baseline", LIMITS: "limit"}.get(BY_NAME[name].library, "peer")]


def draw(results: Results, path: Path) -> None:
    """One panel an operation: bars of the median ratio on a logarithmic axis, whiskers from least to greatest."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    measured = [operation for operation in OPERATIONS if results.ratio(operation.name, OURS)]
    rows = ceil(len(measured) / COLUMNS)
    figure, panels = pyplot.subplots(rows, COLUMNS, figsize=(6 * COLUMNS, 4.6 * rows), squeeze=False)
    for panel, operation in zip(panels.flat, measured, strict=False):
        ratios = [(name, results.ratio(operation.name, name)) for name in results.contenders(operation.name)]
        for name, ratio in reversed(ratios):
            if ratio is None:
                continue
            whisker = [[ratio.median - ratio.least], [ratio.greatest - ratio.median]]
            panel.barh(name, ratio.median, xerr=whisker, color=_colour(name), ecolor="#475569", height=0.7)
            place = {"xytext": (4, 0), "textcoords": "offset points", "va": "center", "fontsize": 8}
            panel.annotate(f"{ratio.median:.2f}", (ratio.greatest, name), **place)
        panel.axvline(1, color=COLOURS["baseline"], linewidth=1)
        panel.set_xscale("log", subs=[2, 5])
        for formatter in (panel.xaxis.set_major_formatter, panel.xaxis.set_minor_formatter):
            formatter(ticker.FormatStrFormatter("%g"))
        panel.margins(x=0.15)
        panel.set_title(operation.title, fontsize=10, loc="left")
        panel.tick_params(which="both", labelsize=8)
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels.flat[len(measured) :]:
        panel.set_visible(False)
    figure.suptitle(
        f"Speed beside the fastest face of {BASELINE} (1 = as fast, to the right is faster)", x=0.01, ha="left"
    )
    figure.tight_layout(rect=(0, 0, 1, 0.98))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
