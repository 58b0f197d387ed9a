"""Arguments and options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from ..conversion import FORMATS
from ..conversion.ggml import FLOATS
from ..conversion.source import EXPANSION
from ..layouts import LAYOUTS
from ..near import did_you_mean

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def together(*decorators: Decorator) -> Decorator:
    """Several as one, in this order."""

    def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorated


# ---- what is read

paths = click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path())
follow_links = click.option(
    "--follow-links",
    is_flag=True,
    help="Read through links in a checkpoint's folder, into it and into the blobs of the Hugging Face cache around it.",
)
base = click.option(
    "--base",
    multiple=True,
    metavar="PATH",
    type=click.Path(),
    callback=lambda _, __, paths: paths or None,
    help="Of a patch: the checkpoint that it was made against, or a folder with it; may be given several times.",
)
select = click.option(
    "--select", "-s", multiple=True, metavar="GLOB", help="Only these paths; may be given several times."
)
recursive = click.option("--recursive", "-r", is_flag=True, help="Of a folder, also look into the folders below.")


class FormatChoice(click.Choice):  # type: ignore[type-arg]  # of earlier releases it has none
    """The name of a format; for one that is none, what is near."""

    def __init__(self) -> None:
        super().__init__(list(FORMATS))

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value not in FORMATS:
            hint = did_you_mean(value, FORMATS) or f"; there are {', '.join(FORMATS)}"
            self.fail(f"there is no format {value!r}{hint}", param, ctx)
        return value


def source_format(option: str, name: str, what: str, *former: str) -> Decorator:
    """What the bytes at a place may leave in doubt; `former`: what the option was called before."""
    help = f"What {what} is, where its bytes leave doubt: {', '.join(FORMATS)}."
    return click.option(option, *former, name, type=FormatChoice(), metavar="FORMAT", help=help)


def max_expansion(what: str) -> Decorator:
    help = f"How many times larger than {what} its tensors may be."
    return click.option("--max-expansion", type=click.IntRange(min=1), default=EXPANSION, show_default=True, help=help)


def dequantize(what: str) -> Decorator:
    help = f"Quantised blocks of {what} (GGUF) as elements of that dtype: {', '.join(FLOATS)}."
    return click.option("--dequantize", type=click.Choice(FLOATS), metavar="DTYPE", help=help)


# of commands that look at several checkpoints of any format
reading = together(
    select,
    recursive,
    source_format("--from", "source_format", "PATH"),
    max_expansion("PATH"),
    dequantize("PATH"),
    base,
    follow_links,
)

# ---- what is written

source_and_target = together(
    click.argument("source", type=click.Path()),
    click.argument("target", type=click.Path()),
)
layout = click.option("--layout", type=click.Choice(LAYOUTS), help="Layout of TARGET; that of SOURCE by default.")


def overwrite(help: str = "Replace TARGET if it exists.") -> Decorator:
    return click.option("--overwrite", "-f", is_flag=True, help=help)


# ---- what is said

quiet = click.option("--quiet", "-q", is_flag=True, help="No report and no progress: the exit code says it.")
as_json = click.option("--json", "as_json", is_flag=True, help="Write one JSON object; nothing is abbreviated.")
