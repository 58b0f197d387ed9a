"""`ckptfmt ls`: the checkpoints of a run, or of any folder."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import click
from rich.text import Text

from ..maintenance.candidates import check_folder
from ..maintenance.usage import DiskUsage, usage_of
from ..manager.listing import CheckpointRow, by_step, listed, natural, on_disk
from ..near import did_you_mean
from ..storage import is_url
from . import chart, options
from .console import console, print_json
from .json_form import JsonEncoder
from .table import print_table
from .text import count, metrics, size, time, visible

COLUMNS = {"name": "bold", "format": "cyan", "step": "bold", "time": "", "size": "green", "own": "green",
           "shared": "green", "patch of": "cyan", "metrics": "yellow",
           "kept because": "dim"}  # fmt: skip
RIGHT = ("step", "size", "own", "shared")  # columns of numbers
ALWAYS = ("name", "time", "size")
KEYS = ("step", "name", "time", "size")  # that rows are sorted by, beside metrics


@click.command(
    epilog="""\b
Examples:
  ckptfmt ls runs/7
  ckptfmt ls checkpoints --sort loss                      # the least loss first
  ckptfmt ls checkpoints --sort accuracy --reverse
  ckptfmt ls -r runs
  ckptfmt ls runs/7 --plot
  ckptfmt ls runs/7 --usage                               # what deleting each would free
  ckptfmt ls runs/7 --json | jq -r '.steps[-1].path'

Listed is every checkpoint of this format, those of other formats that are known by their first bytes, and what is named
like a checkpoint and is none, or cannot be read. Steps and metrics are those that a manager stored, else the numbers in
the metadata (step, global_step, iteration or epoch, and the others), else a step is what the name says:
epoch_012.ckpt. Why a step is kept is what its manager wrote down when it last deleted something; nothing is known of
later steps.

Below the table of a run a terminal shows one metric over the steps: the one of --sort, else the first.

The object of --json has: path, and steps, a list of objects with name, format, step (or null), path, time (seconds
since the epoch), size (bytes), metrics, error (the code of what is wrong with it, or null) and reasons. Of what cannot
be read time and size may be null. manifest_sha256 is what identifies a checkpoint (null of other formats); base, of a
patch alone, that of its base. With --usage each has own, the bytes that deleting it alone frees, and shared, those that
other checkpoints have, too (null of what is on no disk), and on_disk are the bytes of all, each file once.

Exit codes: 0 listed, whatever is damaged in it, 2 anything else.
""",
)
@click.argument("path", metavar="DIR", type=click.Path())
@click.option("--sort", metavar="KEY", default="step", help="By name, step, time, size or a metric [default: step].")
@click.option("--reverse", is_flag=True, help="The last first.")
@options.recursive
@click.option("--prefix", metavar="TEXT", help="The prefix of the names in a run of flax.")
@click.option("--plot", is_flag=True, help="Also draw the metrics over the steps, as lines of blocks.")
@click.option(
    "--png",
    metavar="FILE.png",
    type=click.Path(),
    help="Draw the metrics over the steps into a file; it is replaced.",
)
@click.option("--usage", is_flag=True, help="Also what of each is its own, and what it shares with others.")
@options.as_json
def ls(
    path: str,
    sort: str,
    reverse: bool,
    recursive: bool,
    prefix: str | None,
    plot: bool,
    png: str | None,
    usage: bool,
    as_json: bool,
) -> None:
    """List the checkpoints in the folder DIR, of a run or any other, by step, and what is damaged among them.

    Reads manifests only, however large the tensors are.
    """
    check_folder(path)
    rows = _sorted(listed(path, prefix=prefix, recursive=recursive), sort, reverse)
    if png is not None:
        chart.write_png(png, _series(rows))
    used = [None if not usage or is_url(row.path) else usage_of([row.path]) for row in rows]
    if as_json:
        steps = [_document(row) | (_used(one) if usage else {}) for row, one in zip(rows, used, strict=True)]
        print_json({"path": path, "steps": steps, **({"on_disk": on_disk(rows)} if usage else {})})
        return
    _show(path, rows, used)
    out = console()
    series = _series(rows) if plot else _one_series(rows, sort) if out.is_terminal else {}
    for line in chart.lines(series, ascii_only=out.options.ascii_only):
        out.print(Text(line))


def _sorted(rows: list[CheckpointRow], key: str, reverse: bool) -> list[CheckpointRow]:
    """Rows by a key, those that lack it last."""
    metrics = dict.fromkeys(name for row in rows for name in row.metrics)
    if rows and key not in KEYS and key not in metrics:
        known = [*KEYS, *metrics]
        hint = did_you_mean(key, known) or f"; there are {', '.join(known)}"
        raise click.UsageError(f"--sort: there is no {key!r} here{hint}")

    def value(row: CheckpointRow) -> Any:
        if key == "name":
            return natural(row.name)
        return getattr(row, key) if key in KEYS else row.metrics.get(key)

    by_name = sorted(rows, key=lambda row: natural(row.name))
    values = [(value(row), row) for row in by_name]
    there = [pair for pair in values if pair[0] is not None and pair[0] == pair[0]]  # NaN has no place in an order
    lacking = [row for found, row in values if found is None or found != found]
    return [row for _, row in sorted(there, key=itemgetter(0), reverse=reverse)] + lacking


def _series(rows: list[CheckpointRow]) -> chart.Series:
    known = [(row.step, row) for row in sorted(rows, key=by_step) if row.step is not None]
    names = dict.fromkeys(name for _, row in known for name in row.metrics)
    return {name: [(step, row.metrics.get(name)) for step, row in known] for name in names}


def _one_series(rows: list[CheckpointRow], sort: str) -> chart.Series:
    """The metric that rows are sorted by, or else the first; none if there are no two steps."""
    series = _series(rows)
    name = sort if sort in series else next(iter(series), None)
    return {} if name is None or len(series[name]) < 2 else {name: series[name]}


def _document(row: CheckpointRow) -> dict[str, Any]:
    return {**row._asdict(), "metrics": JsonEncoder().value(row.metrics), "reasons": list(row.reasons)}


def _used(usage: DiskUsage | None) -> dict[str, int | None]:
    return {"own": None if usage is None else usage.own, "shared": None if usage is None else usage.shared}


def _show(path: str, rows: list[CheckpointRow], used: list[DiskUsage | None]) -> None:
    out = console()
    names = {row.manifest_sha256: row.name for row in rows}
    lines = [_cells(row, usage, names) for row, usage in zip(rows, used, strict=True)]
    shown = [name for name in COLUMNS if name in ALWAYS or any(line[name] for line in lines)]
    if rows:
        print_table(out, shown, lines, RIGHT, lambda name, _: COLUMNS[name])
    total = sum(row.size or 0 for row in rows)
    damaged = sum(row.error is not None for row in rows)
    more = f", {damaged} damaged or not readable" if damaged else ""
    links = on_disk(rows)
    shared = f", {size(links)} on the disk" if links < total else ""
    out.print(Text(f"{visible(path)}: {count(len(rows) - damaged, 'checkpoint')}{more}, {size(total)}{shared}", "bold"))


def _cells(row: CheckpointRow, usage: DiskUsage | None, names: dict[str | None, str]) -> dict[str, str]:
    return {
        "name": visible(row.name),
        "format": "" if row.format in (None, "ckptfmt") else row.format,
        "step": "" if row.step is None else str(row.step),
        "time": time(row.time),
        "size": "" if row.size is None else size(row.size),
        "own": "" if usage is None else size(usage.own),
        "shared": "" if usage is None else size(usage.shared),
        "patch of": "" if row.base is None else visible(names.get(row.base, f"{row.base[:12]}…")),
        "metrics": row.error or metrics(row.metrics),
        "kept because": visible(", ".join(row.reasons)),
    }
