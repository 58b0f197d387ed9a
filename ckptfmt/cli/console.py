"""Where output goes: consoles, and the one place that reports errors and warnings.

Colour and progress are for terminals; a pipe gets plain text. Text is always passed as rich `Text`, never as markup.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click
import rich.console
from rich.text import Text

from ..errors import CkptError, visible

WARNINGS = 3  # most warnings shown


class Console(rich.console.Console):
    """A console that lets a closed pipe be seen by the caller."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console(*, stderr: bool = False) -> Console:
    """A console for text that is neither wrapped nor searched for markup."""
    return Console(stderr=stderr, soft_wrap=True, markup=False, highlight=False, emoji=False)


def print_json(document: dict[str, Any]) -> None:
    """The one object that a command with `--json` writes."""
    click.echo(dumps(document))


def dumps(document: dict[str, Any]) -> str:
    """One line of ASCII without control characters."""
    return json.dumps(document, allow_nan=False).replace("\x7f", "\\u007f")


def report(error: CkptError, *, as_json: bool, spelled: Callable[[str], str] = str) -> None:
    """One line on stderr and, if asked for, an object on stdout; `spelled` as `CkptError.text` takes it."""
    if as_json:
        print_json(
            _error_document(
                error.code,
                spelled(error.message) + error.hint,
                advice=spelled(error.advice),
                path=error.path,
                tensor=error.tensor,
                chunk=error.chunk,
                block=error.block,
                offset=error.offset,
                found=_plain(error.found),
                expected=_plain(error.expected),
            )
        )
    problem("error", error.text(spelled), "bold red")


def report_usage(error: click.UsageError, *, as_json: bool) -> None:
    """The same for a call that cannot be carried out."""
    command = "ckptfmt" if error.ctx is None else error.ctx.command_path
    report_other("usage", " ".join(error.format_message().split()), f"See {command} --help", as_json=as_json)


def report_other(code: str, message: str, advice: str, *, as_json: bool) -> None:
    """The same for what has no `CkptError`: "usage" and "out-of-memory"."""
    if as_json:
        print_json(_error_document(code, message, advice=advice))
    problem("error", f"{message}{'' if message[-1] in '.?' else '.'} {advice}", "bold red")


def _error_document(code: str, message: str, **place: Any) -> dict[str, Any]:
    """`{"error": {...}}`, always with the same keys."""
    keys = ("advice", "path", "tensor", "chunk", "block", "offset", "found", "expected")
    return {"error": {"code": code, "message": message, **{key: place.get(key) for key in keys}}}


def problem(kind: str, message: str, style: str) -> None:
    """One line on stderr."""
    console(stderr=True).print(Text.assemble("ckptfmt: ", (f"{kind}: ", style), visible(message)))


def warn(messages: Sequence[str]) -> None:
    """The first few warnings, and how many there are."""
    for message in messages[:WARNINGS]:
        problem("warning", message, "yellow")
    if len(messages) > WARNINGS:
        more = len(messages) - WARNINGS
        problem("warning", f"and {more:,} more warning{'' if more == 1 else 's'} like these", "yellow")


def abandon_stdout() -> None:
    """Let what is still buffered go nowhere: writing it at exit would fail again, or wait for a reader who sleeps."""
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, int | str) else str(value)
