"""`ckptfmt prune`: the checkpoints of a folder that nobody wants to keep, and their removal."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from typing import Any

import click
from rich.text import Text

from .. import PruneReport
from .. import prune as prune_folder
from ..manager.policies import Best, Every, EveryTime, Last, Policy, Where
from ..manager.pruning import Pruned
from ..near import did_you_mean
from . import durations, options
from .console import console, print_json
from .json_form import JsonEncoder
from .table import print_table
from .text import count, metrics, size, time, visible

COLUMNS = {"": "", "name": "bold", "step": "bold", "time": "", "size": "green", "metrics": "yellow", "why": "dim"}
RIGHT = ("step", "size")
_BEST = re.compile(r"(?P<metric>.+?)(:(?P<mode>min|max))?(:(?P<n>[0-9]{1,9}))?").fullmatch


@click.command(
    epilog="""\b
Examples:
  ckptfmt prune checkpoints --keep-last 3
  ckptfmt prune checkpoints --keep-last 3 --keep-best loss --keep-best accuracy:max:2
  ckptfmt prune checkpoints --keep-last 1 --keep-every 1000 --keep-each 1d --keep 'final*'
  ckptfmt prune checkpoints --keep-last 3 --keep-best loss --delete

Without --delete nothing is removed. One rule is enough to keep a checkpoint, and the newest is always kept. Steps and
metrics are those that `ckptfmt ls` shows. What is no checkpoint of this format is never touched; nor is one that is
damaged, has no step, is the target of a link in FOLDER, or is read or saved now. Folders below are not looked into.

The object of --json has: path, deleted (bool), bytes (of what goes), freed (of these
what no other checkpoint has), and found and kept, lists of objects with path,
step, time (seconds since the epoch), bytes, metrics, why it stays or goes, and removed.

Exit codes: 0 fine, 2 anything else.
""",
)
@click.argument("folder", type=click.Path())
@click.option("--keep-last", type=click.IntRange(min=1), metavar="N", help="Keep the last N.")
@click.option(
    "--keep-best",
    multiple=True,
    metavar="METRIC[:max][:N]",
    help="Keep the best (N) by a metric: the least, or with :max the greatest; may be given several times.",
)
@click.option("--keep-every", type=click.IntRange(min=1), metavar="K", help="Keep steps that are multiples of K.")
@click.option("--keep-each", metavar="DURATION", help="Keep one for each 6h, 1d …")
@click.option("--keep", "names", multiple=True, metavar="GLOB", help="Keep these names; may be given several times.")
@click.option("--delete", is_flag=True, help="Remove what is not kept.")
@options.as_json
def prune(folder: str, delete: bool, as_json: bool, **rules: Any) -> int:
    """Find the checkpoints in FOLDER that no rule keeps, and remove them with --delete."""
    policies = list(_policies(**rules))
    if not policies:
        raise click.UsageError("say what is to be kept: --keep-last 3, --keep-best loss, …")
    report = prune_folder(folder, policies)
    _check_metrics(report, policies)
    if delete:
        report = prune_folder(folder, policies, delete=True)
    if as_json:
        print_json(_document(report, delete))
    else:
        _show(report, delete)
    return 0


def _policies(
    keep_last: int | None,
    keep_best: tuple[str, ...],
    keep_every: int | None,
    keep_each: str | None,
    names: tuple[str, ...],
) -> Iterable[Policy]:
    if keep_last is not None:
        yield Last(keep_last)
    yield from map(_best, keep_best)
    if keep_every is not None:
        yield Every(keep_every)
    if keep_each is not None:
        yield EveryTime(durations.parsed(keep_each))
    yield from (Where(_is_called(glob), f"called {glob}") for glob in names)


def _best(text: str) -> Best:
    found = _BEST(text)
    if found is None:
        raise click.BadParameter(f"--keep-best: {text!r} is not like loss, accuracy:max or loss:min:3")
    return Best(found["metric"], int(found["n"] or 1), found["mode"] or "min")  # type: ignore[arg-type]


def _is_called(glob: str) -> Callable[[Any], bool]:
    return lambda step: fnmatch(os.path.basename(step.path), glob)


def _check_metrics(report: PruneReport, policies: Iterable[Policy]) -> None:
    """Refuse a metric that no checkpoint has, which would keep them all."""
    known = dict.fromkeys(name for one in (*report.found, *report.kept) for name in one.metrics)
    for policy in policies:
        if isinstance(policy, Best) and policy.metric not in known:
            others = f"; there are {', '.join(known)}" if known else "; they have none"
            hint = did_you_mean(policy.metric, known) or others
            raise click.UsageError(f"--keep-best: no checkpoint here has the metric {policy.metric!r}{hint}")


def _document(report: PruneReport, delete: bool) -> dict[str, Any]:
    encode = JsonEncoder().value

    def rows(found: Iterable[Pruned]) -> list[dict[str, Any]]:
        keys = ("path", "step", "time", "bytes", "metrics", "why", "removed")
        return [{key: encode(getattr(one, key)) for key in keys} for one in found]

    head = {"path": report.path, "deleted": delete, "bytes": report.bytes, "freed": report.freed}
    return {**head, "found": rows(report.found), "kept": rows(report.kept)}


def _show(report: PruneReport, delete: bool) -> None:
    out = console()
    goes = "removed" if delete else "goes"
    lines = [_cells(one, goes) for one in report.found] + [_cells(one, "stays") for one in report.kept]
    shown = [name for name in COLUMNS if any(line[name] for line in lines)]
    styles = {"stays": "green", "goes": "yellow", "removed": "red"}
    if lines:
        print_table(out, shown, lines, RIGHT, lambda name, line: COLUMNS[name] if name else styles[line[""]])
    of = f"{len(report.found):,} of {count(len(lines), 'checkpoint')}"
    done = "removed" if delete else "can be removed with --delete"
    out.print(Text(f"{visible(report.path)}: {of}, {size(report.freed)}, {done}", "bold"))


def _cells(one: Pruned, state: str) -> dict[str, str]:
    return {
        "": state,
        "name": visible(os.path.basename(one.path)),
        "step": "" if one.step is None else str(one.step),
        "time": time(one.time),
        "size": size(one.bytes),
        "metrics": metrics(one.metrics),
        "why": visible(one.why),
    }
