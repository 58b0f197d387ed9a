"""`ckptfmt inspect`: what is in checkpoints of any format. Reads the manifest, or what another format has for one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import click
from rich.text import Text

from .. import OMITTED, Checkpoint
from .. import open as open_checkpoint
from ..conversion import FORMATS, open_source
from ..conversion.formats import place_of
from ..conversion.source import EXPANSION, Source
from ..errors import CkptError, NotACheckpointError, fault
from ..format.names import Path
from ..frameworks.target import flatten, prune
from ..patterns import near_selection, selector
from .console import console
from .json_form import Encoder
from .options import follow_links
from .several import look_at
from .tensors import is_tensor, tree_of
from .text import count, visible
from .tree_view import TreeView, tally

LOSSES = 12  # most of what a conversion would lose that is shown


@click.command(
    epilog="""\b
Examples:
  ckptfmt inspect model.ckpt
  ckptfmt inspect model.safetensors                 # any format that `ckptfmt convert` reads; nothing is converted
  ckptfmt inspect model.ckpt --depth 2
  ckptfmt inspect model.ckpt --select 'model/**' --select 'optimizer/*/lr'
  ckptfmt inspect epoch_*.ckpt
  ckptfmt inspect runs/7                            # every checkpoint in the folder
  ckptfmt inspect model.ckpt --json | jq '.tensors[] | .name'

Layers that are alike are one line, "0..31", with what each of them holds, and where a dict has many names with periods,
those that begin alike stand below what they share, "layers.". --all shows every name as it is.

The object of --json, in which nothing is folded, has: path, layout, format, generator, manifest_sha256, schema,
metadata, totals, tree, tensors; of another format: path, source_format, metadata, losses (a list of objects with kind,
path and message: what a conversion would leave out), totals, tree, tensors. Of a folder it has path, or of several
paths paths, and checkpoints, a list of such objects, and errors, a list of objects with path, code and message.
""",
)
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path())
@click.option("--select", "-s", multiple=True, metavar="GLOB", help="Only these paths; may be given several times.")
@follow_links
@click.option("--depth", "-d", type=click.IntRange(min=0), metavar="N", help="Open only N levels of containers.")
@click.option("--all", "-a", "everything", is_flag=True, help="Fold no layers, and group no names.")
@click.option("--recursive", "-r", is_flag=True, help="Of a folder, also look into the folders below.")
@click.option(
    "--from",
    "source_format",
    type=click.Choice(list(FORMATS)),
    metavar="FORMAT",
    help="What PATH is, where its bytes leave doubt.",
)
@click.option(
    "--max-expansion", type=int, default=EXPANSION, help="How many times larger than PATH its tensors may be."
)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object, in which nothing is abbreviated.")
def inspect(paths: tuple[str, ...], recursive: bool, as_json: bool, **options: Any) -> int:
    """Show the tree in the checkpoint at PATH: dtypes, shapes, sizes and codecs of tensors, and plain values. PATH may
    be a folder of checkpoints, and be given several times.

    Reads the manifest only, however large the tensors are. In a GLOB `*` stays within a level, `**` does not.
    """
    return look_at(paths, recursive, _Inspection(as_json=as_json, **options).look, as_json=as_json)


class _Inspection:
    """Looks at checkpoints one after the other."""

    def __init__(
        self,
        *,
        select: tuple[str, ...],
        follow_links: bool,
        depth: int | None,
        everything: bool,
        source_format: str | None,
        max_expansion: int,
        as_json: bool,
    ) -> None:
        self.select, self.depth, self.folds, self.as_json = select, depth, not everything, as_json
        self.source_format, self.max_expansion, self.follow_links = source_format, max_expansion, follow_links
        self.shown = 0

    def look(self, path: str) -> dict[str, Any] | None:
        """Show one checkpoint, or give it as JSON; raises what opening it raises."""
        if self.source_format is None:
            try:
                with open_checkpoint(path, follow_links=self.follow_links) as checkpoint:
                    return self._ours(checkpoint)
            except NotACheckpointError as error:
                if error.code != "not-a-checkpoint" or not (os.path.isfile(path) or os.path.isdir(path)):
                    raise
                refusal = error
        try:
            if self.source_format is None and os.path.isdir(path) and place_of(path).path != path:
                raise refusal  # a folder with something in it, which is listed
            with open_source(path, self.source_format, max_expansion=self.max_expansion) as source:
                return self._foreign(path, source)
        except CkptError as error:
            if error.code == "unknown-format" and self.source_format is None:
                raise refusal from None
            raise

    def _ours(self, checkpoint: Checkpoint) -> dict[str, Any] | None:
        tree = self._selected(checkpoint.tree, checkpoint.leaves, checkpoint.path)
        if self.as_json:
            return _document(checkpoint, tree)
        schema, version = checkpoint.schema, ".".join(map(str, checkpoint.format))
        identity = f"sha256 {checkpoint.manifest_sha256}"  # [SEC-004]
        lines = [
            f"format {version}, layout {checkpoint.layout}, written by {visible(checkpoint.generator)}, {identity}"
        ]
        lines += [] if schema is None else [f"schema {visible(schema.id)}, version {visible(schema.version)}"]
        self._show(checkpoint.path, lines, checkpoint.metadata, tree)
        return None

    def _foreign(self, path: str, source: Source) -> dict[str, Any] | None:
        whole = tree_of(source)
        tree = self._selected(whole, dict(flatten(whole, is_tensor)), path)
        if self.as_json:
            return _foreign_document(path, source, tree)
        losses = [f"a conversion would lose: {visible(str(loss))}" for loss in source.losses[:LOSSES]]
        if len(source.losses) > LOSSES:
            losses.append(f"and {count(len(source.losses) - LOSSES, 'more loss')}")
        self._show(path, [FORMATS[source.format].title, *losses], source.metadata, tree)
        return None

    def _selected(self, tree: Any, leaves: Iterable[Path], path: str) -> Any:
        if not self.select:
            return tree
        found = prune(tree, selector(self.select))
        if found is OMITTED:
            patterns = ", ".join(map(repr, self.select))
            raise fault("no-match", f"no path matches {patterns}", path=path, hint=near_selection(self.select, leaves))
        return found

    def _show(self, path: str, lines: list[str], metadata: Any, tree: Any) -> None:
        out = console()
        if self.shown:
            out.print()
        self.shown += 1
        out.print(Text(visible(path), "bold"))
        for line in lines:
            out.print(Text(line))
        view = TreeView(out, depth=self.depth, fold=self.folds)
        if metadata is not None:
            view.show(metadata, "metadata")
        view.show(tree, "tree")
        out.print(Text(str(tally(tree)), "bold"))


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


def _foreign_document(path: str, source: Source, tree: Any) -> dict[str, Any]:
    encoder = Encoder()
    return {
        "path": path,
        "source_format": source.format,
        "metadata": encoder.value(source.metadata),
        "losses": [loss._asdict() for loss in source.losses],
        "totals": tally(tree)._asdict(),
        "tree": encoder.value(tree),
        "tensors": encoder.tensors,
    }
