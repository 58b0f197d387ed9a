"""`ckptfmt gc`: what saves and deletions that died have left, and its removal."""

from __future__ import annotations

import dataclasses
from typing import Any

import click
from rich.text import Text

from .. import Garbage, GarbageReport
from .. import gc as collect
from . import durations, options
from .console import console, print_json
from .text import count, size, visible


def _seconds(context: click.Context, parameter: click.Parameter, value: str) -> float:
    return durations.parsed(value)


@click.command(
    epilog="""\b
Examples:
  ckptfmt gc runs/7
  ckptfmt gc --delete --grace 2h runs/7
  ckptfmt gc --recursive --json runs | jq '[.found[].bytes] | add'

Without --delete nothing is removed. What a living process writes stays, with --grace 0, too, and whatever the clock
says; so does what has changed within the grace period, and checkpoints and all other files, always. Replicas in memory
are none of these: of FOLDER /dev/shm/ckptfmt-UID goes what no manager uses.

The object of --json has: path, deleted (bool), bytes, and found and kept, lists of objects with path, what, bytes,
age (seconds), removed, and why it stays.

Exit codes: 0 fine, 2 anything else.
""",
)
@click.argument("folder", type=click.Path())
@click.option("--delete", is_flag=True, help="Remove what is found.")
@click.option("--grace", default="24h", show_default=True, callback=_seconds, help="For how long it must be unchanged.")
@options.recursive
@options.as_json
def gc(folder: str, delete: bool, as_json: bool, **more: Any) -> int:
    """Find what saves and deletions that died have left in FOLDER, and remove it with --delete."""
    report = collect(folder, delete=delete, **more)
    if as_json:
        print_json({**dataclasses.asdict(report), "deleted": delete, "bytes": report.bytes})
    else:
        _show(report, delete)
    return 0


def _show(report: GarbageReport, delete: bool) -> None:
    out = console()
    for garbage in (*report.found, *report.kept):
        state = ("removed", "green") if garbage.removed else ("kept", "yellow") if garbage.why else ("found", "bold")
        out.print(Text.assemble(state, f" {visible(_line(garbage))}"))
    done = "removed" if delete else "can be removed with --delete"
    out.print(f"{visible(report.path)}: {count(len(report.found), 'leftover')}, {size(report.bytes)} {done}")


def _line(garbage: Garbage) -> str:
    why = f"; {garbage.why}" if garbage.why else ""
    return f"{garbage.path}: {garbage.what}, {size(garbage.bytes)}, unchanged for {durations.words(garbage.age)}{why}"
