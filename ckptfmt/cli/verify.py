"""`ckptfmt verify`: is every byte of a checkpoint as it was written?"""

from __future__ import annotations

import dataclasses
from typing import Any

import click
from rich.text import Text

from .. import Damage, VerifyReport
from .. import verify as verify_checkpoint
from ..errors import CODES
from . import DAMAGED, json_form
from .bar import progress_bar
from .console import console, print_json
from .text import count, path_label, size, visible


@click.command(
    short_help="Check every byte, and say what is damaged and where.",
    epilog="""\b
Examples:
  ckptfmt verify model.ckpt
  ckptfmt verify --quiet model.ckpt && rsync model.ckpt backup:
  ckptfmt verify --resume verify.state runs/7/step-0000001000.ckpt
  ckptfmt verify --json model.ckpt | jq -r '.damage[].tensor' | sort -u

With --resume a verification that is interrupted goes on where it was: FILE keeps how far it has come, and is removed
when it ends.

The object of --json has: path, ok, tensors, blocks, bytes, and damage, a list of objects with code, where, object
(of the checkpoint; "" for a checkpoint of one file), tensor (its label), path (of the tensor, typed: strings and
ints), chunk, block, offset and length (bytes in the object), and message.

Exit codes: 0 whole, 1 damaged, 2 nothing that could be checked.
""",
)
@click.argument("path")
@click.option("--resume", metavar="FILE", help="Keep in FILE how far it has come, and go on from there.")
@click.option("--quiet", "-q", is_flag=True, help="No report and no progress: the exit code says it.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object.")
def verify(path: str, resume: str | None, quiet: bool, as_json: bool) -> int:
    """Check every byte of the checkpoint at PATH against its digests, and say what is damaged and where.

    Changes nothing.
    """
    with progress_bar("verify", quiet) as progress:
        report = verify_checkpoint(path, progress=progress, resume=resume)
    if as_json:
        print_json(_document(report))
    elif not quiet:
        _show(report)
    return 0 if report.ok else DAMAGED


def _document(report: VerifyReport) -> dict[str, Any]:
    return {
        "path": report.path,
        "ok": report.ok,
        "tensors": report.tensors,
        "blocks": report.blocks,
        "bytes": report.bytes,
        "damage": [damage_document(damage) for damage in report.damage],
    }


def damage_document(damage: Damage) -> dict[str, Any]:
    """One place, for --json."""
    return {**dataclasses.asdict(damage), "path": None if damage.path is None else json_form.path(damage.path)}


def _show(report: VerifyReport) -> None:
    out = console()
    checked = f"{count(report.tensors, 'tensor')}, {count(report.blocks, 'block')}, {size(report.bytes)} checked"
    name = visible(report.path)
    if report.ok:
        out.print(Text.assemble(f"{name}: ", ("whole", "bold green"), f": {checked}"))
        return
    was_opened = report.damage[0].where in ("block", "frame")
    extent = f" in {count(len(report.damage), 'place')}: {checked}" if was_opened else ": it cannot be opened"
    out.print(Text.assemble(f"{name}: ", ("damaged", "bold red"), extent))
    for damage in report.damage:
        out.print(Text.assemble("  ", (damage.code, "red"), f": {visible(_place(damage))}"))
    for code in dict.fromkeys(damage.code for damage in report.damage):
        out.print(f"{code} means: {CODES[code].meaning}. {CODES[code].advice}.")


def _place(damage: Damage) -> str:
    """Where a damage is, as exactly as is known."""
    if damage.path is None:
        at = "" if damage.offset is None or damage.where == "frame" else f" (at byte {damage.offset:,})"
        return f"{damage.message}{at}"
    place = [f"tensor {path_label(damage.path)}", f"chunk {damage.chunk}"]
    if damage.block is not None:
        place.append(f"block {damage.block}")
    if damage.offset is not None and damage.length is not None:
        end = damage.offset + damage.length - 1
        place.append(f"bytes {damage.offset:,} to {end:,} of {damage.object or 'the file'}")
    return ", ".join(place)
