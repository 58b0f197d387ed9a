"""`ckptfmt convert`: a checkpoint of one format as another."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Callable
from concurrent.futures import Executor
from importlib import import_module
from operator import attrgetter
from typing import Any, cast

import click
from rich.text import Text

from .. import CorruptError, conversion
from ..conversion import FORMATS, KINDS, ConvertReport
from ..conversion import convert as convert_checkpoint
from ..layouts import LAYOUTS
from . import DAMAGED, FAILED, options, several
from .bar import shown_progress
from .console import console, print_json
from .text import count, size, visible

LOSSES = 12  # most losses shown
BESIDE = 12  # most names shown of what was passed over
ALLOW, ALL = "--allow-loss", "all"


def _executor(context: click.Context, parameter: click.Parameter, value: str | None) -> Callable[[], Executor] | None:
    if value is None:
        return None
    module, _, name = value.partition(":")
    try:
        factory = attrgetter(name)(import_module(module))
    except (ImportError, AttributeError, ValueError) as error:
        raise click.BadParameter(f"{value!r} cannot be imported as MODULE:FACTORY: {error}") from error
    return cast("Callable[[], Executor]", factory)


class _Command(click.Command):
    """One whose `--allow-loss` may stand alone, before SOURCE, or with kinds behind it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        given: list[str] = []
        for arg in args:
            if given[-1:] == [ALLOW] and set(arg.split(",")) <= {*KINDS, ALL}:
                given[-1] = f"{ALLOW}={arg}"
            else:
                given.append(arg)
        given = [f"{ALLOW}={ALL}" if arg == ALLOW else arg for arg in given]
        return super().parse_args(ctx, given)


def _kinds(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> bool | set[str]:
    """`allow_loss` of the conversion."""
    kinds = {kind for value in values for kind in value.split(",")}
    if ALL in kinds:
        return True
    if odd := sorted(kinds - set(KINDS)):
        raise click.BadParameter(f"{', '.join(odd)}: the kinds of loss are {', '.join(KINDS)}")
    return kinds


PIPED = "-"  # stands for the standard streams


@click.command(
    cls=_Command,
    epilog="""\b
Examples:
  ckptfmt convert model.safetensors model.ckpt
  ckptfmt convert --nest model.safetensors model.ckpt     # "a.b" becomes {"a": {"b": ...}}
  ckptfmt convert model.ckpt model.safetensors
  ckptfmt convert --root model run/step-0000001000.ckpt weights.safetensors
  ckptfmt convert --max-shard-size 5GB model.ckpt folder/model.safetensors.index.json
  ckptfmt convert --allow-loss value,metadata training.pt model.ckpt
  ckptfmt convert run/step_1000 model.ckpt                # Orbax and torch DCP directories
  ckptfmt convert --layout loose model.pt model           # plain Zarr under model/tensors
  ckptfmt convert --template model.onnx tuned.ckpt tuned.onnx
  ckptfmt convert --dequantize float16 model.gguf model.ckpt
  ckptfmt convert --each --executor concurrent.futures:ProcessPoolExecutor run/steps converted
  curl -s https://host/model.safetensors | ckptfmt convert - model.ckpt
  ckptfmt convert --formats

What the target cannot hold is named, and nothing is written, unless --allow-loss is given, for all kinds or some. Every
tensor is read back and compared. No code of the source is ever run.

SOURCE may be a folder as people have them, such as one of Hugging Face: the one checkpoint in it is read, of several
forms of the same weights the one that transformers would take. The report says which.

The object of --json has: source, target, source_format, target_format, tensors, bytes, verified, passed_over (names
beside what was read), and losses, a list of objects with kind, path and message; with --each: converted, failed, and
outcomes, a list of objects with source, target, report (as above, or null) and error (null, or an object with path,
code and message).

Exit codes: 0 converted, 1 a source is damaged, 2 anything else.
""",
)
@click.argument("source", required=False, type=click.Path())
@click.argument("target", required=False, type=click.Path())
@options.source_format("--from", "source_format", "SOURCE")
@click.option(
    "--to",
    "target_format",
    type=options.FormatChoice(),
    metavar="FORMAT",
    help="What TARGET shall be [default: by its suffix].",
)
@click.option(
    "--template",
    type=click.Path(),
    metavar="MODEL",
    help="TARGET is a copy of MODEL (ONNX, TensorFlow Lite, Core ML) with these tensors in place of its own, or has "
    "its keys, names and types (GGUF).",
)
@click.option("--formats", is_flag=True, help="List the formats.")
@options.select
@click.option("--root", metavar="PATH", help="What stands at PATH becomes the whole, and PATH is taken off.")
@click.option("--nest", is_flag=True, help="Split flat names at each period into nested dicts.")
@click.option("--each", is_flag=True, help="SOURCE and TARGET are folders: convert each checkpoint in SOURCE.")
@click.option(
    "--executor",
    callback=_executor,
    metavar="MODULE:FACTORY",
    help="With --each: what returns the concurrent.futures.Executor that does it.",
)
@click.option(
    "--max-shard-size",
    metavar="SIZE",
    help="Write safetensors as files with at most SIZE of tensors each (5GB, 512MiB) and an index.",
)
@click.option("--layout", type=click.Choice(LAYOUTS), help="Layout of a ckptfmt TARGET.")
@click.option("--digest", type=click.Choice(["xxh3-128", "sha256", "blake3"]), help="Of a ckptfmt TARGET's blocks.")
@click.option("--compression", type=click.Choice(["weights", "zstd", "gzip", "blosc"]), help="Of a ckptfmt TARGET.")
@click.option(
    ALLOW,
    multiple=True,
    callback=_kinds,
    metavar="[KIND,...]",
    help=f"Convert although something cannot be kept, of any kind, or of {', '.join(KINDS)}.",
)
@options.overwrite()
@options.base
@options.follow_links
@click.option("--no-verify", is_flag=True, help="Do not read TARGET back.")
@options.max_expansion("SOURCE")
@options.dequantize("SOURCE")
@click.option("--quiet", "-q", is_flag=True, help="No report and no progress.")
@options.as_json
def convert(
    source: str | None,
    target: str | None,
    formats: bool,
    no_verify: bool,
    quiet: bool,
    as_json: bool,
    each: bool,
    executor: Callable[[], Executor] | None,
    layout: str | None,
    compression: str | None,
    digest: str | None,
    max_shard_size: str | None,
    select: tuple[str, ...],
    **more: Any,
) -> int:
    """Convert the checkpoint at SOURCE, of any format that is known, to TARGET.

    "-" is the standard input, or the standard output, which gets nothing else then.
    """
    if formats:
        _show_formats(as_json)
        return 0
    if source is None or target is None:
        raise click.UsageError("SOURCE and TARGET are required")
    chosen: dict[str, Any] = {"layout": layout, "compression": compression, "digest": digest}
    chosen |= {"select": select or None, "max_shard_size": max_shard_size}
    more |= {name: value for name, value in chosen.items() if value is not None}
    if each:
        return _convert_each(source, target, executor, quiet, as_json, verify=not no_verify, **more)
    if executor is not None:
        raise click.UsageError("--executor is for --each")
    piped = target == PIPED  # and so nothing else goes there
    places = sys.stdin.buffer if source == PIPED else source, sys.stdout.buffer if piped else target
    with shown_progress("convert", quiet) as progress:
        report = convert_checkpoint(*places, verify=not no_verify, progress=progress, **more)
    if as_json and not piped:
        print_json(_document(report))
    elif not quiet and not piped:
        _show(report)
    return 0


def _convert_each(
    source: str,
    target: str,
    executor: Callable[[], Executor] | None,
    quiet: bool,
    as_json: bool,
    *,
    target_format: str | None,
    **more: Any,
) -> int:
    """Convert a folder; gives the exit code."""
    with _workers(executor) as workers:
        outcomes = conversion.convert_each(source, target, executor=workers, target_format=target_format, **more)
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if as_json:
        documents = [
            {
                "source": outcome.source,
                "target": outcome.target,
                "report": None if outcome.report is None else _document(outcome.report),
                "error": None if outcome.error is None else several.documents([outcome.error])[0],
            }
            for outcome in outcomes
        ]
        print_json({"converted": len(outcomes) - len(failed), "failed": len(failed), "outcomes": documents})
    elif not quiet:
        for outcome in outcomes:
            if outcome.report is not None:
                _show(outcome.report)
        console().print(f"{count(len(outcomes) - len(failed), 'checkpoint')} converted, {len(failed)} failed")
    if not as_json:
        several.tell(outcome.error for outcome in failed if outcome.error is not None)
    damaged = any(isinstance(outcome.error, CorruptError) for outcome in failed)
    return DAMAGED if damaged else FAILED if failed else 0


def _workers(factory: Callable[[], Executor] | None) -> contextlib.AbstractContextManager[Executor | None]:
    if factory is None:
        return contextlib.nullcontext()
    try:
        workers: object = factory()
    except TypeError as error:  # it is no factory, or one that takes arguments
        raise click.UsageError(f"--executor: calling it without arguments failed: {error}") from error
    if not isinstance(workers, Executor):
        kind = type(workers).__name__
        raise click.UsageError(f"--executor: it returns a {kind}, not a concurrent.futures.Executor")
    return workers


def _document(report: ConvertReport) -> dict[str, Any]:
    return {**dataclasses.asdict(report), "losses": [loss._asdict() for loss in report.losses]}


def _show(report: ConvertReport) -> None:
    out = console()
    checked = ", every one compared" if report.verified else ""
    extent = f"{count(report.tensors, 'tensor')}, {size(report.bytes)}{checked}"
    head = f"{visible(report.target)}: {report.target_format} from {report.source_format}: {extent}"
    out.print(Text(head))
    if report.passed_over:
        beside = ", ".join(map(visible, report.passed_over[:BESIDE]))
        more = f" and {len(report.passed_over) - BESIDE:,} more" if len(report.passed_over) > BESIDE else ""
        out.print(f"  read {visible(report.source)}; passed over {beside}{more}")
    for loss in report.losses[:LOSSES]:
        out.print(Text.assemble("  ", (loss.kind, "yellow"), f" of {visible(loss.path)!r}: {visible(loss.message)}"))
    if len(report.losses) > LOSSES:
        out.print(f"  and {count(len(report.losses) - LOSSES, 'more loss')}")


def _show_formats(as_json: bool) -> None:
    rows = [
        {
            "name": format.name,
            "title": format.title,
            "suffixes": list(format.suffixes),
            "writable": format.writable,
            "extra": format.extra,
        }
        for format in FORMATS.values()
    ]
    if as_json:
        print_json({"formats": rows})
        return
    width = max(len(format.name) for format in FORMATS.values())
    for format in FORMATS.values():
        notes = ["read and written" if format.writable else "read only"]
        notes += [f"pip install 'ckptfmt[{format.extra}]'"] if format.extra else []
        console().print(f"{format.name:<{width}}  {format.title} ({'; '.join(notes)})")
