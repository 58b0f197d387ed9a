"""`ckptfmt repair`: what is whole of a damaged checkpoint, as a new one."""

from __future__ import annotations

import dataclasses
from typing import Any

import click
from rich.text import Text

from .. import Lost, RepairReport
from .. import repair as repair_checkpoint
from . import DAMAGED, json_form, options
from .bar import shown_progress
from .console import console, print_json
from .text import count, path_label, size, visible
from .verify import damage_document

PROOFS = {
    "record": "",
    "sha256": "its commit record is damaged, and what is left of it proves the manifest",
    "crc32": "its commit record is lost, and the ZIP's CRC-32 proves the manifest",
    "none": "nothing proves its manifest, which may be of a save that never ended",
}


@click.command(
    epilog="""\b
Examples:
  ckptfmt repair damaged.ckpt salvaged.ckpt
  ckptfmt repair --fill 0 damaged.ckpt salvaged.ckpt
  ckptfmt repair --json damaged.ckpt salvaged.ckpt | jq -c '.lost[].path'

Tensors with damage are left out (items of lists become None), unless --fill gives a value for the elements of their
damaged blocks. What was lost stands in the new checkpoint's manifest, under "provenance".

The object of --json has: path, target, ok, proof (what says that the manifest is whole: record, sha256, crc32 or
none), tensors (taken over whole), lost, a list of objects with path (typed: strings and ints), name, dtype, shape,
bytes and filled, damage as of `ckptfmt verify`, layout, bytes and manifest_sha256 of the target.

Exit codes: 0 nothing is lost, 1 something is lost, or nothing could be salvaged, 2 anything else.
""",
)
@options.source_and_target
@click.option("--fill", type=float, help="Keep damaged tensors, with this value in damaged blocks.")
@click.option("--uncommitted", is_flag=True, help="Take the manifest of a directory without a valid COMMIT.")
@options.follow_links
@options.layout
@options.overwrite()
@options.quiet
@options.as_json
def repair(source: str, target: str, quiet: bool, as_json: bool, **more: Any) -> int:
    """Save what is whole of the checkpoint at SOURCE to TARGET, and list what is lost.

    SOURCE is only read.
    """
    with shown_progress("repair", quiet) as progress:
        report = repair_checkpoint(source, target, progress=progress, **more)
    if as_json:
        print_json(_document(target, report))
    elif not quiet:
        _show(target, report)
    return 0 if report.ok else DAMAGED


def _document(target: str, report: RepairReport) -> dict[str, Any]:
    return {
        "path": report.path,
        "target": target,
        "ok": report.ok,
        "proof": report.proof,
        "tensors": report.tensors,
        "lost": [{**dataclasses.asdict(lost), "path": json_form.path(lost.path)} for lost in report.lost],
        "damage": [damage_document(damage) for damage in report.damage],
        **{key: getattr(report.saved, key) for key in ("layout", "bytes", "manifest_sha256")},
    }


def _show(target: str, report: RepairReport) -> None:
    out = console()
    if PROOFS[report.proof]:
        out.print(f"{visible(report.path)}: {PROOFS[report.proof]}")
    state = ("whole", "bold green") if report.ok else (f"{count(len(report.lost), 'tensor')} lost", "bold red")
    pages = [damage for damage in report.damage if damage.where == "manifest" and not damage.object]
    kept = f": {count(report.tensors, 'tensor')} taken over, {size(report.saved.bytes)}"
    out.print(Text.assemble(f"{visible(target)}: ", state, kept))
    for damage in pages:  # with which plain values may be lost, of which there is no list
        out.print(Text.assemble("  ", ("damaged", "red"), f": {visible(damage.message)}"))
    for lost in report.lost:
        out.print(Text.assemble("  ", ("filled" if lost.filled else "left out", "red"), f": {visible(_place(lost))}"))


def _place(lost: Lost) -> str:
    if lost.shape is None or lost.bytes is None:
        return f"tensor {path_label(lost.path)}, of which a damaged page tells"
    shape = f"[{', '.join(map(str, lost.shape))}]"
    return f"tensor {path_label(lost.path)}, {lost.dtype} {shape}, {size(lost.bytes)} damaged"
