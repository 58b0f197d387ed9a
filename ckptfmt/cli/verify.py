"""`ckptfmt verify`: is every byte of checkpoints, or of all in a folder, as it was written?"""

from __future__ import annotations

import dataclasses
from typing import Any

import click
from rich.text import Text

from .. import Damage, FolderReport, SignatureReport, VerifyReport, verify_folder, verify_signature
from .. import verify as verify_checkpoint
from ..errors import CODES, CkptError, MissingError, NotACheckpointError
from . import DAMAGED, FAILED, json_form, options
from .bar import shown_progress
from .console import console, print_json
from .several import documents, tell
from .sign import document as signature_document
from .text import count, path_label, size, visible


@click.command(
    epilog="""\b
Examples:
  ckptfmt verify model.ckpt
  ckptfmt verify --quiet model.ckpt && rsync model.ckpt backup:
  ckptfmt verify --resume verify.state runs/7/step-0000001000.ckpt
  ckptfmt verify --resume verify.state runs/7
  ckptfmt verify epoch_*.ckpt
  ckptfmt verify --base base.ckpt tuned.patch.ckpt
  ckptfmt verify --signed-by key.pub model.ckpt
  ckptfmt verify --signed-by key.pub --signature-only model.ckpt
  ckptfmt verify --json model.ckpt | jq -r '.damage[].tensor' | sort -u

With --resume a verification that is interrupted goes on where it was: FILE keeps how far it has come, and is removed
when it ends. Of a folder it keeps which checkpoints were whole, and FILE.current how far the next one has come.

The object of --json has: path, ok, tensors, blocks, bytes, base (of a patch alone: the sha256 of its base), base_report
(with --base: such an object), and damage, a list of objects with code, where, object
(of the checkpoint; "" for a checkpoint of one file), tensor (its label), path (of the tensor, typed: strings and
ints), chunk, block, offset and length (bytes in the object), and message. Of a folder: path, ok, checkpoints, a list of
such objects, and errors, a list of objects with path, code and message; of several paths the same, with paths, a list,
in place of path. With --signed-by also signatures, a list of objects with path, signature, signer, manifest_sha256 and
form.

Exit codes: 0 whole, 1 damaged, or not signed by who is trusted, 2 something that could not be checked.
""",
)
@options.paths
@click.option(
    "--resume", metavar="FILE", type=click.Path(), help="Keep in FILE how far it has come, and go on from there."
)
@click.option(
    "--signed-by",
    "trust",
    multiple=True,
    metavar="FILE",
    help="Also that one of these has signed it: public keys or certificates, PEM; may be given several times.",
)
@click.option("--signature", metavar="FILE", help="The signature, if it is not at PATH.sig; also one of model-signing.")
@click.option("--signature-only", is_flag=True, help="With --signed-by: only that, which reads no chunk.")
@options.base
@options.recursive
@options.follow_links
@options.quiet
@options.as_json
def verify(
    paths: tuple[str, ...],
    resume: str | None,
    base: tuple[str, ...] | None,
    recursive: bool,
    follow_links: bool,
    quiet: bool,
    as_json: bool,
    **of_signature: Any,
) -> int:
    """Check every byte of the checkpoint at PATH, or of all in the folder PATH, against its digests, and say what is
    damaged and where. PATH may be given several times.

    Changes nothing.
    """
    signed = _signed(paths, follow_links, **of_signature)
    if of_signature["signature_only"]:
        return _show_signatures(signed, quiet, as_json)
    asked: dict[str, Any] = {"recursive": recursive, "quiet": quiet, "resume": resume, "follow_links": follow_links}
    asked["base"] = base
    if len(paths) == 1:
        report = _verified(paths[0], **asked)
        document = _folder_document(report) if isinstance(report, FolderReport) else _document(report)
    elif resume is not None:
        raise click.UsageError("--resume is for one PATH; a folder is one")
    else:
        report = _verified_all(paths, **asked)
        document = {"paths": list(paths), **_folder_document(report)}
        del document["path"]
    if as_json:
        print_json(document | ({"signatures": list(map(signature_document, signed))} if signed else {}))
    elif not quiet:
        _tell_signatures(signed)
        _show_all(report) if isinstance(report, FolderReport) else _show(report)
    if report.ok:
        return 0
    return FAILED if isinstance(report, FolderReport) and all(one.ok for one in report.reports) else DAMAGED


def _signed(
    paths: tuple[str, ...], follow_links: bool, trust: tuple[str, ...], signature: str | None, signature_only: bool
) -> list[SignatureReport]:
    """Who has signed each, before a byte of it is looked at."""
    if not trust and (signature is not None or signature_only):
        raise click.UsageError("--signature and --signature-only are for --signed-by")
    if signature is not None and len(paths) > 1:
        raise click.UsageError("--signature is for one PATH")
    if not trust:
        return []
    return [verify_signature(path, trust, signature=signature, follow_links=follow_links) for path in paths]


def _show_signatures(signed: list[SignatureReport], quiet: bool, as_json: bool) -> int:
    if as_json:
        print_json({"ok": True, "signatures": list(map(signature_document, signed))})
    elif not quiet:
        _tell_signatures(signed)
    return 0


def _tell_signatures(signed: list[SignatureReport]) -> None:
    for one in signed:
        console().print(Text.assemble(f"{visible(one.path)}: ", ("signed", "bold green"), f" by {visible(one.signer)}"))


def _verified(
    path: str, *, base: tuple[str, ...] | None, recursive: bool, quiet: bool, **more: Any
) -> VerifyReport | FolderReport:
    with shown_progress("verify", quiet) as progress:
        try:
            return verify_checkpoint(path, progress=progress, base=base, **more)
        except NotACheckpointError as error:
            if error.code != "not-a-checkpoint" or base:
                raise
            return _all_in(path, error, recursive=recursive, progress=progress, **more)


def _verified_all(paths: tuple[str, ...], **more: Any) -> FolderReport:
    """One report for several paths, of which what cannot be checked is one of the errors."""
    reports: list[VerifyReport] = []
    errors: list[CkptError] = []
    for path in paths:
        try:
            found = _verified(path, **more)
        except CkptError as error:
            errors.append(error)
            continue
        reports += found.reports if isinstance(found, FolderReport) else [found]
        errors += found.errors if isinstance(found, FolderReport) else []
    return FolderReport(count(len(paths), "path"), tuple(reports), tuple(errors))


def _all_in(path: str, error: NotACheckpointError, **more: Any) -> FolderReport:
    """What `verify_folder` says of a folder in which there is something to check; raises `error` for anything else."""
    try:
        report = verify_folder(path, **more)
    except (MissingError, NotACheckpointError):  # it is gone, or no folder
        raise error from None
    if not report.reports and not report.errors:
        raise error
    return report


def _document(report: VerifyReport) -> dict[str, Any]:
    return {
        "path": report.path,
        "ok": report.ok,
        "tensors": report.tensors,
        "blocks": report.blocks,
        "bytes": report.bytes,
        **({} if report.base is None else {"base": report.base}),
        **({} if report.base_report is None else {"base_report": _document(report.base_report)}),
        "damage": [damage_document(damage) for damage in report.damage],
    }


def _folder_document(report: FolderReport) -> dict[str, Any]:
    return {
        "path": report.path,
        "ok": report.ok,
        "checkpoints": [_document(one) for one in report.reports],
        "errors": documents(report.errors),
    }


def damage_document(damage: Damage) -> dict[str, Any]:
    """One place, for --json."""
    return {**dataclasses.asdict(damage), "path": None if damage.path is None else json_form.path(damage.path)}


def _show_all(report: FolderReport) -> None:
    for one in report.reports:
        _show_one(one)
    tell(report.errors)
    damaged = sum(not one.ok for one in report.reports)
    words = [count(len(report.reports), "checkpoint")]
    words += [f"{damaged} damaged" if damaged else "all whole"] if report.reports else []
    words += [f"{len(report.errors)} not checked"] if report.errors else []
    console().print(f"{visible(report.path)}: {', '.join(words)}")


def _show(report: VerifyReport) -> None:
    """A checkpoint, and a base below it."""
    _show_one(report)
    if report.base_report is not None:
        _show(report.base_report)


def _show_one(report: VerifyReport) -> None:
    out = console()
    checked = f"{count(report.tensors, 'tensor')}, {count(report.blocks, 'block')}, {size(report.bytes)} checked"
    name = visible(report.path)
    if report.base_report is not None and not report.base_report.ok:
        checked += f"; its base {visible(report.base_report.path)} is damaged"
    elif report.base is not None and report.base_report is None:
        checked += f"; its base {report.base[:12]}… was not looked at"
    if not report.damage:
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
