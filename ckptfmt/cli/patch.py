"""`ckptfmt patch`: what makes one checkpoint of another, as a third."""

from __future__ import annotations

import dataclasses
from typing import Any

import click

from .. import PatchReport
from .. import patch as make_patch
from ..patching.making import COMPRESSION
from . import options
from .bar import shown_progress
from .console import console, print_json
from .text import count, size, visible

level = click.option(
    "--level",
    type=click.IntRange(1, 9),
    default=COMPRESSION["clevel"],
    show_default=True,
    help="How hard to compress: 1 is several times as fast as 5, and up to a fifth larger.",
)


@click.command(
    epilog="""\b
Examples:
  ckptfmt patch base.ckpt tuned.ckpt tuned.patch.ckpt
  ckptfmt patch --level 1 step-1.ckpt step-2.ckpt update.ckpt
  ckptfmt patch --base runs/7 step-2.patch.ckpt step-3.ckpt step-3.patch.ckpt   # of a patch, which has a base itself

What OUT is made of is BASE and nothing else: its manifest's sha256 is in it. `ckptfmt apply` writes the result out.

The object of --json has: path, bytes, tensors, manifest_sha256, base, result (the sha256 of their manifests), ratio,
and same, xor and whole, objects with tensors, bytes and stored (bytes in the patch).

Exit codes: 0 fine, 1 a checkpoint is damaged, 2 anything else.
""",
)
@click.argument("old", metavar="BASE", type=click.Path())
@click.argument("new", type=click.Path())
@click.argument("out", type=click.Path())
@level
@click.option("--base", "bases", multiple=True, metavar="PATH", type=click.Path(), help="Where BASE's own base is.")
@click.option("--no-verify", "verify", is_flag=True, flag_value=False, default=True, help="Trust equal digests.")
@options.overwrite("Replace OUT if it exists.")
@options.follow_links
@options.quiet
@options.as_json
def patch(
    old: str, new: str, out: str, level: int, bases: tuple[str, ...], quiet: bool, as_json: bool, **more: Any
) -> None:
    """Write to OUT what makes the checkpoint NEW of the checkpoint BASE: the tensors that differ, and how."""
    with shown_progress("patch", quiet=quiet or as_json) as progress:
        report = make_patch(
            old, new, out, bases=list(bases) or None, compression=at_level(level), progress=progress, **more
        )
    tell(report, quiet=quiet, as_json=as_json)


def at_level(level: int) -> dict[str, Any]:
    """What compresses a patch."""
    return {**COMPRESSION, "clevel": level}


def tell(report: PatchReport, *, quiet: bool, as_json: bool) -> None:
    """Say what was written."""
    if as_json:
        print_json({**dataclasses.asdict(report), "ratio": report.ratio, **_forms(report)})
    elif not quiet:
        forms = [
            f"{form.tensors} {name}" for name in ("same", "xor", "whole") if (form := getattr(report, name)).tensors
        ]
        total = sum(form.bytes for form in (report.same, report.xor, report.whole))
        text = f"{count(report.tensors, 'tensor')} of {size(total)} in {size(report.bytes)} ({report.ratio:.1%})"
        console().print(visible(f"{report.path}: {text}: {', '.join(forms) or 'none'}"))


def _forms(report: PatchReport) -> dict[str, Any]:
    return {name: getattr(report, name)._asdict() for name in ("same", "xor", "whole")}
