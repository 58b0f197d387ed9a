"""`ckptfmt upgrade`: a checkpoint in the format version of today."""

from __future__ import annotations

import click

from .. import upgrade as upgrade_checkpoint
from .._version import FORMAT
from . import options
from .console import console, print_json
from .migrate import saved_document
from .text import count, size, visible


@click.command(
    epilog="""\b
Examples:
  ckptfmt upgrade old.ckpt new.ckpt
  ckptfmt upgrade --overwrite old.ckpt old.ckpt

The object of --json has: path, from, to ([major, minor]), layout, bytes, tensors and manifest_sha256.

Exit codes: 0 fine, 1 the checkpoint is damaged, 2 anything else.
""",
)
@options.source_and_target
@options.overwrite("Replace TARGET, which may be SOURCE, at once.")
@options.follow_links
@options.as_json
def upgrade(source: str, target: str, overwrite: bool, follow_links: bool, as_json: bool) -> int:
    """Write the checkpoint at SOURCE, of any format version that can be read, to TARGET in the version of today."""
    version, saved = upgrade_checkpoint(source, target, overwrite=overwrite, follow_links=follow_links)
    if as_json:
        print_json({"path": target, "from": list(version), "to": list(FORMAT), **saved_document(saved)})
    else:
        versions = " → ".join(f"{major}.{minor}" for major, minor in (version, FORMAT))
        console().print(f"{visible(target)}: format {versions}, {count(saved.tensors, 'tensor')}, {size(saved.bytes)}")
    return 0
