"""The command group: what all commands share, and the boundary at which errors become messages and exit codes."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import click

from .. import CastWarning, CkptError, CorruptError, UnknownTagWarning, __version__
from ..errors import os_fault
from ..format.manifest import FORMAT
from . import DAMAGED, FAILED, INTERRUPTED, PIPE_CLOSED
from .console import abandon_stdout, problem, report, report_other, report_usage, warn
from .convert import convert
from .diff import diff
from .gc import gc
from .get import get
from .inspect import inspect
from .ls import ls
from .migrate import migrate, upgrade
from .repair import repair
from .verify import verify


class Program(click.Group):
    """The group; its `invoke` lets no expected error out as a traceback."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        options = args[: args.index("--")] if "--" in args else args
        ctx.obj = "--json" in options  # known before a command's own arguments, which may be what is wrong
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            code = self._invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            abandon_stdout()
            code = PIPE_CLOSED
        except OSError as error:
            abandon_stdout()
            problem("error", str(os_fault(error, "cannot write the output", None)), "bold red")
            code = FAILED
        except KeyboardInterrupt:
            abandon_stdout()
            code = INTERRUPTED
        ctx.exit(code)

    def _invoke(self, ctx: click.Context) -> int:
        """Run the command; what is wrong with the call or the checkpoint is reported."""
        try:
            with _warnings_reported():
                return super().invoke(ctx) or 0
        except CkptError as error:
            report(error, as_json=ctx.obj)
            return DAMAGED if isinstance(error, CorruptError) else FAILED
        except click.UsageError as error:
            report_usage(error, as_json=ctx.obj)
        except MemoryError:
            report_other("out-of-memory", "not enough memory", "Ask for a part with INDEX", as_json=ctx.obj)
        return FAILED


@contextlib.contextmanager
def _warnings_reported() -> Iterator[None]:
    """Unknown tags, and elements beyond the range of a cast, are said on stderr in lines of their own. [TAG-001]
    [DTYPE-009]"""
    messages: list[str] = []
    said = UnknownTagWarning, CastWarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, said):
            messages.append(str(message))
        else:
            usual(message, category, *place, **more)

    with warnings.catch_warnings():
        usual, warnings.showwarning = warnings.showwarning, show
        for kind in said:
            warnings.simplefilter("always", kind)
        try:
            yield
        finally:
            warn(messages)


@click.group(
    cls=Program,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  ckptfmt inspect model.ckpt
  ckptfmt verify model.ckpt
  ckptfmt get model.ckpt model/wte 1000:2000 -o rows.npy
  ckptfmt convert model.safetensors model.ckpt
  ckptfmt diff before.ckpt after.ckpt

Exit codes: 0 fine, 1 the checkpoint is damaged, 2 anything else, 130 interrupted.
""",
)
@click.version_option(
    __version__, "--version", message=f"ckptfmt %(version)s (format {FORMAT[0]}.{FORMAT[1]})", prog_name="ckptfmt"
)
def cli() -> None:
    """Look into ckptfmt checkpoints, check and compare them, take tensors out of them, migrate and convert them."""


for command in (inspect, verify, repair, get, ls, convert, diff, migrate, upgrade, gc):
    cli.add_command(command)


def run(args: Sequence[str] | None) -> int:
    """Run the group and give its exit code."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what the encoding lacks becomes an escape
    try:
        return int(cli.main(args, prog_name="ckptfmt", standalone_mode=False) or 0)
    except click.UsageError as error:
        error.show()
        return FAILED
    except click.Abort:
        return INTERRUPTED
