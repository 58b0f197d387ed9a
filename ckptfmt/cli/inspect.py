"""`ckptfmt inspect`: what is in a checkpoint. Reads the manifest only."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from .. import OMITTED, Checkpoint
from .. import open as open_checkpoint
from ..errors import fault
from ..format.names import path_text
from ..frameworks.target import prune
from ..patterns import matches_any
from .console import console, print_json
from .json_form import Encoder
from .options import follow_links
from .text import visible
from .tree_view import TreeView, tally


@click.command(
    short_help="Show the tree: tensors, plain values, totals.",
    epilog="""\b
Examples:
  ckptfmt inspect model.ckpt
  ckptfmt inspect model.ckpt --depth 2
  ckptfmt inspect model.ckpt --select 'model/**' --select 'optimizer/*/lr'
  ckptfmt inspect model.ckpt --json | jq '.tensors[] | .name'

The object of --json has: path, layout, format, generator, manifest_sha256, schema, metadata, totals, tree, tensors.
""",
)
@click.argument("path")
@click.option("--select", "-s", multiple=True, metavar="GLOB", help="Only these paths; may be given several times.")
@follow_links
@click.option("--depth", "-d", type=click.IntRange(min=0), metavar="N", help="Open only N levels of containers.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object, in which nothing is abbreviated.")
def inspect(path: str, select: tuple[str, ...], follow_links: bool, depth: int | None, as_json: bool) -> None:
    """Show the tree in the checkpoint at PATH: dtypes, shapes, sizes and codecs of tensors, and plain values.

    Reads the manifest only, however large the tensors are. In a GLOB `*` stays within a level, `**` does not.
    """
    with open_checkpoint(path, follow_links=follow_links) as checkpoint:
        tree = checkpoint.tree
        if select:
            tree = prune(tree, lambda place: matches_any(select, path_text(place)))
            if tree is OMITTED:
                patterns = ", ".join(map(repr, select))
                raise fault("no-match", f"no path matches {patterns}", path=path)
        if as_json:
            print_json(_document(checkpoint, tree))
        else:
            _show(checkpoint, tree, depth)


def _document(checkpoint: Checkpoint, tree: Any) -> dict[str, Any]:
    encoder, schema = Encoder(), checkpoint.schema
    return {
        "path": checkpoint.path,
        "layout": checkpoint.layout,
        "format": list(checkpoint.format),
        "generator": checkpoint.generator,
        "manifest_sha256": checkpoint.manifest_sha256,
        "schema": None if schema is None else {"id": schema.id, "version": schema.version},
        "metadata": encoder.value(checkpoint.metadata),
        "totals": tally(tree)._asdict(),
        "tree": encoder.value(tree),
        "tensors": encoder.tensors,
    }


def _show(checkpoint: Checkpoint, tree: Any, depth: int | None) -> None:
    out = console()
    version = ".".join(map(str, checkpoint.format))
    out.print(Text(visible(checkpoint.path), "bold"))
    identity = f"sha256 {checkpoint.manifest_sha256}"  # [SEC-004]
    out.print(f"format {version}, layout {checkpoint.layout}, written by {visible(checkpoint.generator)}, {identity}")
    if checkpoint.schema is not None:
        out.print(f"schema {visible(checkpoint.schema.id)}, version {visible(checkpoint.schema.version)}")
    view = TreeView(out, depth=depth)
    if checkpoint.metadata is not None:
        view.show(checkpoint.metadata, "metadata")
    view.show(tree, "tree")
    out.print(Text(str(tally(tree)), "bold"))
