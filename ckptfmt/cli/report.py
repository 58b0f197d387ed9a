"""`ckptfmt report`: a page about a checkpoint, about two, or about a run."""

from __future__ import annotations

import sys
from typing import Any

import click
from rich.text import Text

from .. import report as report_of
from . import options
from .console import console, print_json
from .text import count, size, visible

ONE = {"checkpoint": "tensor", "run": "checkpoint"}  # of what a kind of page tells that it is damaged


@click.command(
    epilog="""\b
Examples:
  ckptfmt report model.ckpt -o report.html
  ckptfmt report model.safetensors -o report.html --spectrum '**.q_proj.weight'
  ckptfmt report before.ckpt after.ckpt -o changes.html
  ckptfmt report runs/7 -o run.html

The page is one file that asks for nothing from elsewhere. Of a checkpoint, everything is read once, and verified; what
is damaged is told, and the rest is shown. Of a run, manifests alone are read, and history.jsonl, if its manager writes
one. `-o -` writes to standard output.

The object of --json has: path, other (or null), output, kind ("checkpoint", "comparison" or "run"), bytes (of the page)
and damaged (how many tensors, or checkpoints of a run, could not be read).

Exit codes: 0 written, whatever is damaged in it, 1 the checkpoint is damaged as a whole, 2 anything else.
""",
)
@click.argument("source", metavar="PATH", type=click.Path())
@click.argument("target", metavar="[OTHER]", required=False, type=click.Path())
@click.option("--output", "-o", required=True, metavar="FILE.html", type=click.Path(), help="The page; it is replaced.")
@options.select
@click.option("--spectrum", multiple=True, metavar="GLOB", help="Show the singular values of these matrices.")
@options.source_format("--from", "source_format", "PATH")
@options.source_format("--to", "target_format", "OTHER")
@options.max_expansion("PATH")
@options.dequantize("PATH")
@options.base
@options.follow_links
@options.quiet
@options.as_json
def report(
    source: str,
    target: str | None,
    output: str,
    select: tuple[str, ...],
    spectrum: tuple[str, ...],
    quiet: bool,
    as_json: bool,
    **more: Any,
) -> int:
    """Write a page about the checkpoint at PATH, about what differs between PATH and OTHER, or about the run in the
    folder PATH. Checkpoints may be of any format that `ckptfmt convert` reads.
    """
    if output == "-" and as_json:
        raise click.UsageError("-o - and --json both write to standard output")
    page = report_of(source, target, select=select or None, spectrum=spectrum or None, **more)
    if output == "-":
        sys.stdout.write(page.html)
        return 0
    page.save(output)
    written = len(page.html.encode())
    if as_json:
        head = {"path": source, "other": target, "output": output}
        print_json({**head, "kind": page.kind, "bytes": written, "damaged": page.damaged})
    elif not quiet:
        damaged = f", {count(page.damaged, 'damaged ' + ONE[page.kind])} told in it" if page.damaged else ""
        console().print(Text(f"{visible(output)}: {size(written)}{damaged}"))
    return 0
