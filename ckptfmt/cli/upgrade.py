"""`ckptfmt upgrade`: a checkpoint in the format version of today."""

from __future__ import annotations

import click

from .. import upgrade as upgrade_checkpoint
from .._version import FORMAT
from .console import console, print_json
from .migrate import saved_document
from .options import follow_links
from .text import count, size, visible


@click.command(
    epilog="""\b
Examples:
  ckptfmt upgrade old.ckpt new.ckpt
  ckptfmt upgrade --overwrite old.ckpt old.ckpt

The object of --json has: path, from, to ([major, minor]), layout, bytes, tensors and manifest_sha256.
""",
)
@click.argument("src", type=click.Path())
@click.argument("dst", type=click.Path())
@click.option("--overwrite", "-f", is_flag=True, help="Replace DST, which may be SRC, at once.")
@follow_links
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
def upgrade(src: str, dst: str, overwrite: bool, follow_links: bool, as_json: bool) -> int:
    """Write the checkpoint at SRC, of any format version that can be read, to DST in the version of today."""
    version, saved = upgrade_checkpoint(src, dst, overwrite=overwrite, follow_links=follow_links)
    if as_json:
        print_json({"path": dst, "from": list(version), "to": list(FORMAT), **saved_document(saved)})
    else:
        versions = " → ".join(f"{major}.{minor}" for major, minor in (version, FORMAT))
        console().print(f"{visible(dst)}: format {versions}, {count(saved.tensors, 'tensor')}, {size(saved.bytes)}")
    return 0
