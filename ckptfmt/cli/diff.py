"""`ckptfmt diff`: what differs between two checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from ..conversion.comparison import Change, DiffReport
from ..conversion.comparison import diff as diff_checkpoints
from . import DIFFERENT, options
from .console import console, print_json
from .json_form import JsonEncoder
from .text import count, visible

LOSSES = 12  # most shown of what is not compared


@click.command(
    epilog="""\b
Examples:
  ckptfmt diff before.ckpt after.ckpt
  ckptfmt diff model.ckpt model.safetensors
  ckptfmt diff --json a.ckpt b.ckpt | jq '.changed[] | select(.max_relative > 1e-3).path'

The object of --json has: a, b, equal, added, removed, renamed (pairs), metadata (whether it differs), same (leaves
that do not differ), and changed and metadata_changes, lists of objects with path, kind, before, after, elements,
different, max_difference, max_relative, nan (how many elements differ and are NaN on either side; the others are
measured), norm (l2, of what was before) and moved (l2, of the differences); and not_compared, what reading either
leaves out (kind, path, message), which does not count.

Exit codes: 0 equal, 3 different, 1 damaged, 2 anything else.
""",
)
@click.argument("source", type=click.Path())
@click.argument("target", type=click.Path())
@options.source_format("--from", "source_format", "SOURCE", "--from-a")
@options.source_format("--to", "target_format", "TARGET", "--from-b")
@options.max_expansion("SOURCE and TARGET")
@options.dequantize("SOURCE or TARGET")
@options.base
@options.follow_links
@click.option("--quiet", "-q", is_flag=True, help="No report: the exit code says it.")
@options.as_json
def diff(
    source: str,
    target: str,
    quiet: bool,
    as_json: bool,
    **more: Any,
) -> int:
    """Compare the checkpoints at SOURCE and TARGET leaf by leaf: added, removed, renamed and changed ones."""
    report = diff_checkpoints(source, target, **more)
    if as_json:
        print_json(JsonEncoder().value(_document(report)))
    elif not quiet:
        _show(report)
    return 0 if report.equal else DIFFERENT


def _document(report: DiffReport) -> dict[str, object]:
    return {
        "a": report.source,
        "b": report.target,
        "added": list(report.added),
        "removed": list(report.removed),
        "renamed": [list(pair) for pair in report.renamed],
        "changed": [dataclasses.asdict(change) for change in report.changed],
        "metadata": report.metadata,
        "metadata_changes": [dataclasses.asdict(change) for change in report.metadata_changes],
        "same": report.same,
        "not_compared": [loss._asdict() for loss in report.not_compared],
        "equal": report.equal,
    }


def _show(report: DiffReport) -> None:
    out = console()
    _show_differences(out, report)
    for loss in report.not_compared[:LOSSES]:
        out.print(f"not compared: {visible(str(loss))}")
    if len(report.not_compared) > LOSSES:
        out.print(f"and {len(report.not_compared) - LOSSES:,} more that are not compared")


def _show_differences(out: Console, report: DiffReport) -> None:
    if report.equal:
        out.print(f"equal: {count(report.same, 'value')}")
        return
    for sign, style, text in _lines(report):
        out.print(Text.assemble((sign, style), f" {visible(text)}"))
    out.print(f"{count(report.same, 'value')} equal")


def _lines(report: DiffReport) -> Iterator[tuple[str, str, str]]:
    yield from (("-", "red", path) for path in report.removed)
    yield from (("+", "green", path) for path in report.added)
    yield from (("=", "cyan", f"{old} -> {new}") for old, new in report.renamed)
    yield from (
        ("~", "yellow", f"{change.path}{': ' * bool(change.path)}{_words(change)}") for change in report.changed
    )
    yield from (
        ("~", "yellow", f"metadata{' ' * bool(change.path)}{change.path}: {_words(change)}")
        for change in report.metadata_changes
    )


def _words(change: Change) -> str:
    if change.kind in ("added", "removed"):  # of metadata
        return f"{change.kind} {change.after if change.before is None else change.before}"
    words = change.kind if change.before is None else f"{change.kind} {change.before} -> {change.after}"
    if change.different is not None:
        words += f", {change.different:,} of {count(change.elements or 0, 'element')} differ"
    if change.nan:
        words += f", of which {change.nan:,} NaN on either side"
    if change.max_difference is not None and (change.nan < (change.different or 0) or not change.nan):
        rest = "the others " if change.nan else ""
        words += f", {rest}by at most {change.max_difference:.6g}, relative {change.max_relative:.6g}"
    return words
