"""The command group: what all commands share, and the boundary at which errors become messages and exit codes."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import Any, cast

import click
from click.shell_completion import CompletionItem

from .._version import __version__
from ..errors import CastWarning, CkptError, CorruptError, SignatureError, UnknownTagWarning, os_fault
from ..near import did_you_mean
from . import DAMAGED, FAILED, INTERRUPTED, PIPE_CLOSED
from .console import abandon_stdout, problem, report, report_other, report_usage, warn
from .overview import COMMANDS, HELP, HELP_OPTIONS, VERSION
from .spelling import speller


class Program(click.Group):
    """The group, which imports a command when it is called; its `invoke` lets no expected error out as a traceback."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return cast("click.Command", getattr(import_module(f".{name}", __package__), name))

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name = args[0]
        if name not in COMMANDS and name[:1] != "-" and not ctx.resilient_parsing:
            ctx.fail(f"No such command {name!r}{did_you_mean(name, COMMANDS)}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = [CompletionItem(name, help=does) for name, does in COMMANDS.items() if name.startswith(incomplete)]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def get_help(self, ctx: click.Context) -> str:
        return HELP

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        options = args[: args.index("--")] if "--" in args else args
        ctx.obj = "--json" in options  # known before a command's own arguments, which may be what is wrong
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        ctx.exit(_written(lambda: self._invoke(ctx)))

    def _invoke(self, ctx: click.Context) -> int:
        """Run the command; what is wrong with the call or the checkpoint is reported."""
        try:
            with _warnings_reported():
                return super().invoke(ctx) or 0
        except CkptError as error:
            from .folders import hinted  # here, as a call that is wrong should not wait for the core

            command = self.get_command(ctx, ctx.invoked_subcommand or "")
            report(hinted(error, command), as_json=ctx.obj, spelled=speller(command))
            return DAMAGED if isinstance(error, CorruptError | SignatureError) else FAILED
        except click.UsageError as error:
            report_usage(error, as_json=ctx.obj)
        except MemoryError:
            is_part = ctx.invoked_subcommand == "get"
            advice = "Ask for a part with INDEX" if is_part else "End other programs, then try again"
            report_other("out-of-memory", "not enough memory", advice, as_json=ctx.obj)
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


def _written(work: Callable[[], int]) -> int:
    """Do what writes to stdout; gives its exit code, or that of what kept it from being written."""
    try:
        code = work()
        sys.stdout.flush()
    except BrokenPipeError:
        abandon_stdout()
        return PIPE_CLOSED
    except OSError as error:
        abandon_stdout()
        problem("error", str(os_fault(error, "cannot write the output", None)), "bold red")
        return FAILED
    except KeyboardInterrupt:
        abandon_stdout()
        return INTERRUPTED
    return code


@click.group(cls=Program, context_settings={"help_option_names": list(HELP_OPTIONS)})
@click.version_option(__version__, "--version", message=VERSION)
def cli() -> None:
    """The group of all commands; `overview` has its help."""


def run(args: Sequence[str] | None) -> int:
    """Run the group and give its exit code."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the caller
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what the encoding lacks becomes an escape
    return _written(lambda: _run(args))


def _run(args: Sequence[str] | None) -> int:
    try:
        return int(cli.main(args, prog_name="ckptfmt", standalone_mode=False) or 0)
    except click.UsageError as error:
        error.show()
        return FAILED
    except click.Abort:
        return INTERRUPTED
