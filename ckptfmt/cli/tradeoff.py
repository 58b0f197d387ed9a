"""A plan as a picture: steps against snapshots."""

from __future__ import annotations

import click

from ..packages import install
from ..recompute import RecomputePlan

RUNS = (1, 2, 3, 5, 10, 20, 50, 100)  # times that each step is done, as ticks


def write_tradeoff(path: str, plan: RecomputePlan) -> None:
    """The fewest steps with ever more snapshots as a line, and schedules as points. Replaces the file."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise click.UsageError(f"--plot requires matplotlib: {install('matplotlib')}") from error
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    counts = [count for count, _ in plan.curve]
    axes.plot(counts, [steps / plan.steps for _, steps in plan.curve], color="0.6", label="the fewest with one tier")
    for one in plan.schedules:
        if not one.why_not:
            held = one.memory_snapshots + one.disk_snapshots
            label = f"{one.schedule}: {one.disk_writes:,} written, time {one.time:,.4g}"
            axes.plot([held], [one.factor], marker="o", linestyle="none", label=label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_yticks(RUNS, [f"{count} ×" for count in RUNS])
    axes.minorticks_off()
    axes.set_xlabel("snapshots at a time, in memory and on the disk")
    axes.set_ylabel("times that each step is done")
    axes.set_title(f"{plan.steps:,} steps, {plan.memory:,} snapshots in memory")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, format="png", dpi=120)
