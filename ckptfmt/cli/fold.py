"""`ckptfmt fold`: a chain of patches as one."""

from __future__ import annotations

from typing import Any

import click

from .. import fold as fold_patches
from . import options
from .bar import shown_progress
from .patch import at_level, level, tell


@click.command(
    epilog="""\b
Examples:
  ckptfmt fold base.ckpt step-1.patch.ckpt step-2.patch.ckpt steps.patch.ckpt

The object of --json is that of `ckptfmt patch`.

Exit codes: 0 fine, 1 a checkpoint is damaged, 2 anything else.
""",
)
@click.argument("base", type=click.Path())
@click.argument("patches", metavar="PATCH...", nargs=-1, required=True, type=click.Path())
@click.argument("out", type=click.Path())
@level
@options.overwrite("Replace OUT if it exists.")
@options.follow_links
@options.quiet
@options.as_json
def fold(base: str, patches: tuple[str, ...], out: str, level: int, quiet: bool, as_json: bool, **more: Any) -> None:
    """Write to OUT one patch that makes of BASE what each PATCH, of the one before, makes of it."""
    with shown_progress("fold", quiet=quiet or as_json) as progress:
        report = fold_patches(base, patches, out, compression=at_level(level), progress=progress, **more)
    tell(report, quiet=quiet, as_json=as_json)
