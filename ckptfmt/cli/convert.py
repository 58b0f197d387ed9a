"""`ckptfmt convert`: a checkpoint of one format as another."""

from __future__ import annotations

import dataclasses
from typing import Any

import click
from rich.text import Text

from ..conversion import FORMATS, ConvertReport
from ..conversion import convert as convert_checkpoint
from ..layouts import LAYOUTS
from .bar import progress_bar
from .console import console, print_json
from .text import count, size, visible

LOSSES = 12  # most losses shown


@click.command(
    short_help="Convert a checkpoint from, or to, another format.",
    epilog="""\b
Examples:
  ckptfmt convert model.safetensors model.ckpt
  ckptfmt convert --nest model.safetensors model.ckpt     # "a.b" becomes {"a": {"b": ...}}
  ckptfmt convert model.ckpt model.safetensors
  ckptfmt convert run/step_1000 model.ckpt                # Orbax and torch DCP directories
  ckptfmt convert --layout loose model.pt model           # plain Zarr under model/tensors
  ckptfmt convert --formats

What the target cannot hold is named, and nothing is written, unless --allow-loss is given. Every tensor is read back
and compared. No code of the source is ever run.

The object of --json has: source, target, source_format, target_format, tensors, bytes, verified, and losses, a list
of objects with kind, path and message.

Exit codes: 0 converted, 1 the source is damaged, 2 anything else.
""",
)
@click.argument("source", required=False)
@click.argument("target", required=False)
@click.option("--from", "source_format", metavar="FORMAT", help="What SOURCE is, where its bytes leave doubt.")
@click.option("--to", "target_format", metavar="FORMAT", help="What TARGET shall be [default: by its suffix].")
@click.option("--formats", is_flag=True, help="List the formats.")
@click.option("--nest", is_flag=True, help="Split flat names at each period into nested dicts.")
@click.option("--layout", type=click.Choice(LAYOUTS), help="Layout of a ckptfmt TARGET.")
@click.option("--compression", type=click.Choice(["zstd", "gzip", "blosc"]), help="Of a ckptfmt TARGET.")
@click.option("--allow-loss", is_flag=True, help="Convert although something cannot be kept.")
@click.option("--overwrite", "-f", is_flag=True, help="Replace TARGET if it exists.")
@click.option("--no-verify", is_flag=True, help="Do not read TARGET back.")
@click.option("--max-expansion", type=int, help="How many times larger than SOURCE its tensors may be.")
@click.option("--quiet", "-q", is_flag=True, help="No report and no progress.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
def convert(
    source: str | None,
    target: str | None,
    formats: bool,
    no_verify: bool,
    quiet: bool,
    as_json: bool,
    layout: str | None,
    compression: str | None,
    max_expansion: int | None,
    **options: Any,
) -> None:
    """Convert the checkpoint at SOURCE, of any format that is known, to TARGET."""
    if formats:
        _show_formats(as_json)
        return
    if source is None or target is None:
        raise click.UsageError("SOURCE and TARGET are needed")
    chosen = {"layout": layout, "compression": compression, "max_expansion": max_expansion}
    options |= {name: value for name, value in chosen.items() if value is not None}
    with progress_bar("convert", quiet) as progress:
        report = convert_checkpoint(source, target, verify=not no_verify, progress=progress, **options)
    if as_json:
        losses = [loss._asdict() for loss in report.losses]
        print_json({**dataclasses.asdict(report), "losses": losses})
    elif not quiet:
        _show(report)


def _show(report: ConvertReport) -> None:
    out = console()
    checked = ", every one compared" if report.verified else ""
    extent = f"{count(report.tensors, 'tensor')}, {size(report.bytes)}{checked}"
    head = f"{visible(report.target)}: {report.target_format} from {report.source_format}: {extent}"
    out.print(Text(head))
    for loss in report.losses[:LOSSES]:
        out.print(Text.assemble("  ", (loss.kind, "yellow"), f" of {visible(loss.path)!r}: {visible(loss.message)}"))
    if len(report.losses) > LOSSES:
        out.print(f"  and {count(len(report.losses) - LOSSES, 'more loss')}")


def _show_formats(as_json: bool) -> None:
    rows = [
        {
            "name": format.name,
            "title": format.title,
            "suffixes": list(format.suffixes),
            "writable": format.writable,
            "extra": format.extra,
        }
        for format in FORMATS.values()
    ]
    if as_json:
        print_json({"formats": rows})
        return
    width = max(len(format.name) for format in FORMATS.values())
    for format in FORMATS.values():
        notes = ["read and written" if format.writable else "read only"]
        notes += [f"pip install 'ckptfmt[{format.extra}]'"] if format.extra else []
        console().print(f"{format.name:<{width}}  {format.title} ({'; '.join(notes)})")
