"""`ckptfmt recompute plan`: what schedules of gradient checkpointing take."""

from __future__ import annotations

import dataclasses
import importlib
import os
import sys
from typing import Any

import click
from rich.text import Text

from ..recompute import Costs, PlannedSchedule, RecomputePlan, measure, plan
from ..recompute.states import bytes_of
from . import options
from .console import console, print_json
from .table import print_table
from .text import size, visible
from .tradeoff import write_tradeoff

RIGHT = ("steps", "factor", "memory", "disk", "written", "read", "time")
COLUMNS = ("schedule", *RIGHT)


def _budget(context: click.Context, parameter: click.Parameter, value: str | None) -> int | str | None:
    return int(value) if value is not None and value.isdecimal() else value


def _cost(name: str, default: float, what: str) -> options.Decorator:
    help = f"What {what} takes, in seconds or any other unit."
    return click.option(
        f"--{name}-cost", name, type=click.FloatRange(min=0), default=default, show_default=True, help=help
    )


@click.command(
    epilog="""\b
Examples:
  ckptfmt recompute plan --steps 10000 --memory 20
  ckptfmt recompute plan --steps 10000 --memory 20 --disk 200 --write-cost 5 --read-cost 3
  ckptfmt recompute plan --steps 500 --memory 1GiB --disk unlimited --snapshot-bytes 67108864
  ckptfmt recompute plan --steps 500 --memory 10 --disk 50 --measure model:parts --plot plan.png

A budget is a number of snapshots, the initial state among them, bytes such as 512MiB, or unlimited. --measure calls a
function of a module of yours, which is found as Python finds it, from this folder too: it gives what
`ckptfmt.recompute.measure` takes, (step, adjoint, state, seed). Costs and --snapshot-bytes are those of your step then.

The object of --json has: steps, memory, disk (in snapshots), snapshot_bytes, costs, curve (pairs of snapshots and the
fewest steps with so many), and schedules, the fastest first, a list of objects with schedule, does, forward_steps,
factor (of steps), memory_snapshots and disk_snapshots (the most at a time), disk_writes, disk_reads, time, and why_not,
which says why it cannot be had.

Exit codes: 0 fine, 2 anything else.
""",
)
@click.argument("action", metavar="plan", type=click.Choice(("plan",)))
@click.option("--steps", type=click.IntRange(min=1), required=True, metavar="N", help="Steps there and back.")
@click.option("--memory", callback=_budget, metavar="BUDGET", help="Snapshots in memory.")
@click.option("--disk", callback=_budget, metavar="BUDGET", help="Snapshots on the disk.")
@_cost("forward", 1.0, "a step")
@_cost("adjoint", 1.0, "an adjoint step")
@_cost("write", 2.0, "writing a snapshot to the disk")
@_cost("read", 2.0, "reading one")
@click.option("--snapshot-bytes", type=click.IntRange(min=1), metavar="BYTES", help="Size of a snapshot.")
@click.option(
    "--period", type=click.IntRange(min=1), metavar="K", help="Of two-level: a snapshot on the disk each K steps."
)
@click.option("--schedule", metavar="NAME", help="This one alone, however long its table takes to compute.")
@click.option("--measure", "measured", metavar="MODULE:FUNCTION", help="Measure a program of yours for the costs.")
@click.option(
    "--folder", type=click.Path(), default=".", show_default=True, help="With --measure: the disk that is meant."
)
@click.option("--plot", type=click.Path(), metavar="FILE.png", help="Draw steps against snapshots.")
@options.as_json
def recompute(
    action: str,
    forward: float,
    adjoint: float,
    write: float,
    read: float,
    measured: str | None,
    folder: str,
    plot: str | None,
    as_json: bool,
    **more: Any,
) -> int:
    """Plan the gradient of a computation of many steps: what each schedule takes, the fastest first.

    docs/recompute.md says what the schedules are; the library checkpoint_schedules has them.
    """
    costs = Costs(forward, adjoint, write, read)
    if measured is not None:
        costs, more["snapshot_bytes"] = _measured(measured, folder)
    more["snapshot_bytes"] = more["snapshot_bytes"] or 0
    found = plan(costs=costs, **more)
    if plot is not None:
        write_tradeoff(plot, found)
    if as_json:
        print_json(_document(found))
    else:
        _show(found)
    return 0


def _measured(name: str, folder: str) -> tuple[Costs, int]:
    """The costs of a program, and the size of its state."""
    module, _, function = name.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        parts = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise click.BadParameter(f"--measure: there is no {visible(name)}: {error}") from error
    finally:
        sys.path.pop(0)
    step, adjoint, state, seed = parts()
    return measure(step, adjoint, state, seed, folder=folder), bytes_of(state)


def _document(found: RecomputePlan) -> dict[str, Any]:
    return dataclasses.asdict(found)


def _show(found: RecomputePlan) -> None:
    out = console()
    possible = [one for one in found.schedules if not one.why_not]
    lines = [_cells(one, found.snapshot_bytes) for one in possible]
    if lines:
        first = lines[0]["schedule"]
        print_table(out, COLUMNS, lines, RIGHT, lambda name, line: "bold" if line["schedule"] == first else "")
    for one in found.schedules:
        if one.why_not:
            out.print(Text(f"{one.schedule}: {visible(one.why_not)}", "dim"))
    costs = found.costs
    told = f"a step {costs.forward:.3g}, an adjoint step {costs.adjoint:.3g}"
    out.print(f"{found.steps:,} steps; {told}, a snapshot written {costs.write:.3g}, and read {costs.read:.3g}")


def _cells(one: PlannedSchedule, snapshot_bytes: int) -> dict[str, str]:
    def held(count: int) -> str:
        return f"{count:,}" + (f" ({size(count * snapshot_bytes)})" if snapshot_bytes and count else "")

    return {
        "schedule": one.schedule,
        "steps": f"{one.forward_steps:,}",
        "factor": f"{one.factor:.2f}",
        "memory": held(one.memory_snapshots),
        "disk": held(one.disk_snapshots),
        "written": f"{one.disk_writes:,}",
        "read": f"{one.disk_reads:,}",
        "time": f"{one.time:,.4g}",
    }
