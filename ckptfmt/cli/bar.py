"""A bar on stderr while something long runs, of all commands alike: bytes, rate and the time that is left."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

from .. import progress_bar


@contextlib.contextmanager
def shown_progress(name: str, quiet: bool = False) -> Iterator[Callable[[int, int], None] | None]:
    """A bar while the block runs, if stderr is a terminal: called with bytes done and bytes in all."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    with progress_bar(name) as bar:
        yield bar
