"""`ckptfmt migrate`: a checkpoint at another version of its schema."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

import click
from rich.text import Text

from .. import MigrationReport, Overflow
from .. import migrate as migrate_checkpoint
from ..format.dtypes import dtype_of
from ..format.names import Key, Path, path_label
from ..migration.nodes import LazyNode, Leaf, nbytes
from ..migration.plan import PlainLeaf
from . import options
from .bar import shown_progress
from .console import console, print_json
from .text import count, size, visible


def _schema(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, str] | None:
    if value is None:
        return None
    identity, _, version = value.rpartition("@")
    if not identity or not version:
        raise click.BadParameter("write it as ID@VERSION")
    return identity, version


def _parameters(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> dict[str, int]:
    found = {}
    for value in values:
        name, _, number = value.partition("=")
        if not name or not number.isdecimal():
            raise click.BadParameter(f"{value!r} is not of the form NAME=NUMBER")
        found[name] = int(number)
    return found


def _version(context: click.Context, parameter: click.Parameter, value: str) -> tuple[str, str] | str:
    return _schema(context, parameter, value) or value if "@" in value else value


@click.command(
    epilog="""\b
Examples:
  ckptfmt migrate hf.ckpt meta.ckpt --migrations llama.json --schema meta --plan
  ckptfmt migrate hf.ckpt meta.ckpt --migrations llama.json --schema meta --set heads=32
  ckptfmt migrate meta.ckpt hf.ckpt --migrations llama.json --schema hf --down
  ckptfmt migrate old.ckpt new.ckpt --migrations m.msgpack --source-schema gpt2@tf --schema torch

The object of --json has: path, schema, from, to, class, chain (a list of objects with from, to, class, inverse,
description and document, the sha256), tensors (a list of objects with path, dtype, shape and source, the path of what
is merely moved, or null), overflows (a list of objects with path, found, dtype, rule, elements and beyond: how many of
the elements lie beyond the range of dtype; null with --plan, where some may), and saved (null with --plan; else layout,
bytes, tensors, manifest_sha256).

Exit codes: 0 fine, 1 the source is damaged, 2 anything else, such as a plan with faults.
""",
)
@options.source_and_target
@click.option(
    "--migrations",
    "files",
    metavar="FILE",
    multiple=True,
    required=True,
    type=click.Path(),
    help="File of documents; may be given again.",
)
@click.option(
    "--schema", "--to", "schema", required=True, callback=_version, help="VERSION to migrate to, or ID@VERSION."
)
@click.option("--source-schema", callback=_schema, help="ID@VERSION of a source that does not say its own.")
@click.option("--set", "parameters", multiple=True, callback=_parameters, help="NAME=NUMBER: a parameter's value.")
@click.option("--prefix", help="Only what is at this path of SOURCE, as if it were all.")
@click.option("--strip-prefix", multiple=True, help="Take this off names first, such as 'module.'; may be given again.")
@click.option("--add-prefix", help="Put this before names then.")
@click.option("--plan", "plan_only", is_flag=True, help="Show what would be done, and write nothing.")
@click.option("--down", is_flag=True, help="Run migrations backwards.")
@click.option("--lossy", is_flag=True, help="With --down: allow what is not exact.")
@click.option("--verify", is_flag=True, help="Read and verify what is merely moved, too.")
@options.base
@options.follow_links
@options.layout
@options.overwrite("Replace TARGET, which may be SOURCE, at once.")
@options.as_json
def migrate(source: str, target: str, files: tuple[str, ...], plan_only: bool, as_json: bool, **more: Any) -> int:
    """Write the checkpoint at SOURCE to TARGET as it is at another version of its schema.

    The migrations lie in files (JSON or msgpack); docs/migrations.md says how they are written. SOURCE is not changed.
    """
    with shown_progress("migrate", quiet=as_json or plan_only) as progress:
        report = migrate_checkpoint(source, target, files, plan_only=plan_only, progress=progress, **more)
    if as_json:
        print_json(_document(source, report))
    else:
        _show(target, report)
    return 0


def _document(source: str, report: MigrationReport) -> dict[str, Any]:
    return {
        "path": source,
        "schema": report.start.id,
        "from": report.start.version,
        "to": report.end.version,
        "class": str(report.plan.loss),
        "chain": [
            {
                "from": edge.start,
                "to": edge.end,
                "class": str(edge.loss),
                "inverse": edge.backwards,
                "description": edge.description,
                "document": edge.digest.hex(),
            }
            for edge in report.plan.chain
        ],
        "tensors": [
            {
                "path": list(path),
                "dtype": _dtype(entry.dtype),
                "shape": list(entry.shape),
                "source": _listed(_origin(report, path, entry)),
            }
            for path, entry in report.plan.layout.items()
            if not isinstance(entry, PlainLeaf)
        ],
        "overflows": [dataclasses.asdict(overflow) for overflow in report.overflows],
        "saved": None if report.saved is None else saved_document(report.saved),
    }


def saved_document(saved: Any) -> dict[str, Any]:
    """What was saved, for --json."""
    return {key: getattr(saved, key) for key in ("layout", "bytes", "tensors", "manifest_sha256")}


def _origin(report: MigrationReport, path: Path, entry: LazyNode) -> Path | None:
    """The path in the source of what is merely moved, or None; of the paths of an alias, its own if it is one."""
    if report.plan.source.get(path) == entry:
        return path
    if not isinstance(entry, Leaf):
        return None
    first: Any = entry.key
    return tuple(first)


def _listed(path: Path | None) -> list[Key] | None:
    return None if path is None else list(path)


def _dtype(dtype: Any) -> str:
    row = dtype_of(dtype)
    return str(dtype) if row is None else row.name


def _show_overflows(overflows: Iterable[Overflow]) -> None:
    for overflow in overflows:
        console().print(Text.assemble(("!", "yellow"), f" {visible(str(overflow))}"))


def _show(target: str, report: MigrationReport) -> None:
    out = console()
    edges = [f"{edge.start} → {edge.end} ({edge.loss}{', backwards' if edge.backwards else ''})"
             for edge in report.plan.chain]  # fmt: skip
    out.print(Text.assemble((visible(report.start.id), "bold"), f": {visible('; '.join(edges) or 'nothing to do')}"))
    if report.saved is not None:
        saved = report.saved
        out.print(f"{visible(target)}: {count(saved.tensors, 'tensor')}, {size(saved.bytes)}")
        _show_overflows([overflow for overflow in report.overflows if overflow.beyond])
        return
    tensors = {path: entry for path, entry in report.plan.layout.items() if not isinstance(entry, PlainLeaf)}
    for path, entry in tensors.items():
        text = f"  {path_label(path)}  {_dtype(entry.dtype)} {list(entry.shape)}"
        origin = _origin(report, path, entry)
        if origin is None:
            text += "  (computed)"
        elif origin != path:
            text += f"  from {path_label(origin)}"
        out.print(visible(text))
    _show_overflows(report.overflows)
    total = sum(nbytes(entry) for entry in set(tensors.values()))
    out.print(f"{count(len(tensors), 'tensor')}, {size(total)}; {report.plan.loss}. Nothing was written.")
