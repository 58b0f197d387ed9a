"""`ckptfmt apply`: what a patch makes of its base, as a checkpoint that needs neither."""

from __future__ import annotations

from typing import Any

import click

from .. import apply as apply_patch
from ..layouts import LAYOUTS
from . import options
from .bar import shown_progress
from .console import console, print_json
from .migrate import saved_document
from .text import count, size, visible


@click.command(
    epilog="""\b
Examples:
  ckptfmt apply base.ckpt tuned.patch.ckpt tuned.ckpt
  ckptfmt apply runs/7 step-9.patch.ckpt step-9.ckpt       # a folder with the base, and with that of the base
  ckptfmt apply --layout loose base.ckpt tuned.patch.ckpt tuned

Written as `ckptfmt.save` does without options, NEW is the very file that the patch was made from, if that was one.

The object of --json has: path, layout, bytes, tensors, manifest_sha256, and identical (whether it is that one; null
where the patch does not say).

Exit codes: 0 fine, 1 a checkpoint is damaged, 2 anything else, such as a base that is another.
""",
)
@click.argument("base", type=click.Path())
@click.argument("patch", type=click.Path())
@click.argument("new", type=click.Path())
@click.option("--layout", type=click.Choice(LAYOUTS), help="Layout of NEW; a file by default.")
@click.option("--verify", is_flag=True, help="Read and verify what is merely copied, too.")
@options.overwrite("Replace NEW if it exists.")
@options.follow_links
@options.quiet
@options.as_json
def apply(base: str, patch: str, new: str, quiet: bool, as_json: bool, **more: Any) -> None:
    """Write to NEW what PATCH makes of BASE, a checkpoint or a folder in which it is."""
    with shown_progress("apply", quiet=quiet or as_json) as progress:
        report = apply_patch(base, patch, new, progress=progress, **more)
    saved = report.saved
    if as_json:
        print_json({"path": new, **saved_document(saved), "identical": report.identical})
    elif not quiet:
        same = ", the very file that the patch was made from" if report.identical else ""
        console().print(f"{visible(new)}: {count(saved.tensors, 'tensor')}, {size(saved.bytes)}{same}")
