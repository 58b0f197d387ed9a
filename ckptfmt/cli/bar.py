"""A bar for bytes, on stderr, while something long runs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

from .console import console


@contextlib.contextmanager
def progress_bar(name: str, quiet: bool) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr while the block runs, if that is a terminal: called with bytes done and bytes in all."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    columns = (BarColumn(), DownloadColumn(binary_units=True), TimeRemainingColumn())
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
