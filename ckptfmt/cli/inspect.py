"""`ckptfmt inspect`: what is in checkpoints of any format. Reads the manifest, or what another format has for one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from typing import Any

import click
from rich.text import Text

from .. import OMITTED, Checkpoint
from .. import open as open_checkpoint
from ..conversion import open_source
from ..conversion.folders import completed
from ..conversion.opening import place_for
from ..conversion.probe import CheckpointPlace
from ..conversion.source import OpenedSource
from ..conversion.table import title_of
from ..errors import CkptError, NotACheckpointError, fault
from ..format.names import Path
from ..format.tree import Tags
from ..frameworks.target import flatten, prune
from ..patterns import near_selection, selector
from . import options
from .console import console
from .json_form import JsonEncoder
from .lineage import look_at_lineage
from .several import look_at
from .tags import documents, notes
from .tensor_list import COLUMNS as SORTED_BY
from .tensor_list import check_column, show_list
from .tensors import is_tensor, tree_of
from .text import count, size, visible
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
  ckptfmt inspect Llama-3-8B                        # a model in several files, as Hugging Face has them
  ckptfmt inspect model.ckpt --lineage              # what it was made from; sources in its folder are compared
  ckptfmt inspect model.ckpt --bars                 # the largest tensors first
  ckptfmt inspect model.ckpt --json | jq '.tensors[] | .name'

Layers that are alike are one line, "0..31", with what each of them holds, and where a dict has many names with periods,
those that begin alike stand below what they share, "layers.". --all shows every name as it is. Behind a value stands
its tag, where it is of a kind that is not seen otherwise: of a framework, or of a class of Python.

The object of --json, in which nothing is folded, has: path, layout, format, generator, manifest_sha256, schema,
metadata, totals, tree, tensors, tags and metadata_tags (lists of objects with path, tag and param); of another format:
path, source, source_format, metadata, losses (a list of objects with kind, path and message: what a conversion would
leave out), left_out (an object with tensors and bytes: what lies in objects that cannot be read), passed_over (names of
other checkpoints beside what was read), totals, tree, tensors and tags. Of a folder it has path, or of several paths
paths, and checkpoints, a list of such objects, and errors, a list of objects with path, code and message.
With --lineage: path, manifest_sha256, ok and steps, a list of objects with operation, generator, source (sha256 of the
manifest), path (null if it is not at hand), agrees (whether that says the same of what was before) and record.

Exit codes: 0 fine, 1 one is damaged, 2 anything else.
""",
)
@options.paths
@options.reading
@click.option("--depth", "-d", type=click.IntRange(min=0), metavar="N", help="Open only N levels of containers.")
@click.option("--sort", metavar="COLUMN", help=f"A flat list of tensors, by {', '.join(SORTED_BY)}.")
@click.option("--bars", is_flag=True, help="The same list with a bar of bytes beside each; the largest first.")
@click.option("--all", "-a", "everything", is_flag=True, help="Fold no layers, and group no names.")
@click.option("--lineage", is_flag=True, help="Show what it was made from, by what, instead of the tree.")
@options.as_json
def inspect(
    paths: tuple[str, ...], recursive: bool, as_json: bool, lineage: bool, sort: str | None, **more: Any
) -> int:
    """Show the tree in the checkpoint at PATH: dtypes, shapes, sizes and codecs of tensors, and plain values. PATH may
    be a folder of checkpoints, and be given several times.

    Reads the manifest only, however large the tensors are. In a GLOB `*` stays within a level, `**` does not.
    """
    check_column(sort)
    if lineage:
        return look_at(
            paths,
            recursive,
            partial(look_at_lineage, follow_links=more["follow_links"], as_json=as_json),
            as_json=as_json,
        )
    inspection = _Inspection(recursive=recursive, as_json=as_json, sort=sort, **more)
    return look_at(paths, recursive, inspection.look, as_json=as_json)


class _Inspection:
    """Looks at checkpoints one after the other."""

    def __init__(
        self,
        *,
        select: tuple[str, ...],
        recursive: bool,
        depth: int | None,
        everything: bool,
        sort: str | None,
        bars: bool,
        source_format: str | None,
        max_expansion: int,
        follow_links: bool,
        dequantize: str | None,
        base: tuple[str, ...] | None,
        as_json: bool,
    ) -> None:
        self.select, self.depth, self.folds, self.as_json = select, depth, not everything, as_json
        self.column, self.bars = sort or ("size" if bars else None), bars
        self.recursive, self.source_format, self.follow_links = recursive, source_format, follow_links
        self.reading: dict[str, Any] = {"max_expansion": max_expansion, "follow_links": follow_links}
        self.reading |= {"dequantize": dequantize, "base": base}
        self.shown = 0

    def look(self, path: str) -> dict[str, Any] | None:
        """Show one checkpoint, or give it as JSON; raises what opening it raises."""
        if self.source_format is not None:
            return self._foreign(path, CheckpointPlace(path, self.source_format))
        path = completed(path)
        if self.reading["dequantize"] is not None:
            return self._foreign(path, place_for(path, recursive=self.recursive))
        try:
            with open_checkpoint(path, follow_links=self.follow_links, base=self.reading["base"]) as checkpoint:
                return self._ours(checkpoint)
        except NotACheckpointError as error:
            if error.code != "not-a-checkpoint" or not (os.path.isfile(path) or os.path.isdir(path)):
                raise
            refusal = error
        try:
            return self._foreign(path, place_for(path, recursive=self.recursive))
        except CkptError as error:
            if error.code in ("unknown-format", "not-a-checkpoint"):
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
        metadata = checkpoint.metadata
        about_metadata = notes(checkpoint.metadata_tags, metadata)
        self._show(checkpoint.path, lines, metadata, about_metadata, tree, notes(checkpoint.tags, tree))
        return None

    def _foreign(self, path: str, place: CheckpointPlace) -> dict[str, Any] | None:
        with open_source(place.path, self.source_format, **self.reading) as source:
            source.place = source.place._replace(passed_over=place.passed_over or source.place.passed_over)
            whole = tree_of(source)
            tree = self._selected(whole, dict(flatten(whole, is_tensor)), path)
            if self.as_json:
                return _foreign_document(path, source, tree)
            self._show(path, _told(path, source), source.metadata, {}, tree, notes(_tags(source), tree))
            return None

    def _selected(self, tree: Any, leaves: Iterable[Path], path: str) -> Any:
        if not self.select:
            return tree
        found = prune(tree, selector(self.select))
        if found is OMITTED:
            patterns = ", ".join(map(repr, self.select))
            raise fault("no-match", f"no path matches {patterns}", path=path, hint=near_selection(self.select, leaves))
        return found

    def _show(
        self,
        path: str,
        lines: list[str],
        metadata: Any,
        about_metadata: dict[Path, str],
        tree: Any,
        about: dict[Path, str],
    ) -> None:
        out = console()
        if self.shown:
            out.print()
        self.shown += 1
        out.print(Text(visible(path), "bold"))
        for line in lines:
            out.print(Text(line))
        view: dict[str, Any] = {"depth": self.depth, "fold": self.folds}
        if metadata is not None:
            TreeView(out, notes=about_metadata, **view).show(metadata, "metadata")
        if self.column is None:
            TreeView(out, notes=about, **view).show(tree, "tree")
        else:
            show_list(out, tree, self.column, bars=self.bars)
        out.print(Text(str(tally(tree)), "bold"))


def _told(path: str, source: OpenedSource) -> list[str]:
    """What is said of a checkpoint of another format beside what it holds."""
    read = "" if source.place.path == path else f", read {visible(source.place.path)}"
    beside = f"; passed over {visible(', '.join(source.place.passed_over))}" if source.place.passed_over else ""
    lines = [f"{title_of(source)}{read}{beside}"]
    lines += [f"a conversion would lose: {visible(str(loss))}" for loss in source.losses[:LOSSES]]
    if len(source.losses) > LOSSES:
        lines.append(f"and {count(len(source.losses) - LOSSES, 'more loss')}")
    tensors, bytes = source.left_out
    if tensors:
        lies = "lies" if tensors == 1 else "lie"
        lines.append(f"in what cannot be read {lies} {count(tensors, 'tensor')}, {size(bytes)}")
    return lines


def _tags(source: OpenedSource) -> Tags:
    return {} if source.ours is None else source.ours.tags


def _document(checkpoint: Checkpoint, tree: Any) -> dict[str, Any]:
    encoder, schema = JsonEncoder(), checkpoint.schema
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
        "tags": documents(checkpoint.tags, tree),
        "metadata_tags": documents(checkpoint.metadata_tags, checkpoint.metadata),
    }


def _foreign_document(path: str, source: OpenedSource, tree: Any) -> dict[str, Any]:
    encoder = JsonEncoder()
    return {
        "path": path,
        "source": source.place.path,
        "source_format": source.format,
        "metadata": encoder.value(source.metadata),
        "losses": [loss._asdict() for loss in source.losses],
        "left_out": dict(zip(("tensors", "bytes"), source.left_out, strict=True)),
        "passed_over": list(source.place.passed_over),
        "totals": tally(tree)._asdict(),
        "tree": encoder.value(tree),
        "tensors": encoder.tensors,
        "tags": documents(_tags(source), tree),
    }
