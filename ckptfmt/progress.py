"""Progress of large work: counting bytes from several threads, and a bar for the terminal."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from .calls import takes
from .packages import missing

Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all, now and then and from any thread."""
Report = Callable[[int], None]
"""Called with the bytes that were just done."""


def nothing(_: int) -> None:
    """Reports to nobody."""


def counter(progress: Progress | None, total: int) -> Report:
    """Adds bytes up for a `progress`."""
    if progress is None:
        return nothing
    done, lock, tell = 0, threading.Lock(), progress

    def report(count: int) -> None:
        nonlocal done
        with lock:
            done = min(done + count, total)
            tell(done, total)

    return report


def growing(report: Report) -> Progress:
    """A progress that tells a `report` what has been done since it was called last, by one caller at a time."""
    before = 0

    def tell(done: int, _: int) -> None:
        nonlocal before
        report(done - before)
        before = done

    return tell


@takes()
@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Draw a bar with a title on the terminal's error stream while the block runs, with bytes, rate and the time left;
    nothing where that is no terminal. Requires rich (`missing-package`).

    ```
    with ckptfmt.progress_bar("saving") as bar:
        ckptfmt.save(path, tree, progress=bar)
    ```
    """
    try:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
        from rich.progress import Progress as Bars
    except ImportError as error:
        raise missing("a progress bar", error, "rich") from error

    console = Console(stderr=True)
    if not console.is_terminal:  # where rich before 14.3 ends even a disabled bar with an empty line
        yield lambda done, total: None
        return
    said = TextColumn("{task.description}", markup=False)
    columns = (said, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(compact=True))
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task(title, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)
